"""Training batches: random recipes, cameras, lights and backgrounds, deterministic by seed.

A batch is made in two halves: `plan_batch` is pure, runs on the CPU and may run in worker processes; `render_batch`
renders a plan on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dreambooth3d.cameras import VIEW_WORDS, Cameras, random_cameras
from dreambooth3d.toybox.accessories import ACCESSORIES
from dreambooth3d.toybox.backgrounds import paint_backgrounds, random_backgrounds
from dreambooth3d.toybox.captions import random_caption
from dreambooth3d.toybox.classes import CLASSES
from dreambooth3d.toybox.packing import pack_scenes
from dreambooth3d.toybox.recipes import COLOUR_NAMES, Recipe, random_recipe
from dreambooth3d.toybox.render import Light, render_scenes
from dreambooth3d.toybox.shapes import PATTERNS, Scene

CLASS_NAMES = tuple(CLASSES)
ACCESSORY_NAMES = tuple(ACCESSORIES)
TRAINING_SEEDS = range(1_000_000)
UNSEEN_SEEDS = range(1_000_000, 2_000_000)
ELEVATION_DEG = (-10.0, 85.0)
OVERHEAD_ELEVATION_DEG = (60.0, 85.0)
EXTRA_OVERHEAD_SHARE = 0.08

Captioner = Callable[[Recipe, str, Random], str]


@dataclass(frozen=True)
class Attributes:
    """What each picture of a batch shows, (B,) each.

    Attributes:
        class_index: into `CLASS_NAMES`.
        main, second: into `COLOUR_NAMES`.
        pattern: into `PATTERNS`.
        accessory: into `ACCESSORY_NAMES`, -1 for none.
        accessory_colour: into `COLOUR_NAMES`, -1 for none.
        view: into `VIEW_WORDS`.
        azimuth_deg, elevation_deg: of the camera.
    """

    class_index: Int[Tensor, " n"]
    main: Int[Tensor, " n"]
    second: Int[Tensor, " n"]
    pattern: Int[Tensor, " n"]
    accessory: Int[Tensor, " n"]
    accessory_colour: Int[Tensor, " n"]
    view: Int[Tensor, " n"]
    azimuth_deg: Float[Tensor, " n"]
    elevation_deg: Float[Tensor, " n"]


@dataclass(frozen=True)
class BatchPlan:
    """Everything that determines a batch, on the CPU.

    Attributes:
        scenes: pairs of batch indices and their packed scenes; one pair per class, so that padding stays small.
        cameras: B cameras.
        light_direction: (B, 3) unit length.
        background: (B, 3, 2) colour at the top and the bottom, in [0, 1].
        horizon: (B,) height of the edge between both, from the top; NaN for a smooth gradient.
        exposure: (B,) factor on the picture.
        captions: B captions.
        attributes: what each picture shows.
        size: pixels.
    """

    scenes: list[tuple[Tensor, Scene]]
    cameras: Cameras
    light_direction: Float[Tensor, "n 3"]
    background: Float[Tensor, "n 3 2"]
    horizon: Float[Tensor, " n"]
    exposure: Float[Tensor, " n"]
    captions: list[str]
    attributes: Attributes
    size: int


@dataclass(frozen=True)
class TrainingBatch:
    """Images uint8 (B, 3, size, size) on the rendering device, B captions, and attributes on the CPU."""

    images: UInt8[Tensor, "n 3 size size"]
    captions: list[str]
    attributes: Attributes


def sample_batch(
    count: int,
    seed: int,
    size: int = 64,
    device: torch.device | str = "cpu",
    captioner: Captioner = random_caption,
) -> TrainingBatch:
    """A batch of random pictures; the same seed gives the same batch.

    Args:
        count: B; on a GPU 4096 or more make good use of it (the launches cost 2 s a batch whatever its size).
        seed: from `TRAINING_SEEDS` for training, from `UNSEEN_SEEDS` for measuring.
        size: pixels.
        device: where to render.
        captioner: makes a caption of (recipe, view word, random).
    """
    return render_batch(plan_batch(count, seed, size, captioner), device)


def plan_batch(
    count: int, seed: int, size: int = 64, captioner: Captioner = random_caption, reserved: bool = False
) -> BatchPlan:
    """The CPU half of `sample_batch`: pure and picklable, for worker processes; `reserved` as in `random_recipe`."""
    random, generator = Random(seed), torch.Generator().manual_seed(seed)
    recipes = [random_recipe(random, reserved) for _ in range(count)]
    cameras = _random_cameras(count, generator)
    views = cameras.view_words()
    background, horizon = random_backgrounds(count, random)
    white = (background == 1).flatten(1).all(dim=1)
    exposure = torch.where(white, 1.0, 0.92 + 0.16 * torch.rand(count, generator=generator))
    light = torch.tensor([0.45, 0.25, 0.86]) + 0.18 * torch.randn(count, 3, generator=generator)
    return BatchPlan(
        scenes=_pack_by_class(recipes),
        cameras=cameras,
        light_direction=torch.nn.functional.normalize(light, dim=-1),
        background=background,
        horizon=horizon,
        exposure=exposure,
        captions=[captioner(recipe, view, random) for recipe, view in zip(recipes, views, strict=True)],
        attributes=_attributes(recipes, views, cameras),
        size=size,
    )


def render_batch(plan: BatchPlan, device: torch.device | str = "cpu") -> TrainingBatch:
    """The rendering half of `sample_batch`."""
    cameras, exposure = plan.cameras.to(device), plan.exposure.to(device)[:, None, None, None]
    background = paint_backgrounds(plan.background.to(device), plan.horizon.to(device), plan.size)
    images = torch.empty_like(background)
    for index, scene in plan.scenes:
        index = index.to(device)
        light = Light(plan.light_direction.to(device)[index])
        render = render_scenes(scene.to(device), cameras[index], background[index], plan.size, light=light)
        images[index] = render.image
    pixels = ((images * exposure).clamp(0, 1) * 255).round().to(torch.uint8)
    return TrainingBatch(pixels, plan.captions, plan.attributes)


def _pack_by_class(recipes: list[Recipe]) -> list[tuple[Tensor, Scene]]:
    groups: dict[str, list[int]] = {}
    for index, recipe in enumerate(recipes):
        groups.setdefault(recipe.class_noun, []).append(index)
    return [(torch.tensor(indices), pack_scenes([recipes[index] for index in indices])) for indices in groups.values()]


def _random_cameras(count: int, generator: torch.Generator) -> Cameras:
    """Uniform over the sphere between two elevations, with some more from overhead."""
    ranges = {"distance": (2.35, 2.65), "fov_y_deg": (40.0, 44.0), "stratified": False}
    cameras = random_cameras(count, generator, elevation_deg=ELEVATION_DEG, **ranges)
    low, high = OVERHEAD_ELEVATION_DEG
    overhead = low + (high - low) * torch.rand(count, generator=generator)
    chosen = torch.rand(count, generator=generator) < EXTRA_OVERHEAD_SHARE
    return replace(cameras, elevation_deg=torch.where(chosen, overhead, cameras.elevation_deg))


def _attributes(recipes: list[Recipe], views: list[str], cameras: Cameras) -> Attributes:
    def indices(names: tuple[str, ...], values: Sequence[str | None]) -> Tensor:
        position = {name: index for index, name in enumerate(names)}
        return torch.tensor([-1 if value is None else position.get(value, -1) for value in values])

    return Attributes(
        class_index=indices(CLASS_NAMES, [recipe.class_noun for recipe in recipes]),
        main=indices(COLOUR_NAMES, [recipe.main for recipe in recipes]),
        second=indices(COLOUR_NAMES, [recipe.second for recipe in recipes]),
        pattern=indices(PATTERNS, [recipe.pattern for recipe in recipes]),
        accessory=indices(ACCESSORY_NAMES, [recipe.accessory for recipe in recipes]),
        accessory_colour=indices(COLOUR_NAMES, [recipe.accessory_colour for recipe in recipes]),
        view=indices(VIEW_WORDS, list(views)),
        azimuth_deg=cameras.azimuth_deg,
        elevation_deg=cameras.elevation_deg,
    )
