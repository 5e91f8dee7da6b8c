"""Which photos can be targets: those whose cameras can be told. A wrong camera is worse than a missing photo."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.backdrops import FINE_SIZE
from dreambooth3d.cameras import Cameras, wrap_degrees
from dreambooth3d.photos.cameras.extent import subject_middle
from dreambooth3d.photos.cameras.placement import PlacedCameras
from dreambooth3d.photos.cameras.search import (
    AROUND_STEP_DEG,
    CORE_PHOTOS,
    MIN_PHOTOS,
    FoundCameras,
    assumed_fov_y_deg,
    find_cameras,
)
from dreambooth3d.photos.cameras.starts import ViewPrior
from dreambooth3d.progress import LoopProgress

REASON = "not_located"
"""Column of a photo's facts: why its camera is unknown, empty where it is known."""
NO_MASK = "its subject cannot be told from the background"
TOO_FEW = f"fewer than {MIN_PHOTOS} photos show where the subject is"
DISAGREE = "the photos' outlines do not belong to one thing"
LEFT_OUT = "its outline does not fit those of the others, which agree without it"
UNTOLD = "it looks alike from several sides"
MIN_TOLD = 2
"""A single photo that is told says nothing that the others could agree with."""
DOUBTFUL_MISS = 1.2e-3
"""Mean miss, in halves of the centred frame, beyond which one of the silhouettes may not belong to the others."""
MAX_MISS = 2.8e-3
"""Mean miss beyond which silhouettes do not belong together; masks that are a tenth wrong stay below it."""
MIN_GAIN = 1.5
"""By which factor the others must predict one another better without a photo that is left out."""
SCREENING_EFFORT = 0.34
"""Of the searches that tell which photo is left out: with one photo fewer there are far fewer sets of azimuths."""
AMBIGUOUS = 1.03
"""Factor on the error of the best explanation up to which another one is as good."""
AMBIGUOUS_AROUND = 1.15
"""The same of a photo that is taken round the subject while the others stay where they are."""
OTHER_SIDE_DEG = 45.0
TURNS_DEG = 2.0
SCORER_WEIGHT = 0.25
"""Of a degree by which the set's angles off the front differ from a scorer's, in logarithmic probability."""
CPU = torch.device("cpu")
MIN_SPAN_DEG = 60.0
"""Of the located azimuths, below which the photos show one side only."""


@dataclass(frozen=True)
class LocatedPhotos:
    """What is known about n photos' cameras.

    Attributes:
        placed: the n cameras, NaN where they are unknown.
        reasons: why each is unknown, or empty.
    """

    placed: PlacedCameras
    reasons: tuple[str, ...]


def locate_photos(photos: SubjectPhotos, prior: ViewPrior | None = None, device: torch.device = CPU) -> SubjectPhotos:
    """The photos with each one's camera in `facts`, NaN where it cannot be told, and the reason in the findings.

    Args:
        photos: with masks.
        prior: what is known of their directions.
        device: on which cameras are searched.
    """
    focal = photos.facts.get("focal_length_35mm", [None] * len(photos.images))
    fov = torch.tensor([assumed_fov_y_deg(length) for length in focal])
    off_front = torch.tensor(photos.off_front_deg) if photos.off_front_deg else None
    images, masks = photos.resized(FINE_SIZE), photos.masks_resized(FINE_SIZE)
    located = locate(images, masks, photos.trusted, fov, off_front, prior, device)
    facts = photos.facts.assign(**located.placed.columns(), **{REASON: list(located.reasons)})
    said = [
        f"{file}: is no target, since {reason}."
        for file, reason in zip(photos.facts["file"], located.reasons, strict=True)
        if reason
    ]
    said += _set_findings(located)
    return replace(photos, facts=facts, findings=(*photos.findings, *said))


def _set_findings(located: LocatedPhotos) -> list[str]:
    """What is to be said of the cameras as a whole."""
    azimuth = located.placed.cameras.azimuth_deg
    known = azimuth[~azimuth.isnan()]
    if len(known) < MIN_PHOTOS:
        return [
            f"The cameras of {len(known)} of {len(azimuth)} photos could be found: the asset follows the words, and "
            "the photos only as far as fine-tuning learns from them. Add photos that show the whole subject, 30 to 50 "
            "degrees apart."
        ]
    span = span_deg(known)
    if span < MIN_SPAN_DEG:
        return [
            f"All photos show the subject from one side: their cameras lie within {span:.0f} degrees, and of the other "
            "sides the asset follows the words. Walk on around the subject and add photos from its left, its right and "
            "behind it, 30 to 50 degrees apart."
        ]
    return []


def span_deg(azimuth_deg: Float[Tensor, " n"]) -> float:
    """Degrees of the shortest arc around the subject on which all azimuths lie."""
    around = torch.remainder(azimuth_deg, 360).sort().values
    return (360 - torch.cat([around, around[:1] + 360]).diff().max()).item()


def locate(
    images: Float[Tensor, "n 3 height height"],
    masks: Float[Tensor, "n height height"],
    trusted: Bool[Tensor, " n"],
    fov_y_deg: Float[Tensor, " n"],
    off_front_deg: Float[Tensor, " n"] | None = None,
    prior: ViewPrior | None = None,
    device: torch.device = CPU,
) -> LocatedPhotos:
    """Find the cameras of the photos whose masks can be trusted, and leave out those that cannot be told.

    Args:
        images: (n, 3, height, height) photos in [0, 1].
        masks: (n, height, height) of the subject, in [0, 1].
        trusted: (n,) which masks count.
        fov_y_deg: (n,) of the photos.
        off_front_deg: (n,) angle between camera and front in [0, 180], as a scorer estimates it: part of the prior if
            there is one, and with it what turns the whole set to the front.
        prior: what else is known of their directions.
        device: on which cameras are searched; all tensors are on the CPU before and after.
    """
    reasons = ["" if good else NO_MASK for good in trusted.tolist()]
    chosen = trusted.nonzero()[:, 0].tolist()
    if len(chosen) < MIN_PHOTOS:
        return _nowhere(fov_y_deg, [reason or TOO_FEW for reason in reasons])
    if prior is not None:
        prior = replace(prior, off_front_deg=off_front_deg)
    search = _Search(images, masks, fov_y_deg, prior, device)
    found = search.among(chosen)
    if found.miss.mean() > DOUBTFUL_MISS:
        alien, rest = _without_one(search, chosen, found)
        if alien is not None:
            reasons[chosen.pop(chosen.index(alien))] = LEFT_OUT
            found = rest
    if found.miss.mean() > MAX_MISS:
        return _nowhere(fov_y_deg, [reason or DISAGREE for reason in reasons])
    told = _told(found).tolist()
    if sum(told) < MIN_TOLD:
        return _nowhere(fov_y_deg, [reason or UNTOLD for reason in reasons])
    for index, clear in zip(chosen, told, strict=True):
        reasons[index] = "" if clear else UNTOLD
    placed = found.placed.around_common_point().levelled()
    if not placed.look_at_centre:
        placed = placed.around(subject_middle(placed, masks[chosen]))
    placed = placed.simplified()
    turned = _facing(
        placed,
        None if off_front_deg is None else off_front_deg[chosen],
        None if prior is None else prior[chosen],
    )
    return LocatedPhotos(_spread(turned, chosen, reasons, fov_y_deg), tuple(reasons))


@dataclass(frozen=True)
class _Search:
    """What is known of n photos, on the CPU, and the device on which cameras are searched."""

    images: Tensor
    masks: Tensor
    fov_y_deg: Tensor
    prior: ViewPrior | None
    device: torch.device

    def among(self, chosen: list[int], effort: float = 1.0) -> FoundCameras:
        """The cameras of some of the photos, on the CPU."""
        prior = None if self.prior is None else self.prior[chosen].to(self.device)
        images, masks, fov = (values[chosen].to(self.device) for values in (self.images, self.masks, self.fov_y_deg))
        return find_cameras(images, masks, fov, prior, effort=effort).cpu()


def _without_one(search: _Search, chosen: list[int], found: FoundCameras) -> tuple[int | None, FoundCameras]:
    """The photo without which the others agree much better, or None, and the others' cameras."""
    if not MIN_PHOTOS < len(chosen) <= CORE_PHOTOS:
        return None, found
    others = [[kept for kept in chosen if kept != left] for left in chosen]
    rests = []
    with LoopProgress(len(others), "cameras without one photo each", unit="search") as progress:
        for rest in others:
            rests.append(search.among(rest, SCREENING_EFFORT))
            progress.update()
    errors = [rest.error[0].item() if rest.miss.mean() <= DOUBTFUL_MISS else math.inf for rest in rests]
    least = min(errors)
    if least * MIN_GAIN > found.error[0].item():
        return None, found
    left = errors.index(least)
    return chosen[left], search.among(others[left])


def _told(found: FoundCameras) -> Tensor:
    """(n,) bool: no explanation that is as good puts the photo on quite another side.

    Cameras that are all turned alike are the same.
    """
    azimuth = found.placed.cameras.azimuth_deg
    rivals = found.rivals[found.error <= AMBIGUOUS * found.error[0]]
    apart = wrap_degrees(rivals - rivals[:1])
    apart = wrap_degrees(apart - apart.median(dim=1, keepdim=True).values).abs()
    turns = wrap_degrees(torch.arange(found.around.shape[1]) * AROUND_STEP_DEG).abs()
    as_good = found.around <= AMBIGUOUS_AROUND * found.around.min(dim=1, keepdim=True).values
    told = torch.ones_like(azimuth, dtype=torch.bool)
    told[: rivals.shape[1]] = ~((apart > OTHER_SIDE_DEG).any(dim=0) | (as_good & (turns >= OTHER_SIDE_DEG)).any(dim=1))
    return told


def _facing(placed: PlacedCameras, off_front_deg: Tensor | None, prior: ViewPrior | None) -> PlacedCameras:
    """The cameras turned about the subject to the likeliest front, by the prior and a scorer's angles off the front."""
    if off_front_deg is None and prior is None:
        return placed
    turns = torch.arange(-180, 180, TURNS_DEG)
    azimuth = wrap_degrees(placed.cameras.azimuth_deg + turns[:, None])
    likely = torch.zeros(len(turns)) if prior is None else prior.facing(azimuth)
    if off_front_deg is not None:
        off = (azimuth.abs() - off_front_deg).abs().clamp(max=OTHER_SIDE_DEG)
        likely = likely - SCORER_WEIGHT * off.mean(1)
    return replace(placed, cameras=replace(placed.cameras, azimuth_deg=azimuth[likely.argmax()]))


def _spread(placed: PlacedCameras, chosen: list[int], reasons: list[str], fov: Tensor) -> PlacedCameras:
    """Cameras of some of the photos as those of all, NaN for the others and for those with a reason."""
    whole = _nowhere(fov, reasons).placed
    kept = torch.tensor([not reasons[index] for index in chosen])
    rows = torch.tensor(chosen)[kept]

    def filled(all_values: Tensor, values: Tensor) -> Tensor:
        return all_values.index_copy(0, rows, values[kept])

    cameras = whole.cameras.map(filled, placed.cameras)
    return PlacedCameras(cameras, filled(whole.roll_deg, placed.roll_deg), filled(whole.centre, placed.centre))


def _nowhere(fov_y_deg: Tensor, reasons: list[str]) -> LocatedPhotos:
    unknown = torch.full((len(reasons),), math.nan)
    cameras = Cameras(unknown, unknown, unknown, fov_y_deg.float())
    return LocatedPhotos(PlacedCameras(cameras, unknown, torch.stack([unknown, unknown], dim=-1)), tuple(reasons))
