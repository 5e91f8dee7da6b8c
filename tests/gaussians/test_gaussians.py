"""Gaussians as an asset of a stage: where they begin, what they go on from, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreambooth3d.cameras import spread_cameras, turntable_cameras
from dreambooth3d.config.distillation import InitNerfConfig, RefineNerfConfig, RegularizerConfig
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.gaussians import GaussiansConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.gaussians.gaussians import Gaussians
from dreambooth3d.gaussians.rasterization import chosen_rasterizer
from dreambooth3d.kinds import build_asset, load_representation, render_asset
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.training.distillation import distil
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.record import StepLog, StepRecord
from dreambooth3d.representation.interface import turn_about_z
from dreambooth3d.runtime import Runtime
from tests.nerf.scenes import BallGuidance, colored_ball
from tests.representation.test_conformance import field

CPU, RENDER = torch.device("cpu"), RenderConfig(size=48)


def psnr(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return -10 * (found - wanted).square().mean().log10().item()


def test_fresh_ones_are_a_soft_ball() -> None:
    """Of the radius that is asked for, and not of one colour, so that the first step has something to say."""
    torch.manual_seed(0)
    made = Gaussians.fresh(GaussiansConfig(count=800, initial_radius=0.4), RENDER, CPU)
    shown = made.render(turntable_cameras(4), 48)
    across = (shown.opacity > 0.5).float().mean(dim=(1, 2)).sqrt() * (2 * 2.5 * torch.tensor(21.0).deg2rad().tan())
    assert (across / 3.14159**0.5 - 0.4).abs().max() < 0.08
    assert len(made) == 800 and made.colors().std() > 0.03


def test_a_field_becomes_gaussians_that_look_like_it() -> None:
    """From cameras in between those that it was fitted to; without fitting as well, though less."""
    source = field()
    cameras = replace(spread_cameras(5), azimuth_deg=torch.tensor([7.0, 100.0, 161.0, 222.0, 303.0]))
    wanted = source.render(cameras, 48, samples_per_ray=128)
    torch.manual_seed(0)
    settings = GaussiansConfig(count=700, max_count=900, fit_steps=0)
    raw = Gaussians.converted(source, settings, RENDER, CPU)
    fitted = Gaussians.converted(source, settings.model_copy(update={"fit_steps": 40}), RENDER, CPU)
    found = fitted.render(cameras, 48)
    assert 500 < len(raw) <= 700
    assert psnr(raw.render(cameras, 48).color, wanted.color) > 20
    assert psnr(found.color, wanted.color) > 26
    assert (found.opacity - wanted.opacity).abs().mean() < 0.02
    solid = (found.opacity > 0.95) & (wanted.opacity > 0.95)
    assert (found.depth - wanted.depth)[solid].abs().mean() < 0.03
    assert all(parameter.grad is None for parameter in fitted.parameters())


def test_a_stage_makes_gaussians_of_a_field_and_trains_them(tmp_path: Path) -> None:
    """The next stage goes on with them without being told; they come closer to what guidance wants."""
    source = field().artifact(torch.zeros(0, 3, 1, 1), 3, StepRecord("init_nerf"))
    settings = GaussiansConfig(count=400, max_count=500, fit_steps=2, densify_every=5)
    none = RegularizerConfig(sparsity=0.0, opacity=0.0)
    changes = {"steps": 25, "views_per_step": 2, "learning_rate": 0.02, "regularizers": none}
    config = RefineNerfConfig(representation="gaussians", gaussians=settings, render=RENDER).model_copy(update=changes)
    runtime = Runtime(StepLog("refine_nerf"), tmp_path, progress=False)
    made = distil(DistillInputs(BallGuidance(), init=source), config, 0, runtime)
    assert made.kind == "gaussians" and made.steps == 28 and made.config["count"] == 400
    cameras = spread_cameras(4)
    wanted = colored_ball(cameras, 64)
    before, after = (render_asset(asset, cameras, size=64).color for asset in (source, made))
    assert psnr(after, wanted) > psnr(before, wanted) + 1
    assert load_representation(made).figures()["gaussians"] == len(made.state["positions"]) > 100


def test_what_is_nowhere_opaque_cannot_become_gaussians() -> None:
    empty = Field(FieldConfig(encoding="dense", volume_resolution=8, density_scale=1e-6), "cpu")
    source = empty.artifact(torch.zeros(0, 3, 1, 1), 0, StepRecord("init_nerf"))
    with pytest.raises(ConfigError, match="the field to go on from is nowhere opaque"):
        build_asset(RefineNerfConfig(representation="gaussians"), 0, CPU, source)


def test_gsplat_where_it_cannot_be_used_is_refused_and_loading_falls_back() -> None:
    assert chosen_rasterizer("auto", CPU) == chosen_rasterizer("dense", CPU) == "dense"
    config = InitNerfConfig(representation="gaussians", gaussians=GaussiansConfig(count=50, implementation="gsplat"))
    with pytest.raises(ConfigError, match="gsplat needs CUDA, not cpu. Set it to auto or dense"):
        build_asset(config, 0, CPU, None)
    made = Gaussians.fresh(GaussiansConfig(count=50), RENDER, CPU)
    settings = made.settings() | {"implementation": "gsplat"}
    assert Gaussians.from_state(made.state(), settings).rasterizer == "dense"


def test_more_at_the_start_than_at_most_is_refused() -> None:
    with pytest.raises(ValueError, match="max_count=100 is below count=200: raise max_count or lower count"):
        GaussiansConfig(count=200, max_count=100)


def test_the_inside_of_a_shell_is_solid_and_follows_what_is_done_to_it() -> None:
    """Gaussians lie on the surface only; the density is that of a closed body, also after a move and a step."""
    height, turns = torch.arange(1, 1800, 2) / 900 - 1, torch.arange(900) * 2.399963
    ring = (1 - height.square()).sqrt()
    points = torch.stack([ring * turns.cos(), ring * turns.sin(), height], dim=-1)
    made = Gaussians.from_points(0.4 * points, torch.full((900, 3), 0.3), normals=points)
    probe = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.3, 0.0], [0.0, 0.5, 0.0]])
    density, color = made.density_and_color(probe)
    assert density[0] > 20 and density[1] > 20 and density[2] == 0
    torch.testing.assert_close(color, torch.full((3, 3), 0.3), atol=0.02, rtol=0)
    made.move(turn_about_z(0.0), torch.tensor([0.0, 0.3, 0.0]))
    assert made.density_and_color(probe)[0][2] > 20
    with torch.no_grad():
        made.opacity_logits.fill_(-20)
    assert made.density_and_color(probe)[0].max() == 0
