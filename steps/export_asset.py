"""Step: the asset in forms that people and other programs can use."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d.artifacts import AssetBundle, EvaluationReport, RadianceField, SubjectPhotos
from dreambooth3d.config.results import ExportConfig
from dreambooth3d.export.bundle import export
from operations.launch.sources import library
from steps._support import step_name, step_session


@step(experiment_tracker=True, cache_policy=library("export", "nerf"))
def export_asset(
    asset: RadianceField,
    report: EvaluationReport,
    photos: SubjectPhotos,
    config: ExportConfig,
    device: str,
    prompt: str = "",
) -> Annotated[AssetBundle, "bundle"]:
    """Write the mesh, the turntable and the viewer page, which shows the report's metrics and a context's prompt."""
    with step_session(step_name(), device, asset, report, photos, config, prompt) as session:
        shown = prompt or photos.instance_prompt
        return session.finish(export(asset, config, session.runtime, photos.subject, report.metrics, shown))
