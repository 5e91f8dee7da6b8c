"""Content hashes of artifacts: equal content gives equal hashes, whatever the timings and the logs were.

ZenML compares them for its cache, and resumable states are keyed by them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import BaseModel
from torch import Tensor

from dreambooth3d.artifacts import BESIDE, AssetBundle, BaseModelRef
from dreambooth3d.weights import WeightsRef, sha256_file


@singledispatch
def content_hash(value: object) -> str:
    """SHA-256 of a value's content: of plain values, tensors, tables and dataclasses such as all artifact types.

    A dataclass' content are all its fields but those that `BESIDE` marks.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _all({entry.name: getattr(value, entry.name) for entry in identity_fields(type(value))})
    return _sha256(json.dumps(value, sort_keys=True, default=str).encode())


def identity_fields(kind: type[Any]) -> list[dataclasses.Field[Any]]:
    """The fields of a dataclass that tell two of its values apart."""
    return [entry for entry in dataclasses.fields(kind) if not entry.metadata.get(BESIDE)]


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
    # Viewed as bytes, since NumPy lacks bfloat16; of a single value a view would mind the stride, which means nothing.
    flat = data.as_strided((data.numel(),), (1,))
    return _sha256(str((data.dtype, tuple(data.shape))).encode(), flat.view(torch.uint8).numpy().tobytes())


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


@content_hash.register(Mapping)
def _(value: Mapping[str, object]) -> str:
    return _all(*(item for key in sorted(value, key=str) for item in (str(key), value[key])))


@content_hash.register
def _(value: WeightsRef) -> str:
    return value.sha256


@content_hash.register
def _(value: BaseModelRef) -> str:
    return _all(value.digest or value.path, value.revision, value.variant)


@content_hash.register
def _(value: AssetBundle) -> str:
    # Not the video and the page: an encoder's version may change their bytes, not their content.
    files = [name for name in value.files if not name.endswith((".mp4", ".html"))]
    return _all(value.files, {name: sha256_file(Path(value.folder) / name) for name in files})
