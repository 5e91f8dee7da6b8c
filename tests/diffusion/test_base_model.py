"""A base model is checked before anything is computed with it, and what is wrong is said in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreambooth3d.artifacts import BaseModelRef
from dreambooth3d.cameras import VIEW_WORDS
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.model.base_model import folder_digest, require_read_whole, resolve, select_weights
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.errors import BaseModelError
from dreambooth3d.prompts import view_prompt


@pytest.fixture
def copy(tiny_base_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_base_model, tmp_path / "model"))


def resolve_path(path: Path | str) -> BaseModelRef:
    """Resolve with default options."""
    return resolve(BaseModelConfig(path=str(path)))


def test_digest_follows_names_and_contents(copy: Path) -> None:
    first = folder_digest(copy)
    assert resolve_path(copy).digest == first == folder_digest(copy)
    (copy / ".cache").mkdir()
    (copy / ".cache" / "x").write_text("hidden files do not count")
    assert folder_digest(copy) == first
    (copy / "scheduler" / "scheduler_config.json").rename(copy / "scheduler" / "other.json")
    assert folder_digest(copy) != first


@pytest.mark.parametrize("path", ["models/no_such_model", "/nowhere/model", "./model", "one/two/three"])
def test_missing_folder(path: str) -> None:
    with pytest.raises(BaseModelError, match=r"not a folder.*Set base_model.path"):
        resolve_path(path)


def test_hub_id_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BaseModelError, match="could not be fetched.*bring FOLDER here, and set base_model.path to it"):
        resolve_path("nobody-here/no-such-model")


@pytest.mark.parametrize(
    "name", ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "tokenizer"]
)
def test_missing_part_is_named(copy: Path, name: str) -> None:
    part = copy / name
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    with pytest.raises(BaseModelError, match=name.split("/")[0]):
        resolve_path(copy)


def test_truncated_weights(copy: Path) -> None:
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(BaseModelError, match="damaged or truncated"):
        resolve_path(copy)


def test_broken_json(copy: Path) -> None:
    (copy / "text_encoder" / "config.json").write_text("{")
    with pytest.raises(BaseModelError, match=r"text_encoder/config.json: not readable as JSON"):
        resolve_path(copy)


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors").rename(copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BaseModelError, match="Convert them to safetensors"):
        resolve_path(copy)


def test_a_variant_alone_is_named(copy: Path) -> None:
    """Plain weights are never taken from a variant by surprise; the message says what to set, and that works."""
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    with pytest.raises(BaseModelError, match="only as the variant fp16. Set base_model.variant to fp16"):
        resolve_path(copy)
    base = resolve(BaseModelConfig(path=str(copy), variant="fp16"))
    assert load_components(base, "cpu").unet.dtype == torch.float32


def test_a_variant_that_no_network_has(copy: Path) -> None:
    with pytest.raises(BaseModelError, match="no network has bf16 weights. Set base_model.variant to null"):
        resolve(BaseModelConfig(path=str(copy), variant="bf16"))


@pytest.mark.parametrize(
    ("variant", "chosen"),
    [
        (None, ["model.safetensors"]),
        ("fp16", ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"]),
        ("bf16", ["model-00001-of-00001.bf16.safetensors"]),
        ("fp8", ["model.safetensors"]),
    ],
)
def test_which_weights_are_loaded(variant: str | None, chosen: list[str]) -> None:
    """Diffusers has written the variant before and behind the shard's number; other files are none of a network's."""
    files = [
        "model.safetensors", "model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors",
        "model-00001-of-00001.bf16.safetensors", "open_clip_model.safetensors", "model.fp8.bin", "model.fp16.json",
    ]  # fmt: skip
    assert select_weights(files, variant) == chosen


def test_the_digest_sees_changes_within_a_process(copy: Path) -> None:
    """Sums are remembered by name, size and time of change."""
    first, file = folder_digest(copy), copy / "model_index.json"
    content = file.read_text()
    file.write_text(content.replace("Stable", "stable"))
    assert folder_digest(copy) != first
    file.write_text(content)
    assert folder_digest(copy) == first


@pytest.mark.parametrize("network", ["unet", "text_encoder", "vae"])
def test_a_missing_tensor_is_not_left_random(copy: Path, network: str) -> None:
    file = next((copy / network).glob("*.safetensors"))
    tensors = load_file(file)
    del tensors[max(tensors)]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match="weights lack"):
        load_components(resolve_path(copy), "cpu")


def test_weights_of_another_architecture(copy: Path) -> None:
    file = copy / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "block_out_channels": [32, 64]}))
    with pytest.raises(BaseModelError, match="could not be loaded|weights lack"):
        load_components(resolve_path(copy), "cpu")


@pytest.mark.parametrize("noun", ["dog", "teapot", "red duck"])
def test_known_nouns(components: Components, noun: str) -> None:
    components.require_known_words(noun, "sks")


@pytest.mark.parametrize("noun", ["xylophone", "dog zebra", "犬"])
def test_unknown_noun(components: Components, noun: str) -> None:
    with pytest.raises(BaseModelError, match=f"does not know the word '{noun.split()[-1]}'. (It knows|Nearest to it)"):
        components.require_known_words(noun)


def test_identifier_of_many_tokens_warns(components: Components) -> None:
    with pytest.warns(UserWarning, match="not one token"):
        components.require_known_words("dog", "qzxqzx")


def test_a_prompt_whose_view_the_model_would_not_read_is_refused(components: Components, tiny_base_model: Path) -> None:
    """Against what reaches the text encoder: the word for the view stands in it, or is cut off."""
    refused = []
    for count in range(0, 30, 3):
        prompt = "a photo of a dog" + " and a cat" * count
        ids = components.tokenize([view_prompt(prompt, word) for word in VIEW_WORDS])
        read = components.tokenizer.batch_decode(ids, skip_special_tokens=True)
        whole = all(f"{word} view" in text for word, text in zip(VIEW_WORDS, read, strict=True))
        try:
            require_read_whole(tiny_base_model, prompt, "generation.prompt")
        except BaseModelError as error:
            assert "generation.prompt: with the words for its view the prompt has" in str(error)
            assert not whole
            refused.append(count)
        else:
            assert whole
    assert refused and 0 not in refused


@pytest.mark.parametrize(
    ("file", "setting", "said"),
    [
        ("tokenizer/tokenizer_config.json", {"model_max_length": {"value": 16}}, "model_max_length"),
        ("unet/config.json", {"sample_size": 2**31}, "sample_size of the UNet is 2147483648"),
        ("unet/config.json", {"sample_size": "16"}, "sample_size of the UNet is 16"),
        ("vae/config.json", {"scaling_factor": float("nan")}, "scaling_factor of the VAE is nan"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "prediction_type of the scheduler is"),
        ("scheduler/scheduler_config.json", {"beta_end": 1e30}, "its scheduler's betas are no noise schedule"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}, ""),
        ("unet/config.json", {"attention_head_dim": 7}, ""),
    ],
)
def test_settings_with_which_no_model_works_are_refused_when_it_is_loaded(
    copy: Path, file: str, setting: dict[str, object], said: str
) -> None:
    """The weights fit, and so nothing else would notice before the first step."""
    values = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(values | setting))
    with pytest.raises(BaseModelError, match=f"(do not work together|could not be loaded) .*{said}.*base_model.path"):
        load_components(resolve_path(copy), "cpu")


def test_old_scheduler_configs_do_not_clip_latents(copy: Path) -> None:
    file = copy / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text())
    del config["clip_sample"]
    file.write_text(json.dumps({**config, "_class_name": "PNDMScheduler", "skip_prk_steps": True}))
    assert load_components(resolve_path(copy), "cpu").scheduler.config.clip_sample is False


def test_prompts_are_encoded_once(components: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    first = components.encode_prompts(["a dog", "a cat", "a dog"])
    assert torch.equal(first[0], first[2]) and not torch.equal(first[0], first[1])
    monkeypatch.setattr(components, "text_encoder", None)
    assert torch.equal(components.encode_prompts(["a cat"])[0], first[1])
