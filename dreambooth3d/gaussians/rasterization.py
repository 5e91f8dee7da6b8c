"""Images of Gaussians: by gsplat on CUDA where it is installed, else by PyTorch alone."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreambooth3d.cameras import Viewpoints
from dreambooth3d.config.gaussians import Rasterizer
from dreambooth3d.errors import ConfigError
from dreambooth3d.gaussians.compositing import composite, visible_pairs
from dreambooth3d.gaussians.projection import BLUR, NEAR, Ellipses, Splats, project, view_matrices

PAIRS_AT_ONCE = 4_000_000
"""Of a Gaussian and a pixel, for images that are only looked at."""
Watch = Callable[[Tensor, Tensor], None]
"""Called in the backward pass with (v, n) lengths of the gradients of the Gaussians' middles, per half an image height,
and (v, n) whether each is seen."""


@dataclass(frozen=True)
class Raster:
    """Gaussians at p pixels.

    Attributes:
        features: (p, c), weighted by opacity.
        opacity: (p,) in [0, 1].
        depth: (p,) expected distance along the viewing direction in world units; 0 where there is nothing.
    """

    features: Float[Tensor, "p c"]
    opacity: Float[Tensor, " p"]
    depth: Float[Tensor, " p"]

    @staticmethod
    def of(values: Float[Tensor, "p c"], opacity: Float[Tensor, " p"]) -> Raster:
        """From features (p, c) whose last one is the depth, weighted by opacity (p,)."""
        return Raster(values[:, :-1], opacity, values[:, -1] / opacity.clamp(min=1e-6))


def chosen_rasterizer(implementation: Rasterizer, device: torch.device) -> Rasterizer:
    """gsplat or dense.

    Raises:
        ConfigError: gsplat was asked for and cannot be used.
    """
    if implementation == "dense" or (implementation == "auto" and device.type != "cuda"):
        return "dense"
    installed = importlib.util.find_spec("gsplat") is not None
    if implementation == "auto":
        return "gsplat" if installed else "dense"
    if device.type != "cuda":
        raise ConfigError(f"gaussians.implementation: gsplat needs CUDA, not {device.type}. Set it to auto or dense.")
    if not installed:
        raise ConfigError(
            "gaussians.implementation: gsplat is not installed. Install dreambooth3d[gaussians], or set it to auto."
        )
    return "gsplat"


def rasterize(
    splats: Splats,
    cameras: Viewpoints,
    height: int,
    width: int,
    *,
    implementation: Rasterizer,
    places: Int[Tensor, " k"] | None = None,
    watch: Watch | None = None,
) -> Raster:
    """Pixels of v cameras' views, view by view, row by row; differentiable in the Gaussians and in the cameras.

    Args:
        cameras: v, on the Gaussians' device.
        height, width: of a view in pixels.
        implementation: gsplat or dense, as `chosen_rasterizer` says.
        places: (k,) row * width + column of the pixels that are wanted in each view; None for all.
        watch: looks at the gradients of the Gaussians' middles on the image planes.
    """
    matrices = view_matrices(cameras)
    if implementation == "gsplat":
        return _by_gsplat(splats, matrices, height, width, places, watch)
    ellipses = project(splats, matrices, height, width)
    if watch is not None and ellipses.means.requires_grad:
        ellipses.means.register_hook(_watched(watch, ellipses.opacities.detach() > 0, height))
    features = _with_depth(splats, ellipses)
    if places is not None or torch.is_grad_enabled():
        return Raster.of(*composite(ellipses, features, visible_pairs(ellipses, height, width, places)))
    shown = [
        composite(ellipses[view], features[view : view + 1], visible_pairs(ellipses[view], height, width, rows=rows))
        for view in range(len(features))
        for rows in _bands(ellipses[view], height, width)
    ]
    return Raster.of(*(torch.cat(parts) for parts in zip(*shown, strict=True)))


def _with_depth(splats: Splats, ellipses: Ellipses) -> Float[Tensor, "v n c"]:
    features = splats.features.expand(len(ellipses.depths), -1, -1)
    return torch.cat([features, ellipses.depths[..., None]], dim=-1)


def _watched(watch: Watch, seen: Tensor, height: int) -> Callable[[Tensor], None]:
    def look(gradients: Tensor) -> None:
        watch(gradients.norm(dim=-1) * (height / 2), seen)

    return look


def _bands(ellipses: Ellipses, height: int, width: int) -> list[tuple[int, int]]:
    """Rows of one view, in parts of which none has many more than `PAIRS_AT_ONCE` pairs."""
    # No ellipse reaches farther than 3.33 standard deviations, where alpha falls below 1/255 of any opacity.
    across, down = (6.7 * ellipses.spreads[..., axis].sqrt() for axis in (0, 2))
    area = across.clamp(max=width) * down.clamp(max=height) * (ellipses.opacities > 0)
    count = min(height, 1 + int(area.sum().item() / PAIRS_AT_ONCE))
    return [(height * part // count, height * (part + 1) // count) for part in range(count)]


@cache
def _gsplat() -> Any:
    return importlib.import_module("gsplat")


def _by_gsplat(
    splats: Splats,
    matrices: Float[Tensor, "v 4 4"],
    height: int,
    width: int,
    places: Int[Tensor, " k"] | None,
    watch: Watch | None,
) -> Raster:
    """See `rasterize`."""
    focal = height / 2
    intrinsics = torch.tensor(
        [[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]], device=splats.means.device
    )
    values, opacity, found = _gsplat().rasterization(
        splats.means,
        None,
        None,
        splats.opacities,
        splats.features,
        matrices,
        intrinsics.expand(len(matrices), 3, 3),
        width,
        height,
        near_plane=NEAR,
        eps2d=BLUR,
        packed=False,
        render_mode="RGB+D",
        rasterize_mode="antialiased",
        covars=splats.covariances,
    )
    if watch is not None and found["means2d"].requires_grad:
        found["means2d"].register_hook(_watched(watch, (found["radii"] > 0).flatten(2).all(-1), height))
    values, opacity = values.flatten(1, 2), opacity.flatten(1)
    if places is not None:
        values, opacity = values[:, places], opacity[:, places]
    return Raster.of(values.flatten(0, 1), opacity.flatten())
