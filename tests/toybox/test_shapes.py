"""Signed distances against closed forms and against the true nearest surface point."""

import torch

from dreambooth3d.toybox.packing import pack_scenes
from dreambooth3d.toybox.recipes import TRAINING_CLASSES, Recipe
from dreambooth3d.toybox.shapes import Scene, nearest_primitive, signed_distance, surface_normal
from tests.toybox.one_solid import one_solid


def random_points(count: int = 400, seed: int = 0) -> torch.Tensor:
    return 2 * torch.rand(1, count, 3, generator=torch.Generator().manual_seed(seed)) - 1


def surface_cloud(scene: Scene, count: int = 200_000) -> torch.Tensor:
    """Random points pushed onto the surface along the distance's own gradient, those kept that arrive."""
    points = random_points(count, seed=1)
    for _ in range(12):
        points = points - signed_distance(scene, points)[..., None] * surface_normal(scene, points)
    return points[signed_distance(scene, points).abs() < 1e-3]


def test_sphere_matches_its_closed_form():
    scene, points = one_solid("ellipsoid", (0.4, 0.4, 0.4)), random_points()
    expected = (points - scene.centre[:, 0]).norm(dim=-1) - 0.4
    torch.testing.assert_close(signed_distance(scene, points), expected, atol=1e-5, rtol=1e-5)


def test_box_matches_its_closed_form_outside():
    scene, points = one_solid("box", (0.3, 0.2, 0.4)), random_points()
    local = points - scene.centre[:, 0]
    half = torch.tensor([0.3, 0.2, 0.4])
    nearest = local.clamp(min=-half, max=half)
    outside = (local - nearest).norm(dim=-1)
    distance = signed_distance(scene, points)
    torch.testing.assert_close(distance[outside > 0], outside[outside > 0], atol=1e-5, rtol=1e-5)
    assert (distance[outside == 0] <= 0).all()


def test_torus_matches_its_closed_form():
    scene, points = one_solid("torus", (0.5, 0.1, 0.0)), random_points()
    x, y, z = (points - scene.centre[:, 0]).unbind(-1)
    expected = torch.hypot(torch.hypot(x, y) - 0.5, z) - 0.1
    torch.testing.assert_close(signed_distance(scene, points), expected, atol=1e-5, rtol=1e-5)


def test_every_kind_never_exceeds_the_distance_to_the_nearest_surface_point():
    sizes = {
        "ellipsoid": (0.5, 0.2, 0.3),
        "box": (0.3, 0.2, 0.4),
        "cone": (0.4, 0.15, 0.3),
        "torus": (0.5, 0.1, 0.0),
        "prism": (0.4, 0.3, 0.25),
    }
    for kind, size in sizes.items():
        scene = one_solid(kind, size, rounding=0.05 if kind in ("box", "cone") else 0.0)
        cloud, points = surface_cloud(scene, 40_000), random_points(150)
        distance = signed_distance(scene, points)[0]
        truth = torch.cdist(points[0], cloud).amin(dim=1)
        outside = distance > 0
        assert len(cloud) > 5000, kind
        assert (distance[outside] <= truth[outside] + 5e-3).all(), kind
        assert (distance[outside] > 0.3 * truth[outside] - 5e-3).all(), kind


def test_union_is_the_nearest_of_its_primitives():
    scene = pack_scenes([Recipe("dog", "red", "white", seed=1), Recipe("can", "blue", "pink", seed=2)])
    points = random_points().expand(2, -1, -1)
    index = nearest_primitive(scene, points)
    assert (scene.centre[torch.arange(2)[:, None], index].abs() < 2).all(), "an unused slot is never the nearest"


def test_normals_are_gradients_of_the_distance():
    scene = pack_scenes([Recipe("teapot", "red", "white", seed=3)])
    points = random_points(64).requires_grad_()
    (gradient,) = torch.autograd.grad(signed_distance(scene, points).sum(), points)
    expected = torch.nn.functional.normalize(gradient, dim=-1)
    cosine = (surface_normal(scene, points.detach()) * expected).sum(-1)
    assert cosine.median() > 0.999


def test_every_subject_lies_in_the_unit_ball_and_in_its_extent():
    recipes = [
        Recipe(noun, "red", "white", "plain", "hat", "blue", seed) for noun in TRAINING_CLASSES for seed in (1, 2)
    ]
    scene = pack_scenes(recipes)
    directions = torch.nn.functional.normalize(random_points(2000, seed=3), dim=-1).expand(len(recipes), -1, -1)
    assert (signed_distance(scene, 0.97 * directions) > 0).all()
    outside_box = directions * (scene.extent[:, None] / directions.abs()).amin(dim=-1, keepdim=True) * 1.001
    assert (signed_distance(scene, outside_box) > -1e-3).all()
