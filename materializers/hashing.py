"""Content hashes of artifacts: equal content gives equal hashes, whatever the timings and the logs were.

ZenML compares them for its cache, and resumable states are keyed by them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import singledispatch
from pathlib import Path

import pandas as pd
import torch
from pydantic import BaseModel
from torch import Tensor

from dreambooth3d.artifacts import (
    AssetBundle,
    BaseModelRef,
    CheckpointChoice,
    CheckpointSet,
    DreamBoothCheckpoint,
    EvaluationReport,
    GroundTruth,
    PseudoViews,
    RadianceField,
    SubjectPhotos,
)
from dreambooth3d.weights import WeightsRef, sha256_file


@singledispatch
def content_hash(value: object) -> str:
    """SHA-256 of a value's content: of plain values, tensors, tables and all artifact types."""
    return _sha256(json.dumps(value, sort_keys=True, default=str).encode())


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _all(*values: object) -> str:
    return _sha256(*(content_hash(value).encode() for value in values))


@content_hash.register
def _(value: Tensor) -> str:
    data = value.detach().cpu().contiguous()
    # Viewed as bytes, since NumPy lacks bfloat16.
    return _sha256(str((data.dtype, tuple(data.shape))).encode(), data.flatten().view(torch.uint8).numpy().tobytes())


@content_hash.register
def _(value: pd.DataFrame) -> str:
    return _sha256(value.to_json(orient="split", double_precision=15).encode())


@content_hash.register
def _(value: BaseModel) -> str:
    return content_hash(value.model_dump(mode="json"))


@content_hash.register(tuple)
@content_hash.register(list)
def _(value: Sequence[object]) -> str:
    return _all(*value)


@content_hash.register(dict)
def _(value: Mapping[str, object]) -> str:
    return _all(*(item for key in sorted(value, key=str) for item in (str(key), value[key])))


@content_hash.register
def _(value: WeightsRef) -> str:
    return value.sha256


@content_hash.register
def _(value: BaseModelRef) -> str:
    return _all(value.digest or value.path, value.revision, value.variant)


@content_hash.register
def _(value: SubjectPhotos) -> str:
    seen = value.views, value.off_front_deg
    return _all(value.images, *seen, value.subject, value.identifier, value.class_noun, value.description)


@content_hash.register
def _(value: DreamBoothCheckpoint) -> str:
    return _all(value.step, value.unet, value.text_encoder, value.base_model)


@content_hash.register
def _(value: CheckpointSet) -> str:
    return _all(dict(value.checkpoints), value.base_model)


@content_hash.register
def _(value: CheckpointChoice) -> str:
    return _all(value.scores, value.partial_step, value.full_step)


@content_hash.register
def _(value: GroundTruth) -> str:
    return _all(dict(value.recipe), list(value.photo_azimuths_deg))


@content_hash.register
def _(value: RadianceField) -> str:
    return _all(dict(value.state), dict(value.config))


@content_hash.register
def _(value: PseudoViews) -> str:
    cameras = value.cameras
    poses = (cameras.azimuth_deg, cameras.elevation_deg, cameras.distance, cameras.fov_y_deg)
    return _all(value.images, value.renders, value.opacity, poses, value.strength)


@content_hash.register
def _(value: AssetBundle) -> str:
    # Not the video and the page: an encoder's version may change their bytes, not their content.
    files = [name for name in value.files if not name.endswith((".mp4", ".html"))]
    return _all({name: sha256_file(Path(value.folder) / name) for name in files})


@content_hash.register
def _(value: EvaluationReport) -> str:
    return _all(dict(value.metrics), value.views)
