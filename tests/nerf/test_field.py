"""The field: blob, bounds, normals, background, state."""

import math

import pytest
import torch
from torch import Tensor

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.kinds import load_representation
from dreambooth3d.nerf.field import radiance_field
from dreambooth3d.nerf.field.encoding import Encoding
from dreambooth3d.nerf.field.radiance_field import Background, Field
from dreambooth3d.nerf.field.regularizers import smoothness

SETTINGS = {"levels": 4, "log2_table_size": 10, "volume_resolution": 24}


@pytest.fixture(params=["hash_grid", "dense"])
def config(request: pytest.FixtureRequest) -> FieldConfig:
    return FieldConfig(encoding=request.param, **SETTINGS)


@pytest.fixture
def points() -> Tensor:
    return torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2


def test_a_fresh_field_is_a_blob_in_the_unit_ball(config: FieldConfig, points: Tensor) -> None:
    torch.manual_seed(0)
    density, color = Field(config).density_and_color(points)
    radius = points.norm(dim=-1)
    assert (density >= 0).all() and (density[radius >= 1] == 0).all()
    assert density[radius < 0.3].min() > 50 and density[(radius > 0.85)].max() < 1.0
    assert color.shape == (500, 3) and color.min() >= 0 and color.max() <= 1
    torch.testing.assert_close(Field(config).density(points)[radius >= 1], torch.zeros(int((radius >= 1).sum())))


def test_density_alone_equals_density_with_color(config: FieldConfig, points: Tensor) -> None:
    field = Field(config)
    torch.testing.assert_close(field.density(points), field.density_and_color(points)[0])


def test_normals_of_the_blob_point_outwards_and_have_gradients(config: FieldConfig, points: Tensor) -> None:
    torch.manual_seed(0)
    field = Field(config)
    shell = torch.nn.functional.normalize(points, dim=-1) * 0.6
    normals = field.normals(shell)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(500))
    assert (normals * shell).sum(-1).min() / 0.6 > 0.9
    normals[:, 0].sum().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in field.parameters())


@pytest.mark.parametrize("kind", ["learned", "white", "texture", "network"])
def test_backgrounds(kind: str) -> None:
    directions = torch.nn.functional.normalize(torch.randn(20, 3), dim=-1)
    background = Background(kind)
    colors = background(directions)
    assert colors.shape == (20, 3) and colors.min() >= 0 and colors.max() <= 1
    assert (kind == "network") == (colors.std(dim=0).max().item() > 1e-6), "a fresh picture is plain"
    assert (kind == "white") == (not list(background.parameters()))


def test_a_turned_field_looks_from_a_turned_camera_as_before(config: FieldConfig, points: Tensor) -> None:
    torch.manual_seed(0)
    field = Field(config)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    before = field.density_and_color(points)
    field.turn_by(50.0)
    field.turn_by(-20.0)
    angle = torch.deg2rad(torch.tensor(30.0))
    x, y, z = points.unbind(-1)
    turned = torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y, z], dim=-1)
    after = field.density_and_color(turned)
    torch.testing.assert_close(after[1], before[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after[0], before[0], atol=1e-2, rtol=1e-3)
    assert (field.density(points) - before[0]).abs().max() > 0.1
    again = Field.from_state(field.state(), config.model_dump())
    torch.testing.assert_close(again.density(turned), after[0])


def test_state_round_trip(config: FieldConfig, points: Tensor) -> None:
    field = Field(config, occupancy_resolution=12)
    field.occupancy.update(field.density, 0.01, torch.Generator().manual_seed(0))
    artifact = RadianceField(field.state(), config.model_dump(), torch.zeros(1, 3, 8, 8), steps=1)
    again = load_representation(artifact)
    torch.testing.assert_close(again.density_and_color(points), field.density_and_color(points), atol=0, rtol=0)
    assert torch.equal(again.occupancy.occupied, field.occupancy.occupied)
    assert again.occupancy.occupied.float().mean() < 1


@pytest.mark.parametrize("implementation", ["tcnn", "triton"])
def test_a_field_trained_on_a_gpu_loads_without_one(implementation: str) -> None:
    field = Field(FieldConfig(implementation="torch", **SETTINGS))
    config = FieldConfig(implementation=implementation, **SETTINGS).model_dump()
    artifact = RadianceField(field.state(), config, torch.zeros(1, 3, 8, 8), 1)
    point = torch.full((1, 3), 0.2)
    torch.testing.assert_close(load_representation(artifact).density(point), field.density(point))


class Corners(Encoding):
    """The coordinates themselves, cut off at the cube's sides: an encoding that no code but this test knows."""

    output_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(3))

    def forward(self, points: Tensor, channels: int = 4) -> Tensor:
        return self.factor * points.clamp(-1, 1)

    def make_head(self, width: int, logits: int = 4) -> torch.nn.Module:
        return torch.nn.Linear(3, logits)

    @property
    def detail_size(self) -> float:
        return 0.1

    @property
    def normal_step(self) -> float:
        return 0.05


def test_any_encoding_makes_a_field(monkeypatch: pytest.MonkeyPatch, points: Tensor) -> None:
    monkeypatch.setattr(radiance_field, "make_encoding", lambda config, device, logits: Corners())
    field = Field(FieldConfig(blob_density=8.0, blob_radius=0.5))
    by_hand = points.clamp(-1, 1) @ field.head.weight.T + field.head.bias
    blob = 8 * (1 - points.norm(dim=-1) / 0.5).clamp(min=-1)
    expected = by_hand + torch.nn.functional.pad(blob[:, None], (0, 3))
    torch.testing.assert_close(field.logits(points), expected)
    assert smoothness(field, torch.Generator().manual_seed(0)) > 0
    assert field.normals(points).shape == points.shape


def test_a_picture_behind_the_field_is_seen_by_longitude_and_latitude() -> None:
    """Its middle column is in front, the left quarter at +y, the first row above; where its borders meet is no seam."""
    background = Background("texture")
    height, width = background.picture.shape[-2:]
    with torch.no_grad():
        background.picture.copy_(torch.randn(background.picture.shape, generator=torch.Generator().manual_seed(0)))
    picture = background.picture[0].detach().sigmoid()

    def seen(row: float, column: float) -> Tensor:
        """At the middle of a pixel, which may lie between two."""
        polar, azimuth = math.pi * (row + 0.5) / height, 2 * math.pi * (0.5 - (column + 0.5) / width)
        ring = math.sin(polar)
        direction = torch.tensor([[ring * math.cos(azimuth), ring * math.sin(azimuth), math.cos(polar)]])
        return background(direction)[0].detach()

    for row, column in ((0, 0), (5, 12), (height - 1, width - 1), (height // 2, width // 2)):
        torch.testing.assert_close(seen(row, column), picture[:, row, column], atol=2e-3, rtol=0)
    torch.testing.assert_close(seen(9, -0.5 + 1e-4), seen(9, width - 0.5 - 1e-4), atol=2e-3, rtol=0)
    assert background(torch.tensor([[1.0, 0.0, 0.0]])).shape == (1, 3)
    background(torch.nn.functional.normalize(torch.randn(50, 3), dim=-1)).sum().backward()
    assert background.picture.grad.abs().sum() > 0
