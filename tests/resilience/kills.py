"""The real pipeline at small scale, ended by a signal at random moments of all steps, and given again until it is done.

Several interruptions fall on one run, so that each costs little: the command is interrupted, given again, interrupted
later, and so on. In the end everything is compared with a run that nobody touched.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.product import FRONT_DOOR, TINY, make_product
from tests.resilience.shim import wrong_clock
from tests.timing import is_timed

BEFORE, AFTER = "before the first step", "after the last step"
STEPS = (
    "load_ground_truth", "validate_photos", "finetune_dreambooth", "select_checkpoints", "init_nerf",
    "generate_pseudo_views", "finetune_multiview", "refine_nerf", "evaluate", "export_asset", "publish",
)  # fmt: skip
MOMENTS = (BEFORE, *STEPS, AFTER)
SETTINGS = {
    "init_nerf": TINY["init_nerf"] | {"photos": {"min_overlap": 0.0}},
    "refine_nerf": TINY["refine_nerf"] | {"photos": {"weight": 0.0}},
}
STATE = (".zen", ".zenconfig", ".dreambooth3d")
LONGEST_S = 900.0
"""A command that takes longer hangs."""
_FOLLOWING = {step: STEPS[place:] for place, step in enumerate(STEPS)}
_RUN_NAME = re.compile(rb"dreambooth3d-\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d_\d{6}")
_OF_ONE_RUN = re.compile(_RUN_NAME.pattern + rb"|\d{1,2} [A-Z][a-z]+ \d{4}")
"""Its name, and the day that its page says."""
_TIMED = "report.html"
"""Says how long each step took."""
_EVENT = re.compile(r"Step (\w+) has (started|finished)")
_MARKS = re.compile(r"\x1b\[[0-9;]*m|`")
"""ZenML colours a name, or, in a file, quotes it."""
_CACHES = {"class_images"}


@dataclass(frozen=True)
class Interruption:
    """When a command is interrupted, and how.

    Attributes:
        moment: one of `MOMENTS`.
        share: of the moment's usual duration that passes first; 1 is when a step has just ended.
        number: the signal.
        clock_s: by how many seconds the command's clock is wrong.
    """

    moment: str
    share: float
    number: signal.Signals = signal.SIGKILL
    clock_s: int = 0


@dataclass(frozen=True)
class Result:
    """What a run has left.

    Attributes:
        files: the SHA-256 of each file of the asset, with its run's name taken out of it.
        metrics: every point of every series, times aside.
        params: of the row.
        left: what should not be there: work folders, files in the making.
    """

    files: Mapping[str, str]
    metrics: frozenset[tuple[str, int, float]]
    params: Mapping[str, str]
    left: tuple[str, ...]

    def differences(self, other: Result) -> list[str]:
        """What differs from another result, in words."""
        found = [f"file {name}" for name in _differing(self.files, other.files)]
        found += [f"metric {key} at {step}" for key, step, _ in sorted(self.metrics ^ other.metrics)]
        return found + [f"parameter {name}" for name in _differing(self.params, other.params)]


def _differing(left: Mapping[str, str], right: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*left, *right} if left.get(name) != right.get(name))


class Workshop:
    """A product whose state can be put back to that after `setup`.

    Attributes:
        product: the copied checkout, which saves resumable states at every step.
        config: what is run.
        environment: more variables of every command.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any] = SETTINGS) -> None:
        """Make the product in an empty folder."""
        self.product = make_product(folder)
        self._fresh, self._log = folder / "fresh", folder / "log.txt"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        _save_states_often(self.product.root / "dreambooth3d" / "runtime.py")
        self.config = self.product.write_config(**config)
        done = self.product.dreambooth3d("setup")
        if done.returncode != 0:
            raise RuntimeError(done.stderr[-2000:])
        for name in STATE:
            shutil.copytree(self.product.root / name, self._fresh / name)
        self.environment: dict[str, str] = {"TMPDIR": str(self.temporary)}

    def reset(self) -> None:
        """Forget all runs."""
        shutil.rmtree(self.product.root / "outputs", ignore_errors=True)
        shutil.rmtree(self.temporary)
        self.temporary.mkdir()
        for name in STATE:
            shutil.rmtree(self.product.root / name, ignore_errors=True)
            shutil.copytree(self._fresh / name, self.product.root / name)

    @contextmanager
    def command(self, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """The main job, in a process group of its own."""
        environment = self.product.environment | self.environment | variables
        with self._log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *FRONT_DOOR, self.config], cwd=self.product.root, env=environment, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_hear_interrupts,
            )  # fmt: skip
            try:
                yield process
            finally:
                with_group(process, signal.SIGKILL)
                process.wait()

    def said(self) -> str:
        """What the latest command printed."""
        return _MARKS.sub("", self._log.read_text(errors="replace"))

    def finish(self, **variables: str) -> Result:
        """Give the command, and wait for its end.

        Raises:
            RuntimeError: it failed, or did not end in time.
        """
        with self.command(**variables) as process:
            try:
                code = process.wait(LONGEST_S)
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"hangs: {self.said()[-1000:]}") from None
        if code != 0:
            raise RuntimeError(f"exit code {code}: {self.said()[-2000:]}")
        return self.result(self.run_name())

    def run_name(self) -> str:
        """Of the run that the latest command was."""
        return _RUN_NAME.findall(self._log.read_bytes())[-1].decode()

    def durations(self, **variables: str) -> dict[str, float]:
        """Give the command, and measure each moment, in seconds."""
        times, started = {}, time.monotonic()
        with self.command(**variables) as process:
            while process.poll() is None:
                now = time.monotonic()
                times |= {event: now for event in _EVENT.findall(self.said()) if event not in times}
                time.sleep(0.05)
            ended = time.monotonic()
        if process.returncode != 0:
            raise RuntimeError(f"exit code {process.returncode}: {self.said()[-2000:]}")
        steps = {name: times[name, "finished"] - times[name, "started"] for name in STEPS}
        return {
            BEFORE: times[STEPS[0], "started"] - started, **steps, AFTER: ended - times[STEPS[-1], "finished"],
        }  # fmt: skip

    def interrupt(self, what: Interruption, usual: Mapping[str, float], **variables: str) -> int | None:
        """Give the command and interrupt it at its moment; its exit code, None where it ended before.

        Raises:
            RuntimeError: it goes on for longer than `LONGEST_S` after the signal.
        """
        with self.command(**variables) as process:
            if not _wait(process, lambda: _reached(what, self.said())):
                return None
            if what.share < 1 and _wait(process, _after(what.share * usual[what.moment])) is False:
                return None
            with_group(process, what.number)
            try:
                return process.wait(LONGEST_S)
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"{what} does not end it: {self.said()[-1000:]}") from None

    def result(self, run: str, database: Path | None = None) -> Result:
        """What a run has left.

        Args:
            run: its name.
            database: MLflow's, where it is not the product's own.

        Raises:
            RuntimeError: its row does not say that it is completed.
        """
        folder = self.product.root / "outputs" / run
        files = {
            path.relative_to(folder).as_posix(): hashlib.sha256(_of_any_run(path)).hexdigest()
            for path in folder.rglob("*")
            if path.is_file() and path.name != _TIMED
        }
        with closing(sqlite3.connect(database or self._database())) as rows:
            query = "SELECT run_uuid, status FROM runs NATURAL JOIN tags WHERE key = ? AND value = ?"
            ((row, status),) = rows.execute(query, ("zenml.pipeline_run", run)).fetchall()
            points = rows.execute("SELECT key, step, value FROM metrics WHERE run_uuid = ?", (row,)).fetchall()
            params = dict(rows.execute("SELECT key, value FROM params WHERE run_uuid = ?", (row,)).fetchall())
            tags = dict(rows.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (row,)).fetchall())
        if (status, tags.get("status")) != ("FINISHED", "completed"):
            raise RuntimeError(f"{run}: MLflow says {status}, {tags.get('status')}")
        metrics = frozenset(point for point in points if not is_timed(point[0]))
        return Result(files, metrics, params, tuple(self.left()))

    def ends(self) -> list[str]:
        """What MLflow says of each run so far, the first one first."""
        with closing(sqlite3.connect(self._database())) as rows:
            return [status for (status,) in rows.execute("SELECT status FROM runs ORDER BY start_time")]

    def _database(self) -> Path:
        (own,) = (self.product.root / ".zenconfig").rglob("mlflow.db")
        return own

    def left(self) -> Iterator[str]:
        """Work folders and files in the making."""
        root = self.product.root
        work = root / ".dreambooth3d" / "work"
        yield from (str(path.relative_to(root)) for path in work.iterdir() if path.name not in _CACHES)
        yield from (str(path.relative_to(root)) for path in root.rglob("*.partial*"))


def _of_any_run(path: Path) -> bytes:
    """A file without what is of its run alone; a page without the mesh beside it, which has the run's name."""
    content = path.read_bytes()
    mesh = path.with_name("asset.glb")
    if path.suffix == ".html" and mesh.exists():
        content = content.replace(base64.b64encode(mesh.read_bytes()), b"")
    return _OF_ONE_RUN.sub(b"", content)


def _hear_interrupts() -> None:
    """A shell lets what it starts in the background ignore SIGINT, and all that this starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _save_states_often(runtime: Path) -> None:
    """At this scale no stage takes as long as the time between two states of its own."""
    text = runtime.read_text()
    often = re.sub(r"wait = max\(self\.interval_s.*", "wait = 0.0", text)
    assert often != text
    runtime.write_text(often)


def _reached(what: Interruption, said: str) -> bool:
    """Whether the moment has begun, or is over: where an earlier command has done the step, the next one will do."""
    if what.moment == BEFORE:
        return True
    if what.moment == AFTER:
        return f"Step {STEPS[-1]} has finished" in said
    if what.share >= 1:
        return f"Step {what.moment} has finished" in said
    return any(f"Step {step} has started" in said for step in _FOLLOWING[what.moment])


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def _wait(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> bool:
    """Wait for something; False where the process ends first."""
    deadline = time.monotonic() + LONGEST_S
    while process.poll() is None and time.monotonic() < deadline:
        if reached():
            return True
        time.sleep(0.02)
    return False


def with_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def plan(kills: int, per_run: int, seed: int) -> list[list[Interruption]]:
    """Kills at random moments, every kind of moment as often as any other, in the order in which they are reached."""
    draw = random.Random(seed)
    places = [MOMENTS[number % len(MOMENTS)] for number in range(kills)]
    draw.shuffle(places)
    chains = [places[start : start + per_run] for start in range(0, kills, per_run)]
    return [
        [Interruption(moment, draw.uniform(0.05, 0.95)) for moment in sorted(chain, key=MOMENTS.index)]
        for chain in chains
    ]


SIGNALS = (
    Interruption("validate_photos", 0.5, signal.SIGTERM),
    Interruption("validate_photos", 1, signal.SIGTERM),
    Interruption("finetune_dreambooth", 0.4, signal.SIGTERM),
    Interruption("init_nerf", 0.4, signal.SIGINT),
    Interruption("init_nerf", 1, signal.SIGINT),
    Interruption(AFTER, 0.2, signal.SIGINT),
)
"""Told to stop, inside steps and between two."""
DAY_S = 86400
CLOCKS = (
    Interruption("finetune_dreambooth", 0.5, clock_s=400 * DAY_S),
    Interruption("init_nerf", 0.5, clock_s=-400 * DAY_S),
)
"""Killed under a clock that is a year ahead, then one that is a year behind; the last command's is right."""


@dataclass
class Tally:
    """What came of interruptions.

    Attributes:
        tried: those that were delivered.
        identical: those after which the same command left what an untouched run leaves.
        left_behind: work folders and files in the making that the completed runs have left.
    """

    tried: int = 0
    identical: int = 0
    left_behind: int = 0


@dataclass(frozen=True)
class Untouched:
    """A workshop, what a run in it leaves that nobody touched, and how long its parts take."""

    workshop: Workshop
    result: Result
    usual: Mapping[str, float]


def untouched_run(folder: Path) -> Untouched:
    """Make a workshop in an empty folder, and run it twice: to see what is left, and how long that takes."""
    workshop = Workshop(folder)
    usual = workshop.durations()
    workshop.reset()
    return Untouched(workshop, workshop.finish(), usual)


def survive(chain: Sequence[Interruption], untouched: Untouched, tally: Tally) -> list[str]:
    """Interrupt one run again and again, let it end, and compare; what is wrong, in words."""
    workshop = untouched.workshop
    workshop.reset()
    delivered = 0
    for what in chain:
        code = workshop.interrupt(what, untouched.usual, **wrong_clock(what.clock_s))
        delivered += code is not None
        ended = "too late" if code is None else f"exit code {code}"
        print(f"  {what.number.name} {what.moment}, {what.share:.2f}: {ended}", flush=True)
    tally.tried += delivered
    try:
        result = workshop.finish()
    except RuntimeError as error:
        print(f"  {error}", flush=True)
        return [str(error)]
    wrong = untouched.result.differences(result)
    tally.identical += 0 if wrong else delivered
    tally.left_behind += len(result.left)
    print(f"  {f'differs: {wrong[:5]}' if wrong else 'identical'}; left: {list(result.left)}", flush=True)
    return wrong + [f"left: {name}" for name in result.left]
