"""The regularisers of the opacity say how opaque an asset is, never where it is."""

from __future__ import annotations

import pytest
import torch

from dreambooth3d.cameras import Cameras, orbit_cameras
from dreambooth3d.config.distillation import DistillConfig, RegularizerConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.guidance import Guidance, GuidanceLoss
from dreambooth3d.nerf.training.view_loss import ViewBatch, view_loss
from dreambooth3d.parallel import ALONE
from dreambooth3d.representation.interface import ALBEDO
from tests.representation.test_conformance import ASSETS

CONFIG = DistillConfig(
    render=RenderConfig(size=24, samples_per_ray=32),
    regularizers=RegularizerConfig(sparsity=25.0, opacity=12.0),
)
CAMERAS = orbit_cameras(torch.tensor([0.0, 130.0]))
OPAQUENESS = {"field": {"field"}, "mesh": set(), "gaussians": {"opacity_logits"}, "painted": set()}
"""Of each kind, the groups of parameters that say how opaque it is."""


class Indifferent(Guidance):
    """Finds all renders equally good."""

    def __call__(self, images: torch.Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        return GuidanceLoss(0 * images.sum())


@pytest.mark.parametrize("kind", ASSETS)
def test_they_move_no_surface(kind: str) -> None:
    """Without guidance they are the only gradient: of a mesh nothing is left, of Gaussians the opacities."""
    asset = ASSETS[kind]()
    batch = ViewBatch(CAMERAS, torch.full((2, 3), 0.5), ALBEDO, 0.5, 1.0)
    loss, figures = view_loss(asset, batch, Indifferent(), CONFIG, None, ALONE)
    loss.backward()
    moved = {
        group.name
        for group in asset.parameter_groups()
        if any(value.grad is not None and value.grad.abs().max() > 0 for value in group.parameters)
    }
    assert moved == OPAQUENESS[kind]
    assert ({"sparsity", "opacity_entropy"} <= figures.keys()) == bool(OPAQUENESS[kind])
