"""Models from elsewhere: folders in Stable Diffusion's layout, fine-tuned weights, LoRA files, stored checkpoints."""

from __future__ import annotations

import functools
import json
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch import Tensor

from dreambooth3d.artifacts import DreamBoothCheckpoint
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.model import components as model_components
from dreambooth3d.diffusion.model import lora
from dreambooth3d.diffusion.model.base_model import base_model_identity, resolve
from dreambooth3d.diffusion.model.components import load_components
from dreambooth3d.diffusion.model.guides import guide_identity, read_guide
from dreambooth3d.diffusion.model.pretrained import import_checkpoints, pretrained_digest, pretrained_folders
from tests.fuzz.inputs import altered, altered_tensors, damaged
from tests.fuzz.outcomes import tried, tries

KINDS = ("unet", "text_encoder")
WEIGHTS = {"unet": "diffusion_pytorch_model.safetensors", "text_encoder": "model.safetensors"}
JSON_FILES = (
    "model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer_config.json", "tokenizer/tokenizer.json",
)  # fmt: skip
SHORT = 12
"""Inputs of the short form: each loads a model."""


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries warn about every odd setting."""
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")


@pytest.fixture
def base_model_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of the base model's parts: no input touches it here, and reading it anew would take most of the time."""
    read = model_components._load_parts
    stored = functools.cache(lambda *where: pickle.dumps(read(*where)))
    monkeypatch.setattr(model_components, "_load_parts", lambda *where: pickle.loads(stored(*where)))


@functools.cache
def files_of(folder: Path) -> dict[str, bytes]:
    """A model's files by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@st.composite
def headers(draw: st.DrawFn, data: bytes) -> bytes:
    """A safetensors file whose header is altered, and its length with it."""
    (length,) = struct.unpack("<Q", data[:8])
    header = draw(altered(json.loads(data[8 : 8 + length])))
    text = json.dumps(header).encode()
    return (
        struct.pack("<Q", draw(st.sampled_from((len(text), len(text), len(text), 2**62, 0))))
        + text
        + data[8 + length :]
    )


def weights(data: bytes, tensors: dict[str, Tensor]) -> st.SearchStrategy[bytes]:
    """A damaged safetensors file, or a sound one of other tensors."""
    return damaged(data) | altered_tensors(tensors).map(save) | altered_tensors(tensors).map(save) | headers(data)


def written(folder: Path, files: dict[str, bytes]) -> Path:
    """The folder with these files and no others."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@tries(SHORT)
@given(st.data())
def test_model_folders(playground: Path, tiny_base_model: Path, data: st.DataObject) -> None:
    files = dict(files_of(tiny_base_model))
    name = data.draw(st.sampled_from(JSON_FILES) | st.sampled_from(sorted(files)))
    whole = files.get(name)
    how = data.draw(st.sampled_from(("alter", "alter", "alter", "damage", "remove")))
    if whole is None or how == "remove":
        files.pop(name, None)
    elif how == "alter" and name.endswith(".json"):
        files[name] = json.dumps(data.draw(altered(json.loads(whole), 2))).encode()
    else:
        files[name] = data.draw(damaged(whole))
    folder = written(playground / "model", files)

    def read() -> Tensor:
        components = load_components(resolve(BaseModelConfig(path=str(folder))), "cpu")
        embeddings = components.encode_prompts(["a photo of sks dog"])
        latents = components.encode_images(torch.zeros(1, 3, components.image_size, components.image_size))
        noise = components.predict_noise(latents, torch.tensor([1]), embeddings)
        return components.decode_latents(noise)

    found = tried("models' folders", playground, read)
    assert found is None or found.shape[:2] == (1, 3)


@functools.cache
def tensors_of(folder: Path, kind: str) -> dict[str, Tensor]:
    """A network's weights."""
    return load_file(folder / kind / WEIGHTS[kind])


@pytest.mark.usefixtures("base_model_read_once")
@tries(SHORT)
@given(st.data())
def test_checkpoints(playground: Path, tiny_base_model: Path, data: st.DataObject) -> None:
    """Fine-tuned models in diffusers' layout, as `finetune_dreambooth.pretrained` names them."""
    kind, files = data.draw(st.sampled_from(KINDS)), files_of(tiny_base_model)
    name = f"{kind}/{WEIGHTS[kind]}"
    altered_files = {name: data.draw(weights(files[name], tensors_of(tiny_base_model, kind)))}
    if kind == "text_encoder":
        altered_files["unet/" + WEIGHTS["unet"]] = files["unet/" + WEIGHTS["unet"]]
    step = data.draw(st.sampled_from(("checkpoint-5", "7", "step_0", "x", f"checkpoint-{'9' * 5000}"[:200])))
    written(playground / "tuned", {f"{step}/{name}": content for name, content in altered_files.items()})

    def read() -> dict[int, DreamBoothCheckpoint]:
        folders = pretrained_folders(str(playground / "tuned"), 3)
        pretrained_digest(folders)
        components = load_components(resolve(BaseModelConfig(path=str(tiny_base_model))), "cpu", dtype=torch.float32)
        found = import_checkpoints(folders, components, playground / "work")
        for checkpoint in found.values():
            load_components(components.base, "cpu", checkpoint)
        return found

    tried("checkpoints", playground, read)


@functools.cache
def lora_of(folder: Path) -> dict[str, Tensor]:
    """A LoRA in diffusers' layout."""
    tensors = {}
    for kind in KINDS:
        network = getattr(load_components(resolve(BaseModelConfig(path=str(folder))), "cpu", trainable=True), kind)
        lora.add_adapters(network, kind, 2, torch.Generator().manual_seed(0))
        tensors |= {f"{kind}.{name}": weight for name, weight in lora.adapter_weights(network, kind).items()}
    return tensors


@functools.cache
def kohya_of(folder: Path) -> dict[str, Tensor]:
    """The same in kohya's."""
    named: dict[str, dict[str, Tensor]] = {kind: {} for kind in KINDS}
    for name, weight in lora_of(folder).items():
        kind, _, rest = name.partition(".")
        named[kind][rest] = weight
    return lora.kohya_weights(named)


@pytest.mark.usefixtures("base_model_read_once")
@tries(SHORT)
@given(st.data())
def test_lora_files(playground: Path, tiny_base_model: Path, data: st.DataObject) -> None:
    """As `generation.guide` names them, in diffusers' layout and in kohya's."""
    tensors = data.draw(st.sampled_from((lora_of, kohya_of)))(tiny_base_model)
    content = data.draw(weights(save(tensors), tensors))
    name = data.draw(st.sampled_from((lora.LORA_FILE, "other.safetensors")))
    written(playground / "lora", {name: content})
    guide = str(playground / "lora" / name)
    model = BaseModelConfig(path=str(tiny_base_model))

    def read() -> Any:
        guide_identity(guide)
        found = read_guide(model, base_model_identity(model), guide, playground / "work")
        return load_components(found.base_model, "cpu", found)

    tried("LoRA files", playground, read)
