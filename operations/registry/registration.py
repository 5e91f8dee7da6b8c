"""The asset as a model version in both registries, with lineage to data, code and run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from zenml import log_metadata
from zenml.models import PipelineRunResponse

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.naming import LINEAGE, model_name
from dreambooth3d.temporary import temporary_files_inside, temporary_folder
from materializers.field import write_field
from operations.records.tracking import active_run_id

_CODE = Path(__file__).with_name("asset_model.py")
_IMPORTED_AS = "code_model_"


def register_asset(
    asset: RadianceField,
    bundle_uri: str,
    subject: str,
    tags: Mapping[str, str],
    identity: Mapping[str, str],
    run: PipelineRunResponse,
) -> str:
    """Register the field, which alone renders any view; checkpoints and the bundle are referenced.

    What is cut off in between leaves metadata in ZenML and no version in MLflow, which is no complete version
    (`operations.registry.versions`). A version that is complete is still none to promote if its run fails after all.

    Args:
        asset: the field.
        bundle_uri: where the exported files lie.
        subject: its name.
        tags: of the run's row.
        identity: what the training was made of, kept under ZenML's metadata key `identity`; empty where nothing is
            to be compared.
        run: that made it, to which ZenML has linked its version.

    Returns:
        The MLflow model version.
    """
    lineage = {key: tags[key] for key in LINEAGE}
    known = {"identity": dict(identity)} if identity else {}
    log_metadata(metadata={**lineage, "bundle": bundle_uri, **known}, **_version_of(run))
    _delete_versions(active_run_id())
    with temporary_folder() as temporary, temporary_files_inside(temporary):
        field = temporary / "field"
        field.mkdir()
        write_field(asset, field)
        return _log_model(model_name(subject), field, lineage)


def _version_of(run: PipelineRunResponse) -> dict[str, Any]:
    """How ZenML's `log_metadata` is told a run's model version; within a step it finds it itself."""
    return {"infer_model": True} if run.model_version is None else {"model_version_id": run.model_version.id}


def _delete_versions(run_id: str) -> None:
    """Delete what an earlier try of this run's step has registered, unless somebody has given it an alias since."""
    client = MlflowClient()
    for found in client.search_model_versions(f"run_id='{run_id}'"):
        if not client.get_model_version(found.name, found.version).aliases:
            client.delete_model_version(found.name, found.version)


def _log_model(name: str, folder: Path, tags: Mapping[str, str]) -> str:
    """Log a pyfunc model from code, so that nothing is pickled; its version is created with its tags, or not at all.

    Returns:
        The version.
    """
    angles = Schema([ColSpec(DataType.double, "azimuth_deg"), ColSpec(DataType.double, "elevation_deg")])
    images = Schema([TensorSpec(np.dtype("float32"), (-1, 3, -1, -1))])
    with warnings.catch_warnings(), _forgotten_modules():
        # MLflow asks for an input example, which the signature makes needless.
        warnings.simplefilter("ignore")
        logged = mlflow.pyfunc.log_model(
            name="asset_model",
            python_model=str(_CODE),
            artifacts={"field": str(folder)},
            signature=ModelSignature(inputs=angles, outputs=images),
            pip_requirements=["dreambooth3d"],
            registered_model_name=name,
            tags=dict(tags),
        )
    return str(logged.registered_model_version)


@contextmanager
def _forgotten_modules() -> Iterator[None]:
    """Forget the modules as which MLflow imports a model's code, under a new name each time, and which it keeps."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.startswith(_IMPORTED_AS):
                del sys.modules[name]
