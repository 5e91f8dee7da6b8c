"""Where a subject's photos come from, what a diagnosis is told of the truth, and what is measured of the asset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from dreambooth3d.artifacts import FRAME_FACTS, POSE_FACTS, RadianceField, SubjectPhotos
from dreambooth3d.cameras import TURNTABLE_FOV_Y_DEG, wrap_degrees
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.results import EvaluateConfig
from dreambooth3d.toybox.subjects import photo_cameras, photo_exposures, write_subject


class Source(Protocol):
    """One subject of a benchmark."""

    def photos(self, folder: Path, given: tuple[str, ...], /) -> PhotosConfig:
        """The photos as a run takes them; what must be written first goes below `folder`."""
        ...

    def told(self, photos: SubjectPhotos, given: tuple[str, ...], /) -> SubjectPhotos:
        """The checked photos with what is given from the truth."""
        ...

    def score(self, asset: RadianceField, config: EvaluateConfig, device: torch.device, /) -> Mapping[str, float]:
        """What is measured of an asset besides what the pipeline's own evaluation says."""
        ...


class PromptSource(Source, Protocol):
    """A subject of which there is a prompt and no photo."""

    def asked(self, config: TextTo3dConfig, /) -> TextTo3dConfig:
        """The configuration that asks for it."""
        ...


@dataclass(frozen=True)
class Toybox:
    """A procedural subject, whose truth the pipeline's own evaluation knows."""

    name: str

    def photos(self, folder: Path, _given: tuple[str, ...], /) -> PhotosConfig:
        """See `Source`."""
        if not (folder / self.name / "ground_truth.yaml").exists():
            write_subject(self.name, folder)
        return PhotosConfig(dir=str(folder / self.name))

    def told(self, photos: SubjectPhotos, given: tuple[str, ...], /) -> SubjectPhotos:
        """See `Source`."""
        return with_truth(photos, self.name, given)

    def score(self, _asset: RadianceField, _config: EvaluateConfig, _device: torch.device, /) -> Mapping[str, float]:
        """See `Source`."""
        return {}


def with_truth(photos: SubjectPhotos, name: str, given: tuple[str, ...]) -> SubjectPhotos:
    """The photos with their true cameras, or equally exposed, for a diagnosis of what is lost by not knowing either."""
    if "exposures" in given:
        images = [image / gain for image, gain in zip(photos.images, photo_exposures(name), strict=True)]
        photos = replace(photos, images=tuple(image.clamp(0, 1) for image in images))
    if "cameras" in given:
        true = photo_cameras(name)
        # Photos are fitted with one field of view; the distance at which it shows the subject as large takes its place.
        half = torch.tan(torch.deg2rad(true.fov_y_deg) / 2) / math.tan(math.radians(TURNTABLE_FOV_Y_DEG) / 2)
        values = (wrap_degrees(true.azimuth_deg), true.elevation_deg, true.distance * half)
        facts = photos.facts.drop(columns=list(FRAME_FACTS), errors="ignore")
        facts = facts.assign(**{key: value.tolist() for key, value in zip(POSE_FACTS, values, strict=True)})
        photos = replace(photos, facts=facts)
    return photos
