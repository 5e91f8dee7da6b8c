"""What a page about a run shows, wherever the run's results lie; all of it but the name may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd
from PIL import Image

from dreambooth3d.cameras import Cameras


@dataclass(frozen=True)
class Photo:
    """One photo of the subject.

    Attributes:
        file: its name.
        picture: with the outline of its mask.
        state: can be a target, no target, held out.
        said: further facts, one sentence each.
    """

    file: str
    picture: Image.Image
    state: str
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Placed:
    """Cameras of photos, as the photos told them or as a stage has found them.

    Attributes:
        numbers: of the photos, from 1.
        cameras: one for each of them.
        by: who says so, completes "where the photos were taken, as told by".
    """

    numbers: tuple[int, ...]
    cameras: Cameras
    by: str


@dataclass(frozen=True)
class Shot:
    """A picture with a few words below it."""

    words: str
    picture: Image.Image


@dataclass(frozen=True)
class Strip:
    """Pictures in a row, oldest first, such as an asset as it grows.

    Attributes:
        title: a few words.
        sentence: what is seen.
        shots: at most as many as a page has room for.
    """

    title: str
    sentence: str
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class Sheet:
    """One wide picture that holds several.

    Attributes:
        title: a few words.
        sentence: what is seen in its rows.
        picture: the sheet.
    """

    title: str
    sentence: str
    picture: Image.Image


@dataclass(frozen=True)
class Choice:
    """How the checkpoints were chosen: the table of `CheckpointChoice`, and the reason."""

    scores: pd.DataFrame
    reason: str


@dataclass(frozen=True)
class Compared:
    """Another run's figures of the same subject, such as those of the one in production."""

    run: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class StepTaken:
    """One step of a run.

    Attributes:
        name: of the step.
        status: as ZenML says it.
        seconds: it took when it was computed, None where that is not known.
        cached: whether its result came from the cache.
        memory_mib: peak of its process, with what earlier steps took there; None where that is not known.
        gpu_mib: peak of the GPU, None where there was none.
        guards: what the guards did, empty where none looked.
        error: the first line of what ended it, empty where nothing did.
    """

    name: str
    status: str = "completed"
    seconds: float | None = None
    cached: bool = False
    memory_mib: float | None = None
    gpu_mib: float | None = None
    guards: str = ""
    error: str = ""


@dataclass(frozen=True)
class RunContent:
    """One run.

    Attributes:
        run: its name.
        subject: empty where it is not known.
        prompt: that names the subject, or that the asset was made from.
        status: how the run stands.
        preset: that it was started with.
        started: when, None where that is not known.
        seconds: it took so far.
        commit, data_hash: what it was made of.
        class_noun: what the subject is.
        metrics: of the asset and its mesh, named as in the glossary.
        production: the run in production when the page was written, None where there is none or it is this one.
        photos: in their order.
        more_photos: how many further ones are not shown.
        placed: where they were taken.
        seen: the photos beside the asset from there.
        choice: of the checkpoints.
        samples: what checkpoints drew, by step.
        growth: a strip for each stage that made the asset.
        sheets: pictures of stages.
        contexts: sheets of assets made for further prompts.
        turntable: pictures all around, evenly from the front; empty where there are none.
        steps: in the order in which they ran.
        config: exact configuration as YAML.
        gone: steps whose results are deleted, so that figures of theirs come from the run's row.
    """

    run: str
    subject: str = ""
    prompt: str = ""
    status: str = ""
    preset: str = ""
    started: datetime | None = None
    seconds: float | None = None
    commit: str = ""
    data_hash: str = ""
    class_noun: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    production: Compared | None = None
    photos: tuple[Photo, ...] = ()
    more_photos: int = 0
    placed: Placed | None = None
    seen: Sheet | None = None
    choice: Choice | None = None
    samples: Strip | None = None
    growth: tuple[Strip, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    contexts: tuple[Sheet, ...] = ()
    turntable: tuple[Image.Image, ...] = ()
    steps: tuple[StepTaken, ...] = ()
    config: str = ""
    gone: tuple[str, ...] = ()
