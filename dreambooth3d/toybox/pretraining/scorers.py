"""The two CLIP scorers: contrastive with every true caption as a positive, by attribute, and against near misses."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from dreambooth3d.toybox.pretraining.dataset import (
    FULL_STATEMENT,
    STATEMENTS,
    UNKNOWN,
    Probes,
    Renders,
    asked_nouns,
    probe_loss,
    rival_loss,
    stated_kinds,
    statement_matrix,
    true_pairs,
    undecided_pairs,
)
from dreambooth3d.toybox.pretraining.loop import PretrainingLoop, StageRun, half_precision
from dreambooth3d.toybox.pretraining.networks import SCORER_NAMES, new_scorer

_BATCH = 384
IMAGE_MEAN = (0.5, 0.5, 0.5)
IMAGE_STD = (0.25, 0.25, 0.25)
_NEVER = -1e4


@cache
def _statistics(device: torch.device) -> tuple[Tensor, ...]:
    """The processors' mean and spread; kept on the device, because a captured graph must not copy from the CPU."""
    return tuple(torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))


def normalise(images: Tensor) -> Tensor:
    """What the scorers' processors do: images (n, 3, 64, 64) in [0, 1] to zero mean and about unit spread."""
    mean, std = _statistics(images.device)
    return (images - mean) / std


def _tensor(output: Any) -> Tensor:
    """transformers 5 returns an output object from `get_*_features`, earlier versions the tensor."""
    return output if isinstance(output, Tensor) else output.pooler_output


def image_features(model: CLIPModel, images: Tensor) -> Tensor:
    """(n, d) unit-length features of images (n, 3, 64, 64) in [0, 1]."""
    return F.normalize(_tensor(model.get_image_features(pixel_values=normalise(images))).float(), dim=-1)


def text_features(model: CLIPModel, tokens: Tensor) -> Tensor:
    """(n, d) unit-length features of token ids (n, 24)."""
    return F.normalize(_tensor(model.get_text_features(input_ids=tokens)).float(), dim=-1)


def augment(images: Tensor) -> Tensor:
    """Make scorers robust to what samples and renders of a field look like.

    Random zoom and shift, blur, noise, contrast and tint on images (n, 3, h, w) in [0, 1].
    """
    count, device = len(images), images.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, device=device) * (high - low) + low

    pose = torch.zeros(count, 2, 3, device=device)
    pose[:, 0, 0] = pose[:, 1, 1] = uniform(0.85, 1.15)
    pose[:, :, 2] = uniform(-0.08, 0.08, 2)
    grid = F.affine_grid(pose, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    for factor, share in ((2, 0.4), (4, 0.08)):
        small = F.interpolate(images, scale_factor=1 / factor, mode="bilinear", antialias=True)
        blurred = F.interpolate(small, size=images.shape[-2:], mode="bilinear")
        images = torch.where((uniform(0, 1) < share).view(-1, 1, 1, 1), blurred, images)
    gain, tint = uniform(0.85, 1.15, 1, 1, 1), uniform(-0.05, 0.05, 3, 1, 1)
    noise = torch.randn_like(images) * uniform(0, 0.04, 1, 1, 1)
    return ((images - 0.5) * gain + 0.5 + tint + noise).clamp(0, 1)


def multi_positive_loss(similarity: Tensor, positive: Tensor, undecided: Tensor | None = None) -> Tensor:
    """Contrastive loss in both directions in which every true pair is a target.

    Args:
        similarity: (images, texts) scaled cosines.
        positive: (images, texts) whether the text is true of the image.
        undecided: (images, texts) pairs that do not count, neither as true nor as false; none where None.
    """
    targets = positive.float()
    if undecided is not None:
        similarity = similarity.masked_fill(undecided, _NEVER)
    by_image = -(similarity.log_softmax(1) * targets).sum(1) / targets.sum(1)
    by_text = -(similarity.log_softmax(0) * targets).sum(0) / targets.sum(0)
    return 0.5 * (by_image.mean() + by_text.mean())


class _Objective:
    """The scorers' loss on a random batch: contrastive, by attribute, and against rival captions."""

    def __init__(self, model: CLIPModel, renders: Renders, tokenizer: CLIPTokenizer) -> None:
        self.model, self.renders = model, renders
        self.probes = Probes.build(tokenizer, renders.images.device)
        self.stated = statement_matrix(renders.images.device)

    def __call__(self) -> Tensor:
        renders, device = self.renders, self.renders.images.device
        chosen = torch.randint(len(renders), (_BATCH,), device=device)
        kind = torch.randint(len(self.stated), (_BATCH,), device=device)
        attributes, tokens = renders.attributes[chosen], renders.tokens[chosen]
        kind = stated_kinds(kind, attributes, self.stated)
        described = (attributes != UNKNOWN).all(-1)
        own = tokens[torch.arange(_BATCH, device=device), kind]
        contest = torch.cat([tokens[:, FULL_STATEMENT : FULL_STATEMENT + 1], tokens[:, len(STATEMENTS) :]], dim=1)
        with half_precision(device):
            image = image_features(self.model, augment(renders.images[chosen].float() / 255))
            text = text_features(self.model, torch.cat([own, self.probes.tokens, contest.flatten(0, 1)]))
        own, probes, contest = text.split([_BATCH, len(self.probes.tokens), len(contest.flatten(0, 1))])
        scale = self.model.logit_scale.exp().clamp(max=100)
        stated = self.stated[kind]
        true, undecided = (pairs(attributes, attributes, stated) for pairs in (true_pairs, undecided_pairs))
        asked = asked_nouns(attributes[:, 0])
        return (
            multi_positive_loss(scale * (image @ own.T), true, undecided)
            + probe_loss(self.probes, scale * (image @ probes.T), attributes, asked)
            + rival_loss(image, contest.view(_BATCH, -1, image.shape[1]), scale, described)
        )


def train_scorer(
    name: str, renders: Renders, tokenizer: CLIPTokenizer, run: StageRun, start: CLIPModel | None = None
) -> CLIPModel:
    """Train one scorer on its own renders, with its own seed; from random weights where there is no `start`."""
    torch.manual_seed(10 + SCORER_NAMES.index(name))
    model = (start or new_scorer(name, tokenizer)).to(run.device).train().requires_grad_(True)
    towers = [model.vision_model, model.text_model]
    training = PretrainingLoop([model], run.schedule, run.work, name, compiled=towers)
    training.run(_Objective(model, renders, tokenizer))
    return model.eval().requires_grad_(False)
