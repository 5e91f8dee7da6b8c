"""What becomes of an input: accepted, or refused by an error of ours; anything else is a finding."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
from hypothesis import HealthCheck, Phase, settings

from dreambooth3d.errors import DreamBooth3DError

T = TypeVar("T")
LONG = os.environ.get("DREAMBOOTH3D_FUZZ") == "long"
LONG_TRIES = 1000
TARGETS = (
    "photos", "masks", "captions", "subject.yaml", "run configs", "overrides", "artifacts, damaged",
    "artifacts, digests recomputed", "cameras.json", "models' folders", "checkpoints", "LoRA files",
)  # fmt: skip
MOST_SECONDS = 10
"""Of CPU, for one input: they are all small."""
MOST_MIB = 500
"""What one input may take over what the process has: the limit on photos of docs/data.md, held for all."""
COUNTS: dict[str, Counter[str]] = defaultdict(Counter)


def tries(short: int = 100) -> settings:
    """How many inputs: 1,000 in the long form; in the short one the same few each time."""
    return settings(
        max_examples=LONG_TRIES if LONG else short,
        deadline=None,
        derandomize=not LONG,
        # What is found is counted as it is: shrinking would count its own attempts.
        phases=(Phase.explicit, Phase.generate) if LONG else tuple(Phase),
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def report(path: Path | None = None) -> dict[str, Any]:
    """All counts, and those of each target; of targets that did not run now those that the report there has already."""
    said = (
        json.loads(path.read_text()).get("fuzz", {}).get("targets", {}) if path is not None and path.is_file() else {}
    )
    names = ("inputs", "accepted", "refused", "unhandled", "silently_changed")
    said |= {target: {name: counts[name] for name in names} for target, counts in COUNTS.items()}
    targets = {target: said[target] for target in TARGETS if target in said}
    return {**{name: sum(counts[name] for counts in targets.values()) for name in names}, "targets": targets}


def tried(target: str, playground: Path, read: Callable[[], T]) -> T | None:
    """What `read` returns, or None where it refuses.

    Fails for any error but a `DreamBooth3DError` of one line, for one that takes longer or more memory than it may, and
    where anything is written outside `playground`.
    """
    counts = COUNTS[target]
    counts["inputs"] += 1
    before, resident, peak, begun = _around(playground), _resident(), _peak(), time.process_time()
    found: T | None = None
    try:
        found = read()
        counts["accepted"] += 1
    except DreamBooth3DError as error:
        counts["refused"] += 1
        _require(counts, bool(str(error).strip()) and "\n" not in str(error), f"no sentence: {error!r}")
    except Exception:
        counts["unhandled"] += 1
        raise
    # Rust's panics are no exceptions, and interrupting is not a finding.
    except BaseException as error:
        counts["unhandled"] += not isinstance(error, KeyboardInterrupt | SystemExit)
        raise
    seconds = time.process_time() - begun
    _require(counts, seconds < MOST_SECONDS, f"took {seconds:.1f} s")
    grown = _peak() - resident
    _require(counts, _peak() == peak or grown < MOST_MIB, f"took {grown:.0f} MiB")
    _require(counts, _around(playground) == before, "wrote outside its folder")
    return found


def changed(target: str) -> None:
    """Count an input that was accepted, and is not what was stored."""
    COUNTS[target]["silently_changed"] += 1
    raise AssertionError(f"{target}: silently changed")


def _require(counts: Counter[str], good: bool, what: str) -> None:
    if not good:
        counts["unhandled"] += 1
        raise AssertionError(what)


def _around(playground: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file and folder around the one that inputs are written to."""
    found, inside = {}, str(playground)
    for folder, folders, files in os.walk(playground.parent):
        if folder == inside:
            folders.clear()
            continue
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            if path != inside and os.path.basename(folder) != "__pycache__":
                state = os.lstat(path)
                found[path] = (state.st_size, state.st_mtime_ns if name in files else 0)
    return found


def _resident() -> float:
    return psutil.Process().memory_info().rss / 2**20


def _peak() -> float:
    """MiB that this process ever had at once."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
