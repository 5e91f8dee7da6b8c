"""Files of Gaussians, read by others' code."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from dreambooth3d.config.gaussians import GaussiansConfig
from dreambooth3d.errors import ConfigError, EmptyFieldError
from dreambooth3d.gaussians.files import write_ply, write_splat, write_spz
from dreambooth3d.gaussians.gaussians import Gaussians
from dreambooth3d.gaussians.starting import Start
from dreambooth3d.representation.interface import turn_about_z

FRONT_RIGHT_UP = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
"""In the world, as who looks at the front sees it: towards them, right, up."""


@pytest.fixture
def three() -> Gaussians:
    """One towards the viewer, one to the right, one above; long along x, y and z; red, green and blue."""
    scales = torch.full((3, 3), 0.05) + torch.diag(torch.tensor([0.15, 0.2, 0.25]))
    start = Start(
        0.5 * torch.tensor(FRONT_RIGHT_UP),
        scales,
        torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(3, 1),
        torch.tensor([0.5, 0.7, 0.9]),
        torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9]]),
    )
    return Gaussians(GaussiansConfig(min_radius=1e-6), start)


def long_axes(scales: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """(n, 3) unit vectors along the longest axes, of quaternions with the real part first."""
    turns = Rotation.from_quat(rotations, scalar_first=True).as_matrix()
    return np.stack([turn[:, scale.argmax()] for turn, scale in zip(turns, scales, strict=True)])


def test_a_ply_holds_what_viewers_read(three: Gaussians, tmp_path: Path) -> None:
    """By trimesh's reader: x to the right, y down, z away; logarithms, logits and harmonics undone as viewers do."""
    write_ply(three, tmp_path / "a.ply", unit=2.0)
    cloud = trimesh.load(tmp_path / "a.ply", process=False)
    data = cloud.metadata["_ply_raw"]["vertex"]["data"]
    rows = {name: np.asarray(data[name]).reshape(3) for name in data.dtype.names}
    names = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    assert list(rows) == names.split()
    color = 0.5 + 0.28209479177387814 * np.stack([rows[f"f_dc_{i}"] for i in range(3)], axis=1)
    order = color.argmax(axis=1).argsort()  # red, green, blue: towards the viewer, right, above
    places = np.stack([rows[axis] for axis in "xyz"], axis=1)[order]
    np.testing.assert_allclose(places, [[0, 0, -1], [1, 0, 0], [0, -1, 0]], atol=1e-6)
    np.testing.assert_allclose(color[order], 0.1 + 0.8 * np.eye(3), atol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-rows["opacity"][order])), [0.5, 0.7, 0.9], atol=1e-5)
    scales = np.exp(np.stack([rows[f"scale_{i}"] for i in range(3)], axis=1))[order]
    np.testing.assert_allclose(scales.max(axis=1), [0.4, 0.5, 0.6], rtol=1e-4)
    rotations = np.stack([rows[f"rot_{i}"] for i in range(4)], axis=1)[order]
    np.testing.assert_allclose(np.abs(long_axes(scales, rotations)), [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=1e-5)


def test_a_splat_has_32_bytes_for_each_and_the_largest_first(three: Gaussians, tmp_path: Path) -> None:
    three.turn_by(90.0)  # what was towards the viewer is on the right now, what was there is away
    write_splat(three, tmp_path / "a.splat")
    written = (tmp_path / "a.splat").read_bytes()
    assert len(written) == 3 * 32
    rows = [struct.unpack("<6f8B", written[32 * i : 32 * i + 32]) for i in range(3)]
    colors = np.array([row[6:10] for row in rows]) / 255
    assert colors[:, 3] == pytest.approx([0.9, 0.7, 0.5], abs=0.003), "by size times opacity"
    order = colors[:, :3].argmax(axis=1).argsort()
    places = np.array([row[:3] for row in rows])[order]
    np.testing.assert_allclose(places, [[0.5, 0, 0], [0, 0, 0.5], [0, -0.5, 0]], atol=1e-6)
    scales, rotations = np.array([row[3:6] for row in rows])[order], np.array([row[10:] for row in rows])[order]
    axes = long_axes(scales, (rotations - 128.0) / 128)
    np.testing.assert_allclose(np.abs(axes), [[1, 0, 0], [0, 0, 1], [0, 1, 0]], atol=0.02)


def test_a_turned_one_is_written_as_it_looks(tmp_path: Path) -> None:
    """Covariances of the file, turned back, are those that are rendered."""
    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * 0.2
    normals = torch.nn.functional.normalize(points, dim=-1)
    gaussians = Gaussians.from_points(points, torch.rand(40, 3), normals=normals)
    gaussians.move(turn_about_z(35.0), torch.tensor([0.1, 0.0, -0.1]), 1.2)
    write_ply(gaussians, tmp_path / "a.ply")
    data = trimesh.load(tmp_path / "a.ply", process=False).metadata["_ply_raw"]["vertex"]["data"]
    column = {name: np.asarray(data[name], dtype=np.float64).reshape(-1) for name in data.dtype.names}
    places = np.stack([-column["z"], column["x"], -column["y"]], axis=1)
    to_world = np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])
    rotations = np.stack([column[f"rot_{i}"] for i in range(4)], axis=1)
    axes = to_world @ Rotation.from_quat(rotations, scalar_first=True).as_matrix()
    spread = axes * np.exp(np.stack([column[f"scale_{i}"] for i in range(3)], axis=1))[:, None]
    splats = gaussians.splats()
    nearest = np.linalg.norm(places[:, None] - splats.means.detach().numpy(), axis=-1).argmin(axis=1)
    np.testing.assert_allclose(places, splats.means.detach().numpy()[nearest], atol=1e-5)
    np.testing.assert_allclose(
        spread @ spread.transpose(0, 2, 1), splats.covariances.detach().numpy()[nearest], atol=1e-5
    )


@pytest.mark.parametrize("unit", [2.0, 0.05])
def test_an_spz_is_read_as_its_specification_says(three: Gaussians, tmp_path: Path, unit: float) -> None:
    """Y up, z towards the viewer; sections one after the other, by the numbers of the published format."""
    write_spz(three, tmp_path / "a.spz", unit)
    content = gzip.decompress((tmp_path / "a.spz").read_bytes())
    magic, version, count, degree, bits, flags, reserved = struct.unpack("<4sIIBBBB", content[:16])
    assert (magic, version, count, degree, flags, reserved) == (b"NGSP", 2, 3, 0, 0, 0)
    assert len(content) == 16 + 19 * count
    parts = np.split(np.frombuffer(content[16:], np.uint8), np.cumsum([9 * count, count, 3 * count, 3 * count]))
    fixed = [int.from_bytes(each.tobytes(), "little", signed=True) for each in parts[0].reshape(-1, 3)]
    alphas, colors, scales, turns = parts[1] / 255, *(part.reshape(-1, 3) for part in parts[2:])
    colors = 0.5 + 0.28209479177387814 * (colors / 255 - 0.5) / 0.15
    order = colors.argmax(axis=1).argsort()  # red, green, blue: towards the viewer, right, above
    places = np.array(fixed).reshape(-1, 3)[order] / 2**bits
    np.testing.assert_allclose(places, 0.5 * unit * np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), atol=1e-5 * unit)
    np.testing.assert_allclose(colors[order], 0.1 + 0.8 * np.eye(3), atol=0.004)
    np.testing.assert_allclose(alphas[order], [0.5, 0.7, 0.9], atol=0.002)
    scales = np.exp(scales / 16 - 10)[order]
    np.testing.assert_allclose(scales.max(axis=1), unit * np.array([0.2, 0.25, 0.3]), rtol=0.032)
    vectors = turns[order] / 127.5 - 1
    real = np.sqrt((1 - np.square(vectors).sum(axis=1)).clip(0))
    axes = long_axes(scales, np.concatenate([real[:, None], vectors], axis=1))
    np.testing.assert_allclose(np.abs(axes), [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=0.02)


def test_other_code_reads_the_same_from_all_three(three: Gaussians, tmp_path: Path) -> None:
    gsply = pytest.importorskip("gsply", reason="gsply is not installed: pip install gsply")
    three.move(turn_about_z(35.0), torch.tensor([0.1, 0.0, -0.1]), 0.9)
    write_ply(three, tmp_path / "a.ply")
    write_spz(three, tmp_path / "a.spz")
    ply, spz = gsply.plyread(tmp_path / "a.ply"), gsply.read_spz(tmp_path / "a.spz")
    np.testing.assert_allclose(spz.means, ply.means * [1, -1, -1], atol=1e-6)
    np.testing.assert_allclose(spz.sh0.reshape(3, 3), ply.sh0.reshape(3, 3), atol=0.5 / (255 * 0.15) + 1e-5)
    np.testing.assert_allclose(spz.scales, ply.scales, atol=0.5 / 16 + 1e-5)
    half_turn = np.diag([1.0, -1.0, -1.0])
    np.testing.assert_allclose(spreads(spz), half_turn @ spreads(ply) @ half_turn, rtol=0.15, atol=2e-3)


def spreads(read: Any) -> np.ndarray:
    """(n, 3, 3) covariances of Gaussians as gsply reads them."""
    axes = Rotation.from_quat(read.quats, scalar_first=True).as_matrix() * np.exp(read.scales)[:, None]
    return axes @ axes.transpose(0, 2, 1)


def test_turns_of_an_spz_are_those_of_the_ellipsoids(tmp_path: Path) -> None:
    """Also where the real part, which is not kept, is small: any turn to a degree, up to half turns about own axes."""
    turns = Rotation.random(300, random_state=0)
    start = Start(
        torch.zeros(300, 3), torch.tensor([[0.3, 0.2, 0.1]]).repeat(300, 1),
        torch.from_numpy(turns.as_quat(scalar_first=True)).float(), torch.full((300,), 0.5), torch.rand(300, 3),
    )  # fmt: skip
    write_spz(Gaussians(GaussiansConfig(min_radius=1e-6), start), tmp_path / "a.spz")
    content = gzip.decompress((tmp_path / "a.spz").read_bytes())
    vectors = np.frombuffer(content[-900:], np.uint8).reshape(-1, 3) / 127.5 - 1
    real = np.sqrt((1 - np.square(vectors).sum(axis=1)).clip(0))
    found = Rotation.from_quat(np.concatenate([real[:, None], vectors], axis=1), scalar_first=True).as_matrix()
    wanted = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]) @ turns.as_matrix()
    assert np.abs((found * wanted).sum(axis=1)).min() > np.cos(np.deg2rad(1.2))


def test_an_spz_refuses_what_its_numbers_cannot_hold(three: Gaussians, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not fit the format's numbers. Choose another --metres"):
        write_spz(three, tmp_path / "a.spz", unit=1e-5)
    assert not (tmp_path / "a.spz").exists()


@pytest.mark.parametrize("write", [write_ply, write_splat, write_spz])
def test_what_cannot_be_seen_is_no_file(three: Gaussians, tmp_path: Path, write: object) -> None:
    with torch.no_grad():
        three.opacity_logits.fill_(-20)
    with pytest.raises(EmptyFieldError, match="none of them can be seen"):
        write(three, tmp_path / "a")  # pyright: ignore[reportCallIssue]
