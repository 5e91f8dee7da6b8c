"""One materializer per artifact type: safetensors, PNG, Parquet and JSON, never pickle.

Importing this package registers them with ZenML.
"""

from materializers.checkpoints import (
    CheckpointChoiceMaterializer,
    CheckpointSetMaterializer,
    DreamBoothCheckpointMaterializer,
)
from materializers.field import PseudoViewsMaterializer, RadianceFieldMaterializer
from materializers.photos import SubjectPhotosMaterializer
from materializers.report import AssetBundleMaterializer, EvaluationReportMaterializer, GroundTruthMaterializer

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
