"""Fine-tuned models from elsewhere in place of training: both layouts, what changes the digest, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from dreambooth3d.artifacts import BaseModelRef, CheckpointSet, SubjectPhotos
from dreambooth3d.config.finetuning import FinetuneConfig, SelectConfig
from dreambooth3d.diffusion.finetuning.dreambooth import finetune
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.diffusion.model.pretrained import pretrained_digest, pretrained_folders, pretrained_identity
from dreambooth3d.errors import BaseModelError
from dreambooth3d.evaluation.selection import choose
from dreambooth3d.runtime import Runtime
from tests.tiny_models import write_tiny_base_model

MakeRuntime = Callable[..., Runtime]
UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A whole model in diffusers' layout with other weights than the base model."""
    return write_tiny_base_model(tmp_path / "mine", seed=1)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """What diffusers' script leaves: checkpoint-2 without a text encoder, checkpoint-10 with one, and other files."""
    folder = tmp_path / "series"
    for step in (2, 10):
        whole = write_tiny_base_model(tmp_path / f"model{step}", seed=step)
        place = folder / f"checkpoint-{step}"
        shutil.copytree(whole / "unet", place / "unet")
        (place / "optimizer.bin").write_bytes(b"state")
    shutil.copytree(tmp_path / "model10" / "text_encoder", folder / "checkpoint-10" / "text_encoder")
    (folder / "logs").mkdir()
    return folder


def take(photos: SubjectPhotos, base: BaseModelRef, path: Path, runtime: Runtime) -> CheckpointSet:
    """Fine-tune with a folder in place of training."""
    return finetune(photos, base, FinetuneConfig(pretrained=str(path), sample_inference_steps=1), 0, runtime)


def assert_weights(loaded: Components, name: str, expected: Components) -> None:
    """A network has the weights of another model, but for half precision."""
    ours, theirs = getattr(loaded, name).state_dict(), getattr(expected, name).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key].half().float()) for key in ours)


def own(base: BaseModelRef, folder: Path) -> Components:
    """Another model, loaded as a base model."""
    return load_components(BaseModelRef(str(folder)), "cpu")


def test_one_model_is_one_checkpoint(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, model: Path
) -> None:
    result = take(photos, base, model, make_runtime())
    assert result.steps == [FinetuneConfig().steps] and result.base_model == base
    assert set(result.record.images) == {"samples/000400"} and result.record.metrics["steps"] == 0
    loaded = load_components(base, "cpu", result.checkpoints[400])
    for name in ("unet", "text_encoder"):
        assert_weights(loaded, name, own(base, model))
    scores = {"step": result.steps, "subject_similarity": [0.5], "view_obedience": [0.5]}
    assert choose(pd.DataFrame(scores), SelectConfig())[:2] == (400, 400)


def test_the_last_model_of_a_training_lies_beside_its_checkpoints(model: Path, tmp_path: Path) -> None:
    """As diffusers' script leaves them: checkpoint-500 in the folder whose own model is that of step 800."""
    root = tmp_path / "output"
    shutil.copytree(model, root)
    shutil.copytree(model, root / "checkpoint-500")
    assert pretrained_folders(str(root), 800) == {500: root / "checkpoint-500", 800: root}
    assert pretrained_folders(str(root), 500) == {500: root / "checkpoint-500"}


def test_half_precision_alone_will_do(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, model: Path
) -> None:
    for file in (model / "unet").glob("*.safetensors"):
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    result = take(photos, base, model, make_runtime())
    weights = load_components(base, "cpu", result.checkpoints[400]).unet.state_dict()
    stored = load_file(model / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    for name, weight in stored.items():
        torch.testing.assert_close(weights[name], weight.half().float())


def test_a_series_gives_a_checkpoint_per_step(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, series: Path
) -> None:
    result = take(photos, base, series, make_runtime())
    assert result.steps == [2, 10]
    for step, text in ((2, base.path), (10, series.parent / "model10")):
        loaded = load_components(base, "cpu", result.checkpoints[step])
        assert_weights(loaded, "unet", own(base, series.parent / f"model{step}"))
        assert_weights(loaded, "text_encoder", own(base, Path(text)))


def test_steps_in_names(model: Path, tmp_path: Path) -> None:
    assert list(pretrained_folders(str(model), 7)) == [7]
    for name, step in (("checkpoint-150", 150), ("step_0200", 200), ("90", 90), ("stable-diffusion-v1-5", 7)):
        assert list(pretrained_folders(str(model.rename(tmp_path / name)), 7)) == [step]
        model = tmp_path / name


def test_a_stored_position_buffer_and_shards_are_taken(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, model: Path
) -> None:
    expected = own(base, model)
    text = load_file(model / TEXT)
    save_file({**text, "text_model.embeddings.position_ids": torch.arange(16)[None]}, model / TEXT)
    unet = load_file(model / UNET)
    (model / UNET).unlink()
    for index, names in enumerate((list(unet)[::2], list(unet)[1::2]), 1):
        shard = model / "unet" / f"diffusion_pytorch_model-0000{index}-of-00002.safetensors"
        save_file({name: unet[name] for name in names}, shard)
    save_file(
        {name: value.half() * 0 for name, value in unet.items()},
        model / "unet" / "diffusion_pytorch_model.fp16.safetensors",
    )
    loaded = load_components(base, "cpu", take(photos, base, model, make_runtime()).checkpoints[400])
    for name in ("unet", "text_encoder"):
        assert_weights(loaded, name, expected)


def test_digest_follows_the_weights_only(series: Path) -> None:
    def digest() -> str:
        return pretrained_identity(FinetuneConfig(pretrained=str(series)))

    first = digest()
    assert first == f"sha256:{pretrained_digest(pretrained_folders(str(series), 1))}"
    (series / "checkpoint-2" / "optimizer.bin").write_bytes(b"other state")
    assert digest() == first
    file = series / "checkpoint-2" / UNET
    weights = load_file(file)
    save_file({**weights, "conv_in.bias": weights["conv_in.bias"] + 1}, file)
    second = digest()
    (series / "checkpoint-2").rename(series / "checkpoint-3")
    assert len({first, second, digest()}) == 3
    assert pretrained_identity(FinetuneConfig()) == "none"


def refuse(path: Path, message: str) -> None:
    """The folder is refused before anything is loaded, in one sentence that names it."""
    with pytest.raises(BaseModelError, match=message) as error:
        pretrained_identity(FinetuneConfig(pretrained=str(path)))
    assert path.name in str(error.value) and "\n" not in str(error.value)


def test_folders_without_a_model_are_refused(series: Path, tmp_path: Path) -> None:
    refuse(tmp_path / "nowhere", "is not a folder")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "holds no model")
    shutil.copytree(series / "checkpoint-2", series / "step_2")
    refuse(series, "are both of step 2")


def test_bin_weights_are_refused(model: Path) -> None:
    (model / UNET).rename(model / "unet" / "diffusion_pytorch_model.bin")
    refuse(model, "only .bin weights")


def test_weights_of_another_architecture_are_refused(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, tmp_path: Path, model: Path
) -> None:
    wide = write_tiny_base_model(tmp_path / "wide", width=24)
    with pytest.raises(BaseModelError, match="wide/unet: these weights are damaged or do not fit the base model"):
        take(photos, base, wide, make_runtime())
    (model / TEXT).write_bytes((model / TEXT).read_bytes()[:-10])
    with pytest.raises(BaseModelError, match="mine/text_encoder: these weights are damaged"):
        take(photos, base, model, make_runtime(folder="b"))
