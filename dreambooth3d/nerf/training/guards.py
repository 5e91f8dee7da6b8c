"""Guarding a run: guards look at an asset at each check and act as the configuration says when one trips."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from skimage.color import rgb2lab
from torch import Tensor

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.cameras import VIEW_WORDS, Cameras, wrap_degrees
from dreambooth3d.config.guards import GuardAction, GuardsConfig
from dreambooth3d.errors import GuardError
from dreambooth3d.nerf.photo_cameras.heading import ViewLogits
from dreambooth3d.record import StepLog
from dreambooth3d.representation.interface import Rendering, Representation

Likeness = Callable[[Tensor], Tensor]
"""From images (n, 3, h, w) in [0, 1] to the mean cosine (n,) of each one's features and those of the photos."""

FRONT = VIEW_WORDS.index("front")
MASK_THRESHOLD = 0.5
PHOTO_SIZE = 64
WHOLE = 0.99
"""Share of a photo's pixel that must be the subject, whose colour alone counts."""
AZIMUTH_SLACK_DEG = 5e-4
"""Keeps views at exactly the bound on its far side in spite of rounding."""
USELESS = ("nan", "opacity")
"""Guards whose trip means that there is no field: after a stop signal the others only warn."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trouble:
    """What it means that a guard trips: completes the sentence "the field ...", and what helps."""

    what: str
    remedy: str


QUANTITIES = {
    "nan": "non-finite values",
    "opacity": "mean opacity",
    "occupancy": "filled share of the ball",
    "saturation": "mean chroma",
    "janus": "share of other views taken for the front",
    "clip_i": "CLIP-I",
}
"""What each guard measures, in words; the guards in the order in which they look."""

NO_SHAPE = "Lower learning_rate or regularizers.sparsity, or check that the guidance knows the subject"
TOO_LOW = {
    "opacity": Trouble("became empty", NO_SHAPE),
    "occupancy": Trouble("shrank to a speck", NO_SHAPE),
    "clip_i": Trouble("lost likeness to the photos", "Lower learning_rate, or stop earlier by convergence_patience"),
}
TOO_HIGH = {
    "nan": Trouble("became NaN", NO_SHAPE),
    "opacity": Trouble("filled the whole frame", "Raise regularizers.sparsity or lower learning_rate"),
    "occupancy": Trouble(
        "fills the ball like a fog",
        "Raise regularizers.sparsity or regularizers.opacity, or take photos before smooth backgrounds",
    ),
    "saturation": Trouble("is over-saturated", "Lower guidance.guidance_scale or raise guidance.rescale"),
    "janus": Trouble(
        "shows fronts on other sides",
        "Set guidance.perp_neg to true, or choose an earlier checkpoint by select_checkpoints.partial_step",
    ),
}


@dataclass(frozen=True)
class Reading:
    """What a guard measured at a check.

    Attributes:
        guard: its name.
        value: what it measured.
        low, high: the bounds of what it lets pass.
        judged: whether the bounds count yet.
    """

    guard: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    judged: bool = True

    @property
    def trips(self) -> bool:
        """Whether the value is out of bounds and that counts."""
        return self.judged and not self.low <= self.value <= self.high

    @property
    def trouble(self) -> Trouble:
        """What a value out of bounds means."""
        return (TOO_LOW if self.value < self.low else TOO_HIGH)[self.guard]

    @property
    def comparison(self) -> str:
        """Such as `janus 0.4 > 0.3`."""
        sign, bound = ("<", self.low) if self.value < self.low else (">", self.high)
        return f"{self.guard} {self.value:.3g} {sign} {bound:.3g}"

    @property
    def reason(self) -> str:
        """Completes the sentence "the field ...", with the figures."""
        low = self.value < self.low
        bound = f"at least {self.low:.3g} is needed" if low else f"at most {self.high:.3g} is allowed"
        return f"{self.trouble.what} ({QUANTITIES[self.guard]} {self.value:.3g}, {bound})"


@dataclass(eq=False)
class Collapse(Exception):
    """The attempt is given up.

    Attributes:
        reason: completes the sentence "the field ...".
        remedy: what helps, if it happens with other seeds as well.
        event: the same for the record, in a few words.
    """

    reason: str
    remedy: str
    event: str


@dataclass
class Ledger:
    """What the guards found in a stage, the attempts that were given up included.

    Attributes:
        trips: how often each guard tripped; guards that never looked are missing.
        events: what was done about it, in a few words each.
    """

    trips: dict[str, int] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)

    def report(self, log: StepLog) -> None:
        """Log the counts, and the events as one text."""
        log.metrics(**{f"guards/{guard}_trips": count for guard, count in self.trips.items()})
        log.params(guard_events="; ".join(self.events) or "none")

    def state(self) -> dict[str, Any]:
        """What a resumed stage needs."""
        return {"trips": dict(self.trips), "events": list(self.events)}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Ledger:
        """Inverse of `state`."""
        return Ledger({guard: int(count) for guard, count in state["trips"].items()}, list(state["events"]))


@dataclass(frozen=True)
class Look:
    """What the guards see at a check.

    Attributes:
        previews: n renders on white.
        cameras: the n cameras.
        model: the asset.
        cell_threshold: opacity of a cell below which it counts as empty.
        step: of the attempt.
        progress: position in the stage, in [0, 1].
    """

    previews: Rendering
    cameras: Cameras
    model: Representation
    cell_threshold: float
    step: int
    progress: float


class Guards:
    """The guards of one attempt.

    Args:
        config: bounds and actions.
        stage: name of the step, for messages.
        attempt: number of attempts before.
        ledger: of the stage; counts and events are added to it.
        view_logits: how the selector sees views; None turns `janus` off.
        likeness: how alike the selector finds views and photos; None turns `clip_i` off.
        photos: the subject's photos, whose chroma `saturation` compares with; None for its absolute bound.
    """

    def __init__(
        self,
        config: GuardsConfig,
        stage: str,
        attempt: int,
        ledger: Ledger,
        view_logits: ViewLogits | None = None,
        likeness: Likeness | None = None,
        photos: SubjectPhotos | None = None,
    ) -> None:
        self.config, self.stage, self.attempt, self.ledger = config, stage, attempt, ledger
        self.view_logits, self.likeness = view_logits, likeness
        self.photo_chroma = None if photos is None else photos_chroma(photos)
        self.looked_at: int | None = None
        self._best_likeness = -math.inf
        self._recent: deque[float] = deque(maxlen=config.clip_i.patience)
        self._warned: list[str] = []

    def read(self, look: Look) -> list[Reading]:
        """What the guards measure, those left out that are off or have nothing to measure.

        Where previews are not finite, `nan` alone looks.
        """
        self.looked_at = look.step
        readers = {
            "opacity": self._opacity,
            "occupancy": self._occupancy,
            "saturation": self._saturation,
            "janus": self._janus,
            "clip_i": self._clip_i,
        }
        count = self._count(torch.cat([look.previews.color.flatten(), look.previews.opacity.flatten()]))
        readings: list[Reading | None] = [count] if self._action("nan") != "off" else []
        if count.value == 0:
            readings += [reader(look) for guard, reader in readers.items() if self._action(guard) != "off"]
        return [reading for reading in readings if reading is not None]

    def watch(self, figures: Iterable[float], step: int) -> None:
        """Let `nan` look at figures of a step, and act."""
        if self._action("nan") != "off":
            self.act([self._count(torch.tensor(list(figures)))], step)

    def _action(self, guard: str) -> GuardAction:
        return getattr(self.config, guard).action

    def _count(self, values: Tensor) -> Reading:
        return Reading("nan", int((~values.isfinite()).sum()), high=self.config.nan.max_count)

    def _opacity(self, look: Look) -> Reading:
        guard = self.config.opacity
        return Reading("opacity", look.previews.opacity.mean().item(), guard.min_opacity, guard.max_opacity)

    def _occupancy(self, look: Look) -> Reading | None:
        """None for an asset without density."""
        guard, share = self.config.occupancy, look.model.filled_share(look.cell_threshold)
        if share is None:
            return None
        return Reading("occupancy", share, guard.min_share, guard.max_share, judged=look.progress >= guard.start)

    def _saturation(self, look: Look) -> Reading | None:
        """None where nothing is opaque."""
        guard, value = self.config.saturation, chroma(look.previews.color, look.previews.opacity > MASK_THRESHOLD)
        if value is None:
            return None
        high = guard.max_chroma if self.photo_chroma is None else self.photo_chroma + guard.max_excess
        return Reading("saturation", value, high=high, judged=look.progress >= guard.start)

    def _janus(self, look: Look) -> Reading | None:
        """None without scorer."""
        if self.view_logits is None:
            return None
        guard = self.config.janus
        away = wrap_degrees(look.cameras.azimuth_deg.cpu()).abs() >= guard.min_azimuth_deg - AZIMUTH_SLACK_DEG
        fronts = self.view_logits(look.previews.color[away.to(look.previews.color.device)]).argmax(dim=-1) == FRONT
        share = fronts.float().mean().item()
        return Reading("janus", share, high=guard.max_share, judged=look.progress >= guard.start)

    def _clip_i(self, look: Look) -> Reading | None:
        """Counts once all of the last `patience` checks were too far below the best before; None without scorer."""
        if self.likeness is None:
            return None
        value = self.likeness(look.previews.color).mean().item()
        self._best_likeness = max(self._best_likeness, value)
        self._recent.append(value)
        low = self._best_likeness - self.config.clip_i.max_drop
        lasting = len(self._recent) == self._recent.maxlen and max(self._recent) < low
        return Reading("clip_i", value, low=low, judged=lasting)

    def act(self, readings: Sequence[Reading], step: int, interrupted: bool = False) -> None:
        """Do what the configuration says about those that trip, and write it down.

        Args:
            readings: of this step.
            step: of the attempt.
            interrupted: after a stop signal a field is kept unless there is none.

        Raises:
            GuardError: a guard with the action `stop` tripped.
            Collapse: one with the action `retry` did.
        """
        for reading in readings:
            self.ledger.trips.setdefault(reading.guard, 0)
        for reading in (reading for reading in readings if reading.trips):
            self.ledger.trips[reading.guard] += 1
            action = "warn" if interrupted and reading.guard not in USELESS else self._action(reading.guard)
            if action == "stop":
                raise GuardError(self._stop_message(reading, step))
            if action == "retry":
                raise Collapse(reading.reason, reading.trouble.remedy, reading.comparison)
            self._warn(reading, step)

    def _stop_message(self, reading: Reading, step: int) -> str:
        """One sentence for the user, and what to do."""
        return (
            f"{self.stage}: the guard {reading.guard} stopped the run at step {step}, as the field {reading.reason}. "
            f"{reading.trouble.remedy}, or set {self.stage}.guards.{reading.guard}.action to warn."
        )

    def _warn(self, reading: Reading, step: int) -> None:
        """Once per guard: to the log in a stage, to the record in an attempt."""
        if self.ledger.trips[reading.guard] == 1:
            logger.warning("%s: the field %s at step %d", self.stage, reading.reason, step)
        if reading.guard not in self._warned:
            self._warned.append(reading.guard)
            self.note(reading.comparison, step, "warned")

    def note(self, event: str, step: int, outcome: str) -> None:
        """Write down what happened at a step of this attempt, and what was done."""
        attempt = f" of attempt {self.attempt + 1}" if self.attempt else ""
        self.ledger.events.append(f"{event} at step {step}{attempt}: {outcome}")

    def state(self) -> dict[str, Any]:
        """What a resumed attempt needs."""
        return {
            "ledger": self.ledger.state(),
            "looked_at": self.looked_at,
            "best_likeness": self._best_likeness,
            "recent": list(self._recent),
            "warned": list(self._warned),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`; the ledger is the stage's, which restores it."""
        self.looked_at, self._best_likeness = state["looked_at"], float(state["best_likeness"])
        self._recent.extend(state["recent"])
        self._warned = list(state["warned"])


def chroma(images: Tensor, masks: Tensor) -> float | None:
    """Mean CIELAB chroma of images (n, 3, h, w) in [0, 1] where masks (n, h, w) bool say; None where nowhere."""
    pixels = images.permute(0, 2, 3, 1)[masks]  # (pixels, 3)
    if len(pixels) == 0:
        return None
    lab = torch.from_numpy(rgb2lab(pixels.cpu().double().numpy()))
    return lab[:, 1:].norm(dim=1).mean().item()


def photos_chroma(photos: SubjectPhotos) -> float | None:
    """Mean CIELAB chroma of the subject, over the photos in which it can be told from the background; else None."""
    images = photos.resized(PHOTO_SIZE)
    masks = photos.masks_resized(PHOTO_SIZE) >= WHOLE
    return chroma(images, masks & photos.trusted[:, None, None])
