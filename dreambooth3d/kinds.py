"""The kinds of assets that exist, and how they are made: fresh, from another asset, from an artifact."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.cameras import Viewpoints
from dreambooth3d.config.base import Section
from dreambooth3d.config.distillation import DistillConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.gaussians.gaussians import Gaussians
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.representation.interface import SAMPLES_PER_RAY, Rendering, Representation
from dreambooth3d.surface.painted_mesh import PaintedMesh
from dreambooth3d.surface.surface_mesh import SurfaceMesh

KINDS: Mapping[str, type[Representation]] = {
    Field.kind: Field,
    SurfaceMesh.kind: SurfaceMesh,
    Gaussians.kind: Gaussians,
    PaintedMesh.kind: PaintedMesh,
}
"""By name, the same as in `config.representation.SETTINGS`."""


def kind_named(name: str) -> type[Representation]:
    """A kind by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in KINDS:
        raise ConfigError(f"representation: {name} is no kind of asset here. Choose one of: {', '.join(KINDS)}.")
    return KINDS[name]


def load_representation(artifact: RadianceField, device: torch.device | str = "cpu") -> Representation:
    """The asset of an artifact, of whichever kind.

    Raises:
        ConfigError: there is no such kind.
    """
    return kind_named(artifact.kind).from_state(artifact.state, artifact.config, device)


def render_asset(
    artifact: RadianceField,
    cameras: Viewpoints,
    *,
    size: int,
    samples_per_ray: int = SAMPLES_PER_RAY,
    background: str | Float[Tensor, " 3"] = "white",
    device: torch.device | str = "cpu",
) -> Rendering:
    """Render an artifact; deterministic.

    Args:
        device: where to compute.

    Returns:
        color (n, 3, size, size), opacity and depth (n, size, size), on the CPU.

    For the other arguments and errors see `Representation.render`.
    """
    asset = load_representation(artifact, device)
    return asset.render(cameras, size, samples_per_ray=samples_per_ray, background=background).cpu()


def asset_kind(config: DistillConfig, init: RadianceField | None) -> str:
    """What a stage's asset is made of: as it is asked for, as what it goes on from, or else a field."""
    return config.representation or (Field.kind if init is None else init.kind)


def settings_of(config: DistillConfig, kind: str) -> Section | None:
    """A stage's section for a kind of asset; None where it says nothing about that kind."""
    return getattr(config, kind, None)


def build_asset(config: DistillConfig, seed: int, device: torch.device, init: RadianceField | None) -> Representation:
    """What a stage trains, ready for its first step: made of `init`, or fresh with random values drawn from `seed`.

    Raises:
        ConfigError: it cannot be made of an asset of that kind, or the stage asks for another making of `init`.
        ValueError: there is no `init`, and `config` does not say what a fresh asset is made of.
    """
    kind = asset_kind(config, init)
    made_of, settings = kind_named(kind), settings_of(config, kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if init is None:
            if settings is None:
                raise ValueError(f"build_asset: without init, config.{kind} must say what to build.")
            asset = made_of.fresh(settings, config.render, device)
        elif init.kind == kind:
            asset = load_representation(init, device)
            if settings is not None:
                asset.go_on(settings)
        else:
            asset = made_of.converted(load_representation(init, device), settings, config.render, device)
    asset.begin_stage(config.render, fresh=init is None)
    return asset
