"""A field of latents: what guidance sees of it, which colours it has, and how a stage in colours goes on with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.cameras import Cameras, orbit_cameras
from dreambooth3d.config.distillation import InitNerfConfig, RefineNerfConfig, RegularizerConfig
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.mesh import MeshConfig
from dreambooth3d.config.rendering import RenderConfig, ShadingConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.guidance import Guidance, GuidanceLoss
from dreambooth3d.kinds import load_representation, render_asset
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.training.distillation import distil
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.record import StepLog
from dreambooth3d.representation.latents import LatentColors
from dreambooth3d.runtime import Runtime
from dreambooth3d.surface.surface_mesh import SurfaceMesh
from tests.nerf.scenes import BallGuidance, colored_ball

CELLS = 16
RGB, LATENT = (RenderConfig(space=space, size=CELLS, samples_per_ray=32) for space in ("rgb", "latent"))
DENSE = FieldConfig(encoding="dense", volume_resolution=24, background="white")
HASHED = FieldConfig(levels=4, log2_table_size=10, hidden_width=16, background="learned")
GENERATOR = torch.Generator().manual_seed(3)
MIX = torch.randn(4, 3, generator=GENERATOR)
OFFSET = torch.randn(4, generator=GENERATOR)
# Latents are MIX @ colour + OFFSET, so colours are the pseudo-inverse of that.
COLORS = LatentColors(
    torch.cat([torch.linalg.pinv(MIX), -(torch.linalg.pinv(MIX) @ OFFSET)[:, None]], dim=1),
    torch.cat([MIX, OFFSET[:, None]], dim=1),
)


class LatentBall(Guidance):
    """Pulls latents towards those of the true images of the coloured ball; cannot judge images."""

    def __init__(self) -> None:
        self.shapes: set[torch.Size] = set()

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return 4, CELLS, CELLS

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        raise AssertionError("images were shown")

    def of_latents(self, latents: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        self.shapes.add(latents.shape)
        true = torch.einsum("cd,ndhw->nchw", MIX, colored_ball(cameras, CELLS, supersample=4)) + OFFSET.view(4, 1, 1)
        return GuidanceLoss(10 * (latents - true).square().mean())


def stage(render: RenderConfig, field: FieldConfig = DENSE, **changes: object) -> dict[str, object]:
    values = {
        "steps": 120, "views_per_step": 2, "render": render, "regularizers": RegularizerConfig(sparsity=0, opacity=0),
        "random_background_probability": 0.0, "check_every": 50, "field": field,
    }  # fmt: skip
    return values | changes


def runtime(folder: Path) -> Runtime:
    return Runtime(StepLog("init_nerf"), folder, progress=False)


def psnr(asset: RadianceField) -> float:
    cameras = orbit_cameras(torch.arange(0, 360, 45.0) + 7)
    shown = render_asset(asset, cameras, size=32, samples_per_ray=64).color
    return -10 * (shown - colored_ball(cameras, 32)).square().mean().log10().item()


def seen_from_afar(field: Field) -> torch.Tensor:
    views = field.render_views(orbit_cameras(torch.tensor([30.0, 200.0])), CELLS, background=torch.ones(2, 3))
    return views.color


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> RadianceField:
    guidance = LatentBall()
    inputs = DistillInputs(guidance, latent_colors=COLORS)
    made = distil(inputs, InitNerfConfig(**stage(LATENT)), 0, runtime(tmp_path_factory.mktemp("fit")))
    assert guidance.shapes == {torch.Size([2, 4, CELLS, CELLS])}
    return made


def test_guidance_of_latents_makes_the_colours_of_true_images(fitted: RadianceField) -> None:
    """The colours come from the head alone, which no loss has touched."""
    assert psnr(fitted) > 20
    torch.testing.assert_close(fitted.state["latent_head.decoder"], COLORS.decoder)


def test_a_stage_in_colours_goes_on_from_where_it_is_and_teaches_the_head(
    fitted: RadianceField, tmp_path: Path
) -> None:
    config = RefineNerfConfig(**stage(RenderConfig(size=32, samples_per_ray=40), None, steps=60))  # pyright: ignore
    refined = distil(DistillInputs(BallGuidance(), fitted), config, 0, runtime(tmp_path))
    assert psnr(refined) > psnr(fitted) + 1
    assert (refined.state["latent_head.decoder"] - COLORS.decoder).abs().max() > 1e-3


@pytest.mark.parametrize("config", [DENSE, HASHED], ids=["dense", "hash_grid"])
def test_colours_and_latents_are_of_one_field(config: FieldConfig) -> None:
    """Rendering is linear: the affine map of rendered latents is the rendering of mapped ones."""
    torch.manual_seed(0)
    field = Field.fresh(config, LATENT, "cpu")
    field.take_latents(LatentColors(0.1 * torch.randn(3, 5), torch.randn(4, 4)))
    with torch.no_grad():
        field.latent_head.decoder[:, 4] = 0.5
        for parameter in field.encoding.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    field.begin_stage(LATENT, fresh=False)
    latents = seen_from_afar(field)
    field.begin_stage(RGB, fresh=False)
    colors = seen_from_afar(field)
    decoder, encoder = field.latent_head.decoder.detach(), field.latent_head.encoder
    behind = encoder[:, :3] @ torch.ones(3) + encoder[:, 3]
    opacity = field.render(orbit_cameras(torch.tensor([30.0, 200.0])), CELLS, samples_per_ray=32).opacity[:, None]
    subject = latents - (1 - opacity) * behind.view(4, 1, 1)
    mixed = torch.einsum("dc,nchw->ndhw", decoder[:, :4], subject) + opacity * decoder[:, 4].view(3, 1, 1)
    assert latents.shape == (2, 4, CELLS, CELLS) and colors.std() > 0.02
    torch.testing.assert_close(colors, mixed + (1 - opacity), atol=1e-4, rtol=1e-4)


def test_colours_beyond_the_range_are_cut_off_and_still_learn() -> None:
    field = Field.fresh(DENSE, LATENT, "cpu")
    beyond = torch.tensor([[0, 0, 0, 0, 2.0], [0, 0, 0, 0, -1.0], [0, 0, 0, 0, 0.5]])
    field.take_latents(LatentColors(beyond, torch.zeros(4, 4)))
    _, color = field.density_and_color(torch.zeros(1, 3))
    torch.testing.assert_close(color.detach(), torch.tensor([[1.0, 0.0, 0.5]]))
    color.sum().backward()
    torch.testing.assert_close(field.latent_head.decoder.grad[:, 4], torch.ones(3))


def test_it_is_kept_and_becomes_a_mesh_that_looks_alike(fitted: RadianceField) -> None:
    cameras = orbit_cameras(torch.tensor([0.0, 120.0, 240.0]))
    loaded = load_representation(fitted)
    shown = loaded.render(cameras, 32)
    mesh = SurfaceMesh.converted(loaded, MeshConfig(resolution=16), RGB, "cpu").render(cameras, 32)
    assert (shown.color - mesh.color).abs().mean() < 0.06
    assert (shown.color - 1).abs().mean() > 0.1
    again = load_representation(loaded.artifact(fitted.previews, 1, fitted.record)).render(cameras, 32)
    torch.testing.assert_close(again.color, shown.color)


def test_what_holds_no_latents_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot go on from a field that holds colours"):
        Field(DENSE).begin_stage(LATENT, fresh=False)
    with pytest.raises(ConfigError, match="needs guidance by a latent diffusion model"):
        distil(DistillInputs(BallGuidance()), InitNerfConfig(**stage(LATENT)), 0, runtime(tmp_path))
    with pytest.raises(ConfigError, match="4 channels of latents, and this one has 16"):
        Field.fresh(DENSE, LATENT, "cpu").take_latents(LatentColors(torch.zeros(3, 17), torch.zeros(16, 4)))
    with pytest.raises(ValidationError, match="latent is for a field, and representation is mesh"):
        InitNerfConfig(representation="mesh", render=LATENT)
    with pytest.raises(ValidationError, match="no colours to light"):
        InitNerfConfig(render=LATENT, shading=ShadingConfig(albedo_only_share=0.5))
