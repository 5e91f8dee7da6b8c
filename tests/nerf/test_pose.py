"""How a finished field stands, against shapes whose pose is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dreambooth3d.cameras import SUBJECT_RADIUS, orbit_cameras
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.nerf.field.pose import RESOLUTION, MirrorPlane, Solid, mirror_plane, stand_up
from dreambooth3d.nerf.field.radiance_field import Field

VOXEL = 2 / RESOLUTION
PHOTOS = orbit_cameras(torch.tensor([-60.0, 5.0, 70.0, 140.0, -140.0]), elevation_deg=20.0)


def _animal(points: Tensor) -> tuple[Tensor, Tensor]:
    """Whether points are inside a four-legged thing that faces +x, its own mirror image in y, and its colours."""
    x, y, z = points.unbind(-1)
    body = (x / 0.5).square() + (y / 0.3).square() + (z / 0.35).square() < 1
    head = ((x - 0.5).square() + y.square() + (z - 0.3).square()).sqrt() < 0.2
    ears = ((x - 0.5).square() + (y.abs() - 0.18).square() + (z - 0.5).square()).sqrt() < 0.09
    legs = (((x.abs() - 0.3).square() + (y.abs() - 0.15).square()).sqrt() < 0.08) & (z < 0) & (z > -0.55)
    return body | head | ears | legs, torch.stack([x + 0.5, 2 * y.abs(), z + 0.5], dim=-1)


def _ball(points: Tensor) -> tuple[Tensor, Tensor]:
    """A ball, so soft that its voxels do not show."""
    return torch.sigmoid(15 * (0.6 - points.norm(dim=-1))), torch.full_like(points, 0.4)


def _striped_ball(points: Tensor) -> tuple[Tensor, Tensor]:
    """A ball that is nowhere its own mirror image: a spiral of colours around it."""
    angle = torch.atan2(points[:, 1], points[:, 0])
    phase = torch.sin(angle + 4 * points[:, 2])
    return points.norm(dim=-1) < 0.6, (0.5 + 0.4 * phase)[:, None].expand(-1, 3)


def _field(shape, turn_deg: float = 0.0, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Field:
    """A field of a shape that is turned counter-clockwise, then shifted."""
    field = Field(FieldConfig(encoding="dense", volume_resolution=56))
    finest = field.encoding.levels[-1]
    axis = torch.linspace(-1, 1, finest.shape[-1])
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).view(-1, 3) - torch.tensor(shift)
    cosine, sine = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    turned = torch.stack(
        [cosine * points[:, 0] + sine * points[:, 1], cosine * points[:, 1] - sine * points[:, 0], points[:, 2]], -1
    )
    inside, color = shape(turned)
    with torch.no_grad():
        for level in field.encoding.levels:
            level.zero_()
        finest[0, 0] = (1.6 * inside.float() - 0.8).view(finest.shape[2:])
        finest[0, 1:] = (color.clamp(0.05, 0.95).logit().T / 10).reshape(3, *finest.shape[2:])
    return field


def _stand_up(field: Field, centred: bool = False) -> MirrorPlane | None:
    """By photos that show what the field shows."""
    return stand_up(field, PHOTOS, field.render(PHOTOS, 96).opacity, centred)


def _solid(field: Field) -> Solid:
    solid = Solid.of(field)
    assert solid is not None
    return solid


@pytest.mark.parametrize(("turn_deg", "beside"), [(0.0, 0.0), (13.0, 0.05), (-19.0, -0.08)])
def test_a_turned_shape_s_mirror_plane_is_found(turn_deg: float, beside: float) -> None:
    left = torch.tensor([-math.sin(math.radians(turn_deg)), math.cos(math.radians(turn_deg)), 0.0])
    plane = mirror_plane(_solid(_field(_animal, turn_deg, tuple((beside * left).tolist()))), offset=True)
    assert plane.clear
    assert plane.heading_deg == pytest.approx(turn_deg, abs=0.6)
    assert plane.offset == pytest.approx(beside, abs=0.01)


@pytest.mark.parametrize("shape", [_ball, _striped_ball])
def test_what_is_alike_in_all_planes_or_in_none_has_no_clear_one(shape) -> None:
    assert not mirror_plane(_solid(_field(shape)), offset=True).clear


def test_a_plane_at_the_border_of_what_was_tried_is_not_clear() -> None:
    assert not mirror_plane(_solid(_field(_animal, turn_deg=40.0)), offset=False).clear


def test_a_field_stands_in_the_middle_of_its_box_and_in_the_usual_ball_and_faces_ahead() -> None:
    field = _field(_animal, turn_deg=-16.0, shift=(0.09, -0.07, 0.05))
    _stand_up(field)
    places = _solid(field).places
    low, high = places.amin(dim=0), places.amax(dim=0)
    assert ((low + high) / 2).abs().max() < VOXEL
    assert places.norm(dim=1).max() == pytest.approx(SUBJECT_RADIUS, abs=VOXEL)
    # The head is in front: where the shape is the highest.
    top = places[places[:, 2] > high[2] - 2 * VOXEL].mean(dim=0)
    assert math.degrees(math.atan2(top[1].item(), top[0].item())) == pytest.approx(0.0, abs=3.0)


def test_what_no_photo_shows_below_a_subject_does_not_change_where_it_stands() -> None:
    def drum(points: Tensor) -> tuple[Tensor, Tensor]:
        radius, z = points[:, :2].norm(dim=1), points[:, 2]
        return (radius < 0.55) & (z > -0.2) & (z < 0.3), torch.full_like(points, 0.4)

    def with_a_cone_below(points: Tensor) -> tuple[Tensor, Tensor]:
        inside, color = drum(points)
        # Behind the drum's lower edge for all that look down by 20 degrees or more.
        depth = -0.2 - points[:, 2]
        cone = (depth >= 0) & (points[:, :2].norm(dim=1) + depth / math.tan(math.radians(18.0)) < 0.5)
        return inside | cone, color

    alone, standing = _field(drum), _field(with_a_cone_below)
    assert _solid(standing).places[:, 2].min() < _solid(alone).places[:, 2].min() - 3 * VOXEL
    for field in (alone, standing):
        _stand_up(field)
    assert standing.stretch.item() == pytest.approx(alone.stretch.item(), rel=0.01)
    torch.testing.assert_close(standing.shift, alone.shift, atol=VOXEL, rtol=0)


def test_thin_parts_count_where_photos_show_them_and_haze_beside_the_subject_does_not() -> None:
    def stool(points: Tensor, leg_radius: float) -> tuple[Tensor, Tensor]:
        radius, z = points[:, :2].norm(dim=1), points[:, 2]
        legs = (points[:, :2].abs() - 0.25).norm(dim=1) < leg_radius
        seat = (radius < 0.45) & (z > 0.1) & (z < 0.3)
        return seat | (legs & (z > -0.5) & (z < 0.2)), torch.full_like(points, 0.4)

    thick, thin = (_field(lambda points, wide=wide: stool(points, wide)) for wide in (0.1, 0.05))
    # A cloud below one side, which a photo's mask leaves out.
    hazy = _field(lambda points: (stool(points, 0.1)[0] | ((points + 0.5).norm(dim=1) < 0.2), points * 0 + 0.4))
    masks = thick.render(PHOTOS, 96).opacity
    for field in (thick, thin, hazy):
        stand_up(field, PHOTOS, masks, centred=False)
    # Where its middle was before: the seat's top was at 0.3.
    middles = torch.stack([0.3 - _solid(field).places[:, 2].max() * field.stretch for field in (thick, thin, hazy)])
    torch.testing.assert_close(middles, torch.full((3,), -0.1), atol=1.5 * VOXEL, rtol=0)


def test_of_a_field_whose_centre_is_known_only_the_heading_changes() -> None:
    field = _field(_animal, turn_deg=10.0, shift=(0.0, 0.0, 0.1))
    before = _solid(field).places
    _stand_up(field, centred=True)
    after = _solid(field).places
    assert field.shift.abs().max() == 0
    assert field.stretch == 1
    assert after[:, 2].max() == pytest.approx(before[:, 2].max().item())
    assert mirror_plane(_solid(field), offset=False).heading_deg == pytest.approx(0.0, abs=0.6)


def test_moving_a_field_moves_what_it_shows_and_keeps_its_opacity() -> None:
    torch.manual_seed(0)
    field, moved = _field(_animal), _field(_animal)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3))
    rotation = rotation * torch.det(rotation)
    shift, scale = torch.tensor([0.03, -0.05, 0.08]), 0.7
    moved.move(rotation, shift, scale)
    points = 0.7 * (2 * torch.rand(500, 3) - 1)
    there = scale * (points @ rotation.T + shift)
    density, color = field.density_and_color(points)
    moved_density, moved_color = moved.density_and_color(there)
    torch.testing.assert_close(moved_color, color, atol=1e-4, rtol=0)
    # Lengths shrink by the scale, and densities grow by it.
    torch.testing.assert_close(moved_density * scale, density, atol=1e-2, rtol=1e-3)


def test_an_empty_field_stays_where_it_is() -> None:
    field = _field(lambda points: (torch.zeros(len(points), dtype=torch.bool), torch.full_like(points, 0.5)))
    assert _stand_up(field) is None
    assert field.stretch == 1


def test_a_speck_in_the_air_does_not_count() -> None:
    def with_a_speck(points: Tensor) -> tuple[Tensor, Tensor]:
        inside, color = _animal(points)
        speck = (points - torch.tensor([-0.3, 0.7, 0.5])).norm(dim=1) < 0.06
        return inside | speck, color

    field, alone = _field(with_a_speck), _field(_animal)
    masks = alone.render(PHOTOS, 96).opacity
    for each in (field, alone):
        stand_up(each, PHOTOS, masks, centred=False)
    torch.testing.assert_close(field.shift, alone.shift)
