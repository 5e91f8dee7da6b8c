"""Gaussians as pinhole cameras see them: ellipses on the image plane."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.cameras import Viewpoints

NEAR = 0.01
"""Distance in world units before a camera up to which nothing is seen."""
BLUR = 0.1
"""Variance in square pixels that is added on the image plane, so that none falls between pixels."""
MARGIN = 1.3
"""Beyond so many half image sides from the middle, the slope of the projection is that at the edge."""


@dataclass(frozen=True)
class Splats:
    """Gaussians in the world.

    Attributes:
        means: (n, 3) in world units.
        covariances: (n, 3, 3) in square world units.
        opacities: (n,) in [0, 1], in the middle.
        features: (n, c) colour, or whatever else is to be shown.
    """

    means: Float[Tensor, "n 3"]
    covariances: Float[Tensor, "n 3 3"]
    opacities: Float[Tensor, " n"]
    features: Float[Tensor, "n c"]


@dataclass(frozen=True)
class Ellipses:
    """Gaussians on the image planes of v views.

    Attributes:
        means: (v, n, 2) column and row in pixels, from the image's upper left corner.
        spreads: (v, n, 3) xx, xy, yy of the covariance in square pixels.
        opacities: (v, n) in the middle; 0 of those that are not before the camera.
        depths: (v, n) distance along the viewing direction in world units.
    """

    means: Float[Tensor, "v n 2"]
    spreads: Float[Tensor, "v n 3"]
    opacities: Float[Tensor, "v n"]
    depths: Float[Tensor, "v n"]

    def __getitem__(self, view: int) -> Ellipses:
        """Those of one view, as a batch of one."""
        one = slice(view, view + 1)
        return Ellipses(self.means[one], self.spreads[one], self.opacities[one], self.depths[one])


def view_matrices(cameras: Viewpoints) -> Float[Tensor, "v 4 4"]:
    """(v, 4, 4) world to camera coordinates: right, down and forward.

    Right and down are divided by the tangent of half the field of view, so that x / z = 1 on the right edge of a square
    image: one focal length, half the height in pixels, holds for all cameras, and gradients reach the field of view.
    """
    pose = cameras.camera_to_world
    zoom = 1 / torch.tan(torch.deg2rad(cameras.fov_y_deg) / 2)
    axes = torch.stack([zoom[:, None] * pose[:, :3, 0], -zoom[:, None] * pose[:, :3, 1], -pose[:, :3, 2]], dim=1)
    shift = -(axes @ pose[:, :3, 3:])
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=pose.dtype, device=pose.device).expand(len(pose), 1, 4)
    return torch.cat([torch.cat([axes, shift], dim=2), last], dim=1)


def project(splats: Splats, matrices: Float[Tensor, "v 4 4"], height: int, width: int) -> Ellipses:
    """Gaussians on the image planes of views with `view_matrices` (v, 4, 4).

    What `BLUR` adds to an ellipse's area is taken from its opacity.

    Source: Zwicker et al. 2001, "EWA Volume Splatting", eqs. 23 to 31; for the opacity Yu et al. 2024,
    "Mip-Splatting", eq. 11.
    """
    focal = height / 2
    x, y, depth = (splats.means @ matrices[:, :3, :3].transpose(1, 2) + matrices[:, None, :3, 3]).unbind(-1)
    ahead = depth > NEAR
    near = torch.where(ahead, depth, torch.ones_like(depth))
    means = torch.stack([width / 2 + focal * x / near, height / 2 + focal * y / near], dim=-1)
    slope_x = (x / near).clamp(-MARGIN * width / height, MARGIN * width / height)
    slope_y = (y / near).clamp(-MARGIN, MARGIN)
    axes, scale = matrices[:, None, :3, :3], (focal / near)[..., None]
    right = scale * (axes[:, :, 0] - slope_x[..., None] * axes[:, :, 2])  # (v, n, 3) gradient of the column
    down = scale * (axes[:, :, 1] - slope_y[..., None] * axes[:, :, 2])
    # (v, n, 3): the covariances times the gradients.
    of_right, of_down = ((splats.covariances * side[:, :, None]).sum(-1) for side in (right, down))
    xx, xy, yy = (right * of_right).sum(-1), (right * of_down).sum(-1), (down * of_down).sum(-1)
    sharp = (xx * yy - xy.square()).clamp(min=1e-12)
    blurred = (xx + BLUR) * (yy + BLUR) - xy.square()
    opacities = splats.opacities * (sharp / blurred).sqrt() * ahead
    return Ellipses(means, torch.stack([xx + BLUR, xy, yy + BLUR], dim=-1), opacities, depth)
