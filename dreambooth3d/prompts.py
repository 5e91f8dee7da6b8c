"""View-dependent prompts, and the neighbouring views that Perp-Neg pushes away from."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreambooth3d.cameras import VIEW_WORDS, Cameras

# a, b, c of the weights a * exp(-b * r) + c of the negative views: front and side while the camera is between them,
# then side and front while it is between side and back. From threestudio, after Armandpour et al. 2023.
_FRONT_SIDE = ((4.0, 0.5, -2.426), (4.0, 0.5, -2.426))
_SIDE_BACK = ((1.0, 0.5, -0.606), (1.0, 0.5, 0.967))


def view_prompt(prompt: str, word: str) -> str:
    """The prompt for one view, such as `a photo of a sks dog, front view`."""
    return f"{prompt}, {word} view"


def names(prompt: str, noun: str) -> bool:
    """Whether a prompt holds these words, one after the other, in upper or lower case."""
    words = " ".join(re.findall(r"[^\s,.;:!?]+", prompt.lower()))
    return f" {noun.lower()} " in f" {words} "


def without_identifier(prompt: str, identifier: str) -> str:
    """The prompt for any member of the class, such as `a photo of a red dog`."""
    return " ".join(word for word in prompt.split() if word.lower() != identifier.lower())


def view_prompts(prompt: str, cameras: Cameras) -> list[str]:
    """One view-dependent prompt per camera."""
    return [view_prompt(prompt, word) for word in cameras.view_words()]


@dataclass(frozen=True)
class PerpNegViews:
    """How each camera's view is mixed and which views it is pushed away from.

    Attributes:
        positive: (n, words) weights of `VIEW_WORDS` that mix the embeddings of the wanted view; rows sum to 1.
        negative: (n, 2) index into `VIEW_WORDS` of the two unwanted views.
        weight: (n, 2) their weights, zero or negative.
    """

    positive: Float[Tensor, "n words"]
    negative: Int[Tensor, "n 2"]
    weight: Float[Tensor, "n 2"]


def perp_neg_views(cameras: Cameras) -> PerpNegViews:
    """Interpolated views and their negative neighbours for each camera, on the CPU.

    Between front and side, the wanted view is a mix of both and either is unwanted the more, the farther away it is;
    between side and back, side and front are unwanted. From overhead nothing is.

    Source: Perp-Neg (Armandpour et al. 2023), with threestudio's constants.
    """
    rows = [
        _mix(azimuth, word) for azimuth, word in zip(cameras.azimuth_deg.tolist(), cameras.view_words(), strict=True)
    ]
    positive, negative, weight = zip(*rows, strict=True)
    return PerpNegViews(torch.tensor(positive), torch.tensor(negative), torch.tensor(weight))


def _mix(azimuth_deg: float, word: str) -> tuple[list[float], list[int], list[float]]:
    """Row of `PerpNegViews` for one camera."""
    front, side, back = (VIEW_WORDS.index(name) for name in ("front", "side", "back"))
    positive = [0.0] * len(VIEW_WORDS)
    if word == "overhead":
        positive[VIEW_WORDS.index(word)] = 1.0
        return positive, [front, side], [0.0, 0.0]
    turned = abs((azimuth_deg + 180.0) % 360.0 - 180.0) / 90.0
    if turned < 1.0:
        share = 1.0 - turned
        positive[front], positive[side] = share, 1.0 - share
        return positive, [front, side], [-_decay(_FRONT_SIDE[0], share), -_decay(_FRONT_SIDE[1], 1.0 - share)]
    share = 2.0 - turned
    positive[side], positive[back] = share, 1.0 - share
    return positive, [side, front], [-_decay(_SIDE_BACK[0], share), -_decay(_SIDE_BACK[1], share)]


def _decay(constants: tuple[float, float, float], ratio: float) -> float:
    """a * exp(-b * ratio) + c, not below zero."""
    a, b, c = constants
    return max(0.0, a * math.exp(-b * ratio) + c)
