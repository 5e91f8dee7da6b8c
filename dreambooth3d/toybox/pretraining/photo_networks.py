"""Training of the two networks that look at photo sets (`dreambooth3d.photos.networks`)."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.cameras import wrap_degrees
from dreambooth3d.photos.networks import relative_views, subject_masks
from dreambooth3d.photos.networks.relative_views import BIN_DEG, BINS, RelativeViewNetwork
from dreambooth3d.photos.networks.subject_masks import SubjectMaskNetwork
from dreambooth3d.toybox.pretraining.composites import PHOTOS, Composer, cutouts
from dreambooth3d.toybox.pretraining.loop import PretrainingLoop, StageRun, half_precision
from dreambooth3d.toybox.pretraining.view_sets import ViewSets

MASK_SETS = 24
VIEW_SETS = 96
AZIMUTH_SPREAD_DEG = 9.0
ELEVATION_WEIGHT = 0.5
SURE_WEIGHT = 0.1


def soft_iou(masks: Float[Tensor, "*n h w"], truth: Float[Tensor, "*n h w"]) -> Float[Tensor, "*n"]:
    """Intersection over union of masks in [0, 1]; 1 where both are empty."""
    both = torch.minimum(masks, truth).sum((-2, -1))
    either = torch.maximum(masks, truth).sum((-2, -1))
    return torch.where(either < 1, 1.0, both / either.clamp(min=1))


def mask_loss(network: SubjectMaskNetwork, composer: Composer, sets: int) -> Tensor:
    """Cross entropy and overlap of the masks, and cross entropy of how sure the network should be."""
    photos = composer.compose(sets)
    with half_precision(photos.images.device):
        logits, sure = network(photos.images, photos.frame)
    logits, sure = logits.float(), sure.float()
    entropy = F.binary_cross_entropy_with_logits(logits, photos.masks)
    share = logits.sigmoid()
    dice = 1 - (2 * (share * photos.masks).sum((-2, -1)) + 1) / ((share + photos.masks).sum((-2, -1)) + 1)
    reached = soft_iou((share > 0.5).float(), photos.masks).detach()
    return entropy + 0.5 * dice.mean() + SURE_WEIGHT * F.binary_cross_entropy_with_logits(sure, reached)


def train_masks(
    network: SubjectMaskNetwork, things: ViewSets, backgrounds: UInt8[Tensor, "k 3 h w"], run: StageRun
) -> None:
    """Train the network that finds subjects, from the weights that it has."""
    network.to(run.device).train().requires_grad_(True)
    composer = Composer(things, backgrounds, subject_masks.SIZE)
    sets = MASK_SETS if run.device.type == "cuda" else 2
    loop = PretrainingLoop([network], run.schedule, run.work, "masks", compiled=[network])
    loop.run(lambda: mask_loss(network, composer, sets))
    network.eval()


def azimuth_targets(azimuth_deg: Float[Tensor, "*n"]) -> Float[Tensor, "*n bins"]:
    """Probabilities of the bins around azimuths in degrees."""
    centres = torch.arange(BINS, device=azimuth_deg.device) * BIN_DEG
    off = wrap_degrees(azimuth_deg[..., None] - centres)
    return (-0.5 * (off / AZIMUTH_SPREAD_DEG).square()).softmax(-1)


def view_loss(network: RelativeViewNetwork, things: ViewSets, sets: int) -> Tensor:
    """Cross entropy of relative azimuths and, where the front is known, of absolute ones; and of elevations."""
    seen, azimuth, elevation, heading_known = cutouts(things, sets, relative_views.SIZE)
    with half_precision(seen.device):
        pairs, single, found = network(seen)
    relative = azimuth_targets(azimuth[:, None, :] - azimuth[:, :, None])
    apart = 1 - torch.eye(PHOTOS, device=seen.device)
    pair_loss = _cross_entropy(pairs.float(), relative) * apart
    single_loss = _cross_entropy(single.float(), azimuth_targets(azimuth)) * heading_known[:, None]
    lifted = F.smooth_l1_loss(found.float() / 10, elevation / 10)
    share = heading_known.float().mean().clamp(min=1e-3)
    return pair_loss.sum() / (sets * apart.sum()) + 0.5 * single_loss.mean() / share + ELEVATION_WEIGHT * lifted


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * logits.log_softmax(-1)).sum(-1)


def train_views(network: RelativeViewNetwork, things: ViewSets, run: StageRun) -> None:
    """Train the network that tells from where a subject is seen, from the weights that it has."""
    network.to(run.device).train().requires_grad_(True)
    sets = VIEW_SETS if run.device.type == "cuda" else 4
    loop = PretrainingLoop([network], run.schedule, run.work, "views", compiled=[network])
    loop.run(lambda: view_loss(network, things, sets))
    network.eval()


@torch.no_grad()
def mask_figures(network: SubjectMaskNetwork, composer: Composer, sets: int = 192) -> dict[str, float]:
    """Mean overlap with the truth on composed sets, share above 0.85, and of the trusted ones share below 0.6."""
    overlaps, sures = [], []
    for _ in range(0, sets, MASK_SETS):
        photos = composer.compose(MASK_SETS)
        logits, sure = network(photos.images, photos.frame)
        overlaps.append(soft_iou((logits > 0).float(), (photos.masks > 0.5).float()).flatten())
        sures.append(sure.sigmoid().flatten())
    overlap, sure = torch.cat(overlaps), torch.cat(sures)
    trusted = sure > 0.75
    return {
        "iou": overlap.mean().item(),
        "above_85": (overlap > 0.85).float().mean().item(),
        "trusted": trusted.float().mean().item(),
        "trusted_below_60": (overlap[trusted] < 0.6).float().mean().item(),
    }


@torch.no_grad()
def view_figures(network: RelativeViewNetwork, things: ViewSets, sets: int = 400) -> dict[str, float]:
    """Errors of the likeliest relative azimuth and of the elevation, in degrees, on sets of things."""
    seen, azimuth, elevation, heading_known = cutouts(things, sets, relative_views.SIZE)
    pairs, single, found = network(seen)
    off_diagonal = ~torch.eye(PHOTOS, dtype=torch.bool, device=seen.device)
    true = azimuth[:, None, :] - azimuth[:, :, None]
    error = wrap_degrees(pairs.argmax(-1) * BIN_DEG - true).abs()[:, off_diagonal].flatten()
    heading = wrap_degrees(single.argmax(-1) * BIN_DEG - azimuth).abs()[heading_known].flatten()
    return {
        "pair_median_deg": error.median().item(),
        "pair_within_20": (error <= 20).float().mean().item(),
        "heading_median_deg": heading.median().item() if len(heading) else float("nan"),
        "elevation_median_deg": (found - elevation).abs().median().item(),
    }
