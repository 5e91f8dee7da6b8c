"""Ways to combine a denoiser's predictions under several prompts into one."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

_EPS = 1e-8


def classifier_free(
    unconditional: Float[Tensor, "n channels height width"],
    conditional: Float[Tensor, "n channels height width"],
    scale: float,
) -> Float[Tensor, "n channels height width"]:
    """Classifier-free guidance (Ho and Salimans 2022): move from the unconditional past the conditional prediction."""
    return unconditional + scale * (conditional - unconditional)


def perpendicular(vector: Float[Tensor, "n ..."], direction: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """The part of each `vector` that is orthogonal to its `direction`."""
    dimensions = tuple(range(1, vector.ndim))
    length = direction.square().sum(dimensions, keepdim=True).clamp_min(_EPS)
    return vector - (vector * direction).sum(dimensions, keepdim=True) / length * direction


def perp_neg(
    unconditional: Float[Tensor, "n channels height width"],
    conditional: Float[Tensor, "n channels height width"],
    negatives: Float[Tensor, "n k channels height width"],
    weights: Float[Tensor, "n k"],
    scale: float,
) -> Float[Tensor, "n channels height width"]:
    """Classifier-free guidance that also moves away from negative prompts, but never against the wanted one.

    Args:
        unconditional, conditional: predictions without a prompt and under the wanted one.
        negatives: predictions under the k negative prompts.
        weights: zero or negative.
        scale: guidance scale.

    Source: Perp-Neg (Armandpour et al. 2023), algorithm 1.
    """
    wanted = conditional - unconditional
    total = wanted
    for index in range(negatives.shape[1]):
        away = perpendicular(negatives[:, index] - unconditional, wanted)
        total = total + weights[:, index, None, None, None] * away
    return unconditional + scale * total


def rescaled(
    guided: Float[Tensor, "n ..."], conditional: Float[Tensor, "n ..."], share: float
) -> Float[Tensor, "n ..."]:
    """Bring the guided prediction's spread per image back towards the conditional one's, against over-saturation.

    Args:
        share: 0 leaves `guided`, 1 gives it exactly the conditional prediction's standard deviation.

    Source: Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al. 2023), section 3.4.
    """
    if share == 0:
        return guided
    dimensions = tuple(range(1, guided.ndim))
    ratio = conditional.std(dimensions, keepdim=True) / guided.std(dimensions, keepdim=True).clamp_min(_EPS)
    return guided * (share * ratio + (1 - share))
