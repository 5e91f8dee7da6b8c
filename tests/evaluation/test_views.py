"""Janus rate and front recall of views with known verdicts."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from dreambooth3d.cameras import VIEW_WORDS, orbit_cameras
from dreambooth3d.evaluation.views import (
    FRONT,
    ViewScores,
    degrees_off_front,
    judge_views,
    judged_cameras,
    name_photo_views,
    verdict,
)
from dreambooth3d.nerf.photo_cameras.poses import MAX_OFF_DEG, SPREAD_DEG
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import DEVELOPMENT_SUBJECTS
from tests.evaluation.stand_ins import ColorScorer, photos_of

CAMERAS = judged_cameras()
TRUE = torch.tensor([VIEW_WORDS.index(word) for word in CAMERAS.view_words()])


def test_cameras_are_the_turntable_and_one_ring():
    assert len(CAMERAS) == 54 and CAMERAS.elevation_deg.unique().tolist() == [15, 40]
    assert "overhead" not in CAMERAS.view_words()


def test_right_names_have_no_janus():
    result = verdict(TRUE, CAMERAS)
    assert (result.accuracy, result.janus_rate, result.front_recall) == (1, 0, 1)


def test_all_fronts_are_full_janus():
    result = verdict(torch.full((54,), FRONT), CAMERAS)
    assert (result.janus_rate, result.front_recall) == (1, 1)
    assert result.accuracy == pytest.approx((TRUE == FRONT).float().mean().item())


def test_bounds_belong_to_their_ranges():
    cameras = orbit_cameras(torch.tensor([0.0, 30.0, 330.0, 31.0, 59.0, 60.0, 300.0, 180.0]))
    judged = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    result = verdict(judged, cameras)
    assert result.front_recall == pytest.approx(2 / 3)
    assert result.janus_rate == pytest.approx(1 / 3)


def test_high_cameras_do_not_count():
    high = orbit_cameras(torch.tensor([0.0, 180.0]), elevation_deg=60.0)
    result = verdict(torch.tensor([0, 0]), high)
    assert result.janus_rate != result.janus_rate, "NaN: no such view"


def test_two_faced_subject_is_caught():
    colors = torch.eye(3)[TRUE]
    colors[VIEW_WORDS.index("back") == TRUE] = torch.eye(3)[FRONT]
    features = ColorScorer().image_features(colors[:, :, None, None].expand(54, 3, 4, 4))
    result = judge_views(features, CAMERAS, "dog", ColorScorer())
    away = CAMERAS.azimuth_deg.sub(180).abs() <= 120
    assert result.front_recall == 1
    assert result.janus_rate == pytest.approx((TRUE == 2).sum().item() / away.sum().item(), abs=1e-6)


def test_photo_views_are_named_as_the_scorer_sees_them() -> None:
    photos = photos_of(*(torch.eye(3)[index][:, None, None].expand(3, 8, 8) for index in (0, 2, 1)))
    facts = pd.DataFrame({"file": ["a.png", "b.png", "c.png"]})
    named = name_photo_views(replace(photos, facts=facts), ColorScorer())
    assert named.views == ("front", "back", "side") and photos.views == ()
    assert list(named.facts["file"]) == list(facts["file"])
    assert named.off_front_deg == pytest.approx((0, 180, 90), abs=1) and photos.off_front_deg == ()


def test_likeness_is_the_mean_cosine_to_the_photos() -> None:
    """The scorer sees one axis per colour, and photos of any size."""
    red, green, blue = (torch.eye(3)[index][:, None, None].expand(3, 8, 8) for index in range(3))
    scores = ViewScores(ColorScorer(), "dog", (red, green[:, :4, :4]))
    likeness = scores.likeness(torch.stack([red, blue, (red + green) / 2]))
    torch.testing.assert_close(likeness, torch.tensor([0.5, 0.0, 0.5**0.5]), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="needs photos"):
        ViewScores(ColorScorer(), "dog").likeness(red[None])


def test_equal_odds_are_borders_between_words() -> None:
    logits = [[5.0, 5, -40, -40], [-40, 5, 5, -40], [50, 0, -50, -50], [-50, 0, 50, -50], [-50, 50, -50, 0]]
    angles = degrees_off_front(torch.tensor(logits))
    torch.testing.assert_close(angles, torch.tensor([45.0, 135, 0, 180, 90]), atol=0.5, rtol=0)


@pytest.mark.parametrize("name", ["cup", "taxi", "android"])
def test_the_selector_estimates_how_far_from_the_front_photos_were_taken(name: str) -> None:
    recipe, cameras = DEVELOPMENT_SUBJECTS[name], orbit_cameras(torch.arange(0.0, 181.0, 20.0))
    images = render_views(recipe, cameras, torch.tensor([0.6, 0.7, 0.6]), 64).image
    estimated = degrees_off_front(ViewScores.load("models/selector", recipe.class_noun)(images))
    off = (estimated - cameras.azimuth_deg).abs()
    assert off.median() < 15
    assert off.max() < SPREAD_DEG + MAX_OFF_DEG, "beyond it a search leaves the true camera out"
