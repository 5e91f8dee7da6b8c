"""What photos as targets learn besides their cameras: exposure, focal length, and whether a mirror helps."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreambooth3d.cameras import Cameras, orbit_cameras, wrap_degrees
from dreambooth3d.config.photo_targets import PhotoTargetsConfig
from dreambooth3d.config.rendering import CameraConfig
from dreambooth3d.nerf.field.pose import MirrorPlane, Solid, mirror_plane
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.photo_cameras import photo_targets
from dreambooth3d.nerf.photo_cameras.photo_targets import MAX_LOG_GAIN, PhotoTargets, Symmetry
from dreambooth3d.nerf.photo_cameras.targets import TargetViews
from dreambooth3d.nerf.rendering.sampling import DenseSampler
from dreambooth3d.nerf.rendering.volume import render_images, render_rays
from dreambooth3d.nerf.training.losses import reconstruction, silhouette
from dreambooth3d.record import StepLog
from dreambooth3d.representation.interface import turn_about_z
from dreambooth3d.runtime import ResumePoint
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import DEVELOPMENT_SUBJECTS
from tests.nerf.scenes import BLUE, RED, UniformBall

GREY = 0.6
AROUND = replace(orbit_cameras(torch.tensor([-60.0, 0.0, 35.0, 150.0])), elevation_deg=torch.tensor([10.0, 25, 5, 30]))


class Ball(UniformBall):
    """A ball whose density falls off smoothly, so that cameras have a gradient."""

    def __init__(self, color: Tensor = RED) -> None:
        super().__init__(40.0, radius=0.7, color=color)

    def density(self, points: Tensor) -> Tensor:
        """(n,) density of points (n, 3)."""
        return self.value * torch.sigmoid((self.radius - points.norm(dim=-1)) / 0.01)


BALL = Ball(torch.tensor([0.6, 0.4, 0.3]))


class PaintedBall(Ball):
    """A ball whose colour changes at a plane through the origin: red where `normal . point` > 0, else blue."""

    def __init__(self, normal: tuple[float, float, float]) -> None:
        super().__init__()
        self.normal = torch.tensor(normal)

    def density_and_color(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density (n,) and colour (n, 3) of points (n, 3)."""
        return self.density(points), torch.where((points @ self.normal > 0)[:, None], RED, BLUE)


def views_of(field: Field | Ball, cameras: Cameras, gain: Tensor | float = 1.0) -> TargetViews:
    """What photos of a field from these cameras show, the subject brighter by `gain`, before grey; masks are true."""
    gain = torch.as_tensor(gain).expand(len(cameras))[:, None, None, None]
    with torch.no_grad():
        render = render_images(field, cameras, size=48, sampler=DenseSampler(48), background=torch.zeros(3))
    background = torch.full_like(render.color, GREY)
    images = gain * render.color + (1 - render.opacity)[:, None] * background
    return TargetViews(images, None, background, render.opacity, torch.ones(len(cameras)))


def in_use(views: TargetViews, cameras: Cameras, used: list[bool] | None = None, **changes: float) -> PhotoTargets:
    """The views as targets after a first search that has found these cameras."""
    targets = PhotoTargets(views, PhotoTargetsConfig(**changes), CameraConfig())
    chosen = torch.tensor(used) if used else torch.ones(len(views), dtype=torch.bool)
    targets.restore(targets.state() | {"cameras": vars(cameras), "used": chosen})
    return targets


def learn(targets: PhotoTargets, field: Field | Ball, steps: int, pixels: int = 300, seed: int = 0) -> None:
    """Steps of the losses that a stage takes on photos, with a field that stays as it is."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        drawn, target = targets.found.draw(len(targets.photos), pixels, generator)
        rays = render_rays(field, drawn.origins, drawn.directions, sampler=DenseSampler(48), generator=generator)
        color = reconstruction(target.gain[:, None] * rays.color, rays.opacity, target.color, target.background)
        (100 * color + silhouette(rays.opacity, target.mask, target.trusted)).backward()
        targets.improve()


def test_exposures_are_recovered_up_to_their_common_mean() -> None:
    gain = torch.tensor([0.85, 1.0, 1.15, 1.05])
    targets = in_use(views_of(BALL, AROUND, gain), AROUND, exposure_learning_rate=0.02, camera_learning_rate=0.0)
    assert targets.found.gain.tolist() == [1, 1, 1, 1]
    learn(targets, BALL, 40)
    found = targets.found.gain.detach()
    expected = gain / gain.log().mean().exp()
    torch.testing.assert_close(found, expected, atol=0.015, rtol=0)
    assert found.log().mean().item() == pytest.approx(0, abs=1e-6)


def test_an_exposure_is_bounded_and_may_be_switched_off() -> None:
    two = AROUND[:2]
    views = views_of(BALL, two, torch.tensor([0.5, 1.5]))
    targets = in_use(views, two, exposure_learning_rate=0.1, camera_learning_rate=0.0)
    learn(targets, BALL, 12, pixels=100)
    torch.testing.assert_close(targets.found.gain.log().detach(), torch.tensor([-MAX_LOG_GAIN, MAX_LOG_GAIN]))
    targets = in_use(views, two, exposure_learning_rate=0.0, camera_learning_rate=0.0)
    learn(targets, BALL, 3, pixels=100)
    assert targets.found.gain.tolist() == [1, 1]


def test_only_photos_in_use_share_the_mean_exposure() -> None:
    gain = torch.tensor([0.9, 1.1, 1.0, 1.0])
    targets = in_use(
        views_of(BALL, AROUND, gain), AROUND, [True, True, False, False], exposure_learning_rate=0.02,
        camera_learning_rate=0.0,
    )  # fmt: skip
    learn(targets, BALL, 40)
    found = targets.found.gain.detach()
    assert len(found) == 2
    torch.testing.assert_close(found, gain[:2] / (0.9 * 1.1) ** 0.5, atol=0.015, rtol=0)


def half_tangent(cameras: Cameras) -> Tensor:
    return torch.tan(torch.deg2rad(cameras.fov_y_deg) / 2)


def same_size(cameras: Cameras, fov_y_deg: Tensor) -> Cameras:
    """The cameras with other fields of view, at the distances from where the subject looks as large."""
    wider = replace(cameras, fov_y_deg=fov_y_deg)
    return replace(wider, distance=cameras.distance * half_tangent(cameras) / half_tangent(wider))


def test_gradients_find_focal_lengths(robot: Field) -> None:
    """Photos with two fields of view, that differ in perspective alone; the first guess is the one in between."""
    true = same_size(AROUND, torch.tensor([52.0, 34.0, 52.0, 34.0]))
    guess = same_size(true, torch.full((4,), 42.0))
    targets = in_use(views_of(robot, true), guess, camera_learning_rate=0.5)
    learn(targets, robot, 90, pixels=500)
    found = targets.found.cameras.map(Tensor.detach)
    before, after = ((half_tangent(cameras) / half_tangent(true)).log() for cameras in (guess, found))
    before, after = before - before.mean(), after - after.mean()
    assert after.abs().mean() < 0.6 * before.abs().mean()
    assert (after.abs() < before.abs()).all()
    size = (found.distance * half_tangent(found)) / (true.distance * half_tangent(true))
    assert (size - 1).abs().max() < 0.03


def test_a_wider_view_comes_with_a_shorter_distance() -> None:
    """Perspective alone: what lies in the plane of the origin keeps its place in the frame."""
    targets = in_use(views_of(BALL, AROUND), AROUND, [True, True, True, False])
    moves = torch.zeros(4, 4)
    moves[:, 3] = torch.tensor([6.0, -3.0, 0.0, 50.0])
    targets.restore(targets.state() | {"moves": moves})
    found, start = targets.found.cameras, AROUND[:3]
    torch.testing.assert_close(found.distance * half_tangent(found), start.distance * half_tangent(start))
    # One stands for 1.7 %, beyond the mean of those in use, which is 1 here.
    expected = torch.deg2rad(torch.tensor([5.0, -4.0, -1.0])).exp()
    torch.testing.assert_close(half_tangent(found) / half_tangent(start), expected)
    targets.settle()
    torch.testing.assert_close(targets.cameras.fov_y_deg[:3], found.fov_y_deg.detach())
    assert targets.cameras.fov_y_deg[3] == AROUND.fov_y_deg[3], "a photo that is not in use stays"


def test_told_cameras_are_put_at_the_usual_scale_at_the_start() -> None:
    """Balls of radius 0.7 at distance 2.5 whose cameras are told at another scale; one is not told at all."""
    told = replace(AROUND, distance=torch.tensor([5.0, 5.0, 5.0, float("nan")]))
    told = replace(told, azimuth_deg=AROUND.azimuth_deg.masked_fill(told.distance.isnan(), float("nan")))
    views = replace(views_of(BALL, AROUND), cameras=told)
    config = PhotoTargetsConfig(subject_radius=0.7, usual_distance=2.5)
    targets = PhotoTargets(views, config, CameraConfig(), fresh=True)
    assert targets.used.tolist() == [True, True, True, False]
    assert targets.found.cameras.distance.tolist() == pytest.approx([2.5] * 3, rel=0.02)
    larger = PhotoTargets(views, config.model_copy(update={"usual_distance": 2.5 * 1.21}), CameraConfig(), fresh=True)
    assert larger.found.cameras.distance.tolist() == pytest.approx([2.75] * 3, rel=0.02)
    assert targets.cameras.distance[3] == 2.5 and not targets.cameras.azimuth_deg.isnan().any()


def located_targets(field: Field, **known: bool) -> PhotoTargets:
    """Photos of a field whose cameras the photos themselves have told, and a scorer."""
    views = replace(views_of(field, AROUND), cameras=AROUND)
    return PhotoTargets(views, PhotoTargetsConfig(), CameraConfig(), view_logits=lambda images: images, **known)


def test_a_field_faces_its_own_mirror_plane_where_photos_were_located(
    robot: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_targets, "front_azimuth", lambda *_: 40.0)
    turned = copy.deepcopy(robot)
    turned.turn_by(11.0)
    targets = located_targets(turned)
    assert targets.face_front(turned) == pytest.approx(-11.0, abs=2.0)
    assert targets.heading_deg == pytest.approx(11.0, abs=2.0)
    moved = wrap_degrees(targets.cameras.azimuth_deg - AROUND.azimuth_deg)
    torch.testing.assert_close(moved, torch.full((4,), -targets.heading_deg), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("scorer_deg", "turned_deg"), [(12.0, -12.0), (35.0, 0.0)])
def test_without_a_mirror_plane_the_scorer_is_believed_near_the_front_that_photos_told(
    scorer_deg: float, turned_deg: float, robot: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_targets, "front_azimuth", lambda *_: scorer_deg)
    monkeypatch.setattr(photo_targets, "mirror_plane", lambda *_, **__: MirrorPlane(0.0, 0.0, 0.9))
    assert located_targets(robot).face_front(copy.deepcopy(robot)) == turned_deg


@pytest.mark.parametrize("centred", [True, False])
def test_a_finished_field_stands_up_and_the_trained_one_stays(centred: bool, robot: Field) -> None:
    turned = copy.deepcopy(robot)
    turned.move(turn_about_z(9.0), None if centred else torch.tensor([0.06, -0.05, 0.0]))
    targets = located_targets(turned, centred=centred)
    before = turned.state()
    made = targets.stand_up(turned)
    assert all(torch.equal(value, before[name]) for name, value in turned.state().items())
    solid = Solid.of(made)
    assert solid is not None
    assert abs(mirror_plane(solid, offset=False).heading_deg) < 2.0
    middle = (solid.places.amin(dim=0) + solid.places.amax(dim=0)) / 2
    if not centred:
        assert middle[:2].abs().max() < 0.04
    assert (made.stretch == 1) == centred


def symmetry_of(field: Ball, cameras: Cameras) -> Symmetry | None:
    return in_use(views_of(field, cameras), cameras)._measure_symmetry(field)


def test_symmetry_tells_a_mirror_image_from_another_paint() -> None:
    cameras = replace(AROUND, azimuth_deg=torch.tensor([-70.0, -10.0, 30.0, 85.0]))
    symmetric = symmetry_of(PaintedBall((1.0, 0.0, 0.0)), cameras)
    assert symmetric.error < 2.2 and symmetric.overlap == pytest.approx(1, abs=0.02)
    other_side = symmetry_of(PaintedBall((0.0, 1.0, 0.0)), cameras)
    assert other_side.error > 3.2 and other_side.error > 3 * symmetric.error
    assert other_side.overlap == pytest.approx(1, abs=0.02), "the outline of a ball is symmetric, whatever its paint"


def test_only_mirrored_photos_near_a_photo_are_compared() -> None:
    """Two photos from one side say nothing of the other side."""
    one_side = replace(AROUND[:2], azimuth_deg=torch.tensor([60.0, 110.0]))
    assert symmetry_of(PaintedBall((1.0, 0.0, 0.0)), one_side) is None


def test_mirrored_photos_count_as_far_as_they_fit() -> None:
    targets = in_use(views_of(BALL, AROUND), AROUND, mirror_weight=0.5, mirror_error=(2.0, 4.0))
    expected = {1.0: 0.5, 2.0: 0.5, 3.0: 0.25, 3.5: 0.125, 4.0: 0.0, 9.0: 0.0}
    for error, weight in expected.items():
        targets.symmetry = Symmetry(error, 0.95)
        assert targets.mirror_weights == pytest.approx((weight, 0.5))
    targets.symmetry = Symmetry(1.0, 0.85)
    assert targets.mirror_weights == pytest.approx((0.5, 0.0)), "outlines that do not fit do not count"


def test_mirrored_photos_are_used_once_they_are_known_to_help() -> None:
    targets = in_use(views_of(BALL, AROUND, torch.tensor([0.9, 1.0, 1.0, 1.1])), AROUND)
    assert targets.mirrored is None, "nobody has looked yet"
    learn(targets, BALL, 3, pixels=100)
    targets.symmetry = Symmetry(1.0, 1.0)
    mirrored, found = targets.mirrored, targets.found
    assert torch.equal(mirrored.images, found.images.flip(-1)) and torch.equal(mirrored.masks, found.masks.flip(-1))
    assert torch.equal(mirrored.cameras.azimuth_deg, -found.cameras.azimuth_deg)
    assert torch.equal(mirrored.gain, found.gain)
    assert not (mirrored.cameras.azimuth_deg.requires_grad or mirrored.gain.requires_grad), "they move no camera"
    off = in_use(views_of(BALL, AROUND), AROUND, mirror_weight=0.0)
    off.symmetry = Symmetry(1.0, 1.0)
    assert off.mirrored is None


def test_a_restored_state_goes_on_in_the_same_way(tmp_path: Path) -> None:
    views = views_of(BALL, AROUND, torch.tensor([0.85, 1.0, 1.15, 1.05]))
    targets = in_use(views, AROUND, [True, True, False, True])
    targets.symmetry = Symmetry(2.5, 0.97)
    learn(targets, BALL, 5, pixels=100)
    point = ResumePoint(tmp_path / "state")
    point.save(targets.state())
    again = PhotoTargets(views, targets.config, CameraConfig())
    again.restore(point.load())
    for each in (targets, again):
        learn(each, BALL, 3, pixels=100, seed=1)
    assert again.symmetry == targets.symmetry
    for name in ("found", "mirrored"):
        old, new = getattr(targets, name), getattr(again, name)
        assert len(new) == 3 and torch.equal(new.gain, old.gain)
        for mine, kept in zip(vars(new.cameras).values(), vars(old.cameras).values(), strict=True):
            assert torch.equal(mine, kept)
    assert (again.found.gain != 1).all() and (again.found.cameras.fov_y_deg != 42).all(), "something was learned"


def test_exposures_are_reported_also_where_no_photo_is_found() -> None:
    """A ball against photos of a speck in a corner."""
    images = torch.full((2, 3, 64, 64), GREY)
    images[:, :, 50:60, 2:12] = 0.0
    targets = PhotoTargets(TargetViews.of(images), PhotoTargetsConfig(), CameraConfig())
    targets.follow(BALL, 0.0)
    assert targets.found is None and targets.mirrored is None and targets.symmetry is None
    log = StepLog("init_nerf")
    targets.report(BALL, log)
    assert log.record().params["photo_exposures"] == "1.000, 1.000"
    assert log.record().metrics["photos_found"] == 0 and "mirror_error" not in log.record().metrics


def test_true_photos_of_a_symmetric_subject_have_a_symmetric_field(robot: Field) -> None:
    """A toybox robot, but for its spots, is symmetric; its photos are true renders, not the field's own."""
    cameras = replace(AROUND, azimuth_deg=torch.tensor([-70.0, -10.0, 30.0, 85.0]))
    images = render_views(DEVELOPMENT_SUBJECTS["android"], cameras, torch.full((3,), GREY), 64).image
    targets = PhotoTargets(replace(TargetViews.of(images), cameras=cameras), PhotoTargetsConfig(), CameraConfig())
    targets.follow(robot, 0.0)
    assert targets.symmetry.overlap > 0.9 and 0.9 < targets.symmetry.error < 3.2
