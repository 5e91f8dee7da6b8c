"""Target views: what is known of photos and pseudo views, mirrored ones, and the pixels drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dreambooth3d.artifacts import PseudoViews, SubjectPhotos
from dreambooth3d.cameras import Cameras, orbit_cameras
from dreambooth3d.config.distillation import InitNerfConfig
from dreambooth3d.config.photo_targets import InitPhotoTargetsConfig
from dreambooth3d.guidance import Guidance, GuidanceLoss
from dreambooth3d.nerf.photo_cameras.targets import TargetViews
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.nerf.training.losses import reconstruction
from dreambooth3d.nerf.training.targets import Targets
from tests.evaluation.stand_ins import photos_of
from tests.nerf.scenes import colored_ball

CPU = torch.device("cpu")
SIZE = 64
AZIMUTHS = torch.tensor([-40.0, 0.0, 75.0])


def ball_on_grey(cameras: Cameras, size: int = SIZE) -> Tensor:
    """(n, 3, size, size) the coloured ball before grey."""
    image = colored_ball(cameras, size)
    return torch.where((image == 1).all(1, keepdim=True), 0.6, image)


def ball_share(cameras: Cameras, size: int, supersample: int = 8) -> Tensor:
    """(n, size, size) the share of each pixel that the ball of radius one half covers."""
    origins, directions = cameras.rays(size * supersample, size * supersample)
    along = (origins * directions).sum(-1)
    hit = (origins.square().sum(-1) - along.square() < 0.25).float()
    return torch.nn.functional.avg_pool2d(hit[:, None], supersample)[:, 0]


def test_masks_of_photos_are_those_of_the_large_photos() -> None:
    cameras = orbit_cameras(AZIMUTHS)
    photos = photos_of(*ball_on_grey(cameras, 256))
    truth = ball_share(cameras, SIZE)
    views = TargetViews.of_photos(photos, SIZE, CPU)
    assert views.images.shape == (3, 3, SIZE, SIZE) and len(views) == 3 and views.gain is None
    assert (views.masks - truth).abs().mean() < 0.005
    assert ((views.masks > 0.1) & (views.masks < 0.9)).sum() > 100, "pixels at the outline are partly the subject"
    assert views.masks.sum() / truth.sum() == pytest.approx(1, abs=0.02)
    assert TargetViews.of(views.images).masks.sum() / truth.sum() > 1.04, "the small photos would tell a larger one"
    torch.testing.assert_close(views.background, torch.full_like(views.background, 0.6), atol=0.01, rtol=0)


def test_photos_that_cannot_be_masked_are_left_out() -> None:
    noise = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    good = ball_on_grey(orbit_cameras(AZIMUTHS), 256)
    views = TargetViews.of_photos(photos_of(good[0], noise, good[2]), SIZE, CPU)
    assert len(views) == 2 and views.cameras is None and views.words == ()
    whole = TargetViews.of_photos(photos_of(*good), SIZE, CPU)
    torch.testing.assert_close(views.images, whole.images[[0, 2]])
    assert TargetViews.of_photos(photos_of(noise, noise), SIZE, CPU) is None


def test_photos_before_anything_are_put_before_a_plain_colour_by_their_masks() -> None:
    """The ball before noise, with its true mask; what is left of the noise is less than the outline's pixels."""
    cameras = orbit_cameras(AZIMUTHS)
    ball, share = ball_on_grey(cameras, 256), ball_share(cameras, 256)[:, None]
    noise = torch.rand(3, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    photos = with_given_masks(photos_of(*(ball * share + noise * (1 - share))), share[:, 0])
    views = TargetViews.of_photos(photos, SIZE, CPU)
    plain = views.background[:, :, :1, :1]
    assert (views.background == plain).all() and (plain == plain[:1]).all() and views.known is None
    assert views.masks.sum() / ball_share(cameras, SIZE).sum() == pytest.approx(1, abs=0.01)
    outside, inside = views.masks == 0, views.masks == 1
    torch.testing.assert_close(
        views.images.movedim(1, -1)[outside], plain[0, :, 0, 0].expand(int(outside.sum()), 3), atol=2e-3, rtol=0
    )
    small = torch.nn.functional.interpolate(ball, size=(SIZE, SIZE), mode="area")
    subject = small.movedim(1, -1)[inside]
    torch.testing.assert_close(views.images.movedim(1, -1)[inside], subject, atol=0.02, rtol=0)
    assert (subject.mean(dim=0) - plain[0, :, 0, 0]).norm() > 0.6, "the plain colour is none of the subject's"


def test_beyond_the_frame_that_cuts_a_subject_nothing_is_known() -> None:
    """Of two wide photos the first cuts the ball at its lower edge."""
    cameras = orbit_cameras(AZIMUTHS[:2])
    share = ball_share(cameras, 256)
    share[:, :64], share[0, 192 - 60 :], share[1, 192:] = 0, 0, 0
    photos = with_given_masks(photos_of(*ball_on_grey(cameras, 256)), share, cut=[0.3, 0.0], height=128)
    views = TargetViews.of_photos(photos, SIZE, CPU)
    assert views.known[0, :16].sum() == 0 and views.known[0, 48:].sum() == 0 and (views.known[0, 16:48] == 1).all()
    assert (views.known[1] == 1).all(), "no part of the second is beyond the frame"
    views = replace(views, cameras=cameras)
    assert torch.equal(views.mirrored().known, views.known.flip(-1))
    _, target = views.draw(2, SIZE**2, torch.Generator().manual_seed(0))
    assert target.known.mean().item() == pytest.approx(0.75)
    assert torch.equal(views.where(torch.tensor([False, True])).known, views.known[1:])


def test_where_a_mask_is_unsure_nothing_is_known() -> None:
    """The first of two masks is unsure of a patch beside the ball."""
    cameras = orbit_cameras(AZIMUTHS[:2])
    share = ball_share(cameras, 256)
    unsure = torch.zeros(256, 256, dtype=torch.bool)
    unsure[96:160, :56] = True
    assert (share[0][unsure] == 0).all()
    share[0][unsure] = 0.5
    views = TargetViews.of_photos(with_given_masks(photos_of(*ball_on_grey(cameras, 256)), share), SIZE, CPU)
    small = torch.nn.functional.avg_pool2d(unsure[None].float(), 256 // SIZE)[0]
    assert torch.equal(views.known[0], (small == 0).float()), "known beyond the patch, and at the ball's own outline"
    assert (views.known[1] == 1).all()


def with_given_masks(
    photos: SubjectPhotos, masks: Tensor, cut: Sequence[float] | float = 0.0, height: int = 256
) -> SubjectPhotos:
    """The photos, 256 wide and so high, with masks that the user has brought."""
    facts = photos.facts.assign(mask_source="files", mask_trusted=True, mask_cut=cut, width=256, height=height)
    return replace(photos, facts=facts, masks=tuple(masks))


def test_the_opacity_of_renders_that_nothing_changed_is_their_mask() -> None:
    cameras = orbit_cameras(AZIMUTHS)
    noise = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    opacity = ball_share(cameras, SIZE)
    changed, unchanged = (
        TargetViews.of_pseudo_views(PseudoViews(noise, noise, opacity, cameras, strength), CPU)
        for strength in (0.1, 0.0)
    )
    assert torch.equal(unchanged.masks, opacity) and (unchanged.trusted == 1).all()
    assert (changed.trusted == 0).all() and not torch.equal(changed.masks, opacity), "masks are told from the images"
    assert torch.equal(unchanged.cameras.azimuth_deg, AZIMUTHS)


def test_mirrored_views_of_a_symmetric_scene_are_those_from_the_other_side() -> None:
    """The ball is its own mirror image in the plane of azimuth 0."""
    cameras = replace(orbit_cameras(AZIMUTHS), elevation_deg=torch.tensor([5.0, 20.0, 50.0]))
    mirrored = TargetViews.of(ball_on_grey(cameras), cameras).mirrored()
    assert torch.equal(mirrored.cameras.azimuth_deg, -AZIMUTHS)
    assert torch.equal(mirrored.cameras.elevation_deg, cameras.elevation_deg)
    truth = TargetViews.of(ball_on_grey(mirrored.cameras), mirrored.cameras)
    for name in ("images", "masks", "background"):
        torch.testing.assert_close(getattr(mirrored, name), getattr(truth, name), atol=1e-4, rtol=0)
    tilted = replace(truth, cameras=cameras)
    assert (truth.images - tilted.mirrored().images).abs().max() > 0.1, "no view from the side is its own mirror image"


def test_drawn_pixels_lie_where_their_rays_go() -> None:
    """Colour, background, mask and gain of each drawn pixel against the ball along its ray."""
    cameras = orbit_cameras(AZIMUTHS)
    views = TargetViews.of(ball_on_grey(cameras), cameras)
    gain = torch.tensor([0.9, 1.0, 1.2])
    views = replace(views, masks=ball_share(cameras, SIZE), gain=gain)
    drawn, target = views.draw(2, 300, torch.Generator().manual_seed(0))
    origins, directions = drawn.origins, drawn.directions
    assert origins.shape == directions.shape == target.color.shape == (600, 3)
    through_middle = -(origins * directions).sum(-1)
    nearest = (origins.square().sum(-1) - through_middle.square()).sqrt()
    assert (target.mask[nearest < 0.45] == 1).all() and (target.mask[nearest > 0.55] == 0).all()
    torch.testing.assert_close(target.color[nearest > 0.55], torch.full_like(target.color, 0.6)[nearest > 0.55])
    azimuth = torch.rad2deg(torch.atan2(origins[:, 1], origins[:, 0]))
    camera = (azimuth[:, None] - AZIMUTHS).abs().argmin(dim=1)
    assert torch.equal(target.gain, gain[camera]) and camera.unique().numel() == 2
    assert replace(views, gain=None).draw(2, 9, torch.Generator().manual_seed(0))[1].gain is None


def test_chosen_views_keep_all_that_belongs_to_them() -> None:
    cameras = orbit_cameras(AZIMUTHS)
    views = replace(
        TargetViews.of(ball_on_grey(cameras), cameras),
        words=("side", "front", "back"),
        off_front_deg=AZIMUTHS.abs(),
        gain=torch.tensor([0.9, 1.0, 1.2]),
    )
    chosen = views.where(torch.tensor([True, False, True]))
    assert len(chosen) == 2 and chosen.words == ("side", "back")
    assert torch.equal(chosen.images, views.images[[0, 2]]) and torch.equal(
        chosen.cameras.azimuth_deg, AZIMUTHS[[0, 2]]
    )
    assert chosen.off_front_deg.tolist() == [40, 75]
    assert chosen.gain.tolist() == pytest.approx([0.9, 1.2])


def test_a_white_subject_before_white_may_not_be_missing() -> None:
    """Where a mask can be trusted, what is wanted before any colours is the true composite; else nothing changes."""
    cameras = orbit_cameras(AZIMUTHS)
    white, share = torch.ones(3, 3, SIZE, SIZE), ball_share(cameras, SIZE)
    views = TargetViews(white, cameras, white, share, torch.tensor([1.0, 1.0, 0.0]))
    generator = torch.Generator().manual_seed(0)
    _, target = views.draw(3, SIZE**2, generator)
    missing = torch.zeros(len(target.color), 3)
    assert reconstruction(missing, missing[:, 0], target.color, target.background).item() == 0, "white is all there is"
    colors = torch.rand(len(target.color), 3, generator=generator)
    other, trusted = target.before(colors), target.trusted > 0
    assert reconstruction(missing, missing[:, 0], other.color, other.background).item() > 0.003
    composite = target.mask[:, None] + (1 - target.mask)[:, None] * colors
    torch.testing.assert_close(other.color[trusted], composite[trusted])
    assert (other.color[~trusted] == 1).all() and (other.background[~trusted] == 1).all()


@pytest.mark.parametrize("random", [True, False])
def test_a_stage_puts_its_photos_before_random_colours(random: bool) -> None:
    """Drawn pixels outside of the ball, once the photos' cameras are found."""
    cameras = orbit_cameras(AZIMUTHS)
    photos = photos_of(*ball_on_grey(cameras, 256))
    config = InitNerfConfig(photos=InitPhotoTargetsConfig(random_backgrounds=random))
    targets = Targets(DistillInputs(guidance=NothingToJudge(), photos=photos), config, CPU)
    assert targets.photos is not None
    used = torch.ones(3, dtype=torch.bool)
    targets.photos.restore(targets.photos.state() | {"cameras": vars(cameras), "used": used})
    drawn = targets.draw(torch.Generator().manual_seed(0))[0]
    outside = drawn.target.mask == 0
    spread = drawn.target.color[outside].std(dim=0)
    assert outside.sum() > 100
    assert (drawn.target.color[outside] - drawn.target.background[outside]).abs().mean() < 0.005
    assert (spread > 0.2).all() if random else (spread < 0.01).all()


class NothingToJudge(Guidance):
    """Guidance of a test in which nothing is rendered for it."""

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        raise AssertionError("no image is to be judged")
