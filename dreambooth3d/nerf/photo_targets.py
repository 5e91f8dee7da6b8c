"""The photos as targets of a field's reconstruction: their cameras are searched while the field takes shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dreambooth3d.config import CameraConfig, PhotoTargetsConfig
from dreambooth3d.images import sheet
from dreambooth3d.nerf.cameras import Cameras
from dreambooth3d.nerf.field import Field
from dreambooth3d.nerf.poses import PhotoCameras, find_cameras
from dreambooth3d.nerf.rendering import render_images
from dreambooth3d.nerf.sampling import DenseSampler
from dreambooth3d.nerf.targets import TargetViews
from dreambooth3d.record import StepLog


class PhotoTargets:
    """Photos with cameras that are searched at intervals.

    Args:
        photos: views whose masks can be trusted.
        config: when to search.
        cameras: the range of the training cameras, whose middle gives the photos' mean distance and field of view.
    """

    def __init__(self, photos: TargetViews, config: PhotoTargetsConfig, cameras: CameraConfig) -> None:
        self.photos, self.config = photos, config
        self.distance = sum(cameras.distance) / 2
        self.fov_y_deg = sum(cameras.fov_y_deg) / 2
        self.matches: PhotoCameras | None = None
        self.next_search, self.searches = config.start, 0
        self._found: TargetViews | None = None

    @property
    def found(self) -> TargetViews | None:
        """The photos in use, with their cameras, or None."""
        return self._found

    def follow(self, field: Field, progress: float) -> None:
        """Search the cameras if it is time at this position of the stage in [0, 1]."""
        if progress < self.next_search:
            return
        start = None if self.matches is None else self.matches.cameras
        matches = find_cameras(field, self.photos, distance=self.distance, fov_y_deg=self.fov_y_deg, start=start)
        self._take(matches, self.searches + 1)
        while self.next_search <= progress:
            self.next_search += self.config.search_every

    def _take(self, matches: PhotoCameras, searches: int) -> None:
        """Use the photos whose cameras are surest; with each search more of them, in the end all that were found.

        A photo in a wrong place would teach the field to look so, and would be found there again; one that is not used
        yet is compared with what the others have taught.
        """
        self.matches, self.searches = matches, searches
        device, count = self.photos.images.device, len(self.photos)
        used = matches.surest(math.ceil(count * min(1.0, searches / self.config.searches_until_all)))
        if not used.any():
            self._found = None
            return
        chosen = used.to(device)
        self._found = replace(self.photos.where(chosen), cameras=matches.cameras.to(device)[chosen])

    @property
    def overlap(self) -> float | None:
        """Mean overlap of the photos' subjects with renders from the cameras found, or None before the first search."""
        return None if self.matches is None else self.matches.overlap.mean().item()

    def report(self, field: Field, log: StepLog) -> None:
        """Log how many were found and how well, and a sheet: photos above renders from where they were taken."""
        if self.matches is None:
            return
        cameras, found = self.matches.cameras, self.matches.found
        log.metrics(
            photos_found=int(found.sum()),
            photo_error=self.matches.error.mean().item(),
            photo_overlap=self.matches.overlap.mean().item(),
        )
        log.params(photo_azimuths_deg=", ".join(f"{angle:.0f}" for angle in cameras.azimuth_deg.tolist()))
        device, images = self.photos.images.device, self.photos.images
        renders = render_images(field, cameras.to(device), size=images.shape[-1], sampler=DenseSampler(64))
        log.image("photo_cameras", sheet(torch.cat([images, renders.color]), columns=len(images)))

    def state(self) -> dict[str, Any]:
        """What a resumed stage needs."""
        state: dict[str, Any] = {"next_search": self.next_search, "searches": self.searches}
        if self.matches is not None:
            names = ("azimuth_deg", "elevation_deg", "distance", "fov_y_deg")
            state["cameras"] = {name: getattr(self.matches.cameras, name) for name in names}
            state |= {name: getattr(self.matches, name) for name in ("error", "overlap", "margin")}
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self.next_search = float(state["next_search"])
        if "cameras" in state:
            parts: dict[str, Tensor] = {name: state[name] for name in ("error", "overlap", "margin")}
            self._take(PhotoCameras(Cameras(**state["cameras"]), **parts), int(state["searches"]))
