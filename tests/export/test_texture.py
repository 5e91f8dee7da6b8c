"""Textures of a ball whose colours tell where they belong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dreambooth3d.cameras import spread_cameras
from dreambooth3d.export.casting import MeshCaster, Pictures
from dreambooth3d.export.surface import decimated, sample_density, surface_at
from dreambooth3d.export.texture import texel_places, textured, unwrap, view_correction, with_vertex_colors
from tests.export.fields import as_source, no_pictures, rainbow_ball

SIZE, DEPTH = 256, 0.01


@pytest.fixture(scope="module")
def shape():
    return decimated(surface_at(sample_density(rainbow_ball, 48), 10.0), 1500)


@pytest.fixture(scope="module")
def painted(shape):
    return textured(shape, as_source(rainbow_ball), SIZE, DEPTH, *no_pictures())


def random_points(mesh, count=20000):
    rng = np.random.default_rng(0)
    triangle = rng.integers(0, len(mesh.faces), count)
    weights = rng.dirichlet((0.3, 0.3, 0.3), count).astype(np.float32)  # many of them near edges and corners
    return triangle, weights, np.einsum("nk,nkc->nc", weights, mesh.vertices[mesh.faces[triangle]])


def test_texture_has_the_colour_of_each_place_also_on_seams(painted):
    triangle, weights, points = random_points(painted)
    error = np.abs(painted.colors_at(triangle, weights) - (0.5 + 0.5 * points)).max(axis=1)
    # A texel is about 0.008 wide, of which colour changes by half; the shell takes colours from up to 0.01 beneath.
    assert np.quantile(error, 0.999) < 0.02 and error.max() < 0.04


def test_gutter_continues_the_charts(painted):
    inside = texel_places(painted, SIZE).inside
    assert 0.3 < inside.mean() < 1
    assert painted.texture[~inside].min() > 30, "no black that filters would draw in"


def test_texels_belong_to_one_triangle_and_lie_in_it(shape):
    flat = unwrap(shape, SIZE)
    places = texel_places(flat, SIZE)
    uv = np.einsum("nk,nkc->nc", places.weights, flat.uv[flat.faces[places.triangle]])
    rows, columns = np.nonzero(places.inside)
    assert uv == pytest.approx(np.stack([(columns + 0.5) / SIZE, 1 - (rows + 0.5) / SIZE], 1), abs=1e-4)
    corners = flat.uv[flat.faces] * SIZE
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum() / 2
    # Charts that lay on each other would cover fewer texels than their triangles have together.
    assert places.inside.sum() == pytest.approx(area, rel=0.02)


def test_unwrapping_moves_no_triangle(shape):
    flat = unwrap(shape, SIZE)
    assert np.array_equal(flat.vertices[flat.faces], shape.vertices[shape.faces])
    assert flat.facts()["mesh_watertight"] == shape.facts()["mesh_watertight"] == 1


def test_vertex_colours_are_those_of_the_places(shape):
    painted = with_vertex_colors(shape, as_source(rainbow_ball), DEPTH, *no_pictures())
    assert painted.colors == pytest.approx(0.5 + 0.5 * shape.vertices, abs=0.01)


def test_correction_brings_the_colours_of_pictures(shape):
    """Pictures of the same mesh in other colours; those that are not seen stay."""
    grey = replace(shape, colors=np.full_like(shape.vertices, 0.5))
    wanted = replace(shape, colors=(0.5 + 0.25 * np.sin(4 * shape.vertices)).astype(np.float32))
    cameras = spread_cameras(8)
    pictures = MeshCaster(wanted).render(cameras, 96, supersample=1)
    correction = view_correction(shape, grey, cameras, pictures)
    side = np.abs(shape.vertices[:, 2]) < 0.3
    assert (grey.colors + correction)[side] == pytest.approx(wanted.colors[side], abs=0.03)
    unseen = Pictures(pictures.light * 0, pictures.opacity * 0)
    assert not view_correction(shape, grey, cameras, unseen).any()
    assert torch.equal(pictures.on(0.0), pictures.light.clamp(0, 1))
