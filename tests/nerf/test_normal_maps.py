"""Guidance that looks at normals, or at the shape alone; stages that change shape or appearance alone."""

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
from dreambooth3d.config.mesh import MeshConfig, TextureConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.guidance import Guidance, GuidanceLoss
from dreambooth3d.kinds import load_representation
from dreambooth3d.nerf.training.distillation import distil
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.nerf.training.normal_maps import camera_normals, normal_images, normal_latents
from dreambooth3d.record import StepLog
from dreambooth3d.representation.interface import Representation
from dreambooth3d.runtime import Runtime
from dreambooth3d.surface.surface_mesh import SurfaceMesh
from tests.representation.test_conformance import field
from tests.surface.scenes import AROUND, TINY

SIZE = 48
NOTHING = RegularizerConfig(sparsity=0.0, opacity=0.0)
MESH = MeshConfig(resolution=12, texture=TextureConfig(encoding="dense", volume_resolution=12), material="pbr")
SMALL = FieldConfig(encoding="dense", volume_resolution=8)


def settings(**changes: object) -> InitNerfConfig:
    values: dict[str, object] = {
        "representation": "mesh", "mesh": MESH, "steps": 4, "views_per_step": 2, "render": RenderConfig(size=32),
        "regularizers": NOTHING, "check_every": 50, "learning_rate": 0.02, "final_learning_rate": 0.02,
    }  # fmt: skip
    return InitNerfConfig(**{**values, **changes})


def trained(config: InitNerfConfig | RefineNerfConfig, guidance: Guidance, folder: Path, init=None) -> RadianceField:
    runtime = Runtime(StepLog("init_nerf"), folder, progress=False)
    return distil(DistillInputs(guidance, init), config, 0, runtime)


class Watching(Guidance):
    """Remembers what it is shown, and asks for smaller outlines; latents of four channels."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []
        self.latents: list[Tensor] = []
        self.progress: list[float] = []

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Of its latents."""
        return 4, 8, 8

    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        """Fewer pixels that differ from a black background."""
        self.images.append(images.detach())
        return GuidanceLoss(images.square().mean())

    def of_latents(self, latents: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        """Less mask."""
        self.latents.append(latents.detach())
        self.progress.append(progress)
        return GuidanceLoss(latents[:, 3].square().mean())


def facing(asset: Representation) -> tuple[Tensor, Tensor]:
    """Normals in the cameras' frames, and opacities, of an asset seen from around."""
    shown = asset.render(AROUND, SIZE, with_normals=True)
    return camera_normals(shown.normals, AROUND), shown.opacity


@pytest.mark.parametrize("asset", [SurfaceMesh(TINY), field()], ids=["mesh", "field"])
def test_pictures_of_normals_are_in_the_cameras_frame(asset: Representation) -> None:
    """From all sides: right is red, up is green, what faces the camera is blue; nothing is the background."""
    background = torch.tensor([[0.1, 0.2, 0.3]]).expand(len(AROUND), 3)
    normals, opacity = facing(asset)
    shown = normal_images(normals, opacity, background)
    solid = opacity > 0.99
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    for view in range(len(AROUND)):
        inside = solid[view]
        red, green, blue = shown[view][:, inside]
        across, down = columns[inside] - columns[inside].float().mean(), rows[inside] - rows[inside].float().mean()
        for channel, place in ((red, across), (green, -down)):
            assert torch.corrcoef(torch.stack([channel, place.float()]))[0, 1] > 0.8
        assert blue.min() > 0.4 and blue.max() > 0.97
    empty = opacity == 0
    assert shown.permute(0, 2, 3, 1)[empty].allclose(torch.tensor([0.1, 0.2, 0.3]))
    grey = normal_images(normals, opacity, None).permute(0, 2, 3, 1)[empty]
    assert (grey == 0.5).all()


def test_latents_are_normals_and_mask() -> None:
    normals, opacity = facing(SurfaceMesh(TINY))
    latents = normal_latents(normals, opacity, (4, 12, 12))
    cells = opacity.view(-1, 12, 4, 12, 4).mean(dim=(2, 4))
    torch.testing.assert_close(latents[:, 3], cells)
    whole = cells == 1
    assert (latents[:, :3].permute(0, 2, 3, 1)[whole].norm(dim=-1) > 0.8).all()
    assert (latents.permute(0, 2, 3, 1)[cells == 0] == 0).all()
    for shape, sentence in ((None, "has no latents"), ((16, 12, 12), "latents of 16 channels")):
        with pytest.raises(ConfigError, match=sentence):
            normal_latents(normals, opacity, shape)


def test_the_first_share_of_steps_has_latents_and_the_others_pictures(tmp_path: Path) -> None:
    guidance = Watching()
    trained(settings(guide_on="normals", latents_until=0.5), guidance, tmp_path)
    assert guidance.progress == [0.0, 0.25] and len(guidance.images) == 2
    assert all(latents.shape == (2, 4, 8, 8) for latents in guidance.latents)
    assert all(images.shape == (2, 3, 32, 32) for images in guidance.images)
    assert guidance.images[0][:, 2, 16, 16].min() > 0.9, "what faces the camera is blue"


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["pictures", "latents"])
@pytest.mark.parametrize("kind", ["mesh", "field"])
def test_guidance_on_normals_shapes_what_it_is_asked_for(kind: str, share: float, tmp_path: Path) -> None:
    """Asked for less, it gets smaller."""
    changes = {"representation": kind, "field": FieldConfig(encoding="dense", volume_resolution=16)}
    config = settings(guide_on="normals", latents_until=share, steps=12, random_background_range=(0.0, 0.0), **changes)
    small = trained(config, Watching(), tmp_path / "small")
    fresh = trained(config.model_copy(update={"steps": 1}), Watching(), tmp_path / "fresh")
    cover = [load_representation(each).render(AROUND, 32).opacity.mean() for each in (small, fresh)]
    assert cover[0] < 0.95 * cover[1]


@pytest.mark.parametrize(("learns", "kept"), [("shape", False), ("appearance", True)])
def test_only_what_learns_changes(learns: str, kept: bool, tmp_path: Path) -> None:
    """Also where the stage goes on from an earlier one's mesh."""
    first = trained(settings(steps=1), Watching(), tmp_path / "first")
    config = RefineNerfConfig(**{
        "steps": 3, "views_per_step": 2, "render": RenderConfig(size=32), "regularizers": RegularizerConfig(
            sparsity=0.0, opacity=0.0, smoothness=1.0
        ), "learns": learns,
    })  # fmt: skip
    second = trained(config, Watching(), tmp_path / "second", first)
    same = {name: torch.equal(first.state[name], second.state[name]) for name in first.state}
    shape = {name for name in same if name.startswith(("distance", "offset", "coarse"))}
    assert len(shape) == 4 and all(same[name] == kept for name in shape)
    paint = {name for name in same if name.startswith(("encoding", "paint"))}
    assert len(paint) == 9 and all(same[name] != kept for name in paint)


def test_textureless_views_are_grey_from_the_first_step_on(tmp_path: Path) -> None:
    guidance = Watching()
    trained(settings(guide_on="textureless", steps=2, learns="shape"), guidance, tmp_path)
    for images in guidance.images:
        middle = images[:, :, 13:19, 13:19]
        assert (middle.amax(dim=1) - middle.amin(dim=1)).max() < 1e-5 and middle.std() > 1e-3


def test_settings_that_say_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="guide_on=color: set guide_on=normals"):
        settings(latents_until=0.3)
    with pytest.raises(ValidationError, match="shows nothing of the appearance"):
        settings(guide_on="normals", learns="appearance")
    with pytest.raises(ValidationError, match="learns=shape needs an asset whose shape and appearance are kept apart"):
        settings(representation="field", field=SMALL, learns="shape")
    as_field = settings(representation="field", mesh=MeshConfig(), field=SMALL, steps=1)
    begun = trained(as_field, Watching(), tmp_path / "first")
    with pytest.raises(ConfigError, match="learns: shape needs an asset whose shape and appearance are kept apart"):
        goes_on = RefineNerfConfig(learns="shape", steps=1, render=RenderConfig(size=32), regularizers=NOTHING)
        trained(goes_on, Watching(), tmp_path / "second", begun)


def test_orbiting_a_ball_changes_nothing_in_its_normals() -> None:
    """In the cameras' frames a ball's pictures are one and the same from everywhere."""
    ball = SurfaceMesh(MeshConfig(resolution=32))
    cameras = orbit_cameras(torch.tensor([0.0, 70.0, 200.0]))
    shown = ball.render(cameras, SIZE, with_normals=True)
    normals = camera_normals(shown.normals, cameras)
    solid = (shown.opacity > 0.99).all(dim=0)
    assert (normals - normals[:1])[:, :, solid].abs().mean() < 0.05
    assert (shown.normals - shown.normals[:1])[1:, :, solid].abs().mean() > 0.3, "in the world they differ"
