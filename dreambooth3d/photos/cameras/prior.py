"""What the bundled network says of a set's cameras before any search: a prior, and where the subject's front is."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.backdrops import FINE_SIZE
from dreambooth3d.digests import sha256_once
from dreambooth3d.errors import ConfigError
from dreambooth3d.photos.cameras.starts import ViewPrior
from dreambooth3d.photos.masks.source import require_pinned
from dreambooth3d.photos.networks.relative_views import BINS, RelativeViewNetwork, centred_cutouts
from dreambooth3d.photos.networks.weights import WEIGHTS, network_folder

FOLDER = "models/views"
MIN_PHOTOS = 2
MARGINS = (1.05, 1.15, 1.28)
"""Of the cut-outs at which the network looks, around that of its training."""
_PREFIX = "sha256:"


def views_digest() -> str:
    """`sha256:<digest>` of the bundled network's weights; empty where they are missing."""
    folder = network_folder(FOLDER)
    return "" if folder is None else _PREFIX + sha256_once(folder / WEIGHTS)


def view_prior(photos: SubjectPhotos, digest: str) -> ViewPrior | None:
    """What the bundled network says of the photos whose masks are trusted; None without a digest or such photos.

    Args:
        photos: with masks.
        digest: from `views_digest`.

    Raises:
        ConfigError: the weights are missing, or others than those of the digest.
    """
    chosen = photos.trusted.nonzero()[:, 0].tolist()
    if not digest or len(chosen) < MIN_PHOTOS:
        return None
    folder = network_folder(FOLDER)
    if folder is None:
        raise ConfigError(
            f"{FOLDER}/{WEIGHTS}: was there when the run was started, and is not here. Restore it with `git checkout "
            f"{FOLDER}`, or start the run again."
        )
    require_pinned(folder / WEIGHTS, digest.removeprefix(_PREFIX))
    images, masks = photos.resized(FINE_SIZE)[chosen], photos.masks_resized(FINE_SIZE)[chosen]
    said = told_by(RelativeViewNetwork.load(folder), images, masks)
    return said.among(len(photos.images), chosen)


@torch.no_grad()
def told_by(
    network: RelativeViewNetwork, images: Float[Tensor, "n 3 side side"], masks: Float[Tensor, "n side side"]
) -> ViewPrior:
    """What a network says of photos in [0, 1]: the mean of several looks, nearer and farther, and at mirror images."""
    looks = [_look(network, centred_cutouts(images, masks, margin)) for margin in MARGINS]
    looks += [_mirrored(_look(network, centred_cutouts(images, masks, margin).flip(-1))) for margin in MARGINS]
    pairs, front, elevation = (torch.stack(values).mean(0) for values in zip(*looks, strict=True))
    return ViewPrior(pairs.log(), front.log(), elevation)


def _look(network: RelativeViewNetwork, cutouts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities (n, n, bins) and (n, bins), and elevations (n,) in degrees."""
    pairs, front, elevation = network(cutouts[None])
    return pairs[0].softmax(-1), front[0].softmax(-1), elevation[0]


def _mirrored(look: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The same of the mirrored photos: every azimuth is its negative."""
    pairs, front, elevation = look
    back = -torch.arange(BINS) % BINS
    return pairs[..., back], front[..., back], elevation
