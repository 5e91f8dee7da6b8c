"""What an asset reproduces while guidance shapes it: pseudo views, photos, and the photos as a mirror shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.config.distillation import DistillConfig
from dreambooth3d.kinds import asset_kind
from dreambooth3d.nerf.photo_cameras.heading import facing_azimuth
from dreambooth3d.nerf.photo_cameras.photo_targets import HEADING, PhotoTargets, Symmetry, reported_cameras
from dreambooth3d.nerf.photo_cameras.targets import TargetPixels, TargetViews
from dreambooth3d.nerf.training import losses
from dreambooth3d.nerf.training.guards import Collapse
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.photos.cameras.placement import placed_cameras
from dreambooth3d.record import StepLog
from dreambooth3d.representation.interface import Losses, Representation, ViewPixels
from dreambooth3d.surface.painted_mesh import PaintedMesh
from dreambooth3d.transfer import send

PHOTO_TARGET_SIZE = 64
FACE_AT = 0.4
"""Share of a stage without photos after which its field is turned to its front, for the view words that follow."""


@dataclass(frozen=True)
class DrawnTarget:
    """Pixels of target views, what is to be seen there, and what it weighs."""

    prefix: str
    pixels: ViewPixels
    target: TargetPixels
    color_weight: float
    silhouette_weight: float

    def losses(self, asset: Representation, jitter: torch.Generator, ready: torch.cuda.Event | None) -> Losses:
        """The reconstruction losses; the pixels were drawn at the moment `ready`."""
        target, shown = self.target, asset.render_pixels(self.pixels, jitter, ready)
        color = shown.color if target.gain is None else target.gain[:, None] * shown.color
        color = losses.reconstruction(color, shown.opacity, target.color, target.background, target.known)
        trusted = target.trusted if target.known is None else target.trusted * target.known
        shape = losses.silhouette(shown.opacity, target.mask, trusted)
        return {
            f"{self.prefix}reconstruction": (self.color_weight, color),
            f"{self.prefix}silhouette": (self.silhouette_weight, shape),
        }


@dataclass(frozen=True)
class _Kind:
    """One kind of target views: the prefix of its figures, how many are drawn per step, what they weigh, and whether
    their subjects are put before random colours."""

    prefix: str
    views: TargetViews
    views_per_step: int
    color_weight: float
    silhouette_weight: float
    any_background: bool = False


class Targets:
    """The target views of one attempt.

    Args:
        inputs: pseudo views and photos, where there are any.
        config: what they weigh.
        device: where they are compared with renders.
    """

    def __init__(self, inputs: DistillInputs, config: DistillConfig, device: torch.device) -> None:
        self.config = config
        self.photos = _photo_targets(inputs, config, device)
        # Photos say themselves where the front is.
        self._view_logits = inputs.view_logits if config.face_front and self.photos is None else None
        self._faced, self._stays = False, _stays(inputs, config)
        self._pseudo = _pseudo_views(inputs, config, device)

    def draw(self, generator: torch.Generator) -> list[DrawnTarget]:
        """Random pixels of random views of each kind.

        As many rays as `render.size` images would have, but at the targets' own resolution, so that their detail
        arrives also when few rays are rendered.
        """
        rays = self.config.render.size**2
        return [self._drawn(kind, rays, generator) for kind in self._kinds()]

    def _drawn(self, kind: _Kind, rays: int, generator: torch.Generator) -> DrawnTarget:
        pixels, target = kind.views.draw(kind.views_per_step, rays, generator)
        if kind.any_background:
            behind = torch.rand(len(target.color), 3, generator=generator)
            target = target.before(send(behind, target.color.device))
        return DrawnTarget(kind.prefix, pixels, target, kind.color_weight, kind.silhouette_weight)

    def _kinds(self) -> Iterator[_Kind]:
        """What there is to reproduce now."""
        if self._pseudo is not None:
            yield self._pseudo
        photos, config = self.photos, self.config.photos
        if photos is None:
            return
        found = photos.found
        if found is not None:
            factor = photos.weight
            weights = factor * config.weight, factor * config.silhouette_weight
            yield _Kind("photo_", found, config.views_per_step, *weights, config.random_backgrounds)
        mirrored = photos.mirrored
        if mirrored is not None:
            color, outline = photos.mirror_weights
            weights = color * config.weight, outline * config.silhouette_weight
            yield _Kind("mirror_", mirrored, config.views_per_step, *weights, config.random_backgrounds)

    def follow(self, shown: Representation, progress: float) -> float:
        """Search the photos' cameras, or else the front, if it is time; returns by how many degrees that turned it."""
        if self.photos is not None:
            return self.photos.follow(shown, progress)
        if self._faced or progress < FACE_AT:
            return 0.0
        self._faced = True
        return self._face(shown)

    def improve(self) -> None:
        """Move the photos' cameras against the gradient of the last loss."""
        if self.photos is not None:
            self.photos.improve()

    def face_front(self, shown: Representation) -> float:
        """Turn the asset, with the photos' cameras, to where a scorer sees its front; returns the degrees."""
        return self._face(shown) if self.photos is None else self.photos.face_front(shown)

    def _face(self, shown: Representation) -> float:
        """Turn an asset that no photo holds to where a scorer sees its front; returns the degrees."""
        if self._view_logits is None:
            return 0.0
        angle = -facing_azimuth(shown, self._view_logits)
        shown.turn_by(angle)
        return angle

    def stand_up(self, shown: Representation) -> Representation:
        """The finished asset as it is handed on: where that is wanted, a copy that stands as photos could not tell."""
        if self._stays or self.photos is None or not self.config.photos.stand_up or not self.photos.located.any():
            return shown
        return self.photos.stand_up(shown)

    @property
    def complete(self) -> bool:
        """Whether all target views that will be used are in use."""
        return self.photos is None or self.photos.complete

    def require_overlap(self) -> None:
        """Give an asset up that does not fit the photos.

        Raises:
            Collapse: the mean overlap of its renders with the photos' subjects is too small.
        """
        overlap, least = self.photos and self.photos.overlap, self.config.photos.min_overlap
        if overlap is not None and overlap < least:
            reason = f"does not fit the photos (mean overlap {overlap:.2f}, at least {least} is wanted)"
            raise Collapse(reason, "Lower photos.min_overlap", f"photo_overlap {overlap:.3g} < {least:.3g}")

    def report(self, shown: Representation, log: StepLog) -> None:
        """Log what was found out about the photos."""
        if self.photos is not None:
            self.photos.report(shown, log)

    def state(self) -> dict[str, Any]:
        """What a resumed attempt needs."""
        return {"faced": self._faced} if self.photos is None else {"photos": self.photos.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        if self.photos is not None:
            self.photos.restore(state["photos"])
        else:
            self._faced = bool(state["faced"])


def _pseudo_views(inputs: DistillInputs, config: DistillConfig, device: torch.device) -> _Kind | None:
    """The pseudo views, where that is wanted."""
    settings = config.reconstruction
    if inputs.pseudo_views is None or settings is None or settings.weight == 0:
        return None
    views = TargetViews.of_pseudo_views(inputs.pseudo_views, device)
    return _Kind("", views, settings.views_per_step, settings.weight, settings.silhouette_weight)


def _stays(inputs: DistillInputs, config: DistillConfig) -> bool:
    """Whether the asset may not be moved: a given mesh says where it stands."""
    return asset_kind(config, inputs.init) == PaintedMesh.kind or config.sketch.file is not None


def _photo_targets(inputs: DistillInputs, config: DistillConfig, device: torch.device) -> PhotoTargets | None:
    """The photos as targets, where that is wanted and possible."""
    if inputs.photos is None or config.photos.weight == 0:
        return None
    views = TargetViews.of_photos(inputs.photos, PHOTO_TARGET_SIZE, device)
    if views is None:
        return None
    known: dict[str, Any] = {"centred": _look_at_centre(inputs.photos)}
    if inputs.init is not None:
        record = inputs.init.record
        known |= {"symmetry": Symmetry.of(record), "heading_deg": record.metrics.get(HEADING, 0.0)}
        known["found"] = reported_cameras(record, len(views))
    view_logits = None if _stays(inputs, config) else inputs.view_logits
    return PhotoTargets(views, config.photos, config.cameras, view_logits, fresh=inputs.fresh, **known)


def _look_at_centre(photos: SubjectPhotos) -> bool:
    """Whether all photos that were located look at one point, the subject's centre."""
    placed = placed_cameras(photos)
    if placed is None:
        return True
    located = ~placed.cameras.azimuth_deg.isnan()
    return bool(not located.any() or placed[located].look_at_centre)
