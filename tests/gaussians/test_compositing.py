"""The dense rasteriser against a slow one, against integrals along rays, and against finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dreambooth3d.cameras import Cameras, PosedCameras, orbit_cameras
from dreambooth3d.gaussians.compositing import MAX_ALPHA, MIN_ALPHA, composite, visible_pairs
from dreambooth3d.gaussians.projection import BLUR, Splats, project, view_matrices
from dreambooth3d.gaussians.rasterization import rasterize

VIEWS = replace(orbit_cameras(torch.tensor([20.0, 200.0])), elevation_deg=torch.tensor([15.0, -5.0]))


def some_splats(count: int, spread: float, seed: int = 0) -> Splats:
    """Turned ellipsoids of all shapes, in double precision."""
    draw = torch.Generator().manual_seed(seed)
    means = 0.9 * torch.rand(count, 3, generator=draw, dtype=torch.float64) - 0.45
    axes = spread * (torch.randn(count, 3, 3, generator=draw, dtype=torch.float64) * 0.4 + torch.eye(3))
    opacities = 0.15 + 0.8 * torch.rand(count, generator=draw, dtype=torch.float64)
    colors = torch.rand(count, 3, generator=draw, dtype=torch.float64)
    return Splats(means, axes @ axes.transpose(1, 2), opacities, colors)


def doubled(cameras: Cameras) -> PosedCameras:
    return PosedCameras(cameras.camera_to_world.double(), cameras.fov_y_deg.double())


def slowly(splats: Splats, cameras: PosedCameras, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Colour (v, h, w, 3) and opacity (v, h, w): one Gaussian and one pixel after the other, by NumPy.

    The projection is linearised by finite differences of the pinhole camera itself.
    """
    colors, opacities = np.zeros((len(cameras), height, width, 3)), np.zeros((len(cameras), height, width))
    for view, (pose, fov) in enumerate(zip(cameras.camera_to_world.numpy(), cameras.fov_y_deg.numpy(), strict=True)):
        focal = height / 2 / np.tan(np.radians(fov) / 2)

        def pixel(point: np.ndarray, pose: np.ndarray = pose, focal: float = focal) -> np.ndarray:
            x, y, z = np.linalg.inv(pose)[:3] @ np.append(point, 1.0)
            return np.array([width / 2 - focal * x / z, height / 2 + focal * y / z])

        flat = []
        properties = (splats.means, splats.covariances, splats.opacities, splats.features)
        for mean, covariance, opacity, color in zip(*(values.numpy() for values in properties), strict=True):
            steps = 1e-5 * np.eye(3)
            slope = np.stack([(pixel(mean + step) - pixel(mean - step)) / 2e-5 for step in steps], axis=1)
            sharp = slope @ covariance @ slope.T
            blurred = sharp + BLUR * np.eye(2)
            weaker = opacity * np.sqrt(np.linalg.det(sharp) / np.linalg.det(blurred))
            flat.append(((pose[:3, 3] - mean) @ pose[:3, 2], pixel(mean), np.linalg.inv(blurred), weaker, color))
        for row in range(height):
            for column in range(width):
                seen = 1.0
                for _, middle, inverse, opacity, color in sorted(flat, key=lambda entry: entry[0]):
                    offset = np.array([column + 0.5, row + 0.5]) - middle
                    alpha = min(opacity * np.exp(-offset @ inverse @ offset / 2), MAX_ALPHA)
                    if alpha < MIN_ALPHA:
                        continue
                    colors[view, row, column] += seen * alpha * color
                    seen *= 1 - alpha
                opacities[view, row, column] = 1 - seen
    return colors, opacities


@pytest.mark.parametrize(("height", "width"), [(14, 14), (10, 18)])
def test_images_are_those_of_a_loop_over_pixels_and_gaussians(height: int, width: int) -> None:
    splats, cameras = some_splats(25, 0.08), doubled(VIEWS)
    colors, opacities = slowly(splats, cameras, height, width)
    found = rasterize(splats, cameras, height, width, implementation="dense")
    assert opacities.max() > 0.8 and opacities.min() == 0
    np.testing.assert_allclose(found.features.view(2, height, width, 3).numpy(), colors, atol=1e-6)
    np.testing.assert_allclose(found.opacity.view(2, height, width).numpy(), opacities, atol=1e-6)


def test_one_gaussian_looks_as_its_density_integrated_along_rays() -> None:
    """A small one far from the camera, of which each ray meets as much as the opacity says, at the depth of its middle.

    Its image is as that of the linearised projection to first order only.
    """
    deviation, opacity = 0.12, 0.7
    mean = torch.tensor([0.1, -0.15, 0.05], dtype=torch.float64)
    cameras = doubled(orbit_cameras(torch.tensor([30.0]), distance=8.0, fov_y_deg=12.0))
    one = torch.ones(1, dtype=torch.float64)
    splats = Splats(mean[None], torch.diag(deviation**2 * one.expand(3))[None], opacity * one, one.expand(1, 3))
    size = 48
    found = rasterize(splats, cameras, size, size, implementation="dense")
    origins, directions = (rays.view(-1, 3) for rays in cameras.rays(size, size))
    # What is integrated is the density whose integral through the middle is 1, times the opacity.
    distances = torch.linspace(7.0, 9.0, 800, dtype=torch.float64)
    points = origins[:, None] + distances[:, None] * directions[:, None]
    values = torch.exp(-(points - mean).square().sum(-1) / (2 * deviation**2))
    through = torch.trapezoid(values, distances) / (deviation * (2 * np.pi) ** 0.5)
    torch.testing.assert_close(found.opacity, opacity * through, atol=0.02, rtol=0)
    seen = found.opacity > 0.3
    forward = -cameras.camera_to_world[0, :3, 2]
    expected = (mean - origins[0]) @ forward
    torch.testing.assert_close(found.depth[seen], expected.expand(int(seen.sum())), atol=1e-6, rtol=0)


def test_gradients_are_those_of_finite_differences() -> None:
    """Of all properties and of the cameras, with a weight on each pixel; no pair is left out, so that nothing jumps."""
    splats, cameras = some_splats(7, 0.12, seed=3), doubled(VIEWS)
    weights = torch.rand(2 * 9 * 9, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    axes = torch.linalg.cholesky(splats.covariances)
    inputs = [splats.means, axes, splats.opacities, splats.features, cameras.camera_to_world, cameras.fov_y_deg]
    fixed = visible_pairs(project(splats, view_matrices(cameras), 9, 9), 9, 9, min_alpha=1e-12)

    def shown(means: Tensor, axes: Tensor, opacities: Tensor, features: Tensor, pose: Tensor, fov: Tensor) -> Tensor:
        moved = Splats(means, axes @ axes.transpose(1, 2), opacities, features)
        ellipses = project(moved, view_matrices(PosedCameras(pose, fov)), 9, 9)
        channels = torch.cat([features.expand(2, -1, -1), ellipses.depths[..., None]], dim=-1)
        color, opacity = composite(ellipses, channels, fixed)
        return (torch.cat([color, opacity[:, None]], dim=-1) * weights).sum(dim=0)

    leaves = [value.clone().requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(shown, leaves, atol=1e-5, rtol=1e-4)


def test_wanted_pixels_and_bands_of_rows_are_parts_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    splats, cameras = some_splats(60, 0.06), doubled(VIEWS)
    splats.means.requires_grad_()
    whole = rasterize(splats, cameras, 20, 20, implementation="dense")
    places = torch.tensor([399, 0, 210, 187, 33])
    some = rasterize(splats, cameras, 20, 20, implementation="dense", places=places)
    for part, full in ((some.features, whole.features.view(2, 400, 3)), (some.depth, whole.depth.view(2, 400))):
        torch.testing.assert_close(part, full[:, places].flatten(0, 1), atol=1e-12, rtol=0)
    monkeypatch.setattr("dreambooth3d.gaussians.rasterization.PAIRS_AT_ONCE", 500)
    with torch.no_grad():
        banded = rasterize(splats, cameras, 20, 20, implementation="dense")
    torch.testing.assert_close(banded.features, whole.features.detach(), atol=1e-12, rtol=0)
    torch.testing.assert_close(banded.opacity, whole.opacity.detach(), atol=1e-12, rtol=0)


def test_what_is_behind_the_camera_or_outside_the_frame_is_not_seen() -> None:
    splats, cameras = some_splats(30, 0.06), doubled(VIEWS[:1])
    behind = replace(splats, means=splats.means + 10 * cameras.camera_to_world[0, :3, 3])
    found = rasterize(behind, cameras, 12, 12, implementation="dense")
    assert found.opacity.max() == 0 and found.depth.max() == 0 and found.features.max() == 0
    aside = replace(splats, means=splats.means + 20 * cameras.camera_to_world[0, :3, 0])
    found = rasterize(aside, cameras, 12, 12, implementation="dense")
    assert found.opacity.max() == 0
