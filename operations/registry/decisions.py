"""Pure decisions of a retraining: is a new version needed, and may it become production?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from dreambooth3d.config.fleet import BoundsConfig, PromotionConfig, RegressionConfig
from operations.records.keys import current_key

if TYPE_CHECKING:
    from operations.registry.versions import Made, Version

PARTS = {
    "data": "photos",
    "config": "configuration",
    "code": "code",
    "base_model": "base model",
    "selector": "selector",
    "judge": "judge",
    "photo_networks": "networks for photos",
}
"""What a version's identity consists of, and how reasons name it."""
# Versions of before say gates where it is guards now.
_TRIPS = re.compile(r"(?:^|/)(?:guards|gates)/[^/]+_trips$")
_SLACK = 1.0e-9

Action = Literal["train", "skipped", "promoted", "kept", "trained", "failed"]


@dataclass(frozen=True)
class Verdict:
    """What was done about a subject, and why.

    Attributes:
        subject: its name.
        action: train (decided only), skipped, promoted, kept (production was kept), trained (a portfolio) or failed.
        reason: one sentence.
        data: hash of its photos, empty where that is unknown.
        run: the child run that trained it, empty where there is none.
        version: number of the new version, empty where there is none.
        production: number of the version in production when it was decided, empty where there was none.
    """

    subject: str
    action: Action
    reason: str
    data: str = ""
    run: str = ""
    version: str = ""
    production: str = ""

    def row(self) -> dict[str, str]:
        """Plain values by column."""
        return asdict(self)


def decide(identity: Mapping[str, str], production: Made | None) -> tuple[bool, str]:
    """Whether a subject needs training, and the reason.

    Args:
        identity: what a training would be made of now, by the keys of `PARTS`.
        production: the version in production, or None.
    """
    if production is None:
        return True, "there is no production version yet"
    name = f"production version {production.number}"
    if not production.identity:
        return True, f"{name} does not say what it was made of"
    changed = [label for key, label in PARTS.items() if identity.get(key) != production.identity.get(key)]
    if changed:
        return True, f"changed since {name}: {', '.join(changed)}"
    return False, f"nothing changed since {name} (run {production.run})"


def objections(gates: PromotionConfig, candidate: Version, production: Version | None) -> list[str]:
    """Why a candidate must not become production, one clause per gate that failed; none if all passed."""
    found = ["the run was interrupted"] if candidate.interrupted else []
    metrics = candidate.metrics
    found += [
        f"a guard tripped ({key} = {value:g})"
        for key, value in sorted(metrics.items())
        if _TRIPS.search(key) and value != 0
    ]
    for key, bounds in gates.bounds.items():
        found += _out_of_bounds(key, metrics.get(current_key(key)), bounds)
    if production is not None and gates.regression and not production.metrics:
        found.append("production's metrics are gone, so that nothing can be compared")
    elif production is not None:
        for key, rule in gates.regression.items():
            now, before = (measured.get(current_key(key)) for measured in (metrics, production.metrics))
            found += _regression(key, now, before, rule)
    return found


def _out_of_bounds(key: str, value: float | None, bounds: BoundsConfig) -> Iterator[str]:
    if value is None or math.isnan(value):
        yield f"{key} was not measured"
    elif bounds.min is not None and value < bounds.min - _SLACK:
        yield f"{key} = {value:.4g} is below {bounds.min:g}"
    elif bounds.max is not None and value > bounds.max + _SLACK:
        yield f"{key} = {value:.4g} is above {bounds.max:g}"


def _regression(key: str, value: float | None, before: float | None, rule: RegressionConfig) -> Iterator[str]:
    if before is None or math.isnan(before):
        if value is None or math.isnan(value):
            yield f"{key} was measured neither now nor in production"
        return
    if value is None or math.isnan(value):
        yield f"{key} was not measured, production has {before:.4g}"
        return
    loss = before - value if rule.better == "higher" else value - before
    if loss > rule.tolerance + _SLACK:
        yield f"{key} = {value:.4g} is worse than production's {before:.4g} by more than {rule.tolerance:g}"
