"""How well an asset shows photos that nothing has learned from: each is registered on it and compared.

Real subjects have no truth; such a photo is the nearest thing to one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dreambooth3d.artifacts import RadianceField, SubjectPhotos
from dreambooth3d.backdrops import FINE_SIZE, MAX_CUT_OUTLINE
from dreambooth3d.config.results import EvaluateConfig
from dreambooth3d.evaluation.figures import labelled_rows
from dreambooth3d.evaluation.pixels import Views, mask_iou, psnr_fg
from dreambooth3d.evaluation.registration import (
    CentredPhoto,
    Registration,
    centred_photos,
    register,
    render_placed,
)
from dreambooth3d.glossary import meanings
from dreambooth3d.kinds import load_representation
from dreambooth3d.photos.cameras.search import assumed_fov_y_deg
from dreambooth3d.representation.interface import Representation
from dreambooth3d.runtime import Runtime

DEFINITIONS = meanings(("heldout_photo_iou", "heldout_photo_psnr_fg", "heldout_photo_psnr_fg_mean"))
COLUMNS = 8
SUPERSAMPLE = 2
"""Per axis, of the scored renders: photos are antialiased."""


@dataclass(frozen=True)
class HeldOutViews:
    """Held-out photos beside the asset from their cameras.

    Attributes:
        files: of the n photos.
        photos: n photos turned towards their subjects, cut out on white; empty where nothing is known.
        renders: the asset from the cameras that were found.
        mean: the mean of the training photos in place of each, or None where no mask of theirs is trusted.
        registrations: the n cameras.
    """

    files: tuple[str, ...]
    photos: Views
    renders: Views
    mean: Views | None
    registrations: tuple[Registration, ...]

    def metrics(self) -> dict[str, float]:
        """As `DEFINITIONS` says, means over the photos."""
        values = {
            "heldout_photo_iou": mask_iou(self.renders, self.photos),
            "heldout_photo_psnr_fg": psnr_fg(self.renders, self.photos),
        }
        if self.mean is not None:
            values["heldout_photo_psnr_fg_mean"] = psnr_fg(self.mean, self.photos)
        return {name: each.mean().item() for name, each in values.items()}

    def rows(self) -> dict[str, Tensor]:
        """Rows of images by label, for a sheet."""
        rows = {"held out": self.photos.images, "from there": self.renders.images}
        return rows if self.mean is None else rows | {"mean photo": self.mean.images}

    def sheet(self) -> Float[Tensor, "3 height width"]:
        """(3, height, width): the photos, above the asset from their cameras and the mean of the training photos."""
        return labelled_rows(self.rows(), columns=min(len(self.files), COLUMNS))

    def describe(self) -> str:
        """Each photo's camera in words."""
        words = []
        for file, registration in zip(self.files, self.registrations, strict=True):
            cameras = registration.placed.cameras
            angles = (cameras.azimuth_deg.item(), cameras.elevation_deg.item(), registration.placed.roll_deg.item())
            words.append("{} from azimuth {:.0f}, elevation {:.0f}, roll {:.0f}".format(file, *angles))
        return "; ".join(words)


def compare_held_out(
    asset: RadianceField, photos: SubjectPhotos, config: EvaluateConfig, runtime: Runtime
) -> HeldOutViews | None:
    """Register the held-out photos on an asset; None where there are none with a mask that can be trusted.

    Logs which they are and from where they were taken, or why none is compared, and a sheet.
    """
    held_out = photos.held_out
    if held_out is None:
        return None
    chosen = held_out.trusted.nonzero()[:, 0].tolist()
    if not chosen:
        reason = f"none: no mask of {', '.join(held_out.facts['file'])} is trusted"
        runtime.log.params(heldout_photos=reason)
        return None
    field = load_representation(asset, runtime.device)
    targets = _centred(held_out, config.size)
    registrations = tuple(register(field, target) for target in targets)
    renders = _rendered(field, targets, registrations, config)
    files = tuple(held_out.facts["file"].iloc[index] for index in chosen)
    views = HeldOutViews(files, _as_views(targets), renders, _mean_photo(photos, targets, config.size), registrations)
    runtime.log.params(heldout_photos=views.describe())
    runtime.log.image("heldout_photos", views.sheet())
    return views


def _centred(photos: SubjectPhotos, size: int) -> list[CentredPhoto]:
    """The photos whose masks are trusted, turned towards their subjects."""
    chosen = photos.trusted
    lengths = photos.facts.get("focal_length_35mm", [None] * len(photos.images))
    fov = torch.tensor([assumed_fov_y_deg(length) for length in lengths])
    return centred_photos(
        photos.resized(FINE_SIZE)[chosen],
        photos.masks_resized(FINE_SIZE)[chosen],
        photos.frame(FINE_SIZE)[chosen],
        (photos.cut[chosen] > MAX_CUT_OUTLINE).tolist(),
        fov[chosen],
        size,
    )


def _as_views(photos: list[CentredPhoto]) -> Views:
    images, masks = (torch.stack([getattr(each, name) for each in photos]) for name in ("image", "mask"))
    return _where_known(images, masks, photos)


def _where_known(images: Tensor, masks: Tensor, photos: list[CentredPhoto]) -> Views:
    """Views that are white and empty beyond the frames of photos that cut their subjects."""
    known = torch.stack([each.known for each in photos])
    return Views(images * known[:, None] + 1 - known[:, None], masks * known)


def _rendered(
    field: Representation, photos: list[CentredPhoto], registrations: tuple[Registration, ...], config: EvaluateConfig
) -> Views:
    size = SUPERSAMPLE * config.size
    renderings = [render_placed(field, each.placed, size, config.samples_per_ray) for each in registrations]
    color, opacity = (
        torch.cat([getattr(each, name).float().cpu() for each in renderings]) for name in ("color", "opacity")
    )
    return _where_known(avg_pool2d(color, SUPERSAMPLE), avg_pool2d(opacity, SUPERSAMPLE), photos)


def _mean_photo(photos: SubjectPhotos, targets: list[CentredPhoto], size: int) -> Views | None:
    """The mean of the training photos, once for each of the targets."""
    if not photos.trusted.any():
        return None
    learned = _centred(photos, size)
    image, mask = (torch.stack([getattr(each, name) for each in learned]).mean(dim=0) for name in ("image", "mask"))
    return _where_known(image.expand(len(targets), -1, -1, -1), mask.expand(len(targets), -1, -1), targets)
