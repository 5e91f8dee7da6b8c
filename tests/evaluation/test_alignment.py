"""The alignment of assets that were turned and scaled by known amounts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dreambooth3d.cameras import Cameras, orbit_cameras
from dreambooth3d.evaluation.alignment import Alignment, fit_alignment
from dreambooth3d.evaluation.pixels import Views
from tests.nerf.scenes import BLUE, RED

SIZE = 24
RING = orbit_cameras(torch.arange(0.0, 360.0, 20.0), elevation_deg=40.0)


def ball_at(cameras: Cameras, azimuth_deg: float = 0.0, scale: float = 1.0) -> Views:
    """Two balls beside the axis, red and smaller blue, turned about z and scaled about the origin; exact, on white.

    Depths are along the rays.
    """
    turn = torch.deg2rad(torch.tensor(azimuth_deg))
    ahead = torch.stack([turn.cos(), turn.sin(), torch.tensor(0.0)])
    origins, directions = cameras.rays(SIZE * 3, SIZE * 3)
    nearest, image = torch.full(origins.shape[:-1], float("inf")), torch.ones_like(origins)
    for center, radius, color in ((0.35 * ahead, 0.3, RED), (-0.3 * ahead, 0.2, BLUE)):
        offset = origins - scale * center
        along = (offset * directions).sum(-1)
        inside = along.square() - offset.square().sum(-1) + (scale * radius) ** 2
        depth = torch.where(inside > 0, -along - inside.clamp(min=0).sqrt(), float("inf"))
        image = torch.where((depth < nearest)[..., None], color, image)
        nearest = torch.minimum(nearest, depth)
    hit = nearest.isfinite()

    def small(values: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(values, 3)

    mask = small(hit[:, None].float())[:, 0]
    depth = small(torch.where(hit, nearest, 0.0)[:, None])[:, 0] / mask.clamp(min=1e-6)
    return Views(small(image.permute(0, 3, 1, 2)), mask, depth)


def moved(azimuth_deg: float, scale: float) -> Callable[[Cameras], Views]:
    """Renders the true subject turned by so many degrees and scaled."""
    return lambda cameras: ball_at(cameras, azimuth_deg, scale)


@pytest.mark.parametrize("alignment", [Alignment(35.0, 1.0), Alignment(-110.0, 0.9), Alignment(0.0, 1.2)])
def test_a_moved_asset_looks_as_the_subject_would(alignment: Alignment) -> None:
    """Against the exact picture of the moved subject, depths included, from cameras that see perspective."""
    cameras = orbit_cameras(torch.tensor([-20.0, 70.0, 160.0]), elevation_deg=25.0, distance=2.2)
    views = alignment.views(ball_at, cameras)
    truth = ball_at(cameras, alignment.azimuth_deg, alignment.scale)
    torch.testing.assert_close(views.images, truth.images, atol=1e-3, rtol=0)
    both = (views.masks > 0.99) & (truth.masks > 0.99)
    assert both.sum() > 50
    torch.testing.assert_close(views.depths[both], truth.depths[both], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("azimuth_deg", "scale"), [(0.0, 1.0), (43.0, 1.0), (-128.0, 0.85), (171.0, 1.15)])
def test_turn_and_scale_are_undone(azimuth_deg: float, scale: float) -> None:
    render = moved(azimuth_deg, scale)
    found = fit_alignment(render, render(RING), ball_at(RING), RING)
    off = torch.tensor(found.azimuth_deg + azimuth_deg)
    assert abs(torch.remainder(off + 180, 360) - 180) < 2.5
    assert found.scale * scale == pytest.approx(1, abs=0.02)
    assert -180 <= found.azimuth_deg < 180


def test_the_aligned_error_is_never_larger() -> None:
    """Also for an asset that no turn makes right."""
    truth = ball_at(RING)

    def wrong(cameras: Cameras) -> Views:
        views = ball_at(cameras, 90.0, 1.1)
        return replace(views, images=views.images.flip(1))

    found = fit_alignment(wrong, wrong(RING), truth, RING)
    before, after = ((views.images - truth.images).square().mean() for views in (wrong(RING), found.views(wrong, RING)))
    assert after <= before


def test_what_has_no_side_is_not_turned() -> None:
    """A ball around the origin: only its size is found."""

    def ball(cameras: Cameras, radius: float = 0.5) -> Views:
        origins, directions = cameras.rays(SIZE * 3, SIZE * 3)
        hit = origins.square().sum(-1) - (origins * directions).sum(-1).square() < radius**2
        mask = torch.nn.functional.avg_pool2d(hit[:, None].float(), 3)
        return Views(1 - mask.expand(-1, 3, -1, -1), mask[:, 0])

    found = fit_alignment(ball, ball(RING), ball(RING, 0.6), RING)
    assert found.scale == pytest.approx(1.2, abs=0.02)
    assert found.views(ball, RING).depths is None
