"""Cameras of photos taken anyhow, against the cameras from which they were truly rendered."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.photo_cameras import relative_errors
from dreambooth3d.artifacts import FRAME_FACTS, SubjectPhotos
from dreambooth3d.cameras import Cameras, wrap_degrees
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.evaluation.clip import scorer_ref
from dreambooth3d.masks import unsure_regions
from dreambooth3d.nerf.photo_cameras.targets import TargetViews
from dreambooth3d.photos.cameras import locate as locating
from dreambooth3d.photos.cameras import search
from dreambooth3d.photos.cameras.centred import CentredPhotos
from dreambooth3d.photos.cameras.coherence import Coherence
from dreambooth3d.photos.cameras.extent import subject_middle
from dreambooth3d.photos.cameras.focal import focal_lengths
from dreambooth3d.photos.cameras.locate import (
    LEFT_OUT,
    NO_MASK,
    TOO_FEW,
    LocatedPhotos,
    locate,
    locate_photos,
    span_deg,
)
from dreambooth3d.photos.cameras.placement import PlacedCameras, fitting_fov_y_deg, placed_cameras, rectify
from dreambooth3d.photos.cameras.prior import FOLDER, view_prior, views_digest
from dreambooth3d.photos.cameras.search import assumed_fov_y_deg
from dreambooth3d.photos.cameras.starts import STEP_DEG, ViewPrior, azimuth_starts
from dreambooth3d.photos.models import photo_models
from dreambooth3d.photos.networks import weights
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from dreambooth3d.stages import validate_photos
from dreambooth3d.toybox.packing import pack_scenes
from dreambooth3d.toybox.recipes import Recipe
from dreambooth3d.toybox.render import Light, _shade_rays
from dreambooth3d.toybox.subjects import DEVELOPMENT_SUBJECTS, write_subject

SIZE = 96
BACKGROUND = torch.tensor([0.5, 0.7, 0.6])
TRUE = PlacedCameras(
    Cameras(
        torch.tensor([-46.0, 4.0, 53.0, -97.0, 168.0]),
        torch.tensor([12.0, 25.0, 8.0, 30.0, 18.0]),
        torch.tensor([3.0, 3.3, 3.1, 3.2, 2.9]),
        torch.full((5,), 50.0),
    ),
    torch.tensor([5.0, -8.0, 3.0, 0.0, -4.0]),
    torch.tensor([[0.15, -0.1], [-0.2, 0.05], [0.1, 0.2], [0.0, -0.2], [-0.1, 0.1]]),
)

FEW = {
    "STARTS": 48,
    "OUTLINE_ROUNDS": ((16, 15, 48, 16, 3.0), (8, 30, 48, 20, 3.0)),
    "FIELD_ROUNDS": ((3, 30, 2.0),),
    "HELD_OUT_STEPS": 30,
}


def shoot(recipe: Recipe, placed: PlacedCameras, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Photos (n, 3, size, size) and masks (n, size, size) by cameras that roll and look past the subject.

    The rotation is built from the angle and the axis, not as in the library.
    """
    cameras = placed.cameras
    fine = 3 * size
    along = (torch.arange(fine) + 0.5) * 2 / fine - 1
    images, masks = [], []
    scene, light = pack_scenes([recipe]), Light.default()
    for index, pose in enumerate(cameras.camera_to_world):
        half = math.tan(math.radians(cameras.fov_y_deg[index].item()) / 2)
        y, x = torch.meshgrid(-along, along, indexing="ij")
        local = normalize(torch.stack([x * half, y * half, torch.full_like(x, -1.0)], dim=-1), dim=-1).view(-1, 3)
        local = local @ upright_from_photo(placed, index).T
        directions = (local @ pose[:3, :3].T)[None]
        origins = pose[:3, 3].expand_as(directions)
        with torch.no_grad():
            color, _, hit = _shade_rays(scene, origins, directions, light, True)
        shown = torch.where(hit[..., None], color, BACKGROUND)[0].T.view(3, size, 3, size, 3)
        images.append(shown.mean(dim=(2, 4)))
        masks.append(hit.float().view(size, 3, size, 3).mean(dim=(1, 3)))
    return torch.stack(images), torch.stack(masks)


def upright_from_photo(placed: PlacedCameras, index: int) -> Tensor:
    """(3, 3): first right and left until the centre is ahead, then up and down, then about the axis."""
    half = math.tan(math.radians(placed.cameras.fov_y_deg[index].item()) / 2)
    x, y = (placed.centre[index] * half).tolist()
    yaw, pitch, roll = math.atan(x), -math.atan(y / math.hypot(1, x)), math.radians(placed.roll_deg[index].item())
    about = [
        torch.tensor([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]]),
        torch.tensor([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]]),
        torch.tensor([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]]),
    ]
    return about[2] @ about[1] @ about[0]


def ahead(placed: PlacedCameras, fov_y_deg: float) -> PlacedCameras:
    """Upright cameras at the same places that look at the subject."""
    cameras = replace(placed.cameras, fov_y_deg=torch.full_like(placed.roll_deg, fov_y_deg))
    return PlacedCameras(cameras, torch.zeros_like(placed.roll_deg), torch.zeros_like(placed.centre))


def masked(images: Tensor, masks: Tensor, facts: pd.DataFrame, trusted: list[bool] | None = None) -> SubjectPhotos:
    """A photo set whose masks the photographer has brought."""
    size = images.shape[-1]
    facts = facts.assign(width=size, height=size, mask_source="files", mask_confidence=1.0, mask_cut=0.0)
    facts = facts.assign(mask_trusted=trusted or [True] * len(images))
    return SubjectPhotos(tuple(images), facts, (), "it", "sks", "rabbit", "", "untracked:0", masks=tuple(masks))


def photo_set(images: Tensor, masks: Tensor, placed: PlacedCameras) -> SubjectPhotos:
    facts = pd.DataFrame({"file": [f"{index}.png" for index in range(len(images))]}).assign(**placed.columns())
    return masked(images, masks, facts)


@pytest.fixture(scope="module")
def bunny() -> tuple[Tensor, Tensor]:
    return shoot(DEVELOPMENT_SUBJECTS["bunny"], TRUE)


def test_a_rectified_photo_is_what_an_upright_camera_would_have_taken(bunny: tuple[Tensor, Tensor]) -> None:
    images, masks = bunny
    turned, known = rectify(torch.cat([images, masks[:, None]], 1), TRUE, 40.0, 48)
    image, mask = shoot(DEVELOPMENT_SUBJECTS["bunny"], ahead(TRUE, 40.0), 48)
    inside = known > 0.99
    assert ((turned[:, 3] - mask).abs() * inside).mean() < 0.007
    assert ((turned[:, :3] - image).abs().mean(1) * inside).mean() < 0.006
    wrong = rectify(images, replace(TRUE, roll_deg=-TRUE.roll_deg), 40.0, 48)[0]
    assert ((wrong - image).abs().mean(1) * inside).mean() > 0.012


def test_beyond_the_frame_nothing_is_known() -> None:
    placed = replace(TRUE, centre=torch.tensor([[0.9, 0.0]]).repeat(5, 1), roll_deg=torch.zeros(5))
    _, known = rectify(torch.zeros(5, 1, 32, 32), placed, 50.0, 32)
    assert known[:, 16, 4].eq(1).all() and known[:, 16, 28].eq(0).all()


def test_true_cameras_make_silhouettes_coherent_and_a_wrong_one_does_not(bunny: tuple[Tensor, Tensor]) -> None:
    """The unknowns of the search are those of the renderer: turned frames, roll and all."""
    photos = CentredPhotos.of(*bunny, TRUE.cameras.fov_y_deg)
    problem = Coherence(photos)
    true = problem.neutral(TRUE.cameras.azimuth_deg[None])
    whole = TRUE.to_upright @ photos.rotation.mT
    backward = -whole.mT[:, :, 2]
    yaw = torch.rad2deg(torch.atan2(backward[:, 0], -backward[:, 2]))
    pitch = -torch.rad2deg(torch.asin(backward[:, 1]))
    true[1], true[2], true[3], true[4] = TRUE.cameras.elevation_deg, TRUE.roll_deg, yaw, pitch
    true[5] = TRUE.cameras.distance.log() - problem.log_distance
    scale = true[5].mean()
    assert true[5].sub(scale).abs().max() < 0.15, "distances are guessed well"
    true[5] -= scale
    pixels = problem.pixels(200, torch.Generator().manual_seed(0))
    wrong = true.clone()
    wrong[0, 0, 2] += 60
    least = problem.miss(true, pixels, 48).mean()
    assert least < 2e-3 and problem.miss(wrong, pixels, 48).mean() > 2 * least


def test_search_finds_cameras_that_roll_and_look_past_the_subject(bunny: tuple[Tensor, Tensor]) -> None:
    located = locate(*bunny, torch.ones(5, dtype=torch.bool), TRUE.cameras.fov_y_deg)
    assert located.reasons == ("",) * 5
    found = located.placed
    off = relative_errors(found.cameras.azimuth_deg, TRUE.cameras.azimuth_deg)
    assert off.median() < 8 and off.max() < 20, off
    assert (found.cameras.elevation_deg - TRUE.cameras.elevation_deg).abs().max() < 12
    assert (found.roll_deg - TRUE.roll_deg).abs().max() < 7
    assert (found.centre - TRUE.centre).abs().max() < 0.1


def test_located_photos_carry_their_cameras_and_the_reason_where_there_are_none(
    bunny: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in FEW.items():
        monkeypatch.setattr(search, name, value)
    images, masks = bunny
    facts = pd.DataFrame({"file": [f"{index}.png" for index in range(5)], "focal_length_35mm": [38.6] * 5})
    off_front = wrap_degrees(TRUE.cameras.azimuth_deg).abs() + torch.tensor([18.0, 5.0, -12.0, -10.0, -6.0])
    facts = facts.assign(view="side", off_front_deg=off_front.tolist())
    photos = masked(images, masks, facts, [True, True, False, True, True])
    located = locate_photos(photos)
    assert locate_photos(photos).facts.equals(located.facts), "twice the same"
    placed = placed_cameras(located)
    assert placed.cameras.azimuth_deg.isnan().tolist() == [False, False, True, False, False]
    assert located.findings == (f"2.png: is no target, since {NO_MASK}.",)
    kept = torch.tensor([0, 1, 3, 4])
    assert wrap_degrees(placed.cameras.azimuth_deg - TRUE.cameras.azimuth_deg)[kept].abs().max() < 35
    assert placed.cameras.fov_y_deg[0].item() == pytest.approx(50.0, abs=0.1), "as the focal length says"
    targets = TargetViews.of_photos(located, 32, torch.device("cpu"))
    assert torch.equal(targets.cameras.azimuth_deg, placed.cameras.azimuth_deg[kept])


def test_photos_beyond_the_first_few_are_located_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FEW.items():
        monkeypatch.setattr(search, name, value)
    azimuth = torch.tensor([-150.0, -100.0, -46.0, 4.0, 53.0, 100.0, 140.0, -120.0])
    full = torch.ones(len(azimuth))
    elevation = 18 + torch.arange(len(azimuth)).float()
    placed = PlacedCameras(Cameras(azimuth, elevation, 3.1 * full, 50 * full), 0 * full, torch.zeros(len(azimuth), 2))
    images, masks = shoot(DEVELOPMENT_SUBJECTS["bunny"], placed)
    located = locate(images, masks, full > 0, placed.cameras.fov_y_deg)
    assert len(azimuth) > search.CORE_PHOTOS and located.reasons == ("",) * len(azimuth)
    assert relative_errors(located.placed.cameras.azimuth_deg, azimuth).max() < 10


def test_too_few_masks_locate_nothing_and_say_so(bunny: tuple[Tensor, Tensor]) -> None:
    located = locate(*bunny, torch.tensor([True, False, False, True, False]), TRUE.cameras.fov_y_deg)
    assert located.reasons == (TOO_FEW, NO_MASK, NO_MASK, TOO_FEW, NO_MASK)
    assert located.placed.cameras.azimuth_deg.isnan().all()


def test_photos_that_look_at_one_point_are_placed_around_it() -> None:
    """Whatever the search took for the subject's centre, places and directions in the world stay as they are."""
    straight = ahead(TRUE, 50.0)
    pose = straight.cameras.camera_to_world
    off = straight._around(pose[:, :3, :3], pose[:, :3, 3] - torch.tensor([0.1, -0.05, 0.2]))
    assert off.centre.abs().max() > 0.1
    back = off.around_common_point()
    torch.testing.assert_close(back.cameras.azimuth_deg, TRUE.cameras.azimuth_deg, atol=1e-2, rtol=0)
    torch.testing.assert_close(back.cameras.distance, TRUE.cameras.distance, atol=1e-3, rtol=0)
    assert back.centre.abs().max() < 1e-3 and back.roll_deg.abs().max() < 1e-2
    assert TRUE.around_common_point() is TRUE, "these look past it in all directions"


def tilted(placed: PlacedCameras, degrees: float) -> PlacedCameras:
    """The cameras in a world that is turned about the axis x: the rotation is written out here."""
    a = math.radians(degrees)
    turn = torch.tensor(
        [[1.0, 0.0, 0.0], [0.0, math.cos(a), -math.sin(a)], [0.0, math.sin(a), math.cos(a)]], dtype=torch.float32
    )
    pose = placed.cameras.camera_to_world
    return placed._around(turn @ pose[:, :3, :3] @ placed.to_upright, pose[:, :3, 3] @ turn.T)


def test_cameras_that_were_held_level_say_which_way_is_up() -> None:
    level = replace(TRUE, roll_deg=torch.zeros(5))
    leaning = tilted(level, 7.0)
    assert leaning.roll_deg.abs().max() > 4
    assert (leaning.cameras.elevation_deg - TRUE.cameras.elevation_deg).abs().max() > 4
    found = leaning.levelled()
    assert found.roll_deg.abs().max() < 0.1
    torch.testing.assert_close(found.cameras.elevation_deg, TRUE.cameras.elevation_deg, atol=0.1, rtol=0)
    torch.testing.assert_close(found.centre, TRUE.centre, atol=1e-3, rtol=0)
    # Of cameras that roll this way and that, most of the tilt is told.
    rolling = tilted(TRUE, 10.0).levelled()
    assert (rolling.cameras.elevation_deg - TRUE.cameras.elevation_deg).abs().max() < 6


def test_nearly_upright_cameras_become_upright_ones_that_see_the_subject_as_large() -> None:
    near = PlacedCameras(TRUE.cameras, torch.full((5,), 1.5), 0.01 * torch.ones(5, 2))
    simple = near.simplified()
    assert simple.upright and not near.upright
    size = [each.distance * torch.tan(torch.deg2rad(each.fov_y_deg) / 2) for each in (near.cameras, simple.cameras)]
    torch.testing.assert_close(*size)
    assert TRUE.simplified() is TRUE


def test_a_photo_of_another_thing_is_left_out(bunny: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FEW.items():
        monkeypatch.setattr(search, name, value)
    images, masks = (values.clone() for values in bunny)
    other = shoot(DEVELOPMENT_SUBJECTS["taxi"], TRUE[torch.tensor([2])])
    images[2], masks[2] = other[0][0], other[1][0]
    located = locate(images, masks, torch.ones(5, dtype=torch.bool), TRUE.cameras.fov_y_deg)
    assert located.reasons[2] == LEFT_OUT and located.placed.cameras.azimuth_deg[2].isnan()
    kept = torch.tensor([0, 1, 3, 4])
    off = relative_errors(located.placed.cameras.azimuth_deg[kept], TRUE.cameras.azimuth_deg[kept])
    assert (off < 20).sum() >= 3, "few starts do not find all of them"


def test_what_is_known_of_pairs_brings_its_azimuths_forward() -> None:
    """Balls look alike from all sides: without a prior, nothing tells the true azimuths from any others."""
    y, x = torch.meshgrid(torch.linspace(1, -1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    ball = ((x.square() + y.square()) < 0.3).float().expand(4, 64, 64)
    photos = CentredPhotos.of(ball[:, None].repeat(1, 3, 1, 1) * 0.5, ball, torch.full((4,), 45.0))
    azimuth = torch.tensor([0.0, 60.0, 140.0, 260.0])
    probable = torch.full((4, 4, 36), -6.0)
    for own in range(4):
        for other in range(4):
            probable[own, other, int((azimuth[other] - azimuth[own]) % 360 // 10)] = -0.1
    prior = ViewPrior(probable, torch.zeros(4, 36), torch.full((4,), 15.0))
    starts = azimuth_starts(photos, 5, torch.Generator().manual_seed(0), prior)
    assert wrap_degrees(starts[0] - azimuth).abs().max() <= STEP_DEG / 2
    plain = azimuth_starts(photos, 5, torch.Generator().manual_seed(0))
    assert wrap_degrees(plain[0] - azimuth).abs().max() > STEP_DEG


def test_a_scorer_s_angles_off_the_front_speak_for_the_azimuths_that_have_them() -> None:
    """Whatever the heading, and whichever way round: it does not tell left from right."""
    azimuth = torch.tensor([-47.0, -3.0, 24.0, 74.0, 162.0])
    even = ViewPrior(torch.zeros(5, 5, 36), torch.zeros(5, 36), torch.full((5,), 18.0))
    prior = replace(even, off_front_deg=azimuth.abs())
    others = azimuth + torch.tensor([0.0, 0.0, 0.0, 40.0, -40.0])
    told = prior.energy(torch.stack([azimuth, azimuth + 130, -azimuth, others]))
    assert told[:3].max() < 0.1
    assert told[3] > told[:3].max() + 0.5
    assert even.energy(azimuth[None]) == pytest.approx(0.0)
    same_side = replace(even, off_front_deg=torch.tensor([19.0, 18, 14, 29, 11]))
    assert same_side.energy(azimuth[None]) == pytest.approx(0.0), "a scorer that sees one side only has no opinion"
    assert prior[[1, 3]].off_front_deg.tolist() == [3.0, 74.0]


def test_what_a_scorer_says_of_a_grid_is_what_it_says_of_each_of_its_sets() -> None:
    off_front = torch.tensor([40.0, 5.0, 90.0, 150.0])
    prior = ViewPrior(torch.zeros(4, 4, 36), torch.zeros(4, 36), torch.full((4,), 18.0), off_front)
    angles = torch.arange(0, 360, 20.0)
    on_grid = [torch.zeros(1, 1, 1), angles.view(-1, 1, 1), angles.view(1, -1, 1), angles.view(1, 1, -1)]
    sets = torch.cat([torch.zeros(18**3, 1), torch.cartesian_prod(angles, angles, angles)], dim=1)
    torch.testing.assert_close(prior.scorer_energy(on_grid).flatten(), prior.energy(sets), atol=1e-5, rtol=1e-5)


def test_of_photos_that_were_not_looked_at_nothing_is_known() -> None:
    generator = torch.Generator().manual_seed(0)
    prior = ViewPrior(
        torch.randn(2, 2, 36, generator=generator).log_softmax(-1),
        torch.randn(2, 36, generator=generator).log_softmax(-1),
        torch.tensor([3.0, 40.0]),
    )
    spread = prior.among(4, [3, 1])
    torch.testing.assert_close(spread[[3, 1]].pairs, prior.pairs)
    torch.testing.assert_close(spread[[3, 1]].elevation_deg, prior.elevation_deg)
    azimuth = torch.tensor([[0.0, 70.0, 140.0, 250.0], [90.0, 70.0, -100.0, 250.0]])
    assert spread.energy(azimuth)[0] == pytest.approx(spread.energy(azimuth)[1].item()), "only 1 and 3 are known"
    assert spread.facing(azimuth)[0] == pytest.approx(spread.facing(azimuth)[1].item())


def test_the_front_is_where_the_photos_azimuths_are_likeliest(
    bunny: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The front is put where it is not, so that nothing else can have turned the cameras there."""
    around = torch.ones(5, 24).index_fill(1, torch.tensor([0]), 0.0)
    found = search.FoundCameras(TRUE, torch.zeros(5), TRUE.cameras.azimuth_deg[None], torch.ones(1), around)
    monkeypatch.setattr(locating, "find_cameras", lambda *_, **__: found)
    front = torch.full((5, 36), -8.0)
    for row, azimuth in enumerate(TRUE.cameras.azimuth_deg + 120):
        front[row, round(azimuth.item() % 360 / 10) % 36] = 0.0
    prior = ViewPrior(torch.zeros(5, 5, 36), front, torch.full((5,), 18.0))
    off_front = TRUE.cameras.azimuth_deg.abs()
    fov = TRUE.cameras.fov_y_deg
    turned = locate(*bunny, torch.ones(5, dtype=torch.bool), fov, off_front, prior).placed.cameras.azimuth_deg
    assert wrap_degrees(turned - TRUE.cameras.azimuth_deg - 120).abs().max() <= 6
    even = replace(prior, front=torch.zeros(5, 36))
    turned = locate(*bunny, torch.ones(5, dtype=torch.bool), fov, off_front, even).placed.cameras.azimuth_deg
    assert wrap_degrees(turned - TRUE.cameras.azimuth_deg).abs().max() <= 6, "where it says nothing, the scorer does"


@pytest.mark.parametrize("name", ["bunny", "taxi", "shuttle"])
def test_the_bundled_network_knows_the_front_and_whose_weights_it_has(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    photos = masked(*shoot(DEVELOPMENT_SUBJECTS[name], TRUE), pd.DataFrame({"file": list("abcde")}))
    prior = view_prior(photos, views_digest())
    turns = torch.arange(-180, 180, 5.0)
    likely = prior.facing(TRUE.cameras.azimuth_deg + turns[:, None])
    assert abs(turns[likely.argmax()].item()) <= 15
    assert (prior.elevation_deg - TRUE.cameras.elevation_deg).abs().median() < 15
    assert view_prior(photos, "") is None
    with pytest.raises(ConfigError, match="has changed since the run was started"):
        view_prior(photos, "sha256:0")
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(weights, "repository", lambda: tmp_path)
        assert views_digest() == ""
        with pytest.raises(ConfigError, match="is not here. Restore it"):
            view_prior(photos, "sha256:0")
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "model.safetensors").write_bytes(b"other")
    assert photo_models(PhotosConfig()).views == f"sha256:{hashlib.sha256(b'other').hexdigest()}"


def test_photos_from_one_side_are_said_to_be_so(bunny: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    facts = pd.DataFrame({"file": [f"{index}.png" for index in range(5)]})
    photos = masked(*bunny, facts)

    def findings(azimuth: list[float]) -> tuple[str, ...]:
        cameras = replace(TRUE.cameras, azimuth_deg=torch.tensor(azimuth))
        found = LocatedPhotos(replace(TRUE, cameras=cameras), ("",) * 5)
        monkeypatch.setattr(locating, "locate", lambda *_: found)
        return locate_photos(photos).findings

    (said,) = findings([170.0, -175.0, 175.0, -150.0, 180.0])
    assert "All photos show the subject from one side" in said and "within 40 degrees" in said
    assert findings([-40.0, 0.0, 40.0, 20.0, 10.0]) == ()
    assert span_deg(torch.tensor([0.0, 120.0, 240.0])) == pytest.approx(240)


def test_targets_are_rectified_photos_with_their_cameras(bunny: tuple[Tensor, Tensor]) -> None:
    images, masks = bunny
    photos = photo_set(images, masks, TRUE)
    assert torch.allclose(placed_cameras(photos).centre, TRUE.centre, atol=1e-4)
    targets = TargetViews.of_photos(photos, 48, torch.device("cpu"))
    fov = fitting_fov_y_deg(masks, TRUE)
    assert targets.cameras.fov_y_deg.eq(targets.cameras.fov_y_deg[0]).all()
    assert abs(targets.cameras.fov_y_deg[0].item() - fov) < 1.5
    _, mask = shoot(DEVELOPMENT_SUBJECTS["bunny"], ahead(TRUE, targets.cameras.fov_y_deg[0].item()), 48)
    assert (targets.masks - mask).abs().mean() < 0.022
    plain = replace(photos, facts=photos.facts.drop(columns=list(FRAME_FACTS)))
    assert (TargetViews.of_photos(plain, 48, torch.device("cpu")).masks - mask).abs().mean() > 0.06
    assert torch.equal(targets.cameras.azimuth_deg, TRUE.cameras.azimuth_deg)


def test_a_focal_length_gives_the_field_of_view() -> None:
    assert assumed_fov_y_deg(50.0) == pytest.approx(39.6, abs=0.05), "of a photo's longer side, by any table of lenses"
    assert 40 <= assumed_fov_y_deg(None) <= 60 and assumed_fov_y_deg(math.nan) == assumed_fov_y_deg(None)


def test_focal_lengths_are_read_unless_the_photo_was_cut(tmp_path: Path) -> None:
    def save(name: str, taken: tuple[int, int] | None) -> None:
        exif = Image.Exif()
        inside = exif.get_ifd(ExifTags.IFD.Exif)
        if taken is not None:
            inside[ExifTags.Base.FocalLengthIn35mmFilm] = 26
            inside[ExifTags.Base.ExifImageWidth], inside[ExifTags.Base.ExifImageHeight] = taken
        Image.new("RGB", (60, 80)).save(tmp_path / name, exif=exif)

    save("a_whole.jpg", (4000, 3000))
    save("b_cut.jpg", (4000, 2250))
    save("c_plain.jpg", None)
    assert focal_lengths(tmp_path) == pytest.approx([26.0, math.nan, math.nan], nan_ok=True)


def cuboid_masks(placed: PlacedCameras, low: Tensor, high: Tensor, size: int = 128) -> Tensor:
    """(n, size, size) where a box from `low` (3,) to `high` (3,) hides the background, by the slabs its rays cross."""
    pose = placed.cameras.camera_to_world
    rotation, position = pose[:, :3, :3] @ placed.to_upright, pose[:, :3, 3]
    along = (torch.arange(size) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(-along, along, indexing="ij")
    half = torch.tan(torch.deg2rad(placed.cameras.fov_y_deg) / 2)[:, None, None]
    local = torch.stack([x * half, y * half, torch.full_like(x * half, -1.0)], dim=-1)
    directions = torch.einsum("nhwi,nji->nhwj", local, rotation)
    near, far = ((side - position[:, None, None]) / directions for side in (low, high))
    enters, leaves = torch.minimum(near, far).amax(-1), torch.maximum(near, far).amin(-1)
    return (enters < leaves).float()


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (0.2, -0.1, 0.15)])
def test_the_middle_of_a_subject_is_that_of_its_box_although_nobody_saw_it_from_below(shift: tuple) -> None:
    low, high = torch.tensor([-0.5, -0.3, -0.4]), torch.tensor([0.3, 0.3, 0.2])
    centre = torch.zeros_like(TRUE.centre)
    placed = replace(TRUE, centre=centre).around((low + high) / 2)
    shifted = placed.around(torch.tensor(shift))
    masks = cuboid_masks(placed, low - (low + high) / 2, high - (low + high) / 2)
    found = subject_middle(shifted, masks) + torch.tensor(shift)
    assert found.abs().max() < 0.05


def test_a_subject_of_which_nothing_is_left_stays_where_it_is() -> None:
    assert torch.equal(subject_middle(TRUE, torch.zeros(5, 32, 32)), torch.zeros(3))


TOLD_AROUND = torch.ones(5, 24).index_fill(1, torch.tensor([0]), 0.0)
"""No photo fits elsewhere."""


def painted_ball(paint: Callable[[Tensor, Tensor], Tensor], azimuth_deg: Tensor, size: int = 96) -> CentredPhotos:
    """Photos from level cameras of a ball whose colour (..., 3) is a function of longitude in radians and height."""
    along = (torch.arange(size) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(-along, along, indexing="ij")
    images, masks = [], []
    for azimuth in torch.deg2rad(azimuth_deg):
        toward = torch.tensor([azimuth.cos(), azimuth.sin(), 0.0])
        right = torch.tensor([-azimuth.sin(), azimuth.cos(), 0.0])
        up = torch.tensor([0.0, 0.0, 1.0])
        ray = normalize(0.4 * x[..., None] * right + 0.4 * y[..., None] * up - toward, dim=-1)
        # From 3 away, a ball of radius 0.8: the nearer root of |3 toward + t ray| = 0.8.
        middle = -3 * (ray * toward).sum(-1)
        root = middle.square() - 9 + 0.64
        place = 3 * toward + (middle - root.clamp(min=0).sqrt())[..., None] * ray
        color = paint(torch.atan2(place[..., 1], place[..., 0]), place[..., 2])
        hit = (root > 0).float()
        images.append((color * hit[..., None]).permute(2, 0, 1))
        masks.append(hit)
    full = torch.full_like(azimuth_deg, 2 * math.degrees(math.atan(0.4)))
    return CentredPhotos.of(torch.stack(images), torch.stack(masks), full)


AROUND_BALL = torch.tensor([0.0, 50.0, 110.0, 200.0])


def by_height(longitude: Tensor, height: Tensor) -> Tensor:
    red = (height > 0.2).float()
    return torch.stack([0.2 + 0.7 * red, torch.full_like(red, 0.3), 0.9 - 0.7 * red], dim=-1)


def by_longitude(longitude: Tensor, height: Tensor) -> Tensor:
    phases = torch.tensor([0.0, 2.0, 4.0])
    return 0.5 + 0.45 * torch.cos(longitude[..., None] - phases)


def level_sets(problem: Coherence, azimuth_deg: Tensor) -> Tensor:
    sets = problem.neutral(azimuth_deg)
    sets[1] = 0.0
    return sets


def test_colours_that_are_alike_at_a_height_from_all_sides_speak_for_no_cameras() -> None:
    """A red top and a blue foot are seen together from anywhere, the most by cameras that are all at one place."""
    ball = painted_ball(by_height, AROUND_BALL)
    problem = Coherence(ball)
    sets = level_sets(problem, torch.stack([AROUND_BALL, torch.tensor([0.0, 5.0, -5.0, 10.0])]))
    pixels = problem.pixels(200, torch.Generator().manual_seed(0))
    assert problem.evidence(sets, pixels, 32)[1].min() > -0.02
    striped = Coherence(painted_ball(by_longitude, AROUND_BALL))
    true, crowded = striped.evidence(sets, pixels, 32)[1].tolist()
    assert true < -0.03 and true < crowded


def test_outlines_that_say_nothing_are_ranked_by_colours() -> None:
    problem = Coherence(painted_ball(by_longitude, AROUND_BALL))
    wrong = AROUND_BALL + torch.tensor([0.0, 60.0, 0.0, -60.0])
    true, other = search._outline_score(problem, level_sets(problem, torch.stack([AROUND_BALL, wrong])), None).tolist()
    assert true < other - 0.005


def test_where_a_mask_is_unsure_nothing_is_known() -> None:
    """A bar at the side of a disc, of which a mask says 0.6: neither the middle nor the outlines heed it."""
    along = torch.linspace(-1, 1, 128)
    y, x = torch.meshgrid(-along, along, indexing="ij")
    disc = torch.sigmoid((0.5 - (x.square() + y.square()).sqrt()) * 120)
    bar = (x > 0.3) & (x < 0.6) & (y.abs() < 0.95)
    masks = torch.stack([disc, torch.where(bar & (disc < 0.9), torch.tensor(0.6), disc), 0.6 * (disc > 0.5)])
    unsure = unsure_regions(masks)
    assert not unsure[0].any(), "outlines are soft"
    assert unsure[1][bar & (disc < 0.05)].float().mean() > 0.9 and not unsure[1][x < 0.2].any()
    assert not unsure[2].any(), "nothing would be left"
    photos = CentredPhotos.of(torch.rand(3, 3, 128, 128), masks, torch.full((3,), 45.0))
    torch.testing.assert_close(photos.rotation[1], photos.rotation[0], atol=2e-2, rtol=0)
    torch.testing.assert_close(photos.half_width[1], photos.half_width[0], atol=2e-2, rtol=0)
    beside = photos.depth_inside[:, 8, 50]
    assert beside[0] < 0 < beside[1], "a point there is in no other photo's way"
    pixels = Coherence(photos[[0, 1]]).pixels(400, torch.Generator().manual_seed(0))
    assert pixels[1].norm(dim=-1).max() < 0.85, "and needs no point of its own"


def test_cameras_are_searched_on_the_run_s_device_and_come_back_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The device is one that computes nothing, so that the search can only be asked, not made."""
    write_subject("bunny", tmp_path)
    asked = []

    def found(images: Tensor, masks: Tensor, fov_y_deg: Tensor, prior: ViewPrior, **_: float) -> search.FoundCameras:
        known = (images, masks, fov_y_deg, prior.pairs, prior.front, prior.elevation_deg, prior.off_front_deg)
        asked.extend(values.device.type for values in known)
        return search.FoundCameras(TRUE, torch.zeros(5), TRUE.cameras.azimuth_deg[None], torch.ones(1), TOLD_AROUND)

    monkeypatch.setattr(locating, "find_cameras", found)
    config = PhotosConfig(dir=str(tmp_path / "bunny"))
    selector = scorer_ref("models/selector")
    runtime = Runtime(StepLog("validate_photos"), tmp_path / "work", torch.device("meta"), progress=False)
    photos = validate_photos(runtime, config, "untracked:0", selector, photo_models(config))
    assert asked == ["meta"] * 7
    assert placed_cameras(photos).cameras.azimuth_deg.isfinite().all()


@pytest.mark.gpu
def test_a_gpu_finds_the_cameras_that_a_cpu_finds(bunny: tuple[Tensor, Tensor]) -> None:
    given = (*bunny, torch.ones(5, dtype=torch.bool), TRUE.cameras.fov_y_deg)
    photos = masked(*bunny, pd.DataFrame({"file": list("abcde")}))
    off_front = TRUE.cameras.azimuth_deg.abs()
    prior = view_prior(photos, views_digest())
    started = time.monotonic()
    on_gpu = locate(*given, off_front, prior, torch.device("cuda")).placed
    assert time.monotonic() - started < 30
    on_cpu = locate(*given, off_front, prior).placed
    assert {values.device.type for values in (on_gpu.roll_deg, on_gpu.centre, on_gpu.cameras.azimuth_deg)} == {"cpu"}
    for placed in (on_gpu, on_cpu):
        assert relative_errors(placed.cameras.azimuth_deg, TRUE.cameras.azimuth_deg).max() < 15
    assert wrap_degrees(on_gpu.cameras.azimuth_deg - on_cpu.cameras.azimuth_deg).abs().max() < 15
