"""Handles to weights."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dreambooth3d import weights
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.diffusion.model.components import load_components
from dreambooth3d.errors import ArtifactError, BaseModelError
from dreambooth3d.evaluation.clip import ClipScorer
from dreambooth3d.photos.networks.relative_views import RelativeViewNetwork
from dreambooth3d.photos.networks.subject_masks import SubjectMaskNetwork
from dreambooth3d.weights import SUMS, WeightsRef, save_weights, sha256_file

ROOT = Path(__file__).resolve().parents[1]


def test_saved_weights_load_and_the_handle_describes_the_file(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(3, 4, requires_grad=True), "t": torch.randn(4, 3).T, "h": torch.ones(2).half()}
    path = tmp_path / "new" / "folder" / "unet.safetensors"
    handle = save_weights(tensors, path)
    assert handle == WeightsRef(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    loaded = handle.load()
    assert set(loaded) == set(tensors) == set(load_file(path))
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor)
    assert [entry.name for entry in path.parent.iterdir()] == ["unet.safetensors"]


def test_a_handle_is_small_whatever_the_weights(tmp_path: Path) -> None:
    handle = save_weights({"w": torch.zeros(100_000)}, tmp_path / "w.safetensors")
    assert handle.size_bytes > 400_000 and len(pickle.dumps(handle)) < 1000


def test_equal_weights_have_equal_hashes_and_a_new_file_replaces_the_old(tmp_path: Path) -> None:
    first = save_weights({"w": torch.zeros(2)}, tmp_path / "a.safetensors")
    assert save_weights({"w": torch.zeros(2)}, tmp_path / "b.safetensors").sha256 == first.sha256
    replaced = save_weights({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    assert replaced.sha256 != first.sha256 and replaced.load()["w"].tolist() == [1, 1]


def test_a_handle_does_not_load_what_was_written_over_its_file(tmp_path: Path) -> None:
    first = save_weights({"w": torch.zeros(2)}, tmp_path / "a.safetensors")
    save_weights({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ArtifactError, match="a.safetensors: these weights are not the ones that were saved"):
        first.load()


def test_hash_of_a_file_longer_than_a_chunk(tmp_path: Path) -> None:
    path = tmp_path / "large"
    content = bytes(range(256)) * 5000
    path.write_bytes(content)
    assert sha256_file(path) == hashlib.sha256(content).hexdigest()


def test_weights_load_from_an_address(tmp_path: Path) -> None:
    handle = save_weights({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    remote = WeightsRef(f"file://{handle.uri}", handle.sha256, handle.size_bytes)
    assert remote.load()["w"].tolist() == [1, 1]


def test_remote_weights_are_brought_by_who_knows_the_store_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = save_weights({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    remote = WeightsRef("store://bucket/w.safetensors", handle.sha256, handle.size_bytes)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    asked = []

    def fetch(uri: str, path: str) -> None:
        asked.append(uri)
        shutil.copyfile(handle.uri, path)

    monkeypatch.setattr(weights, "_fetch", fetch)
    assert remote.load()["w"].tolist() == [1, 1] and list(temporary.iterdir()) == []
    local = remote.kept_in(tmp_path / "kept")
    assert local.load()["w"].tolist() == [1, 1] and remote.kept_in(tmp_path / "kept") == local
    assert asked == [remote.uri, remote.uri] and [local.uri] == [str(path) for path in (tmp_path / "kept").iterdir()]
    assert handle.kept_in(tmp_path / "kept") is handle


@pytest.mark.parametrize("model", ["toybox", "selector", "judge", "masks", "views"])
def test_one_flipped_bit_of_a_bundled_model_is_refused(model: str, tmp_path: Path) -> None:
    """And by whatever loads it; a copy elsewhere may be anything."""
    loads = {
        "toybox": lambda folder: load_components(resolve(BaseModelConfig(path=str(folder))), "cpu"),
        "selector": ClipScorer.load, "judge": ClipScorer.load,
        "masks": SubjectMaskNetwork.load, "views": RelativeViewNetwork.load,
    }  # fmt: skip
    models = tmp_path / "models"
    shutil.copytree(ROOT / "models" / model, models / model)
    shutil.copy(ROOT / "models" / SUMS, models)
    loads[model](models / model)
    for file in sorted((models / model).rglob("*.safetensors")):
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(BaseModelError, match=rf"{file.name}: is not the file that came with the product"):
            loads[model](models / model)
        (models / SUMS).rename(models / "elsewhere")
        loads[model](models / model)
        (models / "elsewhere").rename(models / SUMS)
        file.write_bytes(whole)
    file.unlink()
    with pytest.raises(BaseModelError, match="is not the file that came with the product"):
        loads[model](models / model)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_lost_weights_say_which_and_what_to_do(tmp_path: Path, scheme: str) -> None:
    handle = WeightsRef(f"{scheme}{tmp_path}/gone.safetensors", "", 0)
    with pytest.raises(ArtifactError, match="gone.safetensors: these weights are gone. Run the step"):
        handle.load()
