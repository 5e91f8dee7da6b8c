"""One materializer per artifact type: safetensors, PNG, Parquet and JSON, never pickle.

Importing this package registers them with ZenML, and brings remote weights by ZenML's artifact store.
"""

from dreambooth3d.weights import fetch_by
from materializers.checkpoints import (
    CheckpointChoiceMaterializer,
    CheckpointSetMaterializer,
    DreamBoothCheckpointMaterializer,
)
from materializers.field import PseudoViewsMaterializer, RadianceFieldMaterializer
from materializers.files import fetch_weights
from materializers.photos import SubjectPhotosMaterializer
from materializers.report import AssetBundleMaterializer, EvaluationReportMaterializer, GroundTruthMaterializer

fetch_by(fetch_weights)

__all__ = [
    "AssetBundleMaterializer",
    "CheckpointChoiceMaterializer",
    "CheckpointSetMaterializer",
    "DreamBoothCheckpointMaterializer",
    "EvaluationReportMaterializer",
    "GroundTruthMaterializer",
    "PseudoViewsMaterializer",
    "RadianceFieldMaterializer",
    "SubjectPhotosMaterializer",
]
