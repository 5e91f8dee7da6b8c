"""The report of a run, gathered from what its steps have stored: pictures and figures come from their records.

A report only shows. Whatever of it is gone or cannot be read is left out, and never keeps a run from its end.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from zenml.client import Client
from zenml.models import PipelineRunResponse, StepRunResponse

from dreambooth3d.artifacts import AssetBundle, SubjectPhotos
from dreambooth3d.errors import ArtifactError, gist
from dreambooth3d.images import to_pil
from dreambooth3d.naming import subject_of
from dreambooth3d.nerf.photo_cameras.photo_targets import reported_cameras
from dreambooth3d.nerf.training.checks import PREVIEW_VIEWS
from dreambooth3d.photos.showing import outlined
from dreambooth3d.record import StepRecord
from dreambooth3d.run_report.comparison import Seen
from dreambooth3d.run_report.content import (
    Choice,
    Compared,
    Photo,
    Placed,
    RunContent,
    Sheet,
    Shot,
    StepTaken,
    Strip,
)
from dreambooth3d.run_report.page import run_report
from operations.records.patience import briefly
from operations.records.publishing import PUBLISH, end_of, finished_stage
from operations.records.rows import seconds_between
from operations.records.status import status_of
from operations.registry import remains, versions

logger = logging.getLogger(__name__)
Value = TypeVar("Value")
PHOTOS_SHOWN, SHOTS_SHOWN, PHOTO_PX = 24, 10, 360
MAKERS = ("validate_photos", "read_prompt")
DISTILLING = ("init_nerf", "refine_nerf", "edit_nerf", "fit_true_views")
EVALUATIONS = ("evaluate", "evaluate_prompt")
SAMPLES = "Samples of the checkpoints", "The same prompts, drawn by each of them."
GROWING = {
    "init_nerf": ("The first asset", "One view of it every few steps."),
    "refine_nerf": ("Its refinement", "The same view, going on from the first asset."),
    "fit_true_views": ("The fit to true views", "One view of it every few steps."),
}
SHEETS = (
    (("evaluate",), "comparison", "Truth, refined and first asset", "Views all around from the front; where the truth "
     "is known, its row is how the subject really looks."),
    (("evaluate_prompt",), "comparison", "The asset", "Views all around from the front."),
    (("generate_pseudo_views",), "before_after", "Pseudo views, before and after", "Renders of the first asset, and "
     "below each what the full checkpoint made of it."),
    (("export_asset",), "mesh", "The mesh, as its file has it", "Views all around from the front, unlit."),
)  # fmt: skip
"""By stages (the first that has it), the name of the picture, and what is said of it."""
SEEN = (
    (("refine_nerf", "init_nerf"), "photo_cameras", "The asset from there", "Above the photos; below the asset from "
     "the cameras that were found."),
)  # fmt: skip
_STEP = re.compile(r"(?P<name>.+)/(?P<step>\d{4,})")


@dataclass(frozen=True)
class Known:
    """What a caller has at hand, so that it is not read again.

    Attributes:
        photos, bundle, config: of the run.
        made: whether all of its steps but the present, last one have made what they should.
    """

    photos: SubjectPhotos | None = None
    bundle: AssetBundle | None = None
    config: Mapping[str, Any] | None = None
    made: bool = False


def report_of(run: PipelineRunResponse, known: Known = Known()) -> str:
    """The report's HTML; of a run that failed, of what it has got to."""
    return run_report(content_of(run, known))


def report_if_possible(run: PipelineRunResponse, known: Known) -> str:
    """As `report_of`, or an empty text and a warning: the results are what counts."""
    try:
        return report_of(run, known)
    except Exception as error:
        logger.warning("%s: its report could not be made (%s). The run goes on.", run.name, gist(error))
        return ""


def content_of(run: PipelineRunResponse, known: Known = Known()) -> RunContent:
    """What is told of a run."""
    steps = dict(sorted(Client().get_pipeline_run(run.id).steps.items(), key=lambda entry: _began(entry[1])))
    records = _records(steps)
    photos = known.photos or _readable(lambda: _output(steps, MAKERS))
    bundle = known.bundle or _readable(lambda: _output(steps, ("export_asset",)))
    subject = photos.subject if photos else subject_of(run.config.model.name if run.config.model else "") or ""
    status = status_of(run.status)
    if known.made:
        del steps[PUBLISH]
    if known.made or status == "completed":
        status = end_of(records.values())
    shown, more = _photos(photos)
    on_gpu = _on_gpu(records)
    content = RunContent(
        run=run.name,
        subject=subject,
        prompt=photos.instance_prompt if photos else "",
        status=status,
        preset=str(run.config.extra.get("preset", "")),
        started=run.start_time,
        seconds=seconds_between(run) or _seconds_so_far(run),
        commit=str(run.config.extra.get("git_commit", "")),
        data_hash=photos.dataset_hash if photos else "",
        class_noun=photos.class_noun if photos else "",
        metrics=_metrics(records),
        production=_production(subject, run.name),
        photos=shown,
        more_photos=more,
        placed=_placed(photos, records),
        seen=next(_sheets(records, SEEN), None),
        choice=_choice(records.get("select_checkpoints")),
        samples=_samples(records, records.get("select_checkpoints")),
        growth=tuple(filter(None, (_growth(records, step) for step in GROWING))),
        sheets=tuple(_sheets(records, SHEETS)),
        contexts=_contexts(records),
        turntable=_turntable(bundle),
        steps=tuple(_taken(name, step, records.get(name), on_gpu) for name, step in steps.items()),
        config=_config(steps, known.config),
    )
    return content if known.made else remains.completed(content, records)


def metrics_of(run: PipelineRunResponse) -> dict[str, float]:
    """The figures of a run's asset and mesh, named as in the glossary."""
    steps = Client().get_pipeline_run(run.id).steps
    return _metrics(_records({name: step for name, step in steps.items() if name in (*EVALUATIONS, "export_asset")}))


def _began(step: StepRunResponse) -> float:
    began = step.start_time or step.created
    return began.timestamp()


def _seconds_so_far(run: PipelineRunResponse) -> float | None:
    from zenml.utils.time_utils import utc_now

    started = run.start_time
    if started is None or status_of(run.status) != "running":
        return None
    now = utc_now(tz_aware=started.tzinfo is not None)
    return (now - started).total_seconds()


def _readable(read: Callable[[], Value]) -> Value | None:
    """A value from the store, None where it is gone."""
    try:
        return read()
    except (ArtifactError, OSError, KeyError) as error:
        logger.info("A report lacks something: %s", gist(error))
        return None


def _records(steps: Mapping[str, StepRunResponse]) -> dict[str, StepRecord]:
    """What each finished step reported, by its name."""
    found = {name: _readable(lambda name=name, step=step: finished_stage(name, step)) for name, step in steps.items()}
    return {name: stage.record for name, stage in found.items() if stage is not None}


def _output(steps: Mapping[str, StepRunResponse], names: Sequence[str]) -> Any:
    """The value that the first of some steps has made; None where none has."""
    for name in names:
        for versions_ in steps[name].outputs.values() if name in steps else ():
            return versions_[0].load()
    return None


def _metrics(records: Mapping[str, StepRecord]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in EVALUATIONS:
        found |= dict(records[name].metrics) if name in records else {}
    for name in ("seconds", "peak_memory_mib", "process_memory_mib"):
        found.pop(name, None)
    exported = records["export_asset"].metrics if "export_asset" in records else {}
    return found | {name: value for name, value in exported.items() if name.startswith("mesh")}


def _production(subject: str, run: str) -> Compared | None:
    """The figures of the version in production, as their run has stored them; None where there is none, or it is this
    run's own, or a registry does not answer at once."""
    if not subject:
        return None
    try:
        with briefly():
            registered = versions.read(subject)
        name = registered.run_of(registered.current) if registered.current else ""
        if name in ("", run):
            return None
        return Compared(name, metrics_of(Client().get_pipeline_run(name)))
    except Exception as error:  # each registry raises errors of its own
        logger.info("%s: no production version is shown beside it (%s).", run, gist(error))
        return None


def _photos(photos: SubjectPhotos | None) -> tuple[tuple[Photo, ...], int]:
    """The first photos with their masks, and how many more there are."""
    if photos is None or not photos.images:
        return (), 0
    shown = [_photo(photos, index, held_out=False) for index in range(len(photos.images))[:PHOTOS_SHOWN]]
    others = photos.held_out
    if others is not None:
        room = PHOTOS_SHOWN - len(shown)
        shown += [_photo(others, index, held_out=True) for index in range(len(others.images))[:room]]
    total = len(photos.images) + (len(others.images) if others is not None else 0)
    return tuple(shown), total - len(shown)


def _photo(photos: SubjectPhotos, index: int, held_out: bool) -> Photo:
    facts = photos.facts.iloc[index]
    picture, trusted = to_pil(photos.images[index]), bool(photos.trusted[index])
    scale = min(1.0, PHOTO_PX / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if photos.masks:
        mask = (photos.masks[index].numpy() * 255).round().astype(np.uint8)
        picture = Image.fromarray(outlined(np.asarray(picture), mask, size, trusted, held_out))
    state = "held out" if held_out else "can be a target" if trusted else "no target"
    view = str(facts.get("view", "") or "")
    said = [f"Looks like the {view}." if view and view != "nan" else ""]
    return Photo(str(facts["file"]), picture, state, tuple(filter(None, said)))


def _placed(photos: SubjectPhotos | None, records: Mapping[str, StepRecord]) -> Placed | None:
    """Cameras as the last stage left them that searched for them, else as the photos alone tell them."""
    if photos is None or not photos.images:
        return None
    trusted = [index + 1 for index in photos.trusted.nonzero()[:, 0].tolist()]
    for stage in ("refine_nerf", "init_nerf"):
        for numbers in (trusted, list(range(1, len(photos.images) + 1))):
            found = reported_cameras(records[stage], len(numbers)) if stage in records else None
            if found is not None:
                return Placed(tuple(numbers), found, f"{stage}, which compared its asset with the photos")
    cameras = photos.cameras
    if cameras is None or not bool(cameras.azimuth_deg.isfinite().any()):
        return None
    return Placed(tuple(range(1, len(photos.images) + 1)), cameras, "the photos alone")


def _choice(record: StepRecord | None) -> Choice | None:
    """The checkpoint curve, from the series of the step that chose."""
    if record is None or "reason" not in record.params:
        return None
    table = record.series.pivot_table(index="step", columns="name", values="value", aggfunc="last").reset_index()
    if not {"subject_similarity", "view_obedience"} <= set(table):
        return None
    for name in ("partial", "full"):
        table[name] = table["step"] == int(record.metrics[f"{name}_step"])
    return Choice(pd.DataFrame(table), str(record.params["reason"]).rstrip("."))


def _growth(records: Mapping[str, StepRecord], step: str) -> Strip | None:
    """How the asset of a stage grew; evenly chosen, if there are many pictures."""
    found = _numbered(records, step, "growth")
    shots = tuple(Shot(f"step {number}", _one_view(found[number])) for number in _spread(sorted(found), SHOTS_SHOWN))
    return Strip(*GROWING[step], shots) if shots else None


def _one_view(picture: Image.Image) -> Image.Image:
    """The second view, from the front's left, of a row of previews."""
    if picture.width < 2 * picture.height:
        return picture
    width = picture.width / PREVIEW_VIEWS
    return picture.crop((round(width), 0, round(2 * width), picture.height))


def _numbered(records: Mapping[str, StepRecord], step: str, name: str) -> dict[int, Image.Image]:
    """A step's pictures whose names end in a number, such as `samples/000050`, by that."""
    images = records[step].images if step in records else {}
    matches = {key: _STEP.fullmatch(key) for key in images}
    return {int(found["step"]): _picture(images[key]) for key, found in matches.items()
            if found and found["name"] == name}  # fmt: skip


def _sheets(
    records: Mapping[str, StepRecord], wanted: Iterable[tuple[tuple[str, ...], str, str, str]]
) -> Iterator[Sheet]:
    """Those pictures that the run has, of `SHEETS` or the like."""
    for steps, image, title, sentence in wanted:
        found = [records[step].images[image] for step in steps if step in records and image in records[step].images]
        if found:
            yield Sheet(title, sentence, _picture(found[0]))


def _samples(records: Mapping[str, StepRecord], choice: StepRecord | None) -> Strip | None:
    """What four checkpoints drew: the first, both that were chosen, and the last."""
    found = _numbered(records, "finetune_dreambooth", "samples")
    chosen = [int(choice.metrics.get(f"{name}_step", -1)) for name in ("partial", "full")] if choice else []
    steps = sorted({min(found), max(found), *(step for step in chosen if step in found)}) if found else []
    shots = tuple(Shot(f"step {step}", found[step]) for step in steps)
    return Strip(*SAMPLES, shots) if shots else None


def _spread(values: Sequence[Value], most: int) -> list[Value]:
    """At most so many of the values, evenly, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def _picture(image: Any) -> Image.Image:
    return to_pil(image)


def _contexts(records: Mapping[str, StepRecord]) -> tuple[Sheet, ...]:
    """Each context's asset beside the one that it was made from."""
    sheets = []
    while (name := f"evaluate_context_{len(sheets)}") in records and "comparison" in records[name].images:
        record = records[name]
        prompt, own = str(record.params.get("prompt", "")), record.metrics
        told = [f"{key} {own[key]:.3f}" for key in ("clip_t", "attribute_accuracy", "psnr_fg") if key in own]
        picture = _picture(record.images["comparison"])
        sheets.append(Sheet(f"“{prompt}”", f"{'; '.join(told)}." if told else "", picture))
    return tuple(sheets)


def _turntable(bundle: AssetBundle | None) -> tuple[Image.Image, ...]:
    if bundle is None:
        return ()
    names = [name for name in bundle.files if re.fullmatch(r"frames/\d{3}\.png", name)]
    return _readable(lambda: tuple(_frame(Path(bundle.folder) / name) for name in names)) or ()


def _frame(path: Path) -> Image.Image:
    with Image.open(path, formats=("PNG",)) as image:
        return image.convert("RGB")


def _on_gpu(records: Mapping[str, StepRecord]) -> bool:
    """Whether steps ran on a GPU, of which those that distil report a peak on a CPU too."""
    return any(
        "peak_memory_mib" in record.metrics for name, record in records.items() if not name.startswith(DISTILLING)
    )


def _taken(name: str, step: StepRunResponse, record: StepRecord | None, on_gpu: bool) -> StepTaken:
    metrics = record.metrics if record else {}
    seconds = metrics.get("seconds")
    if seconds is None and step.start_time and step.end_time:
        seconds = (step.end_time - step.start_time).total_seconds()
    failed = step.status.is_failed
    information = step.exception_info if failed else None
    message = (information.message or "").strip() if information else ""
    return StepTaken(
        name=name,
        status=str(step.status),
        seconds=seconds,
        cached=str(step.status) == "cached",
        memory_mib=metrics.get("process_memory_mib"),
        gpu_mib=metrics.get("peak_memory_mib") if on_gpu else None,
        guards=str(record.params.get("guard_events", "")) if record else "",
        error=message.splitlines()[0] if message else "",
    )


def _config(steps: Mapping[str, StepRunResponse], known: Mapping[str, Any] | None) -> str:
    """The exact configuration as YAML, as the run's last step has it; empty where it has not come to that."""
    if known is None and PUBLISH in steps:
        step = steps[PUBLISH]
        found = step.inputs.get("config")
        value: Any = _readable(found[0].load) if found else step.config.parameters.get("config")
        known = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    return yaml.safe_dump(dict(known), sort_keys=False, allow_unicode=True) if known else ""


def pictures_of(name: str) -> Seen:
    """The pictures of a run by its name; none of one whose results are deleted."""
    run = _readable(lambda: Client().get_pipeline_run(name))
    if run is None:
        return Seen()
    return Seen(_turntable(_readable(lambda: _output(run.steps, ("export_asset",)))))
