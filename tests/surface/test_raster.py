"""The rasteriser against ray casts by embree, its gradients against finite differences and closed forms."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dreambooth3d.surface import raster as module
from dreambooth3d.surface.antialias import antialias
from dreambooth3d.surface.marching import Topology
from dreambooth3d.surface.raster import meet, project, rasterize
from tests.surface.scenes import AROUND, ball, disc_area, silhouettes, torus

SIZE = 48


def cast(vertices: Tensor, faces: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
    """Embree's nearest triangle along each ray, -1 where there is none."""
    pytest.importorskip("embreex")
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, vertices.numpy()[faces.numpy()].astype(np.float32))
    rays = (values.reshape(-1, 3).contiguous().numpy() for values in (origins, directions))
    return torch.from_numpy(scene.run(*rays, query="INTERSECT")).long()


@pytest.mark.parametrize("made", [ball, torus])
def test_pixels_show_what_embree_meets(made: object) -> None:
    vertices, triangles = made()
    shown = rasterize(project(vertices, AROUND, SIZE, SIZE), triangles.faces)
    expected = cast(vertices, triangles.faces, *AROUND.rays(SIZE, SIZE)).view(shown.faces.shape)
    assert torch.equal(shown.faces >= 0, expected >= 0), "without holes along edges"
    assert (shown.faces == expected).float().mean() > 0.999 and (expected >= 0).float().mean() > 0.1


def test_wide_images_and_few_fragments_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, triangles = torus()
    whole = rasterize(project(vertices, AROUND, 40, 64), triangles.faces)
    expected = cast(vertices, triangles.faces, *AROUND.rays(40, 64)).view(4, 40, 64)
    assert (whole.faces == expected).float().mean() > 0.999
    monkeypatch.setattr(module, "FRAGMENTS_AT_ONCE", 1000)
    assert torch.equal(rasterize(project(vertices, AROUND, 40, 64), triangles.faces).faces, whole.faces)


def test_what_is_behind_the_camera_is_left_out() -> None:
    """From inside the ball, looking out: its far side is seen, nothing of the side behind."""
    vertices, triangles = ball()
    inside = replace(AROUND[:1], distance=torch.tensor([0.1]))
    shown = rasterize(project(vertices, inside, SIZE, SIZE), triangles.faces)
    assert (shown.faces >= 0).all() and (shown.depth > 0.2).all() and (shown.depth < 0.6).all()


def test_rays_meet_their_triangles_where_the_depth_says() -> None:
    vertices, triangles = torus()
    shown = rasterize(project(vertices, AROUND, SIZE, SIZE), triangles.faces)
    origins, directions = AROUND.rays(SIZE, SIZE)
    seen = shown.faces >= 0
    corners = vertices[triangles.faces[shown.faces[seen]]]
    weights, distance = meet(corners, origins[seen], directions[seen])
    points = origins[seen] + distance[:, None] * directions[seen]
    torch.testing.assert_close((weights[..., None] * corners).sum(dim=1), points, atol=1e-4, rtol=0)
    assert (weights > -1e-2).all()
    axes = -AROUND.camera_to_world[:, :3, 2][:, None, None].expand_as(directions)[seen]
    torch.testing.assert_close(((points - origins[seen]) * axes).sum(-1), shown.depth[seen], atol=1e-4, rtol=0)
    ring = (points[:, :2].norm(dim=1) - 0.5).square() + points[:, 2].square()
    assert ring.sqrt().sub(0.2).abs().max() < 0.01, "and that is the surface"


def test_an_outline_covers_the_area_of_the_disc_and_grows_with_it() -> None:
    vertices, triangles = ball(32)
    scale = torch.tensor(1.0, requires_grad=True)
    covered = silhouettes(scale * vertices, triangles, AROUND, 64).sum()
    (slope,) = torch.autograd.grad(covered, scale)
    assert covered.item() == pytest.approx(4 * disc_area(0.45, 64), rel=5e-3)
    grown = 4 * (disc_area(0.45 * 1.001, 64) - disc_area(0.45 * 0.999, 64)) / 0.002
    assert slope.item() == pytest.approx(grown, rel=0.02)


@pytest.mark.parametrize("view", range(4))
@pytest.mark.parametrize("made", [ball, torus])
def test_gradients_are_those_of_finite_differences(made: object, view: int) -> None:
    """Of a weighted silhouette, in shifts and in the camera's elevation; the mean over a few places in the pixels."""
    vertices, triangles = made()
    weights, step = torch.linspace(0, 1, SIZE) ** 2, 0.02

    def loss(change: Tensor) -> Tensor:
        camera = AROUND[view : view + 1]
        camera = replace(camera, elevation_deg=camera.elevation_deg + 20 * change[3])
        return (silhouettes(vertices + change[:3], triangles, camera, SIZE) * weights).sum()

    slopes, measured = [], []
    for seed in range(4):
        start = 0.03 * torch.randn(4, generator=torch.Generator().manual_seed(seed))
        leaf = start.clone().requires_grad_()
        slopes += torch.autograd.grad(loss(leaf), leaf)
        changes = step * torch.eye(4)
        with torch.no_grad():
            measured.append(torch.stack([loss(start + each) - loss(start - each) for each in changes]) / (2 * step))
    found, expected = torch.stack(slopes).mean(dim=0), torch.stack(measured).mean(dim=0)
    assert (found - expected).norm() < 0.08 * expected.norm() and expected.norm() > 100


def test_a_ball_moves_and_grows_to_fill_a_silhouette() -> None:
    vertices, triangles = ball()
    wanted = silhouettes(1.4 * vertices + torch.tensor([0.1, -0.15, 0.2]), triangles, AROUND, SIZE)
    shift, scale = torch.zeros(3, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    optimizer = torch.optim.Adam([shift, scale], 0.02)
    for _ in range(60):
        loss = (silhouettes(scale * vertices + shift, triangles, AROUND, SIZE) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(shift.detach(), torch.tensor([0.1, -0.15, 0.2]), atol=0.02, rtol=0)
    assert scale.item() == pytest.approx(1.4, abs=0.03)


def test_outlines_blend_over_what_is_hidden_too() -> None:
    """In front of another surface: two triangles, the near one's edge at a known place over the far one."""
    near = torch.tensor([[0.0, -0.3, -0.5], [0.0, 0.113, -0.5], [0.0, 0.113, 0.5], [0.0, -0.3, 0.5]])
    far = torch.tensor([[-0.5, -0.9, -0.9], [-0.5, 0.9, -0.9], [-0.5, 0.9, 0.9], [-0.5, -0.9, 0.9]])
    vertices, faces, edges, beside = _plates(near, far)
    triangles = Topology(torch.zeros(len(vertices), 2).long(), faces, edges, beside, torch.zeros(0).bool())
    front = replace(AROUND[:1], azimuth_deg=torch.zeros(1), elevation_deg=torch.zeros(1))
    projection = project(vertices, front, SIZE, SIZE)
    shown = rasterize(projection, faces)
    image = torch.where(shown.faces < 4, 1.0, 0.0)[:, None] * (shown.faces >= 0)[:, None]
    row = antialias(image, shown, projection, triangles)[0, 0, SIZE // 2]
    # The edge at y = 0.113 lies to the right of the image's middle; the covered length of the row ends there.
    left, right = projection.places[0, :2, 0].tolist()
    assert row.sum().item() == pytest.approx(right - left, abs=0.02)
    assert row.min() >= 0 and row.max() <= 1


def _plates(*quads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Thin plates of two triangles in front and the same two behind, turned: closed, with their outlines as edges."""
    faces, edges, beside = [], [], []
    for number in range(len(quads)):
        base, first = 4 * number, 4 * number
        faces += [[base, base + 1, base + 2], [base, base + 2, base + 3]]
        faces += [[base, base + 2, base + 1], [base, base + 3, base + 2]]
        sides = ((0, 1, 0, 2), (1, 2, 0, 2), (2, 3, 1, 3), (3, 0, 1, 3))
        edges += [[base + start, base + end] for start, end, _, _ in sides]
        beside += [[first + front, first + back] for _, _, front, back in sides]
    return torch.cat(quads), torch.tensor(faces), torch.tensor(edges), torch.tensor(beside)


@pytest.mark.gpu
def test_a_gpu_shows_the_same() -> None:
    """Triangles, outlines and their gradients as on the CPU."""
    vertices, triangles = torus()
    on_gpu = Topology(**{each.name: getattr(triangles, each.name).cuda() for each in fields(triangles)})
    cameras = AROUND.to("cuda")
    expected = rasterize(project(vertices, AROUND, SIZE, SIZE), triangles.faces)
    found = rasterize(project(vertices.cuda(), cameras, SIZE, SIZE), on_gpu.faces)
    assert (found.faces.cpu() == expected.faces).float().mean() > 0.999
    weights, slopes = torch.linspace(0, 1, SIZE) ** 2, []
    for places, topology, views in ((vertices, triangles, AROUND), (vertices.cuda(), on_gpu, cameras)):
        leaf = torch.zeros(3, device=places.device, requires_grad=True)
        shown = silhouettes(places + leaf, topology, views, SIZE)
        slopes.append(torch.autograd.grad((shown * weights.to(places.device)).sum(), leaf)[0].cpu())
    torch.testing.assert_close(slopes[1], slopes[0], rtol=0.02, atol=2.0)
