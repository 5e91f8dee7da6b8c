"""What is known about a subject's true looks. The only place of the evaluation that realises a `GroundTruth`."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import torch

from dreambooth3d.artifacts import GroundTruth
from dreambooth3d.cameras import Cameras
from dreambooth3d.evaluation.pixels import Views

if TYPE_CHECKING:
    from dreambooth3d.toybox.contexts import Attributes
    from dreambooth3d.toybox.recipes import Recipe

_SUPERSAMPLE = 2


def true_views(truth: GroundTruth, cameras: Cameras, size: int) -> Views:
    """Render the true subject on white, antialiased, from n cameras; nobody may write to what is returned.

    The last ones are remembered: an asset and its mesh are compared with the same views.

    Raises:
        ConfigError: the recipe cannot be read.
    """
    angles = tuple((name, tuple(values.tolist())) for name, values in vars(cameras).items())
    return _rendered(json.dumps(dict(truth.recipe), sort_keys=True), angles, size)


@functools.lru_cache(maxsize=4)
def _rendered(recipe: str, angles: tuple[tuple[str, tuple[float, ...]], ...], size: int) -> Views:
    from dreambooth3d.toybox.render import render_views

    cameras = Cameras(**{name: torch.tensor(values) for name, values in angles})
    truth = GroundTruth(json.loads(recipe))
    render = render_views(_recipe(truth), cameras, size=size, supersample=_SUPERSAMPLE)
    return Views(render.image.float(), render.mask.float(), render.depth.float())


def true_caption(truth: GroundTruth) -> str:
    """The caption that names class, colours, pattern and accessory of the true subject."""
    from dreambooth3d.toybox.captions import caption

    return caption(_recipe(truth))


def published_captions(truth: GroundTruth) -> list[str]:
    """The 200 captions of R-precision, the true one among them."""
    from dreambooth3d.toybox.captions import published_captions as captions_of

    return list(captions_of(_recipe(truth)))


def edited_truth(truth: GroundTruth, prompt: str, identifier: str) -> GroundTruth:
    """The subject as a context prompt wants it; empty where its truth, or how to draw the prompt, is not known."""
    from dreambooth3d.toybox.contexts import parse_prompt

    if not truth.known:
        return truth
    recipe = _recipe(truth)
    asked = parse_prompt(prompt, identifier, recipe.class_noun)
    edited = None if asked is None else asked.applied_to(recipe)
    return GroundTruth({} if edited is None else edited.to_dict())


def true_attributes(truth: GroundTruth) -> Attributes:
    """What a caption says of the true subject."""
    from dreambooth3d.toybox.contexts import Attributes

    return Attributes.of_recipe(_recipe(truth))


def _recipe(truth: GroundTruth) -> Recipe:
    from dreambooth3d.toybox.recipes import Recipe

    return Recipe.from_dict(dict(truth.recipe))
