"""Materializers of `GroundTruth`, `AssetBundle` and `EvaluationReport`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from zenml.enums import ArtifactType, VisualizationType

from dreambooth3d.artifacts import AssetBundle, EvaluationReport, GroundTruth
from dreambooth3d.errors import ArtifactError
from dreambooth3d.naming import below, inner_name
from dreambooth3d.record import StepRecord
from dreambooth3d.temporary import temporary_folder_until_exit
from materializers.files import (
    FolderMaterializer,
    fetch,
    is_remote,
    join,
    read_json,
    read_table,
    read_tensors,
    write_json,
    write_tensors,
)
from materializers.healing import recomputed_if_damaged

BUNDLE = "bundle"


class GroundTruthMaterializer(FolderMaterializer):
    """`ground_truth.json`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (GroundTruth,)

    def write(self, data: GroundTruth, folder: Path) -> None:
        """Store the recipe and where the photos were taken."""
        values = {"recipe": dict(data.recipe), "photo_azimuths_deg": list(data.photo_azimuths_deg)}
        write_json(values, folder / "ground_truth.json")

    def read(self, folder: Path, record: StepRecord | None) -> GroundTruth:
        """Inverse of `write`."""
        values = read_json(folder / "ground_truth.json")
        return GroundTruth(values["recipe"], tuple(values["photo_azimuths_deg"]))

    def figures(self, data: GroundTruth) -> dict[str, Any]:
        """Whether the truth is known."""
        return {"known": data.known}


class AssetBundleMaterializer(FolderMaterializer):
    """The bundle's own files below `bundle/`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (AssetBundle,)

    def write(self, data: AssetBundle, folder: Path) -> None:
        """Store the files that the bundle names."""
        for name in data.files:
            (folder / BUNDLE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(data.folder) / name, folder / BUNDLE / name)
        write_json(list(data.files), folder / "files.json")

    def read(self, folder: Path, record: StepRecord | None) -> AssetBundle:
        """Inverse of `write`."""
        files = tuple(inner_name(name) for name in read_json(folder / "files.json"))
        if away := [name for name in files if not below(folder / BUNDLE, name).is_file()]:
            raise ArtifactError(f"{away[0]} is gone")
        return AssetBundle(folder / BUNDLE, files, record or StepRecord("export_asset"))

    def load(self, data_type: type[Any]) -> AssetBundle:
        """The bundle in place, or, from a remote store, in a temporary folder that outlives this call."""
        if not is_remote(self.uri):
            return super().load(data_type)
        folder = temporary_folder_until_exit()
        with recomputed_if_damaged():
            fetch(self.uri, folder)
            return self._read(folder)

    def figures(self, data: AssetBundle) -> dict[str, Any]:
        """Files and their size."""
        size = sum((Path(data.folder) / name).stat().st_size for name in data.files)
        return {"files": len(data.files), "size_mib": size / 2**20}

    def save_visualizations(self, data: AssetBundle) -> dict[str, VisualizationType]:
        """The viewer page, and the turntable's first frame."""
        kinds = {"asset.html": VisualizationType.HTML, "frames/000.png": VisualizationType.IMAGE}
        return {join(self.uri, BUNDLE, name): kind for name, kind in kinds.items() if name in data.files}


class EvaluationReportMaterializer(FolderMaterializer):
    """`report.json`, `views.parquet` and `comparison.safetensors`."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (EvaluationReport,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def write(self, data: EvaluationReport, folder: Path) -> None:
        """Store metrics, definitions, table and comparison."""
        write_json({"metrics": dict(data.metrics), "definitions": dict(data.definitions)}, folder / "report.json")
        data.views.to_parquet(folder / "views.parquet")
        write_tensors({"comparison": data.comparison}, folder / "comparison.safetensors")

    def read(self, folder: Path, record: StepRecord | None) -> EvaluationReport:
        """Inverse of `write`."""
        values = read_json(folder / "report.json")
        views = read_table(folder / "views.parquet")
        comparison = read_tensors(folder / "comparison.safetensors")["comparison"]
        record = record or StepRecord("evaluate")
        return EvaluationReport(values["metrics"], values["definitions"], views, comparison, record)

    def picture(self, data: EvaluationReport) -> Tensor:
        """Truth, refined and coarse side by side."""
        return data.comparison

    def save_visualizations(self, data: EvaluationReport) -> dict[str, VisualizationType]:
        """The metrics with their definitions, and the comparison."""
        rows = [f"| {name} | {value:.4f} | {_definition(data, name)} |" for name, value in sorted(data.metrics.items())]
        page = "\n".join(["| metric | value | meaning |", "|---|---|---|", *rows])
        return {
            **self.write_text_page("metrics.md", page, VisualizationType.MARKDOWN),
            **super().save_visualizations(data),
        }


def _definition(report: EvaluationReport, name: str) -> str:
    return report.definitions.get(name, report.definitions.get(name.rsplit("/", 1)[-1], ""))
