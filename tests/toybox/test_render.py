"""Rendered pictures against closed forms, and the two ways to trace against each other."""

import pytest
import torch

from dreambooth3d.cameras import orbit_cameras, turntable_cameras
from dreambooth3d.toybox.packing import pack_scenes
from dreambooth3d.toybox.recipes import TRAINING_CLASSES, Recipe
from dreambooth3d.toybox.render import render_scenes, render_views, trace
from dreambooth3d.toybox.shapes import signed_distance
from tests.toybox.one_solid import one_solid

DOG = Recipe("dog", "red", "white", "striped", "hat", "blue", seed=5)


def ray_sphere_depth(origins: torch.Tensor, directions: torch.Tensor, centre: torch.Tensor, radius: float):
    """Depth of the first intersection, NaN where the ray misses."""
    to_centre = centre - origins
    along = (to_centre * directions).sum(-1)
    return along - (radius**2 - to_centre.square().sum(-1) + along**2).sqrt()


def test_depth_and_mask_of_a_sphere_match_ray_sphere_intersection():
    scene = one_solid("ellipsoid", (0.4, 0.4, 0.4))
    cameras = orbit_cameras(torch.tensor([20.0]))
    origins, directions = cameras.rays(96, 96)
    truth = ray_sphere_depth(origins, directions, scene.centre[0, 0], 0.4)
    render = render_scenes(scene, cameras, torch.ones(1, 3), size=96, supersample=1)
    hit = render.mask > 0.5
    assert (hit != truth.isfinite()).float().mean() < 2e-3
    both = hit & truth.isfinite()
    error = (render.depth[both] - truth[both]).abs()
    assert error.median() < 2e-3
    assert error.max() < 4e-2, "largest where rays graze the silhouette"


def test_supersampled_mask_has_the_closed_form_area():
    scene = one_solid("ellipsoid", (0.4, 0.4, 0.4))
    cameras = orbit_cameras(torch.tensor([0.0]))
    origins, directions = cameras.rays(512, 512)
    truth = ray_sphere_depth(origins, directions, scene.centre[0, 0], 0.4).isfinite().float().mean()
    mask = render_scenes(scene, cameras, torch.ones(1, 3), size=64, supersample=3).mask
    assert abs(mask.mean() - truth) < 1.5e-3
    assert ((mask > 0) & (mask < 1)).any(), "edges are antialiased"


def test_the_front_faces_azimuth_zero_and_left_is_plus_y():
    scene = one_solid("ellipsoid", (0.1, 0.1, 0.1))
    scene.centre[0, 0] = torch.tensor([0.5, 0.0, 0.0])
    cameras = orbit_cameras(torch.tensor([0.0, 90.0, 180.0, 270.0]), elevation_deg=0.0)
    render = render_scenes(scene, cameras, torch.zeros(4, 3), size=64)
    columns = (render.mask * (torch.arange(64) - 31.5)).sum((1, 2)) / render.mask.sum((1, 2))
    nearest = torch.where(render.depth > 0, render.depth, 99.0).amin((1, 2))
    assert nearest.argmin() == 0 and nearest.argmax() == 2
    assert abs(columns[0]) < 0.5 and abs(columns[2]) < 0.5
    assert columns[1] < -5 and columns[3] > 5, "seen from +y, the front points to the left of the picture"


def test_batch_of_scenes_equals_single_scenes_and_dense_equals_compact():
    recipes = [
        DOG,
        Recipe("can", "green", "pink", "checkered", seed=1),
        Recipe("boat", "blue", "red", "spotted", seed=2),
    ]
    cameras = orbit_cameras(torch.tensor([30.0, 120.0, 250.0]))
    background = torch.tensor([[1.0, 1, 1], [0.5, 0.6, 0.7], [0.2, 0.9, 0.4]])
    scene = pack_scenes(recipes)
    compact = render_scenes(scene, cameras, background, size=32)
    dense = render_scenes(scene, cameras, background, size=32, compact=False)
    assert (compact.image - dense.image).abs().max() < 2e-2
    torch.testing.assert_close(compact.mask, dense.mask)
    for index, recipe in enumerate(recipes):
        single = render_views(recipe, cameras[[index]], background[index], size=32)
        assert (single.image[0] - compact.image[index]).abs().mean() < 1e-3
        assert (single.mask[0] - compact.mask[index]).abs().mean() < 1e-3


def test_no_ray_passes_through_a_surface():
    scene = pack_scenes([DOG])
    cameras = orbit_cameras(torch.tensor([40.0]))
    origins, directions = (value.reshape(1, -1, 3) for value in cameras.rays(48, 48))
    _, hit = trace(scene, origins, directions)
    samples = origins[:, :, None] + torch.linspace(1.4, 3.6, 400)[None, None, :, None] * directions[:, :, None]
    touched = (signed_distance(scene, samples.reshape(1, -1, 3)).reshape(1, -1, 400) < -2e-3).any(-1)
    assert not (touched & ~hit).any()


def test_background_may_be_an_image():
    picture = torch.rand(1, 3, 32, 32)
    render = render_views(DOG, orbit_cameras(torch.tensor([0.0])), picture, size=32)
    empty = (render.mask == 0)[:, None].expand_as(picture)
    torch.testing.assert_close(render.image[empty], picture[empty])


def test_wrong_number_of_cameras_is_named():
    with pytest.raises(ValueError, match="2 scenes for 36 cameras"):
        render_scenes(pack_scenes([DOG, DOG]), turntable_cameras(), torch.ones(36, 3))


@pytest.mark.parametrize("noun", TRAINING_CLASSES)
def test_front_side_back_and_overhead_differ(noun: str):
    recipe = Recipe(noun, "blue", "yellow", seed=3)
    cameras = orbit_cameras(torch.tensor([0.0, 90.0, 180.0, 0.0]))
    cameras.elevation_deg[3] = 75.0
    render = render_views(recipe, cameras, size=32, supersample=1)
    difference = (render.image[:, None] - render.image[None]).abs().mean(dim=(2, 3, 4))
    assert difference[~torch.eye(4, dtype=torch.bool)].min() > 0.008
    assert 0.1 < render.mask[0].mean() < 0.5
