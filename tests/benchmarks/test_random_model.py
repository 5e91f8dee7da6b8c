"""The generator of random-weight models: their layout is the real ones', checked by diffusers and transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from benchmarks.speed.random_model import VOCABULARY, WORDS, build_networks, write_model

TINY = 0.05
# Parameters of the published models, as their cards and files have them.
PUBLISHED = {
    "sd15": {"text_encoder": 123_060_480, "unet": 859_520_964, "vae": 83_653_863},
    "sd21": {"text_encoder": 340_387_840, "unet": 865_910_724, "vae": 83_653_863},
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_full_size_is_the_published_one(kind: str) -> None:
    networks = build_networks(kind)
    assert {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()} == PUBLISHED[kind]
    unet, text_encoder = networks["unet"].config, networks["text_encoder"].config
    assert unet.cross_attention_dim == text_encoder.hidden_size
    assert unet.sample_size * 8 == {"sd15": 512, "sd21": 768}[kind] == networks["vae"].config.sample_size


@pytest.mark.parametrize(("kind", "prediction", "pad"), [("sd15", "epsilon", 49_407), ("sd21", "v_prediction", 0)])
def test_diffusers_loads_it_and_paints(tmp_path: Path, kind: str, prediction: str, pad: int) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(write_model(tmp_path, kind, scale=TINY, dtype=torch.float32))
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.scheduler.config.prediction_type == prediction
    assert pipeline.tokenizer.pad_token_id == pad
    (image,) = pipeline("a photo of a sks dog", num_inference_steps=2, output_type="np").images
    assert image.shape == (64, 64, 3) and image.std() > 0.01 and 0 < image.mean() < 1


def test_the_tokenizer_has_clips_size_and_order(tmp_path: Path) -> None:
    """Ids of CLIP's own vocabulary where its order tells them: bytes first, word-ending bytes from 256, start, end."""
    write_model(tmp_path, scale=TINY)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert len(tokenizer) == VOCABULARY == len(set(tokenizer.get_vocab().values()))
    assert tokenizer("a", padding="max_length").input_ids == [49_406, 320, *[49_407] * 75]
    assert tokenizer("!?").input_ids == [49_406, 0, 286, 49_407]
    assert all(len(tokenizer.tokenize(word)) == 1 for word in WORDS)
    assert len(tokenizer.tokenize("xylophone")) > len("xylophone") // 2
    assert tokenizer.decode(tokenizer("a photo of a sks dog, front view").input_ids, skip_special_tokens=True) == (
        "a photo of a sks dog , front view"
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder by network and name."""
    files = sorted(folder.glob("*/*.safetensors"))
    return {f"{file.parent.name}/{name}": value for file in files for name, value in load_file(file).items()}


def test_the_seed_decides(tmp_path: Path) -> None:
    options = {"scale": TINY, "dtype": torch.float32, "device": "cpu"}
    first = weights(write_model(tmp_path / "a", seed=1, **options))
    again = weights(write_model(tmp_path / "b", seed=1, **options))
    other = weights(write_model(tmp_path / "c", seed=2, **options))
    half = weights(write_model(tmp_path / "d", seed=1, variant="fp16", **options | {"dtype": torch.float16}))
    assert first.keys() == again.keys() == other.keys() == half.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert sum(torch.equal(first[name], other[name]) for name in first if first[name].ndim > 1) == 0
    assert all(torch.equal(first[name].half(), half[name]) for name in first)
    assert (tmp_path / "d" / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()


def test_no_weight_is_left_undrawn(tmp_path: Path) -> None:
    for name, value in weights(write_model(tmp_path, "sd21", scale=TINY, dtype=torch.float32)).items():
        assert value.isfinite().all(), name
        if value.ndim > 1:
            assert 0 < value.std() < 1, name
        else:
            assert (value == (0 if name.endswith("bias") else 1)).all(), name
