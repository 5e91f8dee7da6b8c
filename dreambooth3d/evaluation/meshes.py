"""How much a delivered mesh looks like the asset that it was made of, and like the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from dreambooth3d.artifacts import GroundTruth
from dreambooth3d.cameras import Cameras, turntable_cameras
from dreambooth3d.evaluation.pixels import Views, mask_iou, psnr, psnr_fg
from dreambooth3d.evaluation.truth import true_views
from dreambooth3d.glossary import meanings

WHITE, BLACK = 1.0, 0.0
DEFINITIONS = meanings(
    (
        "mesh/field_psnr", "mesh/field_iou", "mesh/psnr", "mesh/psnr_fg", "mesh/mask_iou", "mesh/black/psnr",
        "mesh/black/psnr_fg",
    )
)  # fmt: skip


class Pictures(Protocol):
    """Pictures on any background."""

    @property
    def opacity(self) -> Float[Tensor, "n height width"]:
        """(n, height, width) in [0, 1]."""
        ...

    def on(self, background: float) -> Float[Tensor, "n 3 height width"]:
        """(n, 3, height, width) before a grey."""
        ...


def mesh_metrics(
    render_mesh: Callable[[Cameras, int], Pictures],
    render_asset: Callable[[Cameras, int], Pictures],
    truth: GroundTruth,
    size: int,
) -> dict[str, float]:
    """Figures as in `DEFINITIONS`; those against truth only where it is known.

    Args:
        render_mesh: pictures of the file that people get, unlit.
        render_asset: pictures of the asset.
        truth: of which true views are rendered.
        size: of the pictures, in pixels per side.
    """
    cameras = turntable_cameras()
    mesh, asset = render_mesh(cameras, size), render_asset(cameras, size)
    both = [psnr(_views(mesh, grey), _views(asset, grey)).mean() for grey in (WHITE, BLACK)]
    own, white = _views(asset, WHITE), _views(mesh, WHITE)
    found = {"mesh/field_psnr": sum(both) / len(both), "mesh/field_iou": mask_iou(white, own).mean()}
    if truth.known:
        true, black = true_views(truth, cameras, size), _views(mesh, BLACK)
        true_black = Views((true.images - (1 - true.masks)[:, None]).clamp(0, 1), true.masks)
        found |= {
            "mesh/psnr": psnr(white, true).mean(),
            "mesh/psnr_fg": psnr_fg(white, true).nanmean(),
            "mesh/mask_iou": mask_iou(white, true).mean(),
            "mesh/black/psnr": psnr(black, true_black).mean(),
            "mesh/black/psnr_fg": psnr_fg(black, true_black).nanmean(),
        }
    return {name: float(value) for name, value in found.items()}


def _views(pictures: Pictures, background: float) -> Views:
    return Views(pictures.on(background), pictures.opacity)
