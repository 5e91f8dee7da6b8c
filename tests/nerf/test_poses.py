"""Cameras of photos: found again where the truth is known, refused where nothing fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dreambooth3d.cameras import Cameras, wrap_degrees
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.photo_targets import PhotoTargetsConfig
from dreambooth3d.config.rendering import CameraConfig
from dreambooth3d.evaluation.views import ViewScores
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.photo_cameras.photo_targets import PhotoTargets, reported_cameras
from dreambooth3d.nerf.photo_cameras.poses import PhotoCameras, find_cameras, sine_of_outline, usual_scale, view_errors
from dreambooth3d.nerf.photo_cameras.targets import TargetViews
from dreambooth3d.nerf.rendering.sampling import DenseSampler
from dreambooth3d.nerf.rendering.volume import render_images, render_rays
from dreambooth3d.nerf.training.losses import reconstruction
from dreambooth3d.record import StepLog
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import DEVELOPMENT_SUBJECTS

DISTANCE, FOV_Y_DEG = 2.5, 42.0
TRUE = Cameras(
    torch.tensor([-42.0, 4.0, 33.0, 97.0, 171.0]),
    torch.tensor([12.0, 25.0, 8.0, 30.0, 18.0]),
    torch.tensor([2.35, 2.65, 2.5, 2.6, 2.4]),
    torch.full((5,), FOV_Y_DEG),
)


def photos(words: tuple[str, ...] = (), off_front_deg: Tensor | None = None) -> TargetViews:
    images = render_views(DEVELOPMENT_SUBJECTS["android"], TRUE, torch.tensor([0.5, 0.7, 0.6]), 64).image
    return replace(TargetViews.of(images), words=words, off_front_deg=off_front_deg)


@pytest.fixture(scope="module")
def usual() -> dict[str, float]:
    """What a search takes for granted, here as it truly is."""
    outline = sine_of_outline(photos().masks, FOV_Y_DEG)
    return {
        "radius": (outline * TRUE.distance).max().item(),
        "distance": TRUE.distance.mean().item(),
        "fov_y_deg": FOV_Y_DEG,
    }


@pytest.fixture(scope="module")
def searched(robot: Field, usual: dict[str, float]) -> PhotoCameras:
    """What a search without any start finds."""
    return find_cameras(robot, photos(), **usual)


def angles_off(found: Cameras) -> Tensor:
    return torch.stack(
        [wrap_degrees(found.azimuth_deg - TRUE.azimuth_deg).abs(), (found.elevation_deg - TRUE.elevation_deg).abs()]
    )


def test_cameras_of_true_views_are_found_again(searched: PhotoCameras) -> None:
    assert angles_off(searched.cameras).max() < 8
    torch.testing.assert_close(searched.cameras.distance, TRUE.distance, atol=0.12, rtol=0)
    assert searched.found.all() and searched.overlap.min() > 0.75 and searched.margin.min() > 0


def ball_masks(cameras: Cameras, radius: float, size: int = 256) -> Tensor:
    """(n, size, size) where a ball around the origin hides the background."""
    origins, directions = cameras.rays(size, size)
    along = (origins * directions).sum(-1)
    return (origins.square().sum(-1) - along.square() < radius**2).float()


def test_outline_of_a_ball_gives_its_radius() -> None:
    radius = sine_of_outline(ball_masks(TRUE, 0.6), FOV_Y_DEG) * TRUE.distance
    torch.testing.assert_close(radius, torch.full((5,), 0.6), atol=0.01, rtol=0)


def test_the_usual_scale_is_that_of_a_ball_at_its_distances() -> None:
    """The cameras of a ball, told at twice their distances: radius and mean distance decide, fields of view differ."""
    true = replace(TRUE, fov_y_deg=torch.tensor([38.0, 40.0, 42.0, 46.0, 50.0]))
    masks, far = ball_masks(true, 0.6), replace(true, distance=2 * true.distance)
    masks[1:3] = ball_masks(true, 0.3)[1:3]  # a longish subject from its narrow side: the largest outline counts
    mean = true.distance.mean().item()
    for radius, distance, factor in ((0.6, mean, 1.0), (0.6 * 1.44, mean, 1.2), (0.6, mean * 0.81, 0.9)):
        found = usual_scale(far, masks, radius, distance)
        torch.testing.assert_close(found.distance, factor * true.distance, atol=0, rtol=0.01)
        assert torch.equal(found.fov_y_deg, true.fov_y_deg) and torch.equal(found.azimuth_deg, true.azimuth_deg)


def test_errors_of_views_from_their_own_cameras(robot: Field) -> None:
    """Of the field's own renders, whose errors are known: none, a colour that is off, cameras that are off."""
    render = render_images(robot, TRUE, size=48, sampler=DenseSampler(40), background=torch.zeros(3))
    background = torch.full_like(render.color, 0.5)
    shown = (render.color + (1 - render.opacity)[:, None] * background).detach()
    own = TargetViews(shown, TRUE, background, render.opacity.detach(), torch.ones(5))
    error, overlap = view_errors(robot, own)
    assert error.max() < 1e-4 and overlap.min() > 0.9999
    masks = own.masks[:, None]
    error, overlap = view_errors(robot, replace(own, images=shown + 0.25 * masks))
    torch.testing.assert_close(error, torch.full((5,), 0.25), atol=1e-3, rtol=0)
    assert overlap.min() > 0.9999
    half = own.masks * (torch.arange(48) < 24)
    _, overlap = view_errors(robot, replace(own, masks=half))
    torch.testing.assert_close(overlap, half.sum(dim=(1, 2)) / own.masks.sum(dim=(1, 2)), atol=1e-3, rtol=0)
    off = replace(own, cameras=replace(TRUE, azimuth_deg=TRUE.azimuth_deg + 40))
    assert (view_errors(robot, off)[0] > 0.1).all()


def test_the_scale_is_between_what_radius_and_distance_say(robot: Field, usual: dict[str, float]) -> None:
    larger = find_cameras(robot, photos(), **usual | {"radius": 1.21 * usual["radius"]})
    assert larger.cameras.distance.mean().item() == pytest.approx(1.1 * usual["distance"], rel=0.02)


def test_a_second_search_is_no_worse(robot: Field, usual: dict[str, float], searched: PhotoCameras) -> None:
    second = find_cameras(robot, photos(), start=searched.cameras, **usual)
    assert second.error.mean() <= searched.error.mean() + 0.01
    assert angles_off(second.cameras).max() < 8


def test_only_kept_photos_start_from_an_earlier_search(
    robot: Field, usual: dict[str, float], searched: PhotoCameras
) -> None:
    """A start that fits better than any grid point is taken where it is kept, and only there."""
    kept = torch.tensor([True, False, False, False, False])
    mirrored = replace(TRUE, azimuth_deg=-TRUE.azimuth_deg)
    result = find_cameras(robot, photos(), start=mirrored, kept=~kept & kept, **usual)
    assert torch.equal(result.cameras.azimuth_deg, searched.cameras.azimuth_deg)
    result = find_cameras(robot, photos(), start=TRUE, kept=~kept & kept, **usual)
    assert torch.equal(result.cameras.azimuth_deg, searched.cameras.azimuth_deg)
    result = find_cameras(robot, photos(), start=TRUE, **usual)
    assert not torch.equal(result.cameras.azimuth_deg, searched.cameras.azimuth_deg)
    result = find_cameras(robot, photos(), start=TRUE, kept=kept, **usual)
    assert angles_off(result.cameras)[:, 0].max() < 8


def test_estimated_angles_bound_the_search(robot: Field, usual: dict[str, float]) -> None:
    wrong = photos(off_front_deg=torch.tensor([170.0, 150.0, 160.0, 10.0, 20.0]))
    azimuth = wrap_degrees(find_cameras(robot, wrong, **usual).cameras.azimuth_deg).abs()
    assert (azimuth[:3] > 90).all() and (azimuth[3:] < 80).all()


def test_a_photo_from_overhead_is_searched_above(robot: Field, usual: dict[str, float]) -> None:
    words = ("overhead", "", "", "", "")
    elevation = find_cameras(robot, photos(words), **usual).cameras.elevation_deg
    assert elevation[0] > 30 and (elevation[1:] < 45).all()


def test_a_photo_of_something_else_is_not_found(robot: Field, usual: dict[str, float]) -> None:
    image = torch.full((2, 3, 64, 64), 0.6)
    image[:, :, 50:60, 2:12] = 0.0
    views = TargetViews.of(image)
    assert views.trusted.all()
    assert not find_cameras(robot, views, **usual).found.any()


def test_outlines_decide_where_colours_say_nothing(robot: Field, usual: dict[str, float]) -> None:
    """A grey subject before the same grey: by colours alone every camera would be as good as any other."""
    grey = Field.from_state(robot.state(), robot.config.model_dump())
    with torch.no_grad():
        for level in grey.encoding.levels:
            level[:, 1:] = 0
    views = photos()
    flat = torch.full_like(views.images, 0.5)
    views = replace(views, images=flat, background=flat, off_front_deg=wrap_degrees(TRUE.azimuth_deg).abs())
    result = find_cameras(grey, views, **usual)
    assert result.overlap.mean() > 0.9
    off = (wrap_degrees(result.cameras.azimuth_deg).abs() - wrap_degrees(TRUE.azimuth_deg).abs()).abs()
    assert off.mean() < 12, "up to the side, which a robot's outline does not tell"


def test_surest_are_the_least_ambiguous_of_those_found() -> None:
    overlap, margin = torch.tensor([0.9, 0.3, 0.9, 0.9, 0.9]), torch.tensor([1.0, 9.0, 3.0, 0.0, 2.0])
    result = PhotoCameras(TRUE, torch.zeros(5), overlap, margin)
    assert result.found.tolist() == [True, False, True, True, True]
    assert result.surest(2).tolist() == [False, False, True, False, True]
    assert result.surest(5).tolist() == result.found.tolist()


def test_photos_join_one_after_the_other(robot: Field, coarse_searches: None) -> None:
    targets = PhotoTargets(photos(), PhotoTargetsConfig(search_every=0.1, searches_until_all=5), CameraConfig())
    used = []
    for search in range(6):
        targets.follow(robot, search * 0.1 + 0.01)
        used.append(len(targets.found))
    assert used == [1, 2, 3, 4, 5, 5]


def test_photos_are_left_out_in_turn_and_all_used_in_the_end(robot: Field, coarse_searches: None) -> None:
    config = PhotoTargetsConfig(search_every=0.15, searches_until_all=1, hold_out=True)
    targets = PhotoTargets(photos(), config, CameraConfig())
    left_out = []
    for search in range(7):
        targets.follow(robot, search * 0.15 + 0.01)
        left_out += (~targets.used).nonzero()[:, 0].tolist()
        assert targets.complete == (search == 6)
    assert sorted(left_out[:5]) == [0, 1, 2, 3, 4] and len(left_out) == 6, "the seventh search uses all"


def test_cameras_are_not_searched_after_the_configured_end(robot: Field, coarse_searches: None) -> None:
    config = PhotoTargetsConfig(search_every=0.2, search_until=0.4, hold_out=True)
    targets = PhotoTargets(photos(), config, CameraConfig())
    for search in range(5):
        targets.follow(robot, search * 0.2 + 0.01)
    assert targets.searches == 3 and targets.complete
    again = PhotoTargets(photos(), config, CameraConfig())
    again.restore(targets.state())
    assert again.follow(robot, 0.9) == 0 and again.searches == 3


def test_the_most_frontal_photo_stands_for_the_front_until_the_first_search(
    robot: Field, coarse_searches: None
) -> None:
    views = photos(("side", "front", "front", "side", "back"), torch.tensor([40.0, 8.0, 30.0, 95.0, 170.0]))
    config = PhotoTargetsConfig(start=0.5)
    targets = PhotoTargets(views, config, CameraConfig(), fresh=True)
    assert torch.equal(targets.found.images[0], views.images[1]) and len(targets.found) == 1
    assert targets.found.cameras.azimuth_deg.item() == 0 and targets.weight == config.anchor_weight
    targets.follow(robot, 0.5)
    assert len(targets.found) == 5 and targets.weight == 1
    assert PhotoTargets(views, config, CameraConfig()).found is None, "an older field needs no anchor"
    assert PhotoTargets(photos(), config, CameraConfig(), fresh=True).found is None, "nobody has looked at the views"


def located(cameras: Cameras, known: torch.Tensor | None = None) -> TargetViews:
    """The photos with cameras as silhouettes told them, where known."""
    known = torch.ones(5, dtype=torch.bool) if known is None else known
    told = cameras.map(lambda values: values.masked_fill(~known, float("nan")))
    return replace(photos(off_front_deg=wrap_degrees(TRUE.azimuth_deg).abs()), cameras=told)


def test_located_photos_are_used_from_the_first_step_and_never_left_out(robot: Field) -> None:
    config = PhotoTargetsConfig(start=0.3, search_every=0.2, hold_out=True)
    targets = PhotoTargets(located(TRUE), config, CameraConfig(), fresh=True)
    assert len(targets.found) == 5 and targets.weight == 1
    assert torch.equal(targets.found.cameras.azimuth_deg.detach(), TRUE.azimuth_deg)
    for search in range(3):
        targets.follow(robot, 0.3 + 0.2 * search)
        assert len(targets.found) == 5


def test_located_photos_stay_where_they_were_taken(robot: Field) -> None:
    """A field that looks otherwise, as a young one does, moves none of them; in another search it finds the others."""
    told = replace(TRUE, azimuth_deg=TRUE.azimuth_deg + torch.tensor([0.0, 0.0, 90.0, 0.0, 0.0]))
    known = torch.tensor([True, True, True, False, False])
    config = PhotoTargetsConfig(start=0.0, subject_radius=0.87)
    targets = PhotoTargets(located(told, known), config, CameraConfig(), fresh=True)
    before = targets.cameras
    targets.follow(robot, 0.0)
    torch.testing.assert_close(targets.cameras[known].azimuth_deg, told.azimuth_deg[known])
    torch.testing.assert_close(targets.cameras[known].distance, before[known].distance)
    assert angles_off(targets.cameras)[:, ~known].max() < 12
    assert targets.matches.overlap[2] < targets.matches.overlap[:2].min(), "and how badly they fit is reported"


def test_an_older_field_is_seen_from_where_its_heading_was_corrected_to(robot: Field) -> None:
    told = replace(TRUE, azimuth_deg=TRUE.azimuth_deg + 30)
    targets = PhotoTargets(located(told), PhotoTargetsConfig(), CameraConfig(), heading_deg=30.0)
    assert len(targets.found) == 5
    torch.testing.assert_close(targets.found.cameras.azimuth_deg.detach(), TRUE.azimuth_deg)


def test_the_refinement_starts_from_the_cameras_that_stage_1_has_left(robot: Field) -> None:
    config = PhotoTargetsConfig(start=0.0)
    first = PhotoTargets(located(TRUE), config, CameraConfig(), fresh=True)
    first.follow(robot, 0.0)
    moves = torch.tensor([[3.0, -2.0, 1.0, 2.0]] * 4 + [[-12.0, 8.0, -4.0, -8.0]])
    with torch.no_grad():
        first._moves.copy_(moves)
    left = first.found.known_cameras
    log = StepLog("init_nerf")
    first.report(robot, log)
    given = {"found": reported_cameras(log.record(), 5), "heading_deg": 30.0}
    second = PhotoTargets(located(replace(TRUE, azimuth_deg=TRUE.azimuth_deg + 30)), config, CameraConfig(), **given)
    for name in vars(left):
        expected = getattr(left, name).detach()
        torch.testing.assert_close(getattr(second.found.known_cameras, name).detach(), expected, atol=2e-3, rtol=0)
    assert reported_cameras(log.record(), 4) is None and reported_cameras(StepLog("init_nerf").record(), 5) is None


def test_only_photos_that_are_not_located_wait(robot: Field, coarse_searches: None) -> None:
    known = torch.tensor([True, False, True, True, False])
    config = PhotoTargetsConfig(start=0.3, search_every=0.2, searches_until_all=1, hold_out=True)
    targets = PhotoTargets(located(TRUE, known), config, CameraConfig(), fresh=True)
    assert targets.used.tolist() == known.tolist() and not targets.cameras.azimuth_deg.isnan().any()
    targets.follow(robot, 0.3)
    assert targets.used.sum() == 4 and targets.used[known].all(), "one of the others is left out in turn"


def test_silhouettes_decide_where_sides_look_alike(robot: Field, usual: dict[str, float]) -> None:
    """A ball, which looks alike from everywhere."""
    ball = Field(FieldConfig(encoding="dense", volume_resolution=16))
    told = replace(TRUE, azimuth_deg=torch.tensor([60.0, -60.0, 100.0, -100.0, 5.0]))
    found = find_cameras(ball, located(told), **usual).cameras.azimuth_deg
    assert wrap_degrees(found - told.azimuth_deg).abs().max() < 30
    far_off = replace(TRUE, azimuth_deg=-TRUE.azimuth_deg)
    found = find_cameras(robot, located(far_off), **usual).cameras
    assert angles_off(found).max() < 12, "but where the picture says otherwise, it decides"


def test_told_cameras_turn_with_the_field(robot: Field) -> None:
    turned = Field.from_state(robot.state(), robot.config.model_dump())
    turned.turn_by(20.0)
    views = located(replace(TRUE, azimuth_deg=TRUE.azimuth_deg + 20))
    config, scores = PhotoTargetsConfig(), ViewScores.load("models/selector", "robot")
    targets = PhotoTargets(views, config, CameraConfig(), scores, fresh=True)
    angle = targets.face_front(turned)
    assert angle == pytest.approx(-20, abs=5)
    for cameras in (targets.cameras, targets.photos.cameras):
        torch.testing.assert_close(cameras.azimuth_deg, views.cameras.azimuth_deg + angle)
    again = PhotoTargets(views, config, CameraConfig(), scores, fresh=True)
    again.restore(targets.state())
    torch.testing.assert_close(again.photos.cameras.azimuth_deg, targets.photos.cameras.azimuth_deg)


def test_gradients_move_cameras_to_where_the_photos_were_taken(robot: Field) -> None:
    config = PhotoTargetsConfig(start=0.5, camera_learning_rate=0.3)
    targets = PhotoTargets(photos(), config, CameraConfig())
    off = replace(TRUE, azimuth_deg=TRUE.azimuth_deg + 6, elevation_deg=TRUE.elevation_deg - 5)
    targets.restore(targets.state() | {"cameras": vars(off), "used": torch.ones(5, dtype=torch.bool)})
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        drawn, target = targets.found.draw(5, 800, generator)
        rays = render_rays(robot, drawn.origins, drawn.directions, sampler=DenseSampler(48), generator=generator)
        (100 * reconstruction(rays.color, rays.opacity, target.color, target.background)).backward()
        targets.improve()
    targets.settle()
    assert angles_off(off).mean() == pytest.approx(5.5, abs=0.1)
    assert angles_off(targets.cameras).mean() < 2.5
    assert targets.cameras.distance.mean().item() == pytest.approx(TRUE.distance.mean().item(), abs=0.02)


def test_the_heading_is_corrected_with_the_cameras(robot: Field, searched: PhotoCameras) -> None:
    turned = Field.from_state(robot.state(), robot.config.model_dump())
    turned.turn_by(20.0)
    targets = PhotoTargets(photos(), PhotoTargetsConfig(), CameraConfig(), ViewScores.load("models/selector", "robot"))
    assert targets.follow(turned, 0.0)
    assert targets.heading_deg == pytest.approx(20, abs=5)
    off = wrap_degrees(targets.cameras.azimuth_deg - searched.cameras.azimuth_deg)
    torch.testing.assert_close(off, torch.full((5,), 20.0 - targets.heading_deg), atol=6, rtol=0)


def test_targets_search_when_it_is_time_and_restore(robot: Field, coarse_searches: None) -> None:
    config = PhotoTargetsConfig(start=0.5, search_every=0.3)
    targets = PhotoTargets(photos(), config, CameraConfig())
    targets.follow(robot, 0.49)
    assert targets.found is None and targets.searches == 0
    targets.follow(robot, 0.5)
    assert len(targets.found) == 5 and targets.next_search == pytest.approx(0.8)
    again = PhotoTargets(photos(), config, CameraConfig())
    again.restore(targets.state())
    assert torch.equal(again.found.cameras.azimuth_deg, targets.found.cameras.azimuth_deg)
    assert again.next_search == targets.next_search
    log = StepLog("init_nerf")
    targets.report(robot, log)
    record = log.record()
    assert len(record.params["photo_azimuths_deg"].split(", ")) == 5
    assert record.metrics["photos_found"] == 5
    # Two rows of five pictures of 64 pixels, twice as large, with a strip of 16 above each and gaps of 2.
    assert record.images["photo_cameras"].shape == (2 * (16 + 128 + 2) + 2, 5 * (128 + 2) + 2, 3)
