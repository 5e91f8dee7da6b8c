"""Step: the asset in forms that people and other programs can use."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from dreambooth3d import stages
from dreambooth3d.artifacts import AssetBundle, EvaluationReport, GroundTruth, RadianceField, SubjectPhotos
from dreambooth3d.config.results import ExportConfig
from operations.launch.sources import sources
from steps._support import run_stage


@step(experiment_tracker=True, cache_policy=sources(stages.export_asset))
def export_asset(
    asset: RadianceField,
    report: EvaluationReport,
    photos: SubjectPhotos,
    config: ExportConfig,
    device: str,
    prompt: str = "",
    truth: GroundTruth | None = None,
) -> Annotated[AssetBundle, "bundle"]:
    """Write the mesh, the turntable and the viewer page, which shows the report's metrics and a context's prompt."""
    return run_stage(stages.export_asset, device, asset, report, photos, config, prompt=prompt, truth=truth)
