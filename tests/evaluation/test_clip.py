"""CLIP scoring against transformers' own processing."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from dreambooth3d.errors import BaseModelError
from dreambooth3d.evaluation.clip import ClipScorer, view_captions
from tests.evaluation.stand_ins import MEAN, STD, write_tiny_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def scorer(folder):
    return ClipScorer.load(folder)


def test_logits_equal_the_models_own(folder, scorer):
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    texts = ["a photo of a red dog", "a cat, front view", "a"]
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    pixels = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        output = model(pixel_values=pixels, **tokenizer(texts, padding=True, return_tensors="pt"))
    expected = output.logits_per_image / model.logit_scale.exp()
    assert torch.allclose(scorer.similarity(images, texts), expected, atol=1e-5)
    assert scorer.classify(images, texts).tolist() == expected.argmax(dim=1).tolist()


def test_features_have_unit_length_and_do_not_depend_on_the_batch(scorer):
    images = torch.rand(70, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    features = scorer.image_features(images)
    assert features.shape == (70, 24) and torch.allclose(features.norm(dim=1), torch.ones(70))
    assert torch.allclose(features[69:], scorer.image_features(images[69:]), atol=1e-5)
    assert torch.allclose(scorer.text_features(["a dog", "a"])[:1], scorer.text_features(["a dog"]), atol=1e-6)


def test_size_hardly_matters(scorer):
    small = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), size=32, mode="bicubic").clamp(0, 1)
    large = torch.nn.functional.interpolate(small, size=128, mode="bicubic").clamp(0, 1)
    assert (scorer.image_features(small) @ scorer.image_features(large).T).item() > 0.99


def test_long_texts_are_cut(scorer):
    assert scorer.text_features(["red " * 200]).shape == (1, 24)


def test_four_view_captions():
    assert view_captions("dog")[0] == "a photo of a dog, front view" and len(view_captions("dog")) == 4


def test_missing_and_damaged_models_are_named(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BaseModelError, match="nowhere"):
        ClipScorer.load(tmp_path / "nowhere")
    for damaged in ("model.safetensors", "preprocessor_config.json"):
        copy = tmp_path / damaged.split(".")[0]
        shutil.copytree(folder, copy)
        if damaged.endswith("json"):
            (copy / damaged).unlink()
        else:
            (copy / damaged).write_bytes(b"broken")
        with pytest.raises(BaseModelError, match="cannot be loaded"):
            ClipScorer.load(copy)
