"""The typed values that the pipeline's steps pass on. Frozen; weights are handles; each carries its step's record.

What tells two values apart (`materializers.hashing`) are all their fields but those that `BESIDE` marks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from dreambooth3d.cameras import TURNTABLE_FOV_Y_DEG, Cameras
from dreambooth3d.images import antialiased
from dreambooth3d.record import StepRecord
from dreambooth3d.weights import WeightsRef

BESIDE = "beside the content"
_BESIDE = {BESIDE: True}
"""Metadata of a field that is no part of its value's identity: what no later step's result depends on."""


@dataclass(frozen=True)
class BaseModelRef:
    """A base model in Stable Diffusion's layout.

    Attributes:
        path: hub id or folder; a folder inside the repository is given relative to it.
        digest: SHA-256 over the model's files, empty for a hub id.
        revision: commit of a hub model.
        variant: such as `fp16`, or None.
    """

    path: str
    digest: str = ""
    revision: str | None = None
    variant: str | None = None


POSE_FACTS = ("azimuth_deg", "elevation_deg", "distance")
"""Columns of a photo's facts: its camera as the photos tell it, NaN where they do not."""
FRAME_FACTS = ("fov_y_deg", "roll_deg", "centre_x", "centre_y")
"""Further columns, of photos taken anyhow: field of view, roll, and where in the frame the subject's centre is."""


@dataclass(frozen=True)
class SubjectPhotos:
    """A checked photo set of one subject.

    Attributes:
        images: tuple of (3, height, width) in [0, 1], upright, square-padded but never cropped.
        facts: one row per photo: file, width, height, bytes, sha256, blur, exposure, subject share, findings, and,
            once a scorer has named them, view and off_front_deg, and, once the photos have been compared, what
            `POSE_FACTS` and `FRAME_FACTS` name.
        findings: warnings of the photo check, one sentence each.
        subject: name of the subject.
        identifier: rare token such as `sks`.
        class_noun: such as `dog`.
        description: true caption without the identifier, or empty.
        dataset_hash: DVC's hash of the photo set, or `untracked:<sha256>`.
        masks: tuple of (height, width) in [0, 1], of the images' sizes: 1 on the subject, 0 elsewhere and in the
            padding; empty where nobody has looked for them. Else `facts` have, for each photo, mask_source (alpha,
            files, rembg, learned, smooth_background or none), mask_confidence in [0, 1], mask_trusted and mask_cut.
        held_out: the photos that nothing learns from, checked and masked with the others; None where there are none.
            Only `evaluate` looks at them.
        prompt: what stands for the subject where there are no photos at all; empty where there are.
    """

    images: tuple[Tensor, ...]
    facts: pd.DataFrame
    findings: tuple[str, ...] = field(metadata=_BESIDE)
    subject: str
    identifier: str
    class_noun: str
    description: str
    # Of files; the same images in other files, or under another version of the dataset, are the same photos.
    dataset_hash: str = field(metadata=_BESIDE)
    record: StepRecord = field(metadata=_BESIDE, default_factory=lambda: StepRecord("validate_photos"))
    masks: tuple[Tensor, ...] = ()
    held_out: SubjectPhotos | None = None
    prompt: str = ""

    @property
    def instance_prompt(self) -> str:
        """The prompt that names this very subject."""
        return self.prompt or f"a photo of a {self.identifier} {self.class_noun}"

    @property
    def class_prompt(self) -> str:
        """The prompt of the subject's class, for prior preservation."""
        return f"a photo of a {self.class_noun}"

    @property
    def prompts(self) -> tuple[str, ...]:
        """Each photo's prompt: the caption beside it where there is one, else the subject's own."""
        captions = tuple(self.facts["caption"]) if "caption" in self.facts else ("",) * len(self.images)
        return tuple(caption or self.instance_prompt for caption in captions)

    @property
    def views(self) -> tuple[str, ...]:
        """Each photo's view word as a scorer sees it, or nothing where no scorer has looked."""
        return tuple(self.facts["view"]) if "view" in self.facts else ()

    @property
    def off_front_deg(self) -> tuple[float, ...]:
        """Each photo's angle from the front in [0, 180] as a scorer estimates it, or nothing as for `views`."""
        return tuple(self.facts["off_front_deg"]) if "off_front_deg" in self.facts else ()

    @property
    def cameras(self) -> Cameras | None:
        """Each photo's camera as the photos tell it, NaN where they do not; None where nobody has compared them.

        Photos with `FRAME_FACTS` are not as these cameras would take them: they are to be turned first
        (`photos.cameras.placement.rectify`).
        """
        if not set(POSE_FACTS) <= set(self.facts):
            return None
        azimuth, elevation, distance = (torch.tensor(self.facts[name].tolist()) for name in POSE_FACTS)
        usual = torch.full_like(distance, TURNTABLE_FOV_Y_DEG)
        fov = torch.tensor(self.facts["fov_y_deg"].tolist()) if "fov_y_deg" in self.facts else usual
        return Cameras(azimuth, elevation, distance, fov)

    def resized(self, size: int) -> Float[Tensor, "n 3 {size} {size}"]:
        """(n, 3, size, size): the photos, antialiased."""
        return torch.cat([antialiased(image[None], size) for image in self.images])

    @property
    def mask_sources(self) -> tuple[str, ...]:
        """Where each photo's mask comes from, or nothing where nobody has looked for masks."""
        return tuple(self.facts["mask_source"]) if self.masks else ()

    @property
    def trusted(self) -> Bool[Tensor, " n"]:
        """(n,) whether each photo's mask is good enough for it to be a target."""
        if not self.masks:
            return torch.zeros(len(self.images), dtype=torch.bool)
        return torch.tensor(self.facts["mask_trusted"].tolist(), dtype=torch.bool)

    @property
    def before_smooth_background(self) -> Bool[Tensor, " n"]:
        """(n,) whether each photo's mask comes from its smooth background."""
        sources = self.mask_sources or ("none",) * len(self.images)
        return torch.tensor([source == "smooth_background" for source in sources])

    @property
    def cut(self) -> Float[Tensor, " n"]:
        """(n,) share of the subject's outline that lies on each photo's frame: what lies beyond it is unknown."""
        if not self.masks:
            return torch.zeros(len(self.images))
        return torch.tensor(self.facts["mask_cut"].tolist())

    def masks_resized(self, size: int) -> Float[Tensor, "n {size} {size}"]:
        """(n, size, size): the share of each pixel that is the subject."""
        whole = self.masks or tuple(torch.zeros(image.shape[-2:]) for image in self.images)
        return torch.cat([interpolate(mask[None, None], size=(size, size), mode="area")[0] for mask in whole])

    def frame(self, size: int) -> Float[Tensor, "n {size} {size}"]:
        """(n, size, size): 1 inside the real photo, 0 in the padding around it."""
        frames = []
        for image, width, height in zip(self.images, self.facts["width"], self.facts["height"], strict=True):
            side = image.shape[-1]
            frame = torch.zeros(side, side)
            extent = [max(1, round(float(length) * side / max(width, height))) for length in (height, width)]
            top, left = ((side - length) // 2 for length in extent)
            frame[top : top + extent[0], left : left + extent[1]] = 1
            frames.append(interpolate(frame[None, None], size=(size, size), mode="area")[0])
        return torch.cat(frames)


@dataclass(frozen=True)
class DreamBoothCheckpoint:
    """One UNet and text-encoder pair; the two always travel together.

    Attributes:
        step: fine-tuning step at which it was saved; 0 is the base model.
        unet: weights of the UNet.
        text_encoder: weights of the text encoder.
        base_model: where tokenizer, VAE, scheduler and configs come from.
    """

    step: int
    unet: WeightsRef
    text_encoder: WeightsRef
    base_model: BaseModelRef
    record: StepRecord | None = field(metadata=_BESIDE, default=None)

    def kept_in(self, folder: Path) -> DreamBoothCheckpoint:
        """The pair as local files; remote ones are copied to the folder (see `WeightsRef.kept_in`)."""
        return replace(self, unet=self.unet.kept_in(folder), text_encoder=self.text_encoder.kept_in(folder))


@dataclass(frozen=True)
class CheckpointSet:
    """All checkpoints of one fine-tuning run, as handles, by step."""

    checkpoints: Mapping[int, DreamBoothCheckpoint]
    base_model: BaseModelRef
    record: StepRecord = field(metadata=_BESIDE, default_factory=lambda: StepRecord("finetune_dreambooth"))

    @property
    def steps(self) -> list[int]:
        """Saved steps, ascending."""
        return sorted(self.checkpoints)


@dataclass(frozen=True)
class CheckpointChoice:
    """Which checkpoints were chosen, and why.

    Attributes:
        scores: one row per checkpoint: step, subject_similarity, view_obedience, harmonic_mean, partial, full.
        partial_step, full_step: the choice.
        reason: one sentence.
    """

    scores: pd.DataFrame
    partial_step: int
    full_step: int
    reason: str
    record: StepRecord = field(metadata=_BESIDE, default_factory=lambda: StepRecord("select_checkpoints"))


@dataclass(frozen=True)
class GroundTruth:
    """The recipe of a toybox subject, from which any true view is rendered; only what measures may look.

    Attributes:
        recipe: plain values, as in `ground_truth.yaml`; empty where no truth is known.
        photo_azimuths_deg: from where the photos were taken, 0 is the front; empty where that is unknown.
    """

    recipe: Mapping[str, object]
    photo_azimuths_deg: tuple[float, ...] = ()

    @property
    def known(self) -> bool:
        """Whether there is a truth to compare with."""
        return bool(self.recipe)


@dataclass(frozen=True)
class RadianceField:
    """A trained asset: a radiance field, or one of another kind (`dreambooth3d.representation`).

    Attributes:
        state: its parameters and buffers (a field's occupancy included).
        config: its settings as plain values, which depend on the kind (`FieldConfig.model_dump()`).
        previews: (n, 3, height, width) renders on white from evenly spread azimuths.
        steps: training steps that were run, all stages together.
        kind: what it is made of, as in `config.representation.SETTINGS`; says how state and config are read.
    """

    state: Mapping[str, Tensor]
    config: Mapping[str, object]
    previews: Float[Tensor, "n 3 height width"]
    steps: int
    record: StepRecord = field(metadata=_BESIDE, default_factory=lambda: StepRecord("init_nerf"))
    kind: str = "field"


@dataclass(frozen=True)
class PseudoViews:
    """Renders that the full checkpoint turned into views of the subject.

    Attributes:
        images: (n, 3, height, width) in [0, 1].
        renders: (n, 3, height, width), what they were made from.
        opacity: (n, height, width) opacity of those renders.
        cameras: the n cameras.
        strength: img2img strength.
    """

    images: Float[Tensor, "n 3 height width"]
    renders: Float[Tensor, "n 3 height width"]
    opacity: Float[Tensor, "n height width"]
    cameras: Cameras
    strength: float
    record: StepRecord = field(metadata=_BESIDE, default_factory=lambda: StepRecord("generate_pseudo_views"))


@dataclass(frozen=True)
class AssetBundle:
    """The exported asset: a folder with `asset.glb`, `turntable.mp4`, `frames/000.png` to `035.png`, `cameras.json`
    and the self-contained page `asset.html`.

    Attributes:
        folder: the local folder; the materializer brings it from and to the artifact store.
        files: paths relative to `folder`, sorted.
    """

    folder: Path = field(metadata=_BESIDE)
    files: tuple[str, ...]
    record: StepRecord = field(metadata=_BESIDE, default_factory=lambda: StepRecord("export_asset"))


@dataclass(frozen=True)
class EvaluationReport:
    """How good the asset is.

    Attributes:
        metrics: by name, such as `psnr_fg`, `coarse/psnr`, `baseline_mean/psnr_fg`.
        definitions: one sentence per metric name (without prefixes).
        views: one row per asset and turntable view.
        comparison: (3, height, width) truth, refined and coarse side by side.
    """

    metrics: Mapping[str, float]
    definitions: Mapping[str, str]
    views: pd.DataFrame
    comparison: Float[Tensor, "3 height width"]
    record: StepRecord = field(metadata=_BESIDE, default_factory=lambda: StepRecord("evaluate"))
