"""Views of many things on transparent ground, and photographs to put behind them, on the training device."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dreambooth3d.cameras import Cameras
from dreambooth3d.toybox.packing import pack_scenes
from dreambooth3d.toybox.recipes import random_recipe
from dreambooth3d.toybox.render import Light, render_scenes

VIEWS = 8
SIZE = 96
_BATCH = 1000
_LIGHT = (0.45, 0.25, 0.86)


@dataclass(frozen=True)
class ViewSets:
    """`VIEWS` views of each of m things.

    Attributes:
        layers: (m, views, 4, size, size) colours times opacity, and opacity.
        azimuth_deg, elevation_deg: (m, views) of the cameras.
        heading_known: (m,) whether azimuth 0 is where the thing's front is.
    """

    layers: UInt8[Tensor, "m views 4 size size"]
    azimuth_deg: Float[Tensor, "m views"]
    elevation_deg: Float[Tensor, "m views"]
    heading_known: Bool[Tensor, " m"]

    def __len__(self) -> int:
        return len(self.layers)

    def to(self, device: torch.device) -> ViewSets:
        """The same on another device."""
        return ViewSets(*(value.to(device) for value in vars(self).values()))

    @staticmethod
    def cat(parts: list[ViewSets]) -> ViewSets:
        """All things of all parts."""
        return ViewSets(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))


def toybox_view_sets(count: int, seed: int, device: torch.device) -> ViewSets:
    """Views of `count` random subjects of the toybox."""
    random, generator = Random(seed), torch.Generator().manual_seed(seed)
    recipes = sorted((random_recipe(random, reserved=True) for _ in range(count)), key=lambda each: each.class_noun)
    total = count * VIEWS
    cameras = Cameras(
        360 * torch.rand(total, generator=generator),
        -5 + 50 * torch.rand(total, generator=generator) ** 1.3,
        2.3 + 0.6 * torch.rand(total, generator=generator),
        40 + 8 * torch.rand(total, generator=generator),
    )
    lights = torch.tensor(_LIGHT) + 0.35 * torch.randn(count, 3, generator=generator)
    lights = torch.nn.functional.normalize(lights, dim=-1).repeat_interleave(VIEWS, 0)
    layers = torch.empty(total, 4, SIZE, SIZE, dtype=torch.uint8, device=device)
    for rows in _one_class_each(recipes):
        scene = pack_scenes([recipes[int(row) // VIEWS] for row in rows]).to(device)
        black = torch.zeros(len(rows), 3, device=device)
        seen = render_scenes(scene, cameras[rows].to(device), black, SIZE, light=Light(lights[rows].to(device)))
        rgba = torch.cat([seen.image, seen.mask[:, None]], dim=1)
        layers[rows.to(device)] = (255 * rgba).round().to(torch.uint8)
    shape = (count, VIEWS)
    return ViewSets(
        layers.view(*shape, 4, SIZE, SIZE),
        cameras.azimuth_deg.view(shape).to(device),
        cameras.elevation_deg.view(shape).to(device),
        torch.ones(count, dtype=torch.bool, device=device),
    )


def _one_class_each(recipes: list) -> list[Tensor]:
    """Rows of views, in batches of one class, so that packed scenes need little padding."""
    batches, start = [], 0
    for stop in range(1, len(recipes) + 1):
        full = (stop - start) * VIEWS >= _BATCH
        if full or stop == len(recipes) or recipes[stop].class_noun != recipes[start].class_noun:
            batches.append(torch.arange(start * VIEWS, stop * VIEWS))
            start = stop
    return batches
