"""Cameras from silhouettes, against the cameras that the silhouettes were truly rendered from."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import Tensor

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.cameras import Cameras, wrap_degrees
from dreambooth3d.nerf.photo_cameras.targets import TargetViews
from dreambooth3d.photos.silhouettes import PHOTO_SIZE, cameras_from_silhouettes, locate_photos
from dreambooth3d.toybox.recipes import Recipe
from dreambooth3d.toybox.render import Render, render_views
from dreambooth3d.toybox.subjects import DEVELOPMENT_SUBJECTS
from tests.photos.photo_sets import masked

TRUE = Cameras(
    torch.tensor([-46.0, 4.0, 33.0, -97.0, 168.0]),
    torch.tensor([12.0, 25.0, 8.0, 30.0, 18.0]),
    torch.tensor([2.35, 2.65, 2.5, 2.6, 2.4]),
    torch.full((5,), 42.0),
)
ESTIMATED_OFF_FRONT = wrap_degrees(TRUE.azimuth_deg).abs() + torch.tensor([18.0, 5.0, -12.0, -10.0, -6.0])
"""As a scorer errs."""
CAN = Recipe("can", "green", "pink", "plain", None, None, 7)


def views(recipe: Recipe, cameras: Cameras = TRUE) -> Render:
    return render_views(recipe, cameras, torch.tensor([0.5, 0.7, 0.6]), PHOTO_SIZE)


def subject_photos(images: Tensor, off_front: Tensor | None = ESTIMATED_OFF_FRONT) -> SubjectPhotos:
    facts = pd.DataFrame({"file": [f"{index}.png" for index in range(len(images))]})
    if off_front is not None:
        facts = facts.assign(view="side", off_front_deg=off_front.tolist())
    return masked(SubjectPhotos(tuple(images), facts, (), "it", "sks", "rabbit", "", "untracked:0"))


@pytest.mark.parametrize("name", ["bunny", "taxi"])
def test_sides_and_angles_are_found_without_any_field(name: str) -> None:
    truth = views(DEVELOPMENT_SUBJECTS[name])
    solved = cameras_from_silhouettes(truth.image, truth.mask.float(), ESTIMATED_OFF_FRONT)
    off = wrap_degrees(solved.cameras.azimuth_deg - TRUE.azimuth_deg)
    assert off.abs().max() < 25, "left and right are told, although the estimates do not know them"
    assert wrap_degrees(off - off.median()).abs().max() < 15, "but for the heading, angles are better than estimated"
    assert (solved.cameras.elevation_deg - TRUE.elevation_deg).abs().max() < 12
    assert solved.told.all() and solved.miss.mean() < 5e-4


def test_a_can_looks_alike_from_all_sides_and_that_is_said() -> None:
    truth = views(CAN)
    solved = cameras_from_silhouettes(truth.image, truth.mask.float(), ESTIMATED_OFF_FRONT)
    assert solved.miss.mean() < 5e-4 and not solved.told.all()


def test_located_photos_carry_their_cameras_to_the_targets() -> None:
    images = views(DEVELOPMENT_SUBJECTS["bunny"]).image
    located = locate_photos(subject_photos(images))
    assert wrap_degrees(located.cameras.azimuth_deg - TRUE.azimuth_deg).abs().max() < 25
    assert locate_photos(subject_photos(images)).facts.equals(located.facts), "twice the same"
    targets = TargetViews.of_photos(located, 32, torch.device("cpu"))
    assert torch.equal(targets.cameras.azimuth_deg, located.cameras.azimuth_deg)
    chosen = targets.where(torch.tensor([False, True, False, False, True]))
    assert torch.equal(chosen.cameras.distance, located.cameras.distance[[1, 4]])


def test_a_photo_without_a_mask_to_trust_stays_unknown_and_the_others_do_not() -> None:
    images = views(DEVELOPMENT_SUBJECTS["bunny"]).image.clone()
    images[2] = torch.rand(images[2].shape, generator=torch.Generator().manual_seed(0))
    cameras = locate_photos(subject_photos(images)).cameras
    assert cameras.azimuth_deg.isnan().tolist() == [False, False, True, False, False]
    assert TargetViews.of_photos(subject_photos(images), 32, torch.device("cpu")).cameras is None


def test_silhouettes_that_do_not_belong_together_locate_nothing() -> None:
    subjects = list(DEVELOPMENT_SUBJECTS.values())[:5]
    mixed = torch.stack([views(recipe).image[index] for index, recipe in enumerate(subjects)])
    assert locate_photos(subject_photos(mixed)).cameras.azimuth_deg.isnan().all()


@pytest.mark.parametrize(("count", "estimates"), [(2, ESTIMATED_OFF_FRONT[:2]), (5, None)])
def test_too_little_to_go_by_locates_nothing(count: int, estimates: Tensor | None) -> None:
    images = views(DEVELOPMENT_SUBJECTS["bunny"]).image[:count]
    assert locate_photos(subject_photos(images, estimates)).cameras.azimuth_deg.isnan().all()
