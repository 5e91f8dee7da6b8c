"""What is compared: the default and naive on photos as they are, and the default with parts of the truth."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.quality.plan import DEFAULT, Method, Run
from benchmarks.real.layout import PhotoSet, photo_set
from benchmarks.real.score import all_scores
from dreambooth3d.artifacts import RadianceField, SubjectPhotos
from dreambooth3d.cameras import turntable_cameras
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.results import EvaluateConfig
from dreambooth3d.evaluation.pixels import Views, mean_baseline
from dreambooth3d.kinds import render_asset
from dreambooth3d.photos.cameras.locate import REASON

MEAN_IMAGE = "mean_image"
METHODS = (
    Method(DEFAULT, DEFAULT, note="the default, on photos as they are"),
    Method("naive", "naive", note="the fully trained model and score distillation, without the photos as targets"),
    Method("true_masks", DEFAULT, note="the default with the true masks", given=("masks",)),
    Method(
        "true_cameras",
        DEFAULT,
        note="the default that starts from true masks and cameras, and goes on refining these",
        given=("masks", "cameras"),
    ),
)
SEEDS = (0, 1)


def all_runs(sets: Sequence[PhotoSet], methods: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """Every method on every set with every seed, the first seed of all first."""
    chosen = [method for method in METHODS if not methods or method.name in methods]
    return [Run(method, each.key, seed) for seed in seeds for each in sets for method in chosen]


@dataclass(frozen=True)
class Real:
    """A photo set as the source of a benchmark's subject."""

    set: PhotoSet

    @staticmethod
    def of(folder: Path, key: str) -> Real:
        """The set of a key in a folder."""
        return Real(photo_set(folder, key))

    def photos(self, folder: Path, given: tuple[str, ...], /) -> PhotosConfig:
        """See `benchmarks.quality.sources.Source`."""
        return with_masks(self.set, folder / self.set.key) if "masks" in given else as_they_are(self.set)

    def told(self, photos: SubjectPhotos, given: tuple[str, ...], /) -> SubjectPhotos:
        """See `benchmarks.quality.sources.Source`."""
        if "cameras" not in given:
            return photos
        known = {REASON: [""] * len(photos.images)}
        return replace(photos, facts=photos.facts.assign(**self.set.cameras.columns(), **known))

    def score(self, asset: RadianceField, config: EvaluateConfig, device: torch.device, /) -> Mapping[str, float]:
        """See `benchmarks.quality.sources.Source`; the mean image's scores with its name before theirs."""
        truth = self.set.truth
        rendering = render_asset(
            asset,
            turntable_cameras(),
            size=truth.masks.shape[-1],
            samples_per_ray=config.samples_per_ray,
            background="white",
            device=device,
        )
        color, opacity = (values.detach().float().to(device) for values in (rendering.color, rendering.opacity))
        there = Views(truth.images.to(device), truth.masks.to(device))
        baseline = all_scores(mean_baseline(there), there)
        return dict(all_scores(Views(color.clamp(0, 1), opacity), there)) | {
            f"{MEAN_IMAGE}/{name}": value for name, value in baseline.items()
        }


def as_they_are(photos: PhotoSet) -> PhotosConfig:
    """The photos without anything of their truth."""
    return PhotosConfig(dir=str(photos.folder / "photos"), class_noun=photos.about["class_noun"])


def with_masks(photos: PhotoSet, folder: Path) -> PhotosConfig:
    """The photos in a folder of their own, with the true masks beside them."""
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    for photo, mask in zip(photos.photos, photos.masks, strict=True):
        shutil.copyfile(photo, folder / photo.name)
        shutil.copyfile(mask, folder / "masks" / mask.name)
    return PhotosConfig(dir=str(folder), class_noun=photos.about["class_noun"], masks="files")
