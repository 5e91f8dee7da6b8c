"""Where to start the search for the cameras of some photos: sets of azimuths under which all threes of photos agree.

For each three photos, all pairs of relative azimuths are tried with cameras that are usual in everything else; what
silhouettes and colours say of them adds up to an energy of any set of azimuths. No photo is taken for the front.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.cameras import wrap_degrees
from dreambooth3d.photos.cameras.centred import CentredPhotos
from dreambooth3d.photos.cameras.coherence import ELEVATION_DEG, Coherence

AZIMUTHS = 18
STEP_DEG = 360.0 / AZIMUTHS
MAX_THREES = 20
RAYS, POINTS = 40, 20
MISS_WEIGHT, COLOR_WEIGHT = 2.0, 0.3
PAIR_WEIGHT = 2e-3
"""Of a unit of logarithmic probability of a pair's relative azimuth, in units of the energy."""
SCORER_WEIGHT, SCORER_SPREAD_DEG, SCORER_MAX_OFF_DEG = 1.2, 15.0, 45.0
"""Of a scorer's angles off the front: against the pairs, their usual error, and the error beyond which one is wrong."""
SCORER_SPAN_DEG = (40.0, 100.0)
"""Of a set's angles off the front: below the first a scorer tells nothing apart, above the second it counts in full."""
FRONT_STEP_DEG = 6.0
CANDIDATES = 6000
NEIGHBOUR_CELLS = 1


@dataclass(frozen=True)
class ViewPrior:
    """What n photos look like to somebody who has seen many things from all sides.

    Attributes:
        pairs: (n, n, bins) logarithmic probabilities: entry [i, j, k] of the azimuth of photo j relative to photo i
            lying in bin k, whose middle is 360 k / bins degrees.
        front: (n, bins) the same of each photo's azimuth relative to the subject's front.
        elevation_deg: (n,) expected of each camera.
        off_front_deg: (n,) angle between camera and front in [0, 180], as a scorer estimates it, or None.
    """

    pairs: Float[Tensor, "n n bins"]
    front: Float[Tensor, "n bins"]
    elevation_deg: Float[Tensor, " n"]
    off_front_deg: Float[Tensor, " n"] | None = None

    def __getitem__(self, index: list[int]) -> ViewPrior:
        off = None if self.off_front_deg is None else self.off_front_deg[index]
        return ViewPrior(self.pairs[index][:, index], self.front[index], self.elevation_deg[index], off)

    def to(self, device: torch.device) -> ViewPrior:
        """The same on a device."""
        off = None if self.off_front_deg is None else self.off_front_deg.to(device)
        return ViewPrior(self.pairs.to(device), self.front.to(device), self.elevation_deg.to(device), off)

    def among(self, count: int, index: list[int]) -> ViewPrior:
        """Of `count` photos, of which these are those at `index`; of the others nothing is known."""
        bins, rows = self.front.shape[1], torch.tensor(index)
        even = -math.log(bins)
        pairs = torch.full((count, count, bins), even).index_put((rows[:, None], rows[None]), self.pairs)
        front = torch.full((count, bins), even).index_copy(0, rows, self.front)
        elevation = torch.full((count,), ELEVATION_DEG).index_copy(0, rows, self.elevation_deg)
        return ViewPrior(pairs, front, elevation)

    def energy(self, azimuth_deg: Float[Tensor, "sets n"]) -> Float[Tensor, " sets"]:
        """(sets,) what is against azimuths relative to one another: by the pairs, and by the scorer."""
        return self.pair_energy(azimuth_deg) + self.scorer_energy(azimuth_deg.unbind(1))

    def pair_energy(self, azimuth_deg: Float[Tensor, "sets n"]) -> Float[Tensor, " sets"]:
        """(sets,) mean negative logarithmic probability of the pairs, linear between the middles of the bins."""
        own, other = torch.triu_indices(azimuth_deg.shape[1], azimuth_deg.shape[1], 1)
        return -between_bins(self.pairs[own, other], azimuth_deg[:, other] - azimuth_deg[:, own]).mean(dim=1)

    def scorer_energy(self, azimuth_deg: Sequence[Tensor]) -> Tensor | float:
        """How badly the scorer's angles fit whichever front they fit best, in units of a logarithmic probability.

        A scorer that sees all photos from one side has no opinion.

        Args:
            azimuth_deg: one tensor for each photo, which are broadcast: those of a grid need not be spread out.
        """
        if self.off_front_deg is None:
            return 0.0
        low, high = SCORER_SPAN_DEG
        sure = ((self.off_front_deg.max() - self.off_front_deg.min() - low) / (high - low)).clamp(0, 1)
        best: Tensor | None = None
        for front in torch.arange(0, 360, FRONT_STEP_DEG).tolist():
            total = torch.zeros_like(azimuth_deg[0])
            for azimuth, off in zip(azimuth_deg, self.off_front_deg, strict=True):
                around = (wrap_degrees(azimuth - front).abs() - off).abs().clamp(max=SCORER_MAX_OFF_DEG)
                total = total + 0.5 * (around / SCORER_SPREAD_DEG).square() / len(azimuth_deg)
            best = total if best is None else torch.minimum(best, total)
        return 0.0 if best is None else SCORER_WEIGHT * sure * best

    def facing(self, azimuth_deg: Float[Tensor, "sets n"]) -> Float[Tensor, " sets"]:
        """(sets,) logarithmic probability of azimuths relative to the front, summed over the photos."""
        return between_bins(self.front, azimuth_deg).sum(dim=1)


def between_bins(values: Float[Tensor, "n bins"], azimuth_deg: Float[Tensor, "sets n"]) -> Float[Tensor, "sets n"]:
    """Values at azimuths, linear between the middles of the bins."""
    bins = values.shape[1]
    place = torch.remainder(azimuth_deg * bins / 360, bins)
    low = place.floor()
    first, row = low.long() % bins, torch.arange(len(values), device=values.device)
    return torch.lerp(values[row, first], values[row, (first + 1) % bins], place - low)


@torch.no_grad()
def azimuth_starts(
    photos: CentredPhotos, count: int, generator: torch.Generator, prior: ViewPrior | None = None
) -> Float[Tensor, "starts n"]:
    """Up to `count` sets of azimuths in degrees, the most promising first, no two of which are neighbours.

    Args:
        photos: n photos, 2 to 6.
        count: how many.
        generator: on the CPU.
        prior: what else is known of the azimuths.
    """
    energy = _energies(photos, generator)
    steps = torch.arange(AZIMUTHS, device=energy.device)
    if prior is not None:
        cells = torch.cartesian_prod(*[steps] * (len(photos) - 1)).view(-1, len(photos) - 1)
        azimuth = torch.cat([torch.zeros_like(cells[:, :1]), cells], dim=1) * STEP_DEG
        on_grid = [_cells(photo, len(photos), energy.device) * STEP_DEG for photo in range(len(photos))]
        known = prior.pair_energy(azimuth).view_as(energy) + prior.scorer_energy(on_grid)
        energy = energy + PAIR_WEIGHT * known
    best = energy.flatten().topk(min(CANDIDATES, energy.numel()), largest=False).indices
    cells = torch.stack(torch.unravel_index(best, energy.shape), dim=-1)
    chosen = _apart(cells, count)
    return torch.cat([torch.zeros_like(chosen[:, :1]), chosen], dim=1) * STEP_DEG


def _energies(photos: CentredPhotos, generator: torch.Generator) -> Tensor:
    """Energy of all azimuths of the photos but the first, one dimension each."""
    count = len(photos)
    threes = list(itertools.combinations(range(count), 3)) or [(0, 1)]
    if len(threes) > MAX_THREES:
        threes = [threes[index] for index in torch.randperm(len(threes), generator=generator)[:MAX_THREES].tolist()]
    energy = torch.zeros([AZIMUTHS] * (count - 1), device=photos.images.device)
    for three in threes:
        table = _table(photos[list(three)], generator)
        energy += _spread(table, three, count) / len(threes)
    return energy


def _table(photos: CentredPhotos, generator: torch.Generator) -> Tensor:
    """Energy of two or three photos, by the azimuths of all but the first relative to the first."""
    problem = Coherence(photos)
    steps = torch.arange(AZIMUTHS, device=problem.device) * STEP_DEG
    relative = torch.cartesian_prod(*[steps] * (len(photos) - 1)).view(-1, len(photos) - 1)
    cameras = problem.neutral(torch.cat([torch.zeros_like(relative[:, :1]), relative], dim=1))
    miss, colors = problem.evidence(cameras, problem.pixels(RAYS, generator), POINTS)
    return (MISS_WEIGHT * miss + COLOR_WEIGHT * colors).view([AZIMUTHS] * (len(photos) - 1))


def _spread(table: Tensor, three: tuple[int, ...], count: int) -> Tensor:
    """The table of some of the photos, over the azimuths of all of them."""
    cells = [_cells(photo, count, table.device) for photo in three]
    return table[tuple((cell - cells[0]) % AZIMUTHS for cell in cells[1:])]


def _cells(photo: int, count: int, device: torch.device) -> Tensor:
    """Steps of one photo's azimuth along its dimension of those of `count` photos; the first one's is 0 everywhere."""
    shape = [1] * (count - 1)
    if photo == 0:
        return torch.zeros(shape, dtype=torch.long, device=device)
    shape[photo - 1] = AZIMUTHS
    return torch.arange(AZIMUTHS, device=device).view(shape)


def _apart(cells: Tensor, count: int) -> Tensor:
    """The first of cells (k, n), at most `count`, without neighbours of earlier ones."""
    left, chosen = cells, []
    while len(left) and len(chosen) < count:
        chosen.append(left[0])
        apart = (left - left[0]) % AZIMUTHS
        left = left[torch.minimum(apart, AZIMUTHS - apart).amax(dim=1) > NEIGHBOUR_CELLS]
    return torch.stack(chosen)
