"""Damaged and missing artifacts: what is loaded is what was stored, or one sentence says what is wrong."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as safetensors

from dreambooth3d.artifacts import AssetBundle, CheckpointSet, DreamBoothCheckpoint
from dreambooth3d.errors import ArtifactError
from dreambooth3d.naming import below, inner_name
from dreambooth3d.weights import WeightsRef
from materializers.files import MANIFEST, load_record, write_manifest
from materializers.hashing import content_hash
from tests.materializers.test_round_trips import (
    MAKERS,
    bundle,
    checkpoint,
    checkpoints,
    choice,
    field,
    materializer_of,
    photos,
    pseudo,
    report,
)

TRIES = 12
"""Flipped bits per file."""


@pytest.fixture
def store(tmp_path: Path) -> SimpleNamespace:
    root = tmp_path / "store"
    root.mkdir()
    return SimpleNamespace(path=str(root))


def files_of(store: SimpleNamespace) -> list[Path]:
    return sorted(path for path in Path(store.path, "artifact").rglob("*") if path.is_file())


def weights_of(value: Any) -> list[WeightsRef]:
    pairs = value.checkpoints.values() if isinstance(value, CheckpointSet) else [value]
    own = isinstance(value, CheckpointSet | DreamBoothCheckpoint)
    return [weights for pair in pairs for weights in (pair.unet, pair.text_encoder)] if own else []


def load_all(value: Any, store: SimpleNamespace) -> Any:
    """The artifact, its files read to the last one."""
    loaded = materializer_of(value, store).load(type(value))
    for weights in weights_of(loaded):
        weights.load()
    return loaded


@pytest.mark.parametrize("make", MAKERS)
def test_a_flipped_bit_or_a_missing_end_of_any_file_is_never_accepted(
    make: Callable[[], Any], store: SimpleNamespace
) -> None:
    value, random = make(), np.random.default_rng(0)
    materializer_of(value, store).save(value)
    expected = content_hash(load_all(value, store))
    for file in files_of(store):
        whole = file.read_bytes()
        places = random.integers(0, len(whole), TRIES)
        flipped = [whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
                   for place, bit in zip(places, random.integers(0, 8, TRIES), strict=True)]  # fmt: skip
        for damaged in [*flipped, whole[: len(whole) // 2], b""]:
            file.write_bytes(damaged)
            try:
                loaded = load_all(value, store)
            except ArtifactError as error:
                assert str(file.parent.name) in str(error) or "artifact" in str(error)
                assert str(error).endswith("made it again.") or str(error).endswith("made them again.")
            else:
                # Only the list of digests may be written otherwise and say the same.
                assert file.name == MANIFEST and json.loads(damaged) == json.loads(whole)
                assert content_hash(loaded) == expected
        file.unlink()
        with pytest.raises(ArtifactError):
            load_all(value, store)
        file.write_bytes(whole)
    assert content_hash(load_all(value, store)) == expected


def test_a_record_is_verified_without_the_artifact(store: SimpleNamespace) -> None:
    value = field()
    materializer_of(value, store).save(value)
    file = Path(store.path, "artifact", "record", "record.json")
    file.write_text(file.read_text().replace("1.25", "1.75"))
    with pytest.raises(ArtifactError, match=r"record/record\.json is not what was stored"):
        load_record(f"{store.path}/artifact")


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "C:/evil", "a\\..\\evil", "", ".", 3]
)
def test_a_name_in_an_artifact_never_leaves_its_folder(name: object, store: SimpleNamespace, tmp_path: Path) -> None:
    """With digests that fit, as from somebody who wants it."""
    value = bundle()
    materializer_of(value, store).save(value)
    folder = Path(store.path, "artifact")
    (folder / "files.json").write_text(json.dumps([name]))
    (folder / MANIFEST).unlink()
    write_manifest(folder)
    with pytest.raises(ArtifactError, match="is no name of a file inside a folder"):
        materializer_of(value, store).load(AssetBundle)
    files = {str(name): "0" * 64}
    (folder / MANIFEST).write_text(json.dumps({"files": files, "sha256": content_hash(files)}))
    with pytest.raises(ArtifactError, match="is no name of a file inside a folder|is not what was stored|is gone"):
        materializer_of(value, store).load(AssetBundle)


def test_one_flipped_bit_of_the_list_of_files_that_makes_two_names_one_is_refused(store: SimpleNamespace) -> None:
    value = field()
    materializer_of(value, store).save(value)
    manifest = Path(store.path, "artifact", MANIFEST)
    manifest.write_text(manifest.read_text().replace("previews.safetensors", "field.safetensors"))
    with pytest.raises(ArtifactError, match="is not what was stored"):
        materializer_of(value, store).load(type(value))


def huge_png() -> bytes:
    """One that says that it has 20,000 by 20,000 pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def table(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer)
    return buffer.getvalue()


def broken_png() -> bytes:
    """One whose end is gone, which Pillow calls a broken file by a SyntaxError or an OSError without a number."""
    return huge_png()[:60]


RECORD = b'{"name": "x", "params": %s, "metrics": %s, "images": {}}'
CASES: list[tuple[Callable[[], Any], str, bytes]] = [
    (photos, "photos/000.png", huge_png()),
    (photos, "photos/000.png", broken_png()),
    (photos, "photos/000.png", b"GIF89a"),
    (photos, "photos.json", b"[]"),
    (photos, "photos.json", b"[" * 100_000),
    (photos, "facts.parquet", b"PAR1"),
    (photos, "facts.parquet", table(file=["a", "b"])),
    (photos, "facts.parquet", table(mask_source=["a"], mask_confidence=[1.0], mask_trusted=[True], mask_cut=[0.0])),
    (photos, "record/record.json", RECORD % (b"{}", b'{"seconds": "x"}')),
    (photos, "record/record.json", RECORD % (b'{"a": []}', b"{}")),
    (photos, "record/record.json", RECORD % (b'{"a": "\\ud800"}', b"{}")),
    (field, "record/record.json", RECORD % (b"{}", b'{"seconds": 1%s}' % (b"0" * 400))),
    (field, "field.json", b'{"kind": "field", "config": {}, "steps": "twelve"}'),
    (field, "field.json", b'{"kind": "field", "config": {}, "steps": true}'),
    (field, "previews.safetensors", safetensors({"previews": torch.zeros(3)})),
    (pseudo, "cameras.json", b'{"strength": []}'),
    (pseudo, "views.safetensors", safetensors({
        "images": torch.zeros(2, 3, 6, 6), "renders": torch.zeros(2, 3, 6, 6), "opacity": torch.zeros(3, 6, 6),
        "cameras": torch.ones(4, 3)})),
    (choice, "choice.json", b'{"partial_step": 1e999, "full_step": 1, "reason": "x"}'),
    (checkpoint, "checkpoint.json", b'{"step": 1e999}'),
    (report, "views.parquet", table(psnr=np.zeros(10_000_001))),
    (report, "report.json", b'{"metrics": {"psnr": null}, "definitions": {}}'),
    (bundle, "files.json", b'["asset.glb", "no_such_file.glb"]'),
]  # fmt: skip


@pytest.mark.parametrize(("make", "name", "content"), CASES)
def test_content_that_does_not_fit_is_refused_though_its_digests_do(
    make: Callable[[], Any], name: str, content: bytes, store: SimpleNamespace
) -> None:
    """As whoever can write to the store can make it."""
    value = make()
    materializer_of(value, store).save(value)
    folder = Path(store.path, "artifact")
    (folder / name).write_bytes(content)
    (folder / MANIFEST).unlink()
    write_manifest(folder)
    with pytest.raises(ArtifactError, match="this artifact (cannot be read|is gone)"):
        materializer_of(value, store).load(type(value))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ConnectionResetError("reset by peer")])
def test_a_store_that_does_not_answer_says_nothing_about_the_artifact(
    error: OSError, store: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made again for that."""
    value = field()
    materializer_of(value, store).save(value)
    monkeypatch.setattr("materializers.files.sha256_file", lambda _path: (_ for _ in ()).throw(error))
    with pytest.raises(ArtifactError, match="could not be read now") as raised:
        materializer_of(value, store).load(type(value))
    assert raised.value.uri is None and not raised.value.recomputed


def test_weights_that_another_artifact_refers_to_name_both(store: SimpleNamespace) -> None:
    """The step that refers to them is cached by their content, and would hand out the damaged ones again."""
    value = checkpoints()
    materializer_of(value, store, "set").save(value)
    partial = materializer_of(value, store, "set").load(CheckpointSet).checkpoints[40]
    materializer_of(partial, store, "partial").save(partial)
    again = materializer_of(partial, store, "partial").load(DreamBoothCheckpoint)
    file = Path(again.unet.uri)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError) as raised:
        again.unet.load()
    assert raised.value.uri == f"{store.path}/set/step_000040/unet.safetensors"
    assert raised.value.referrer == f"{store.path}/partial"


def test_weights_never_come_from_outside_the_store(store: SimpleNamespace) -> None:
    value = checkpoints()
    materializer = materializer_of(value, store)
    materializer.save(value)
    entry = {"sha256": "0" * 64, "size_bytes": 3}
    for place in ("store:../../secret.safetensors", "../x.safetensors", "/etc/x.safetensors"):
        with pytest.raises(ArtifactError, match="is no name of a file inside a folder"):
            materializer.restore_weights({**entry, "file": place})


@given(st.text(alphabet="ab./\\:\0~ C", max_size=12) | st.text(max_size=8))
def test_joined_names_stay_inside(name: str) -> None:
    folder = Path("/nonexistent/root")
    try:
        path = below(folder, name)
    except ArtifactError:
        return
    assert path.resolve().is_relative_to(folder) and path.resolve() != folder
    assert inner_name(name) == path.relative_to(folder).as_posix()


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(ArtifactError, match="a link leads out"):
        below(folder, "out/x.txt")
    assert below(folder, "in/x.txt") == folder / "in" / "x.txt"
