"""The model that guides a generation: which weights it has, against what they were made of, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dreambooth3d.artifacts import BaseModelRef, DreamBoothCheckpoint
from dreambooth3d.config.generation import GenerationConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.model import lora
from dreambooth3d.diffusion.model.base_model import base_model_identity
from dreambooth3d.diffusion.model.components import load_components
from dreambooth3d.diffusion.model.guides import guide_identity, prompt_noun, read_guide
from dreambooth3d.diffusion.model.nouns import noun_of_prompt
from dreambooth3d.errors import BaseModelError, ConfigError
from dreambooth3d.weights import save_weights
from tests.tiny_models import write_tiny_base_model

KINDS = ("unet", "text_encoder")


@pytest.fixture(scope="module")
def model(tiny_base_model: Path) -> BaseModelConfig:
    """The tiny base model's settings."""
    return BaseModelConfig(path=str(tiny_base_model))


def guide_of(model: BaseModelConfig, guide: str, work: Path) -> DreamBoothCheckpoint:
    return read_guide(model, base_model_identity(model), guide, work)


def assert_close(checkpoint: DreamBoothCheckpoint, expected: dict[str, dict[str, Tensor]]) -> None:
    for kind in KINDS:
        found = getattr(checkpoint, kind).load()
        assert {*found} == {*expected[kind]}
        for name, weight in expected[kind].items():
            torch.testing.assert_close(found[name].float(), weight.float(), atol=2e-3, rtol=2e-3)


def weights_of(folder: Path) -> dict[str, dict[str, Tensor]]:
    parts = load_components(BaseModelRef(str(folder)), "cpu")
    return {kind: dict(getattr(parts, kind).state_dict()) for kind in KINDS}


def test_the_base_model_guides_as_it_is(model: BaseModelConfig, tmp_path: Path) -> None:
    checkpoint = guide_of(model, "base", tmp_path)
    assert checkpoint.step == 0 and checkpoint.base_model.path == model.path
    assert_close(checkpoint, weights_of(Path(model.path)))
    assert guide_identity("base") == "none"


def test_a_fine_tuned_model_guides(model: BaseModelConfig, tmp_path: Path) -> None:
    """The latest of a folder with several."""
    for step in (5, 20):
        write_tiny_base_model(tmp_path / "tuned" / f"checkpoint-{step}", seed=step)
    checkpoint = guide_of(model, str(tmp_path / "tuned"), tmp_path / "work")
    assert checkpoint.step == 20
    assert_close(checkpoint, weights_of(tmp_path / "tuned" / "checkpoint-20"))


def test_a_lora_guides(model: BaseModelConfig, base: BaseModelRef, tmp_path: Path) -> None:
    """One that we have exported ourselves: the weights are W + up @ down, written out."""
    generator = torch.Generator().manual_seed(0)
    plain, expected, refs = weights_of(Path(model.path)), {}, {}
    for kind in KINDS:
        parts = getattr(load_components(base, "cpu", trainable=True), kind)
        lora.add_adapters(parts, kind, 2, generator)
        for name, weight in parts.named_parameters():
            if "lora_B" in name:
                weight.data = torch.randn(weight.shape, generator=generator) / 3
        adapters = lora.adapter_weights(parts, kind)
        expected[kind] = lora.merged(plain[kind], adapters)
        refs[kind] = save_weights(adapters, tmp_path / f"{kind}.safetensors")
    file = lora.export_lora(DreamBoothCheckpoint(3, **refs, base_model=base), tmp_path / "lora" / lora.LORA_FILE)
    for number, guide in enumerate((str(tmp_path / "lora"), file.uri)):
        assert_close(guide_of(model, guide, tmp_path / f"work{number}"), expected)
    changed = max(float((expected["unet"][name] - weight).abs().max()) for name, weight in plain["unet"].items())
    assert changed > 0.1, "the LoRA changes something"


def test_other_weights_are_another_guide(tmp_path: Path) -> None:
    write_tiny_base_model(tmp_path / "one", seed=1)
    write_tiny_base_model(tmp_path / "other", seed=2)
    first, second = (guide_identity(str(tmp_path / name)) for name in ("one", "other"))
    assert first.startswith("sha256:") and first != second == guide_identity(str(tmp_path / "other"))


def test_guides_that_are_none(model: BaseModelConfig, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="generation.guide: there is no nowhere. Write base, the folder of"):
        guide_identity("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match="^generation.guide: .*holds no model"):
        guide_identity(str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="generation.guide: run:mine is a pipeline's run"):
        guide_of(model, "run:mine", tmp_path)
    (tmp_path / "lora").mkdir()
    unet = load_file(Path(model.path) / "unet" / "diffusion_pytorch_model.safetensors")
    save_weights(unet, tmp_path / "lora" / lora.LORA_FILE)
    with pytest.raises(BaseModelError, match="is no LoRA of the base model. Set base_model.path"):
        guide_of(model, str(tmp_path / "lora"), tmp_path / "work")


@pytest.mark.parametrize(
    ("prompt", "noun"),
    [
        ("a photo of a red snowman", "snowman"),
        ("A photo of a blue DOG wearing a red hat, front view", "dog"),
        ("a delicious hamburger with cheese on a plate", "hamburger"),
        ("a zoomed out photo of an ice cream sundae, studio light", "sundae"),
        ("", ""),
    ],
)
def test_the_noun_of_a_prompt(prompt: str, noun: str) -> None:
    assert noun_of_prompt(prompt) == noun


def test_a_small_vocabulary_is_told_by_its_own_nouns(model: BaseModelConfig) -> None:
    assert prompt_noun(GenerationConfig(prompt="a photo of a red dog"), model) == "dog"
    assert prompt_noun(GenerationConfig(prompt="a photo of something red", class_noun="duck"), model) == "duck"
    with pytest.raises(BaseModelError, match=r"^generation.prompt: .* word 'poodle'. Nearest to it: dog"):
        prompt_noun(GenerationConfig(prompt="a photo of a red poodle"), model)
    with pytest.raises(BaseModelError, match=r"^generation.prompt: .* word 'zyxw'. It knows dog, "):
        prompt_noun(GenerationConfig(prompt="a photo of a red zyxw"), model)


def test_the_embedded_model_has_not_learned_all_that_it_has_tokens_for() -> None:
    """Mushrooms are kept from it; one who has fine-tuned it on one may ask for that."""
    embedded = BaseModelConfig()
    with pytest.raises(BaseModelError, match="word 'mushroom'. Nearest to it: lamp"):
        prompt_noun(GenerationConfig(prompt="a photo of a red mushroom"), embedded)
    assert prompt_noun(GenerationConfig(prompt="a photo of a red sks mushroom", guide="run:x"), embedded) == "mushroom"
    assert prompt_noun(GenerationConfig(prompt="a photo of a red snowman"), embedded) == "snowman"
