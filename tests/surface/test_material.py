"""Light on physically based material, against sums of the rendering equation over a finely divided sphere."""

from __future__ import annotations

import math
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from torch import Tensor

from dreambooth3d.config.mesh import LightConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.surface.environment import HEIGHT, WIDTH, environment_of, light_maps
from dreambooth3d.surface.material import Material, shade, to_linear, to_srgb
from dreambooth3d.surface.radiance import read_radiance

ROWS = 512
COUNT = 24


def sphere() -> tuple[Tensor, Tensor]:
    """Unit directions (k, 3) and solid angles (k,)."""
    polar = (torch.arange(ROWS) + 0.5) * math.pi / ROWS
    azimuth = (torch.arange(2 * ROWS) + 0.5) * math.pi / ROWS
    polar, azimuth = (each.flatten() for each in torch.meshgrid(polar, azimuth, indexing="ij"))
    places = torch.stack([polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()], dim=-1)
    return places, polar.sin() * (math.pi / ROWS) ** 2


def specular(normal: Tensor, towards: Tensor, light: Tensor, roughness: float, straight: float) -> Tensor:
    """(k,) GGX lobe of light from directions (k, 3): D F G / (4 (n . l) (n . v)), with Smith's G written as its own."""
    half = torch.nn.functional.normalize(towards + light, dim=1)
    a = roughness**2
    nl, nv, nh, vh = light @ normal, towards @ normal, half @ normal, half @ towards
    d = a**2 / (math.pi * (nh**2 * (a**2 - 1) + 1) ** 2)

    def tail(cosine: Tensor) -> Tensor:
        tangent = (1 - cosine**2) / cosine**2
        return ((1 + a**2 * tangent).sqrt() - 1) / 2

    g = 1 / (1 + tail(nl.clamp(min=1e-6)) + tail(nv))
    f = straight + (1 - straight) * (1 - vh) ** 5
    return torch.where(nl > 0, d * f * g / (4 * nl.clamp(min=1e-6) * nv), torch.zeros_like(nl))


def soft_room(directions: Tensor) -> Tensor:
    """(k, 3) light without sharp edges: bright above, reddish in front."""
    up, front = directions[:, 2], directions[:, 0]
    return torch.stack([0.5 + 0.2 * up + 0.2 * front, 0.5 + 0.2 * up, 0.5 + 0.2 * up - 0.1 * front], dim=1)


def integrated(normal: Tensor, towards: Tensor, base: float, roughness: float, metallic: float) -> Tensor:
    """(3,) light that leaves a point in the soft room, by the rendering equation."""
    directions, angles = sphere()
    cosine = (directions @ normal).clamp(min=0)
    straight = 0.04 * (1 - metallic) + base * metallic
    below = 1 - (specular(normal, towards, directions, roughness, 0.04) * cosine * angles).sum()
    lobe = specular(normal, towards, directions, roughness, straight) + base * (1 - metallic) * below / math.pi
    return ((lobe * cosine * angles)[:, None] * soft_room(directions)).sum(0)


def room_texels() -> Tensor:
    """The soft room as an environment."""
    polar = (torch.arange(HEIGHT) + 0.5) * math.pi / HEIGHT
    azimuth = 2 * math.pi * (0.5 - (torch.arange(WIDTH) + 0.5) / WIDTH)
    polar, azimuth = torch.meshgrid(polar, azimuth, indexing="ij")
    places = torch.stack([polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()], dim=-1)
    return soft_room(places.view(-1, 3)).view(HEIGHT, WIDTH, 3)


def some_points(count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Unit normals (n, 3), and unit directions (n, 3) towards the camera, up to 60 degrees off them."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    beside = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    return normals, torch.nn.functional.normalize(normals + 0.86 * beside, dim=1)


def uniform(count: int, base: float, roughness: float, metallic: float) -> Material:
    """A material of one base colour, given as linear light."""
    ones = torch.ones(count)
    return Material(to_srgb(torch.full((count, 3), base)), roughness * ones, metallic * ones)


@pytest.mark.parametrize("base", [1.0, 0.3])
@pytest.mark.parametrize("roughness", [0.1, 0.3, 0.7, 1.0])
def test_white_furnace(base: float, roughness: float) -> None:
    """Under equal light from everywhere what is white is as bright as that light, and nothing is brighter."""
    light = light_maps(torch.ones(HEIGHT, WIDTH, 3))
    normals, towards = some_points(400)
    shown = to_linear(shade(uniform(400, base, roughness, 0.0), normals, towards, light))
    if base == 1.0:
        torch.testing.assert_close(shown, torch.ones_like(shown), atol=1e-4, rtol=0)
    assert (shown >= base - 1e-4).all() and (shown <= 1 + 1e-4).all()
    metal = to_linear(shade(uniform(400, base, roughness, 1.0), normals, towards, light))
    assert (metal <= 1 + 1e-4).all(), "nothing shows more light than it gets"
    if roughness == 0.1 and base == 1.0:
        torch.testing.assert_close(metal, torch.ones_like(metal), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("base", "roughness", "metallic"),
    [(0.6, 1.0, 0.0), (0.6, 0.5, 0.0), (0.2, 0.3, 0.0), (0.8, 0.3, 1.0), (0.8, 0.6, 1.0), (0.5, 0.5, 0.5)],
)
def test_light_is_that_of_the_rendering_equation(base: float, roughness: float, metallic: float) -> None:
    light = light_maps(room_texels())
    normals, towards = some_points()
    shown = to_linear(shade(uniform(COUNT, base, roughness, metallic), normals, towards, light))
    pairs = zip(normals, towards, strict=True)
    expected = torch.stack([integrated(normal, view, base, roughness, metallic) for normal, view in pairs])
    # The split sum takes the lobe for a round one: that is all that differs.
    tolerance = 0.02 if metallic == 0 else 0.06
    assert ((shown - expected) / expected).abs().mean() < tolerance
    assert ((shown - expected) / expected).abs().max() < 4 * tolerance


def test_the_limits_are_a_mirror_and_a_matt_wall() -> None:
    """A smooth white metal shows what lies in the reflected direction, a matt surface the cosine-weighted mean."""
    light = light_maps(room_texels())
    normals, towards = some_points(200)
    mirror = to_linear(shade(uniform(200, 1.0, 0.0, 1.0), normals, towards, light))
    behind = 2 * (normals * towards).sum(-1, keepdim=True) * normals - towards
    torch.testing.assert_close(mirror, soft_room(behind).clamp(max=1), atol=0.03, rtol=0)
    # Of light that is linear in the direction, the mean is that at two thirds of the normal.
    torch.testing.assert_close(light.diffuse(normals), soft_room(normals * 2 / 3), atol=2e-3, rtol=0)


def test_cubes_have_no_seams() -> None:
    """Directions on both sides of the cubes' edges and corners see nearly the same."""
    light = light_maps(environment_of(LightConfig()))
    generator = torch.Generator().manual_seed(0)
    edge = torch.rand(300, 3, generator=generator) * 2 - 1
    edge[:, 1] = edge[:, 0].sign() * edge[:, 0]
    edge[:, :2] += edge[:, :2].sign()
    moved = edge + 1e-4 * torch.tensor([1.0, -1.0, 0.5])
    first, second = (torch.nn.functional.normalize(each, dim=1) for each in (edge, moved))
    for roughness in (0.0, 0.3, 1.0):
        values = [light.reflected(each, torch.full((300,), roughness)) for each in (first, second)]
        torch.testing.assert_close(*values, atol=0.02, rtol=0.02)


def test_gradients_are_finite_and_point_the_right_way() -> None:
    """Also at the poles, at full and at no roughness; a brighter base colour makes a brighter picture."""
    light = light_maps(room_texels())
    poles = torch.cat([torch.eye(3), -torch.eye(3)]).requires_grad_()
    towards = torch.nn.functional.normalize(poles.detach() + torch.tensor([0.3, 0.2, 0.1]), dim=1)
    base = torch.full((6, 3), 0.5, requires_grad=True)
    roughness = torch.tensor([0.0, 1.0, 0.25, 0.08, 0.5, 0.9], requires_grad=True)
    metallic = torch.full((6,), 0.2, requires_grad=True)
    shade(Material(base, roughness, metallic), poles, towards, light).sum().backward()
    for values in (poles, base, roughness, metallic):
        assert values.grad is not None and values.grad.isfinite().all() and values.grad.abs().sum() > 0
    assert (base.grad > 0).all()


def test_a_given_environment_is_read_with_its_front_in_the_middle(tmp_path: Path) -> None:
    picture = np.full((64, 128, 3), 0.1, np.float32)
    picture[24:40, 60:68] = [8.0, 4.0, 2.0]  # at the horizon, in front
    picture[:8, :] = 1.0  # above
    file = tmp_path / "room.tiff"
    imageio.imwrite(file, picture)
    read = environment_of(LightConfig(environment=str(file), brightness=0.5))
    light = light_maps(read)
    seen = light.reflected(torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 0, 1.0]]), torch.zeros(3))
    assert seen[0, 0] > 10 * seen[1, 0] and seen[0, 0] > 2 * seen[0, 2] and seen[2, 0] > 5 * seen[1, 0]
    white = light_maps(torch.ones(HEIGHT, WIDTH, 3))
    assert white.cubes.allclose(torch.ones(()), atol=1e-5)
    polar = (torch.arange(HEIGHT) + 0.5) * math.pi / HEIGHT
    weights = polar.sin()[:, None, None] / (polar.sin().sum() * WIDTH * 3)
    assert (read * weights).sum().item() == pytest.approx(0.5, rel=1e-3)


RADIANCE = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 8\n"


def test_radiance_pictures_are_read() -> None:
    """Runs, literal bytes and rows that are not packed, by the numbers of the format."""
    row = b"\x02\x02\x00\x08"
    first = row + b"\x88\x80" + b"\x84\x40\x04\x01\x02\x03\x04" + b"\x88\x00" + b"\x88\x81"
    second = row + b"\x88\xff" * 3 + b"\x88\x00"
    found = read_radiance(RADIANCE + first + second)
    assert found.shape == (2, 8, 3) and found.dtype == np.float32
    assert found[0, :, 0].tolist() == [1.0] * 8 and (found[0, :, 2] == 0).all() and (found[1] == 0).all()
    assert found[0, :, 1].tolist() == [0.5] * 4 + [value / 128 for value in (1, 2, 3, 4)]
    plain = np.full((2, 8, 4), [64, 128, 255, 130], np.uint8)
    assert read_radiance(RADIANCE + plain.tobytes())[1, 3].tolist() == [1.0, 2.0, 255 / 64]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.hdr", None, "there is no such file"),
        ("broken.hdr", b"#?RADIANCE\nnothing", "cannot be read .it is no Radiance picture"),
        ("cut.hdr", RADIANCE + b"\x02\x02\x00\x08\x88\x10", "cannot be read .it is cut off"),
        ("words.exr", b"nothing of the kind", "cannot be read"),
        ("photo.png", np.full((8, 16, 3), 90, np.uint8), "holds no linear light"),
        ("dark.tiff", np.zeros((8, 16, 3), np.float32), "this picture is black"),
    ],
)
def test_environments_that_are_refused(
    tmp_path: Path, name: str, content: bytes | np.ndarray | None, sentence: str
) -> None:
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        imageio.imwrite(file, content)
    with pytest.raises(ConfigError, match=sentence) as refused:
        environment_of(LightConfig(environment=str(file)))
    assert str(file) in str(refused.value)
