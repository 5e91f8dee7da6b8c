"""The heading of a field: the axis of curves with a known one, and the front of true views."""

from __future__ import annotations

import pytest
import torch

from dreambooth3d.cameras import VIEW_WORDS, Cameras, orbit_cameras
from dreambooth3d.evaluation.views import ViewScores
from dreambooth3d.nerf.photo_cameras.heading import AZIMUTHS, ELEVATIONS_DEG, facing_axis, mirror_axis
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import DEVELOPMENT_SUBJECTS


@pytest.mark.parametrize("axis_deg", [-44.0, -17.5, 0.0, 3.0, 30.5])
def test_axis_of_mirrored_curves(axis_deg: float) -> None:
    """Peaked curves, wide and narrow, at 0 and 180 degrees of the axis, and one that knows no sides."""
    angle = torch.deg2rad(torch.arange(AZIMUTHS) * 10.0 - axis_deg)
    front, side, back = (
        9 * torch.exp(3 * (angle.cos() - 1)),
        torch.zeros(AZIMUTHS),
        5 * torch.exp(-9 * (angle.cos() + 1)),
    )
    curves = torch.stack([front, side, back], dim=-1)[None]
    assert mirror_axis(curves) == pytest.approx(axis_deg, abs=0.5)
    noise = torch.randn(curves.shape, generator=torch.Generator().manual_seed(0))
    assert mirror_axis(curves + 0.5 * noise) == pytest.approx(axis_deg, abs=3)


@pytest.mark.parametrize(("name", "front_deg"), [("urn", 15.0), ("taxi", -12.0), ("shuttle", 7.0)])
def test_front_of_true_views(name: str, front_deg: float) -> None:
    recipe = DEVELOPMENT_SUBJECTS[name]
    azimuth = torch.arange(AZIMUTHS) * (360.0 / AZIMUTHS)
    cameras = Cameras.cat([orbit_cameras(azimuth - front_deg, elevation_deg=height) for height in ELEVATIONS_DEG])
    scores = ViewScores.load("models/selector", recipe.class_noun)
    logits = scores(render_views(recipe, cameras, torch.full((3,), 0.7), 64).image)[:, : VIEW_WORDS.index("overhead")]
    assert mirror_axis(logits.view(len(ELEVATIONS_DEG), AZIMUTHS, -1)) == pytest.approx(front_deg, abs=2.5)


@pytest.mark.parametrize(("name", "front_deg"), [("taxi", -100.0), ("android", 170.0), ("bunny", 65.0)])
def test_a_front_is_found_anywhere(name: str, front_deg: float) -> None:
    """Of true views, turned by more than an axis of symmetry could tell."""
    recipe = DEVELOPMENT_SUBJECTS[name]
    azimuth = torch.arange(AZIMUTHS) * (360.0 / AZIMUTHS)
    cameras = Cameras.cat([orbit_cameras(azimuth - front_deg, elevation_deg=height) for height in ELEVATIONS_DEG])
    scores = ViewScores.load("models/selector", recipe.class_noun)
    logits = scores(render_views(recipe, cameras, torch.full((3,), 0.7), 64).image)[:, : VIEW_WORDS.index("overhead")]
    assert facing_axis(logits.view(len(ELEVATIONS_DEG), AZIMUTHS, -1)) == pytest.approx(front_deg, abs=3.0)
