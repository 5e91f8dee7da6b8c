"""What the benchmark's tables consist of: which method runs on which subject with which seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from dreambooth3d.toybox.subjects import DEVELOPMENT_SUBJECTS, TEST_SUBJECTS
from operations.launch.checking import parse_parameters
from operations.launch.presets import read_preset

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / "configs" / "bench"
ABLATIONS = Path(__file__).with_name("ablations.yaml")
DEFAULT = "dreambooth3d"
CEILING = "multiview_truth"
METHODS = (DEFAULT, "naive", "partial", "seed", "paper", CEILING)
TWICE = (DEFAULT, "naive")
"""Methods that run on the test subjects with two seeds."""
TABLES = ("main", "development", "hindsight", "ablations")
ABLATION_SUBJECTS = ("urn", "cup", "taxi", "android")
QUICK_SUBJECTS = ("taxi",)
QUICK_STEPS_SHARE = 0.4
HINDSIGHT_SEEDS = (0, 1)


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes:
        name: as the tables show it.
        preset: file name in configs/bench without suffix.
        overrides: `key.sub=value` over the preset.
        note: what it is there for, one sentence.
        given: what a diagnosis gives it from the truth: `cameras` or `exposures` of the photos.
    """

    name: str
    preset: str
    overrides: tuple[str, ...] = ()
    note: str = ""
    given: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One method on one subject with one seed."""

    method: Method
    subject: str
    seed: int

    @property
    def key(self) -> str:
        """The name of its result's file."""
        return f"{self.method.name}-{self.subject}-{self.seed}"


def ablations(file: Path = ABLATIONS) -> tuple[Method, ...]:
    """The default, and what a YAML file makes of it: by name a note, overrides, and if needed `preset` and `given`."""
    rows = yaml.safe_load(file.read_text())
    changed = (
        Method(name, row.get("preset", DEFAULT), tuple(row["overrides"]), row["note"], tuple(row.get("given", ())))
        for name, row in rows.items()
    )
    return (Method(DEFAULT, DEFAULT, note="the default"), *changed)


def checkpoint_steps() -> list[int]:
    """The steps at which the default's fine-tuning keeps a checkpoint."""
    settings = load_config(Method(DEFAULT, DEFAULT)).finetune_dreambooth
    return list(range(settings.checkpoint_every, settings.steps + 1, settings.checkpoint_every))


def hindsight() -> tuple[Method, ...]:
    """Stage 1 alone, from the checkpoint that is chosen by measurement and from every one that is kept."""
    alone = ("recipe.pseudo_views=false", "recipe.multiview=false", "recipe.refine_with=none")
    chosen = Method("automatic", DEFAULT, alone, "the checkpoint that the selection chooses")
    forced = (
        Method(
            f"step_{step:03d}",
            DEFAULT,
            (*alone, f"select_checkpoints.partial_step={step}", f"select_checkpoints.full_step={step}"),
        )
        for step in checkpoint_steps()
    )
    return (chosen, *forced)


def table_runs(table: str, quick: bool = False, variants: Path = ABLATIONS, subjects: Sequence[str] = ()) -> list[Run]:
    """All runs of a table, those that share stages next to each other.

    Args:
        quick: one development subject instead of the table's subjects.
        variants: what the table `ablations` compares.
        subjects: only these of the table's, or instead of the quick one.
    """
    if quick:
        methods = ablations(variants) if table == "ablations" else [Method(name, name) for name in METHODS]
        return [Run(method, subject, 0) for subject in subjects or QUICK_SUBJECTS for method in methods]
    return [run for run in _all_runs(table, variants) if not subjects or run.subject in subjects]


def _all_runs(table: str, variants: Path) -> list[Run]:
    methods = [Method(name, name) for name in METHODS]
    if table == "development":
        return [Run(method, subject, 0) for subject in DEVELOPMENT_SUBJECTS for method in methods]
    if table == "ablations":
        return [Run(method, subject, 0) for subject in ABLATION_SUBJECTS for method in ablations(variants)]
    if table == "hindsight":
        pairs = [(subject, seed) for seed in HINDSIGHT_SEEDS for subject in TEST_SUBJECTS]
        return [Run(method, subject, seed) for subject, seed in pairs for method in hindsight()]
    first = [Run(method, subject, 0) for subject in TEST_SUBJECTS for method in methods]
    second = [Run(method, subject, 1) for subject in TEST_SUBJECTS for method in methods if method.name in TWICE]
    return first + second


def load_config(method: Method, quick: bool = False) -> TrainingConfig | CeilingConfig | TextTo3dConfig:
    """The method's preset with its overrides, and with `configs/bench/quick.yaml` over it where asked for.

    Raises:
        ConfigError: the preset or an override is wrong.
    """
    values = OmegaConf.merge(_parameters(method.preset), OmegaConf.from_dotlist(list(method.overrides)))
    return parse_parameters(OmegaConf.to_container(_quickened(values) if quick else values))


@cache
def config_digest(method: Method, quick: bool = False) -> str:
    """Names what a run depends on besides subject, seed and code."""
    inputs = [load_config(method, quick).model_dump_json(), method.given]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def _quickened(values: DictConfig) -> DictConfig:
    """The parameters with those of `configs/bench/quick.yaml` over them, and a share of the distillation steps.

    Over those of a generation it is `configs/bench/quick_generation.yaml`.
    """
    layer = _parameters("quick")
    if "generation" in values:
        return OmegaConf.merge(values, _parameters("quick_generation"))
    if "fit_true_views" in values:
        layer = {"device": layer["device"], "fit_true_views": layer["init_nerf"]}
    merged = OmegaConf.merge(values, layer)
    for stage in ("init_nerf", "refine_nerf", "fit_true_views"):
        if "steps" in merged.get(stage, {}):
            merged[stage].steps = int(merged[stage].steps * QUICK_STEPS_SHARE)
    for name in ("partial_step", "full_step"):
        if name in merged.get("select_checkpoints", {}):
            # At the same share of the shorter fine-tuning, where a checkpoint is kept.
            steps, every = merged.finetune_dreambooth.steps, merged.finetune_dreambooth.checkpoint_every
            share = values.select_checkpoints[name] / values.finetune_dreambooth.steps
            merged.select_checkpoints[name] = every * round(share * steps / every)
    return merged


def _parameters(name: str) -> dict:
    return read_preset(PRESETS / f"{name}.yaml").values["parameters"]
