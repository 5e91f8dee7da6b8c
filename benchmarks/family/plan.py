"""Which presets run on which prompts: colours and nouns of the toybox, drawn once and for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from benchmarks.quality.plan import Method, Run
from dreambooth3d.artifacts import RadianceField, SubjectPhotos
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.results import EvaluateConfig
from dreambooth3d.toybox.recipes import COLOUR_NAMES, TRAINING_CLASSES

PROMPT_SEED = 19
PROMPT_COUNT = 20
DEVELOPMENT_COUNT = 4
QUICK_COUNT = 1
SEEDS = (0,)

PRESETS: Mapping[str, Method] = {
    "sds": Method("sds", "../text_to_3d", note="score distillation sampling, as in Stable-DreamFusion"),
    "sjc": Method("sjc", "../text_to_3d_sjc", note="Score Jacobian Chaining: perturb and average, emptiness, voxels"),
    "latent": Method("latent", "../text_to_3d_latent", note="Latent-NeRF: a field of latents, then its colours"),
    "mesh": Method("mesh", "../text_to_3d_mesh", note="a surface mesh under the same guidance"),
    "gaussians": Method("gaussians", "../text_to_3d_gaussians", note="3D Gaussians under the same guidance"),
    "fantasia3d": Method("fantasia3d", "../text_to_3d_fantasia3d", note="Fantasia3D: a shape, then its lit material"),
}
"""By name: a file below configs/bench/ without suffix, and what is laid over it. One more system is one more entry."""


def prompt_of(name: str) -> str:
    """The prompt of a name: `red_snowman` is `a photo of a red snowman`."""
    return f"a photo of a {name.replace('_', ' ')}"


def all_prompts() -> tuple[str, ...]:
    """The names of the prompts: every class that the base model has learned once, in random order, then others again.

    The first `DEVELOPMENT_COUNT` are those that settings may be chosen on.
    """
    random = Random(PROMPT_SEED)
    nouns = random.sample(TRAINING_CLASSES, len(TRAINING_CLASSES))
    nouns += random.sample(nouns, PROMPT_COUNT - len(nouns))
    names: list[str] = []
    for noun in nouns:
        colours = [colour for colour in COLOUR_NAMES if f"{colour}_{noun}" not in names]
        names.append(f"{random.choice(colours)}_{noun}")
    return tuple(names)


PROMPTS = all_prompts()
DEVELOPMENT_PROMPTS, TEST_PROMPTS = PROMPTS[:DEVELOPMENT_COUNT], PROMPTS[DEVELOPMENT_COUNT:]
SETS = {"all": PROMPTS, "development": DEVELOPMENT_PROMPTS, "test": TEST_PROMPTS}


def all_runs(presets: Sequence[str], prompts: Sequence[str], seeds: Sequence[int] = SEEDS) -> list[Run]:
    """Every preset on every prompt with every seed, the first seed of all first."""
    methods = [PRESETS[name] for name in presets or PRESETS]
    return [Run(method, name, seed) for seed in seeds for name in prompts for method in methods]


@dataclass(frozen=True)
class Prompted:
    """A prompt as the source of a benchmark's subject; all prompts are what R-precision ranks it among."""

    name: str

    def asked(self, config: TextTo3dConfig, /) -> TextTo3dConfig:
        """See `benchmarks.quality.sources.PromptSource`."""
        captions = tuple(prompt_of(name) for name in PROMPTS)
        generation = config.generation.model_copy(update={"prompt": prompt_of(self.name)})
        evaluate = config.evaluate.model_copy(update={"captions": captions})
        return config.model_copy(update={"generation": generation, "evaluate": evaluate})

    def photos(self, _folder: Path, _given: tuple[str, ...], /) -> PhotosConfig:
        """See `benchmarks.quality.sources.Source`; there are none."""
        raise ValueError(f"{self.name}: a prompt has no photos")

    def told(self, photos: SubjectPhotos, _given: tuple[str, ...], /) -> SubjectPhotos:
        """See `benchmarks.quality.sources.Source`."""
        return photos

    def score(self, _asset: RadianceField, _config: EvaluateConfig, _device: torch.device, /) -> Mapping[str, float]:
        """See `benchmarks.quality.sources.Source`."""
        return {}
