"""The parts of a run's row in MLflow: replayed records, configuration, dataset, files, tags."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import mlflow
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from zenml.client import Client
from zenml.models import PipelineRunResponse, StepRunResponse

from dreambooth3d.artifacts import AssetBundle, EvaluationReport, SubjectPhotos
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from dreambooth3d.naming import escaped
from dreambooth3d.record import StepRecord
from materializers.files import join, load_record
from materializers.report import BUNDLE
from operations.records.keys import metric_key
from operations.records.rows import origin_of
from operations.records.status import ENDS, TAG, End
from operations.records.tracking import Point, active_run_id, log_params, log_record

PUBLISH, SUMMARIZE = "publish", "summarize"
"""The steps that write the row of a run, and of one over many subjects."""
_DIGEST_LENGTH = 36
OURS = "materializers"
"""The package whose materializers store records."""
REPORT = "report.html"
"""The run's report, in its row and in the folder of its results."""
SHOWN_FILES = ("asset.html", "turntable.mp4", "asset.glb", "six_views.png")


@dataclass(frozen=True)
class FinishedStep:
    """One finished step of a run.

    Attributes:
        name: of the step.
        cached: whether it came from the cache.
        record: what it reported when it ran.
        uri: of the artifact that holds the record.
    """

    name: str
    cached: bool
    record: StepRecord
    uri: str


def finished_stages(run_id: UUID) -> list[FinishedStep]:
    """The run's finished steps with their records, read from their artifacts, not from earlier MLflow runs."""
    found = (finished_stage(name, step_run) for name, step_run in Client().get_pipeline_run(run_id).steps.items())
    return [stage for stage in found if stage is not None]


def finished_stage(name: str, step_run: StepRunResponse) -> FinishedStep | None:
    """A finished step with its record, None where it has none.

    Raises:
        ArtifactError: its artifact is gone or damaged.
    """
    for version in (version for versions in step_run.outputs.values() for version in versions):
        record = load_record(version.uri, ours=version.materializer.module.split(".")[0] == OURS)
        if record is not None and _kind(record.name) == _kind(name):
            cached = str(step_run.status) == "cached"
            return FinishedStep(name, cached, replace(record, name=name), version.uri)
    return None


def _kind(step: str) -> str:
    """A step's name without a context's number, which may be another one in the run that a cached step comes from."""
    return step.rstrip("_0123456789")


def replay(stages: Iterable[FinishedStep]) -> list[StepRecord]:
    """Log the records that this run's row lacks; steps that ran have logged theirs themselves."""
    run = MlflowClient().get_run(active_run_id())
    records = []
    for stage in stages:
        if metric_key(stage.name, "seconds") not in run.data.metrics:
            log_record(stage.record, _points_of(run, stage))
        mlflow.log_metric(metric_key(stage.name, "cached"), float(stage.cached))
        records.append(stage.record)
    return records


def _points_of(run: Run, stage: FinishedStep) -> set[Point]:
    """The points of a step's series that have reached a row before the tracker went away."""
    names = [name for name in stage.record.series["name"].unique() if f"{stage.name}/{name}" in run.data.metrics]
    history = MlflowClient().get_metric_history
    return {(point.step, name) for name in names for point in history(run.info.run_id, f"{stage.name}/{name}")}


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested values under dotted keys."""
    result: dict[str, object] = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return result


def log_config(config: TrainingConfig | CeilingConfig | TextTo3dConfig) -> None:
    """Log the configuration as parameters `<section>.<key>` and as one file."""
    values = config.model_dump(mode="json")
    run = MlflowClient().get_run(active_run_id())
    # A step may have reported the same key itself; MLflow refuses a second value.
    log_params(flat(values), known=run.data.params)
    mlflow.log_dict(values, "config.yaml")


def log_dataset(photos: SubjectPhotos) -> None:
    """Log the photo set as the run's dataset, its hash as digest."""
    digest = photos.dataset_hash.removeprefix("untracked:")[:_DIGEST_LENGTH]
    with warnings.catch_warnings():
        # About integer columns and about what kind of source a path is.
        warnings.simplefilter("ignore")
        place = escaped(photos.subject)
        source = place if photos.dataset_hash.startswith("untracked:") else f"data/{place}"
        dataset = from_pandas(photos.facts, source=source, name=photos.subject, digest=digest)
        mlflow.log_input(dataset, context="training")


def bundle_uri(stages: Iterable[FinishedStep], step: str = "export_asset") -> str:
    """Where the files of the bundle that a step made lie in the artifact store."""
    return next(join(stage.uri, BUNDLE) for stage in stages if stage.name == step)


def log_files(report: EvaluationReport, bundle: AssetBundle, uri: str, below: str = "") -> None:
    """Log what MLflow can show: viewer page, turntable, mesh and the report; the frames stay in their artifact.

    Args:
        report: of the asset.
        bundle: of the asset.
        uri: where the bundle's files lie in the artifact store.
        below: folder of the row, with a slash at its end.
    """
    for name in SHOWN_FILES:
        if name in bundle.files:
            mlflow.log_artifact(str(Path(bundle.folder) / name), f"{below}asset")
    metrics = {"metrics": dict(report.metrics), "definitions": dict(report.definitions)}
    mlflow.log_text(report.views.to_csv(index=False), f"{below}report/views.csv")
    mlflow.log_dict(metrics, f"{below}report/report.json")
    mlflow.log_dict({"folder": uri, "files": list(bundle.files)}, f"{below}asset/bundle.json")


def log_report(page: str) -> None:
    """Log the run's report; an empty one could not be made, and is left out."""
    if page:
        mlflow.log_text(page, REPORT)


def log_contexts(run: PipelineRunResponse, stages: Iterable[FinishedStep], prompts: Iterable[str]) -> None:
    """Log the files of each context's asset below `contexts/<number>/`."""
    finished = Client().get_pipeline_run(run.id).steps
    stages = list(stages)
    for index, _ in enumerate(prompts):
        exported = f"export_context_{index}"
        report, bundle = finished[f"evaluate_context_{index}"].output.load(), finished[exported].output.load()
        log_files(report, bundle, bundle_uri(stages, exported), below=f"contexts/{index}/")


def tags(run: PipelineRunResponse, photos: SubjectPhotos, records: Iterable[StepRecord]) -> dict[str, str]:
    """What the row and the model version say."""
    untracked = photos.dataset_hash.startswith("untracked:")
    return {
        **origin_of(run).tags(),
        "subject": photos.subject,
        "data.dvc_md5": "untracked" if untracked else photos.dataset_hash,
        "data.hash": photos.dataset_hash,
        TAG: end_of(records),
    }


def end_of(records: Iterable[StepRecord]) -> End:
    """How a run has ended whose steps have all made what they should."""
    interrupted = any(record.params.get("interrupted") or record.metrics.get("interrupted") for record in records)
    return "interrupted" if interrupted else "completed"


def set_tags(tags: Mapping[str, str]) -> None:
    """Set the row's tags but the one that says how the run has ended, which is not known yet."""
    mlflow.set_tags({key: value for key, value in tags.items() if key != TAG})


def set_end(tags: Mapping[str, str]) -> None:
    """Say in the row how the run has ended, which makes it complete.

    MLflow's own word for one that was interrupted is `KILLED`; a row that is ended so stays so.
    """
    mlflow.set_tag(TAG, tags[TAG])
    if tags[TAG] == "interrupted":
        mlflow.end_run(ENDS["interrupted"])
