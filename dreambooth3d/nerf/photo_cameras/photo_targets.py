"""The photos as targets of a field's reconstruction: their cameras are searched while the field takes shape."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dreambooth3d.cameras import TURNTABLE_FOV_Y_DEG, Cameras, orbit_cameras, wrap_degrees
from dreambooth3d.config.photo_targets import PhotoTargetsConfig
from dreambooth3d.config.rendering import CameraConfig
from dreambooth3d.images import captioned, degrees, sheet
from dreambooth3d.nerf.field.pose import MirrorPlane, Solid, mirror_plane, stand_up
from dreambooth3d.nerf.photo_cameras.heading import ViewLogits, front_azimuth
from dreambooth3d.nerf.photo_cameras.poses import PhotoCameras, find_cameras, usual_scale, view_errors
from dreambooth3d.nerf.photo_cameras.targets import TargetViews
from dreambooth3d.record import StepLog, StepRecord
from dreambooth3d.representation.interface import Representation
from dreambooth3d.runtime import optimizer_state, restore_optimizer

ANCHOR_ELEVATION_DEG = 20.0
CAMERA_BETAS = (0.9, 0.99)
MAX_LOG_GAIN = 0.25
"""Largest exposure correction, in natural logarithms."""
NEAR_PHOTO_DEG = 30.0
MAX_SCORER_TURN_DEG = 20.0
"""By which a stage lets a scorer turn a field away from the front that located photos have told."""
CAMERAS = "photo_cameras"
"""Parameter of a stage: azimuth, elevation, distance and field of view of each photo in the end, as JSON."""
HEADING = "heading_corrected_deg"
"""Metric of a stage: by how much it has corrected its field's heading, as its photos' cameras with it."""
MIRROR_OVERLAP = 0.9
"""Overlap of mirrored photos in terms of that of the photos, from which their outlines count."""


@dataclass(frozen=True)
class Symmetry:
    """How well a field fits mirrored photos, as a multiple of how well it fits the photos.

    Attributes:
        error: in colour and outline; 1 for a subject that is its own mirror image.
        overlap: of outlines alone; 1 likewise.
    """

    error: float
    overlap: float

    @staticmethod
    def of(record: StepRecord) -> Symmetry | None:
        """What a stage that is finished has reported, or None."""
        figures = record.metrics
        return Symmetry(figures["mirror_error"], figures["mirror_overlap"]) if "mirror_error" in figures else None


def reported_cameras(record: StepRecord, count: int) -> Cameras | None:
    """The cameras of `count` photos as a finished stage has left them; None where it has not, or of other photos."""
    rows = json.loads(str(record.params.get(CAMERAS, "[]")))
    return Cameras(*torch.tensor(rows).unbind(-1)) if len(rows) == count > 0 else None


class PhotoTargets:
    """Photos with cameras that are searched at intervals, and improved in between by the gradient of the loss.

    Args:
        photos: views whose masks can be trusted.
        config: when to search.
        cameras: the range of the training cameras, whose middle gives the photos' field of view
            and usual distance.
        view_logits: how a scorer sees views, by which the field's heading is corrected before each search; or None.
        symmetry: as an earlier stage has measured it; its field has learned from mirrored photos since, and fits them.
        fresh: whether the field begins as a blob. If no photo was located, the most frontal one then stands for a view
            from the front until the first search, lest the field grows several.
        heading_deg: by how much an earlier stage has corrected the field's heading since the photos were located.
        found: the n cameras as that stage has left them; the located photos start from these.
        centred: whether the photos say where the subject's centre is, and what is up, since all look at it.
    """

    def __init__(
        self,
        photos: TargetViews,
        config: PhotoTargetsConfig,
        cameras: CameraConfig,
        view_logits: ViewLogits | None = None,
        symmetry: Symmetry | None = None,
        fresh: bool = False,
        heading_deg: float = 0.0,
        found: Cameras | None = None,
        centred: bool = True,
    ) -> None:
        if photos.cameras is not None:
            photos = replace(photos, cameras=_turned(photos.cameras, -heading_deg))
        self.photos, self.config, self.centred = photos, config, centred
        self.plane: MirrorPlane | None = None
        self.fov_y_deg = sum(cameras.fov_y_deg) / 2
        self.matches: PhotoCameras | None = None
        self.next_search: float | None = config.start
        self.searches = 0
        self.view_logits = view_logits
        self.heading_deg = 0.0
        self.symmetry = symmetry
        self._turns = torch.zeros(len(photos), dtype=torch.long)
        self.distance = config.usual_distance
        if photos.cameras is not None and not photos.cameras.fov_y_deg.isnan().all():
            own = photos.cameras.fov_y_deg.nanmean().item()
            # A subject that is as large in a narrower frame is farther away.
            half, usual = (math.tan(math.radians(angle) / 2) for angle in (own, TURNTABLE_FOV_Y_DEG))
            self.fov_y_deg, self.distance = own, config.usual_distance * usual / half
        ahead = orbit_cameras(torch.zeros(len(photos)), ANCHOR_ELEVATION_DEG, self.distance, self.fov_y_deg)
        self.located = torch.zeros(len(photos), dtype=torch.bool)
        self.cameras = ahead
        if photos.cameras is not None:
            self.located = ~photos.cameras.azimuth_deg.isnan()
            told = self._usual_scale(photos.cameras) if found is None else found
            self.cameras = ahead.map(lambda usual, told: torch.where(self.located, told, usual), told)
        self._moves = torch.zeros(len(photos), 4, device=photos.images.device, requires_grad=True)
        self._log_gains = torch.zeros(len(photos), device=photos.images.device, requires_grad=True)
        groups = [
            {"params": [self._moves], "lr": config.camera_learning_rate},
            {"params": [self._log_gains], "lr": config.exposure_learning_rate},
        ]
        self._optimizer = torch.optim.Adam(groups, betas=CAMERA_BETAS)
        self._use(self._first(fresh))

    def _usual_scale(self, told: Cameras) -> Cameras:
        """Cameras that the photos tell at the likeliest common distance, as searches will put them."""
        if not self.located.any():
            return told
        masks = self.photos.masks[self.located.to(self.photos.masks.device)]
        placed = usual_scale(told[self.located], masks, self.config.subject_radius, self.distance)
        distance = told.distance.clone()
        distance[self.located] = placed.distance
        return replace(told, distance=distance)

    def _first(self, fresh: bool) -> Tensor:
        """(n,) bool, what is used at once: the photos that were located, else for a blob the most frontal one.

        None of them without an anchor's weight, if no photo shows the front, or if how frontal they are is unknown.
        """
        if self.located.any() or not fresh:
            return self.located
        fronts = torch.tensor([word == "front" for word in self.photos.words], dtype=torch.bool)
        if self.config.anchor_weight == 0 or self.photos.off_front_deg is None or not fronts.any():
            return torch.zeros(len(self.photos), dtype=torch.bool)
        best = self.photos.off_front_deg.masked_fill(~fronts, float("inf")).argmin()
        return torch.arange(len(self.photos)) == best

    def _use(self, chosen: Tensor) -> None:
        """Make the chosen (n,) bool of the photos targets."""
        self.used = chosen.to(self.photos.images.device)
        # Rows rather than a mask: with a mask the host would wait for the device at each step.
        self._rows = chosen.nonzero()[:, 0].to(self.photos.images.device)
        self._found = self.photos.where(self.used) if chosen.any() else None

    @property
    def found(self) -> TargetViews | None:
        """The photos in use, with cameras and exposures, which a loss can improve by its gradient, or None."""
        if self._found is None:
            return None
        return replace(self._found, cameras=self._moved()[self._rows], gain=self._gains()[self._rows])

    def _gains(self) -> Tensor:
        """(n,) exposure of each photo, 1 where it is not in use; their mean is 1 (of the logarithms: 0)."""
        relative = torch.where(self.used, self._log_gains - self._log_gains[self._rows].mean(), 0.0)
        return relative.clamp(-MAX_LOG_GAIN, MAX_LOG_GAIN).exp()

    def _moved(self) -> Cameras:
        """The cameras of all photos as the last search found them and gradients have moved them since.

        The mean distance of those in use stays what it was, as field and photos have a common scale only together. A
        wider field of view comes with a shorter distance, so that it changes the perspective alone.
        """
        found, moves = self.cameras.to(self._moves.device), self._moves
        nearer, wider = (
            torch.where(self.used, (move - move[self._rows].mean()) * math.radians(1.0), 0.0).exp()
            for move in (moves[:, 2], moves[:, 3])
        )
        half = torch.tan(torch.deg2rad(found.fov_y_deg) / 2)
        return replace(
            found,
            azimuth_deg=found.azimuth_deg + moves[:, 0],
            elevation_deg=found.elevation_deg + moves[:, 1],
            distance=found.distance * nearer / wider,
            fov_y_deg=torch.rad2deg(2 * torch.atan(half * wider)),
        )

    @property
    def mirrored(self) -> TargetViews | None:
        """The photos in use as a mirror shows them; None where that is not wanted, or not known to help."""
        if self._found is None or not any(self.mirror_weights):
            return None
        cameras = self._moved()[self._rows].map(torch.Tensor.detach)
        return replace(self._found, cameras=cameras, gain=self._gains()[self._rows].detach()).mirrored()

    def _measure_symmetry(self, field: Representation) -> Symmetry | None:
        """Compare the field with mirrored photos where photos have taught it how it looks; None where there are none.

        Photos that a field was fitted to say nothing of other sides. So only mirrored photos count that were taken
        near a photo in use, and the field must not have seen them.
        """
        if self._found is None:
            return None
        views = replace(self._found, cameras=self._moved()[self.used].map(torch.Tensor.detach))
        mirrored = views.mirrored()
        azimuth, other_azimuth = views.known_cameras.azimuth_deg, mirrored.known_cameras.azimuth_deg
        apart = wrap_degrees(other_azimuth[:, None] - azimuth[None])
        near = apart.abs().min(dim=1).values <= NEAR_PHOTO_DEG
        if not near.any():
            return None
        own, other = view_errors(field, views), view_errors(field, mirrored)
        return Symmetry(
            error=(other[0][near].mean() / own[0].mean()).item(),
            overlap=(other[1][near].mean() / own[1].mean()).item(),
        )

    @property
    def mirror_weights(self) -> tuple[float, float]:
        """Factors on the losses of colours and outlines of mirrored photos, 0 while nobody knows whether they help."""
        if self.symmetry is None:
            return 0.0, 0.0
        low, high = self.config.mirror_error
        share = min(max((high - self.symmetry.error) / (high - low), 0.0), 1.0)
        return self.config.mirror_weight * share, self.config.mirror_weight * (self.symmetry.overlap >= MIRROR_OVERLAP)

    def improve(self) -> None:
        """Move the cameras against the gradient of the last loss."""
        if self._moves.grad is not None:
            self._optimizer.step()
            self._optimizer.zero_grad()

    def settle(self) -> None:
        """Make the moved cameras the ones that were found."""
        self.cameras = self._moved().map(lambda values: values.detach().cpu())
        with torch.no_grad():
            self._moves.zero_()

    @property
    def weight(self) -> float:
        """Factor on the losses of the photos in use."""
        return 1.0 if self.located.any() or self.matches is not None else self.config.anchor_weight

    def follow(self, field: Representation, progress: float) -> float:
        """Search the cameras if it is time at this position of the stage in [0, 1].

        Returns:
            By how many degrees the field was turned for it, as in `Representation.turn_by`.
        """
        if self.next_search is None or progress < self.next_search:
            return 0.0
        turned = self.face_front(field)
        matches = find_cameras(
            field,
            self.photos,
            radius=self.config.subject_radius,
            distance=self.distance,
            fov_y_deg=self.fov_y_deg,
            start=self.cameras if self.used.any() else None,
            kept=self.used,
            located=self.located,
        )
        while self.next_search <= progress:
            self.next_search += self.config.search_every
        if self.next_search > self.config.search_until + 1e-9:
            self.next_search = None
        self._take(matches, self.searches + 1)
        if self.symmetry is None:
            self.symmetry = self._measure_symmetry(field)
        return turned

    def face_front(self, field: Representation) -> float:
        """Turn the field, and the photos' cameras with it, to where a scorer sees its front.

        A scorer is some degrees off, and more with what it has not learned: where photos were located, the field's own
        mirror plane near their front is truer, if it has one.

        Returns:
            By how many degrees the field was turned, as in `Representation.turn_by`; 0 without scorer.
        """
        self.settle()
        if self.view_logits is None:
            return 0.0
        turned = self._to_mirror_plane(field) if self.located.any() else None
        if turned is None:
            turned = self._turn(field, -self._scorer_heading(field, self.view_logits))
            if self.located.any():
                turned += self._to_mirror_plane(field) or 0.0
        return turned

    def _scorer_heading(self, field: Representation, view_logits: ViewLogits) -> float:
        """Where a scorer sees the field's front; 0 if photos were located and that is far from the front they told."""
        heading = front_azimuth(field, view_logits)
        far = abs(self.heading_deg + heading) > MAX_SCORER_TURN_DEG
        return 0.0 if self.located.any() and far else heading

    def _to_mirror_plane(self, field: Representation) -> float | None:
        """Turn a field to its mirror plane nearby; returns the angle, or None where it has no clear one."""
        solid = Solid.of(field)
        plane = None if solid is None else mirror_plane(solid, offset=not self.centred)
        return self._turn(field, -plane.heading_deg) if plane is not None and plane.clear else None

    def _turn(self, field: Representation, angle_deg: float) -> float:
        """Turn a field and the photos' cameras about z; returns the angle."""
        if angle_deg != 0:
            field.turn_by(angle_deg)
            self.heading_deg -= angle_deg
            self.cameras = _turned(self.cameras, angle_deg)
            if self.photos.cameras is not None:
                self.photos = replace(self.photos, cameras=_turned(self.photos.cameras, angle_deg))
        return angle_deg

    def stand_up(self, field: Representation) -> Representation:
        """A copy of the field that stands as the photos could not tell; the photos' cameras stay those of the field."""
        copy = deepcopy(field)
        masks = self.photos.masks[self.located.to(self.photos.masks.device)]
        self.plane = stand_up(copy, self.cameras[self.located], masks, self.centred)
        return copy

    def _take(self, matches: PhotoCameras, searches: int) -> None:
        """Use the photos whose cameras are surest, then all but one in turn, in the end all that were found.

        Those that were located always take part. A photo in a wrong place teaches the field to look so, and would
        be found there again; one that was not used is compared with what the others have taught.
        """
        self.matches, self.searches, self.cameras = matches, searches, matches.cameras
        share = min(1.0, searches / self.config.searches_until_all)
        used = matches.surest(math.ceil(len(self.photos) * share)) | (self.located & matches.found)
        doubtful = used & ~self.located
        in_turn = self.config.hold_out and share == 1.0 and self.next_search is not None
        if in_turn and doubtful.any() and used.sum() > 1:
            turns = self._turns.masked_fill(~doubtful, len(used) * searches)
            candidates = matches.margin.masked_fill(turns > turns.min(), float("inf"))
            used[candidates.argmin()] = False
            self._turns[candidates.argmin()] += 1
        self._use(used)

    @property
    def complete(self) -> bool:
        """Whether the cameras have been searched and all photos that were found are in use."""
        return self.matches is not None and bool((self.used.cpu() == self.matches.found).all())

    @property
    def overlap(self) -> float | None:
        """Mean overlap of the photos' subjects with renders from the cameras found, or None before the first search."""
        return None if self.matches is None else self.matches.overlap.mean().item()

    def report(self, field: Representation, log: StepLog) -> None:
        """Log how many were found and how well, and a sheet: photos above renders from where they were taken."""
        if self.matches is None:
            return
        self.settle()
        cameras, found = self.cameras, self.matches.found
        log.metrics(
            photos_found=int(found.sum()),
            photo_error=self.matches.error.mean().item(),
            photo_overlap=self.matches.overlap.mean().item(),
            **{HEADING: self.heading_deg},
        )
        if self.plane is not None:
            log.metrics(plane_error=self.plane.error, plane_deg=self.plane.heading_deg, plane_clear=self.plane.clear)
        if self.symmetry is not None:
            log.metrics(mirror_error=self.symmetry.error, mirror_overlap=self.symmetry.overlap)
        log.params(
            photo_azimuths_deg=", ".join(f"{angle:.0f}" for angle in wrap_degrees(cameras.azimuth_deg).tolist()),
            photo_elevations_deg=", ".join(f"{angle:.0f}" for angle in cameras.elevation_deg.tolist()),
            photo_distances=", ".join(f"{distance:.2f}" for distance in cameras.distance.tolist()),
            photo_exposures=", ".join(f"{gain:.3f}" for gain in self._gains().tolist()),
            **{CAMERAS: json.dumps([[round(value, 3) for value in row] for row in _rows(cameras).tolist()])},
        )
        images = self.photos.images
        renders = field.render(cameras, images.shape[-1])
        names = [f"photo {number}" for number in range(1, len(images) + 1)]
        pairs = zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True)
        found_at = [f"{degrees(azimuth)}, {elevation:.0f}\u00b0 up" for azimuth, elevation in pairs]
        cells = captioned(torch.cat([images, renders.color.to(images)]), [*names, *found_at])
        log.image("photo_cameras", sheet(cells, columns=len(images)))

    def state(self) -> dict[str, Any]:
        """What a resumed stage needs."""
        state: dict[str, Any] = {"next_search": self.next_search, "searches": self.searches}
        state["heading_deg"], state["turns"], state["used"] = self.heading_deg, self._turns, self.used
        state["cameras"] = dict(vars(self.cameras))
        state["moves"], state["optimizer"] = self._moves.detach(), optimizer_state(self._optimizer)
        state["log_gains"] = self._log_gains.detach()
        if self.symmetry is not None:
            state["symmetry"] = dict(vars(self.symmetry))
        if self.matches is not None:
            state |= {name: getattr(self.matches, name) for name in ("error", "overlap", "margin")}
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self.next_search, self.heading_deg = state["next_search"], float(state["heading_deg"])
        if self.photos.cameras is not None:
            self.photos = replace(self.photos, cameras=_turned(self.photos.cameras, -self.heading_deg))
        cameras = Cameras(**state["cameras"])
        if "error" in state:
            parts: dict[str, Tensor] = {name: state[name] for name in ("error", "overlap", "margin")}
            self.matches, self.searches = PhotoCameras(cameras, **parts), int(state["searches"])
        self.cameras, self._turns = cameras, state["turns"]
        self.symmetry = Symmetry(**state["symmetry"]) if "symmetry" in state else None
        self._use(state["used"])
        with torch.no_grad():
            self._moves.copy_(state["moves"])
            self._log_gains.copy_(state["log_gains"])
        restore_optimizer(self._optimizer, state["optimizer"])


def _rows(cameras: Cameras) -> Tensor:
    """(n, 4) azimuth, elevation, distance and field of view."""
    values = (wrap_degrees(cameras.azimuth_deg), cameras.elevation_deg, cameras.distance, cameras.fov_y_deg)
    return torch.stack(values, dim=-1)


def _turned(cameras: Cameras, angle_deg: float) -> Cameras:
    """The cameras turned about z, counter-clockwise seen from above."""
    return replace(cameras, azimuth_deg=cameras.azimuth_deg + angle_deg)
