"""A mesh's figures, of pictures whose differences are known."""

from __future__ import annotations

import math

import pytest
import torch

from dreambooth3d.artifacts import GroundTruth
from dreambooth3d.evaluation.meshes import DEFINITIONS, mesh_metrics
from dreambooth3d.evaluation.truth import true_views
from dreambooth3d.export.casting import Pictures

RECIPE = {
    "class_noun": "dog", "main": "orange", "second": "white", "pattern": "plain", "accessory": None,
    "accessory_colour": None, "seed": 1,
}  # fmt: skip


def square(value, first, last):
    """The same grey square before nothing, from each camera."""

    def render(cameras, size):
        opacity = torch.zeros(len(cameras), size, size)
        opacity[:, :, first:last] = 1
        return Pictures(opacity[:, None].expand(-1, 3, -1, -1) * value, opacity)

    return render


def test_what_is_not_there_shows_on_one_of_the_backgrounds():
    """A quarter of the frame is white in the asset and missing in the mesh, which a white background hides."""
    found = mesh_metrics(square(1.0, 4, 8), square(1.0, 4, 12), GroundTruth({}), 16)
    assert found == {"mesh/field_psnr": pytest.approx((100 + -10 * math.log10(0.25)) / 2), "mesh/field_iou": 0.5}


def test_colours_count_on_both_backgrounds():
    found = mesh_metrics(square(0.5, 0, 8), square(0.6, 0, 8), GroundTruth({}), 16)
    assert found["mesh/field_psnr"] == pytest.approx(-10 * math.log10(0.5 * 0.01), abs=1e-3)
    assert found["mesh/field_iou"] == 1


def test_true_renders_are_perfect_before_both_backgrounds():
    truth = GroundTruth(RECIPE)

    def true(cameras, size):
        views = true_views(truth, cameras, size)
        return Pictures(views.images - (1 - views.masks)[:, None], views.masks)

    found = mesh_metrics(true, square(0.5, 0, 8), truth, 16)
    assert found["mesh/mask_iou"] == 1
    assert min(found[name] for name in found if "psnr" in name and "field" not in name) > 60
    assert found.keys() == DEFINITIONS.keys()
