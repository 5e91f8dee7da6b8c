"""Stored artifacts of every kind: with damaged files, and with others whose digests fit, as from an attacker."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import math
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor

from dreambooth3d.cameras import Cameras, spread_cameras
from dreambooth3d.record import StepRecord
from materializers.files import MANIFEST, write_manifest
from materializers.hashing import content_hash
from tests.fuzz.inputs import ODD, altered, altered_tensors, damaged
from tests.fuzz.outcomes import changed, tried, tries
from tests.fuzz.test_photos import with_sums
from tests.materializers.test_damage import load_all
from tests.materializers.test_round_trips import MAKERS, materializer_of

KINDS = tuple(make.__name__ for make in MAKERS)


@dataclasses.dataclass(frozen=True)
class Stored:
    """An artifact as its materializer has stored it.

    Attributes:
        value: what was stored.
        files: content by name.
        hashed: the content's hash, and that of its record.
    """

    value: Any
    files: dict[str, bytes]
    hashed: tuple[str, str]


def hash_of(value: Any) -> tuple[str, str]:
    """Of an artifact's content, and of the record beside it."""
    record = getattr(value, "record", None) or StepRecord("none")
    beside = (record.name, record.params, record.metrics, record.series, record.images)
    return content_hash(value), content_hash(tuple(beside))


@functools.cache
def stored(kind: str) -> Stored:
    """A small artifact of a kind."""
    with tempfile.TemporaryDirectory() as temporary:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DREAMBOOTH3D_WORK", f"{temporary}/work")
            store = SimpleNamespace(path=temporary)
            value = MAKERS[KINDS.index(kind)]()
            materializer_of(value, store).save(value)
            hashed = hash_of(load_all(value, store))
        root = Path(temporary, "artifact")
        files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        return Stored(value, files, hashed)


@pytest.fixture(autouse=True)
def nothing_heals(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no run whose step could be told to run again."""
    monkeypatch.setattr("materializers.healing._forget", lambda _uri: False)


def written(folder: Path, files: dict[str, bytes]) -> None:
    """The artifact's folder with these files and no others."""
    root = folder / "artifact"
    shutil.rmtree(root, ignore_errors=True)
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


@st.composite
def damaged_artifacts(draw: st.DrawFn) -> tuple[str, dict[str, bytes]]:
    """A kind, and its files with one flipped, cut, deleted, added, or swapped with another."""
    kind = draw(st.sampled_from(KINDS))
    files = dict(stored(kind).files)
    name, other = draw(st.sampled_from(sorted(files))), draw(st.sampled_from(sorted(files)))
    how = draw(st.sampled_from(("damage", "damage", "delete", "swap", "replace", "add")))
    if how == "damage":
        files[name] = draw(damaged(files[name]))
    elif how == "delete":
        del files[name]
    elif how == "swap":
        files[name], files[other] = files[other], files[name]
    elif how == "replace":
        files[name] = files[other]
    else:
        files[f"{name}.more"] = files[other]
    return kind, files


@tries()
@given(damaged_artifacts())
def test_damaged_artifacts(playground: Path, artifact: tuple[str, dict[str, bytes]]) -> None:
    kind, files = artifact
    written(playground, files)
    store, whole = SimpleNamespace(path=str(playground)), stored(kind)
    found = tried("artifacts, damaged", playground, lambda: load_all(whole.value, store))
    if found is not None and hash_of(found) != whole.hashed:
        changed("artifacts, damaged")


@st.composite
def pngs(draw: st.DrawFn) -> bytes:
    """A PNG of an odd size or mode, or one that says that it is huge."""
    size = (draw(st.sampled_from((1, 2, 8, 16, 300))), draw(st.sampled_from((1, 3, 8, 16, 2000))))
    image = Image.new("RGB", size, "red").convert(draw(st.sampled_from(("1", "L", "LA", "P", "RGB", "RGBA", "I;16"))))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    if draw(st.booleans()):
        data[16:20] = draw(st.sampled_from((9000, 20_000, 2**31 - 1))).to_bytes(4, "big")
        data[20:24] = draw(st.sampled_from((9000, 20_000))).to_bytes(4, "big")
    return with_sums(bytes(data))


@st.composite
def tables(draw: st.DrawFn, whole: bytes) -> bytes:
    """A Parquet table with a column gone, renamed, of another type, or with other rows."""
    table = pd.read_parquet(io.BytesIO(whole))
    name = draw(st.sampled_from(sorted(map(str, table.columns))))
    how = draw(st.sampled_from(("drop", "rename", "text", "none", "empty", "longer", "nested", "nan", "bomb")))
    if how == "drop":
        table = table.drop(columns=name)
    elif how == "rename":
        table = table.rename(columns={name: draw(st.text("abc/. ", max_size=5))})
    elif how in ("text", "none", "nested", "nan"):
        table[name] = {"text": "x", "none": None, "nan": math.nan, "nested": [[1, 2]] * len(table)}[how]
    elif how == "empty":
        table = table.iloc[:0]
    elif how == "longer":
        table = pd.concat([table, table], ignore_index=True)
    else:
        table = pd.DataFrame({column: np.zeros(3_000_000) for column in table.columns[:3]})
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


@st.composite
def forged_artifacts(draw: st.DrawFn) -> tuple[str, dict[str, bytes]]:
    """A kind, and its files with one to three altered in what they say."""
    kind = draw(st.sampled_from(KINDS))
    files = {name: data for name, data in stored(kind).files.items() if name != MANIFEST}
    for name in draw(st.sets(st.sampled_from(sorted(files)), min_size=1, max_size=3).map(sorted)):
        data, suffix = files[name], Path(name).suffix
        if draw(st.integers(0, 3)) == 0:
            files[name] = draw(damaged(data) | st.sampled_from(sorted(files.values())))
        elif suffix == ".json":
            files[name] = draw(_json(data))
        elif suffix == ".safetensors":
            files[name] = save(draw(altered_tensors(load(data))))
        elif suffix == ".parquet":
            files[name] = draw(tables(data))
        elif suffix == ".png":
            files[name] = draw(pngs())
        elif draw(st.booleans()):
            del files[name]
    return kind, files


@st.composite
def _json(draw: st.DrawFn, data: bytes) -> bytes:
    try:
        value = json.loads(data)
    except ValueError:
        value = {}
    how = draw(st.integers(0, 9))
    if how == 0:
        return draw(
            st.sampled_from((b"[" * 100_000, b"1" * 9000, b"", b"\xff\xfe", b'{"a": NaN}', b'"\\ud800"', b"1e999"))
        )
    if how == 1:
        return json.dumps(draw(st.sampled_from(ODD))).encode() if draw(st.booleans()) else draw(damaged(data))
    return json.dumps(draw(altered(value))).encode()


@tries(60)
@given(forged_artifacts())
def test_forged_artifacts(playground: Path, artifact: tuple[str, dict[str, bytes]]) -> None:
    """What is accepted is of its declared types, and the shell can describe and show it."""
    kind, files = artifact
    written(playground, files)
    write_manifest(playground / "artifact")
    whole, store = stored(kind), SimpleNamespace(path=str(playground))

    def read() -> Any:
        materializer = materializer_of(whole.value, store)
        value = materializer.load(type(whole.value))
        materializer.extract_metadata(value)
        hash_of(value)
        picture = materializer.picture(value)
        assert picture is None or isinstance(picture, Tensor)
        return value

    found = tried("artifacts, digests recomputed", playground, read)
    assert found is None or type(found) is type(whole.value)


CAMERAS = spread_cameras(3).to_json()


@tries()
@given(altered(CAMERAS) | st.sampled_from(ODD))
@example([{**CAMERAS[0], "distance": 10**400}])
@example("cameras")
def test_cameras(playground: Path, entries: Any) -> None:
    found = tried("cameras.json", playground, lambda: Cameras.from_json(entries))
    if found is not None:
        assert len(found) == len(entries) and found.camera_to_world.isfinite().all()
