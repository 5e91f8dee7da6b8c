"""The files that an asset's Gaussians are written as, made of another kind of asset where it is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from dreambooth3d.config.gaussians import GaussiansConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.gaussians.files import write_ply, write_splat, write_spz
from dreambooth3d.gaussians.gaussians import Gaussians
from dreambooth3d.representation.interface import Representation

FIT_STEPS, FIT_SIZE = 200, 96
"""Optimiser steps, and pixels per side of the views, by which Gaussians come to look like an asset of another kind."""


@dataclass(frozen=True)
class SplatFormat:
    """One kind of file.

    Attributes:
        meaning: what it is, and who reads it.
        file: its name.
        write: takes Gaussians, a path, and what a world unit measures in the file.
    """

    meaning: str
    file: str
    write: Callable[[Gaussians, Path, float], None]


SPLAT_FORMATS = {
    "gaussians_ply": SplatFormat("3D Gaussians as PLY: SuperSplat, Blender add-ons", "asset_gaussians.ply", write_ply),
    "splat": SplatFormat("3D Gaussians, 32 bytes for each: web viewers", "asset.splat", write_splat),
    "spz": SplatFormat("3D Gaussians, compressed: Scaniverse, Spark, Babylon.js", "asset.spz", write_spz),
}
"""By the name that `--format` takes."""


def as_gaussians(asset: Representation, count: int, seed: int = 0) -> Gaussians:
    """An asset as Gaussians: itself where it is made of them, else some that are fitted to its renders.

    Args:
        asset: of any kind.
        count: Gaussians at most.
        seed: of the views that they are fitted to.

    Raises:
        ConfigError: nothing opaque is seen of it.
    """
    if isinstance(asset, Gaussians):
        return asset
    settings = GaussiansConfig(count=count, max_count=count, densify_every=0, fit_steps=FIT_STEPS, background="white")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Gaussians.converted(asset, settings, RenderConfig(size=FIT_SIZE), asset.device).eval()
