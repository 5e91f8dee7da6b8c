"""A field with the true looks of a toybox subject, for the tests of what is found by comparison with a field."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dreambooth3d.cameras import TURNTABLE_DISTANCE, orbit_cameras
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import DEVELOPMENT_SUBJECTS
from tests.coarse import search_coarsely


@pytest.fixture(scope="session")
def robot() -> Field:
    """A dense volume with the true shape and colours of a toybox robot, carved and painted from true views."""
    recipe = DEVELOPMENT_SUBJECTS["android"]
    field = Field(FieldConfig(encoding="dense", volume_resolution=48))
    points = torch.cartesian_prod(*[torch.linspace(-1, 1, 48)] * 3)
    solid, color, seen = torch.ones(len(points)), torch.zeros(len(points), 3), torch.zeros(len(points))
    around = orbit_cameras(torch.arange(0.0, 360.0, 15.0), 20.0, TURNTABLE_DISTANCE, 42.0)
    truth = render_views(recipe, around, torch.ones(3), 96)
    for view in range(len(around)):
        pose = around.camera_to_world[view]
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        plane = local[:, :2] / -local[:, 2:] / torch.tan(torch.deg2rad(torch.tensor(42.0)) / 2)
        place = torch.stack([plane[:, 0], -plane[:, 1]], dim=-1).view(1, 1, -1, 2)

        def at(values: Tensor, place: Tensor = place) -> Tensor:
            return torch.nn.functional.grid_sample(values[None], place, align_corners=False)[0, :, 0]

        solid *= (at(truth.mask[view][None].float())[0] > 0.5).float()
        distance = (points - pose[:3, 3]).norm(dim=-1)
        visible = ((at(truth.depth[view][None])[0] - distance).abs() < 0.08).float()
        color += at(truth.image[view]).T * visible[:, None]
        seen += visible
    color = (color / seen[:, None].clamp(min=1)).clamp(0.02, 0.98)
    logits = torch.cat([(solid * 20 - 10)[:, None], color.logit()], dim=-1)
    volume = logits.view(48, 48, 48, 4).permute(3, 2, 1, 0)[None]
    with torch.no_grad():
        for level in field.encoding.levels:
            level.zero_()
        field.encoding.levels[-1].copy_(volume / field.encoding.volume().new_tensor(10.0))
    field.occupancy.update(field.density, 0.01, torch.Generator().manual_seed(0))
    return field


@pytest.fixture
def coarse_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it matters when cameras are searched, and of which photos."""
    search_coarsely(monkeypatch)
