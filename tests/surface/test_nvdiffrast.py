"""The adapter to nvdiffrast: against its documented conventions on a CPU, and itself where it is installed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from dreambooth3d.config.mesh import MeshConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.surface import nvdiffrast_raster
from dreambooth3d.surface.raster import project, rasterize
from dreambooth3d.surface.surface_mesh import SurfaceMesh
from tests.surface.scenes import AROUND, TINY, ball, painted, torus

HEIGHT, WIDTH = 24, 36


def documented_rasterize(context: object, positions: Tensor, faces: Tensor, resolution: tuple[int, int]) -> tuple:
    """What nvdiffrast's documentation says that it gives: u, v, z/w and the triangle's number from 1, or zeros.

    Rows of pixels go up with y. u and v are weights of the first two corners, linear in space. Triangles must be in
    front of the near plane as a whole.
    """
    assert context == "context" and positions.is_contiguous() and positions.dtype == torch.float32
    assert faces.dtype == torch.int32 and faces.is_contiguous()
    height, width = resolution
    corners = positions.double()[:, faces.long()]
    assert (corners[..., 2] > -corners[..., 3]).all() and (corners[..., 2] < corners[..., 3]).all()
    out = torch.zeros(len(positions), height, width, 4)
    for view in range(len(positions)):
        for row in range(height):
            for column in range(width):
                x, y = 2 * (column + 0.5) / width - 1, 2 * (row + 0.5) / height - 1
                # The pixel's ray meets a triangle where weights b >= 0 with sum_i b_i (x_i - x w_i, y_i - y w_i) = 0.
                a = corners[view]
                plane = torch.stack([a[..., 0] - x * a[..., 3], a[..., 1] - y * a[..., 3]], dim=1)  # (f, 2, 3)
                weights = torch.linalg.cross(plane[:, 0], plane[:, 1])
                weights = weights / weights.sum(dim=-1, keepdim=True)
                hit = (weights >= 0).all(dim=-1)
                if hit.any():
                    z, w = (weights * a[..., 2]).sum(-1), (weights * a[..., 3]).sum(-1)
                    face = torch.where(hit, z / w, torch.inf).argmin()
                    out[view, row, column] = torch.tensor(
                        [*weights[face, :2].tolist(), (z / w)[face].item(), face.item() + 1.0]
                    )
    return out, torch.zeros(0)


@pytest.fixture
def documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvdiffrast_raster, "_module", lambda: SimpleNamespace(rasterize=documented_rasterize))
    monkeypatch.setattr(nvdiffrast_raster, "_context", lambda device: "context")


@pytest.mark.parametrize("shape", [ball, torus])
def test_it_shows_what_our_rasteriser_shows(documented: None, shape: object) -> None:
    vertices, triangles = shape(12)
    projection = project(vertices, AROUND[:2], HEIGHT, WIDTH)
    ours, theirs = rasterize(projection, triangles.faces), nvdiffrast_raster.rasterize(projection, triangles.faces)
    assert theirs.faces.dtype == ours.faces.dtype and theirs.faces.shape == ours.faces.shape
    assert (ours.faces == theirs.faces).float().mean() > 0.995 and (ours.faces >= 0).float().mean() > 0.1
    assert torch.equal(ours.faces >= 0, theirs.faces >= 0)
    torch.testing.assert_close(theirs.depth, ours.depth, atol=1e-4, rtol=0)


def test_clip_positions_are_those_of_a_perspective_matrix() -> None:
    """Of OpenGL's matrix, with y upside down, for points in front of the camera and behind it."""
    vertices = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 2
    clip = nvdiffrast_raster.clip_positions(project(vertices, AROUND, HEIGHT, WIDTH))
    near, far = 0.01, 100.0
    for view in range(len(AROUND)):
        scale = 1 / torch.tan(torch.deg2rad(AROUND.fov_y_deg[view]) / 2)
        matrix = torch.zeros(4, 4)
        matrix[0, 0], matrix[1, 1] = scale * HEIGHT / WIDTH, -scale
        matrix[2, 2], matrix[2, 3], matrix[3, 2] = (far + near) / (near - far), 2 * far * near / (near - far), -1.0
        local = torch.linalg.inv(AROUND.camera_to_world[view]) @ torch.cat([vertices, torch.ones(50, 1)], dim=1).T
        torch.testing.assert_close(clip[view], (matrix @ local).T, atol=1e-3, rtol=1e-4)
    assert (clip[..., 3] < 0).any() and (clip[..., 3] > 0).any()


def test_nothing_is_shown_of_an_empty_mesh() -> None:
    projection = project(torch.zeros(0, 3), AROUND, HEIGHT, WIDTH)
    shown = nvdiffrast_raster.rasterize(projection, torch.zeros(0, 3, dtype=torch.long))
    assert (shown.faces == -1).all() and shown.depth.isinf().all() and shown.faces.shape == (4, HEIGHT, WIDTH)


def test_without_it_there_is_one_sentence_and_an_asset_loads_anyway() -> None:
    config = TINY.model_copy(update={"rasterizer": "nvdiffrast"})
    with pytest.raises(ConfigError, match=r"needs a CUDA device\. Set mesh\.rasterizer=torch\.$"):
        SurfaceMesh(config)
    made = painted(SurfaceMesh(TINY))
    again = SurfaceMesh.from_state(made.state(), config.model_dump(mode="json"))
    assert torch.equal(again.render(AROUND, 32).color, made.render(AROUND, 32).color)
    assert again.config.rasterizer == "auto" and again.config.texture == made.config.texture, "each for itself"
    assert MeshConfig().rasterizer == "auto"


@pytest.mark.gpu
def test_the_real_one_shows_what_our_rasteriser_shows() -> None:
    pytest.importorskip("nvdiffrast.torch")
    vertices, triangles = torus()
    projection, faces = project(vertices.cuda(), AROUND.to("cuda"), 100, 132), triangles.faces.cuda()
    ours, theirs = rasterize(projection, faces), nvdiffrast_raster.rasterize(projection, faces)
    assert (ours.faces == theirs.faces).float().mean() > 0.995
    both = (ours.faces >= 0) & (theirs.faces >= 0)
    torch.testing.assert_close(theirs.depth[both], ours.depth[both], atol=5e-3, rtol=0)
    made = painted(SurfaceMesh(TINY, "cuda"))
    other = SurfaceMesh(TINY.model_copy(update={"rasterizer": "nvdiffrast"}), "cuda")
    other.load(made.state())
    assert (other.render(AROUND, 64).color - made.render(AROUND, 64).color).abs().mean() < 2e-3
