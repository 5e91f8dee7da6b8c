"""Models pushed to a hub on the loopback by the hub's own client, and what is found there afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard
from typer.testing import CliRunner

from dreambooth3d import hub
from dreambooth3d.artifacts import BaseModelRef, DreamBoothCheckpoint, SubjectPhotos
from dreambooth3d.cli.main import app
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.model.base_model import folder_digest, model_folder, resolve
from dreambooth3d.diffusion.model.card import checkpoint_card
from dreambooth3d.errors import HubError
from dreambooth3d.weights import WeightsRef
from tests.hub_server import Hub, running_hub
from tests.product import ROOT

MINE, TOKEN = "me/toybox", "hf_aTokenThatMayWrite"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub that one token may write to."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with running_hub(tmp_path / "cache", monkeypatch) as running:
        running.writers.add(TOKEN)
        yield running


def push(*arguments: str) -> tuple[int, str]:
    """Exit code and answer of `models push`, or its error."""
    result = CliRunner().invoke(app, ["models", "push", *arguments])
    return result.exit_code, (result.stderr if result.exit_code else result.stdout).strip()


def test_the_bundled_models_come_back_as_a_base_model(
    remote: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code, said = push(MINE, "--json")
    assert code == 0, said
    (commit,) = remote.models[MINE]
    assert json.loads(said) == [f"{remote.url}/{MINE}/commit/{commit}"] and remote.private == {MINE}
    folder = model_folder(resolve(BaseModelConfig(path=MINE)))
    assert folder.name == commit
    (folder / "README.md").unlink(missing_ok=True)
    assert folder_digest(folder) == folder_digest(ROOT / "models" / "toybox")
    pushed = remote.pushed / "me--toybox-0"
    assert (pushed / "judge" / "model.safetensors").read_bytes() == (
        ROOT / "models" / "judge" / "model.safetensors"
    ).read_bytes()
    assert ModelCard.load(pushed / "README.md").data.license == "apache-2.0"
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert not holding
    code, said = push(MINE, "--public")
    assert code == 0 and remote.private == {MINE}, "what is there stays as private as it was"


def test_refusals_are_one_sentence(remote: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: str) -> str:
        code, said = push(*arguments)
        assert code == 1 and said.startswith("Error: ") and len(said.splitlines()) == 1
        return said

    assert "there is no token. Set HF_TOKEN" in refused(MINE)
    assert "toybox is no name of a model. Write owner/name" in refused("toybox")
    assert "a/b/c is no name of a model" in refused("a/b/c")
    assert "Say which: --run RUN" in refused(MINE, "--lora")
    assert remote.requests == []
    monkeypatch.setenv("HF_TOKEN", "hf_aTokenThatMayRead")
    assert f"{MINE}: could not be pushed (the token may not write there)" in refused(MINE)
    assert remote.models == {}


def test_a_hub_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "file").write_text("content")
    with pytest.raises(HubError, match=r"me/toybox: could not be pushed \(ConnectError: .*Check the connection"):
        hub.push(MINE, tmp_path, TOKEN, private=True, message="Nothing")


def photos() -> SubjectPhotos:
    images = (torch.zeros(3, 4, 4),) * 5
    return SubjectPhotos(images, pd.DataFrame({"file": range(5)}), (), "corgi", "sks", "dog", "", "untracked:1")


@pytest.mark.parametrize("lora_file", [None, "pytorch_lora_weights.safetensors"])
def test_the_card_of_a_checkpoint_says_what_it_is(lora_file: str | None, tmp_path: Path) -> None:
    """Front matter as the hub's own reader takes it."""
    weights = WeightsRef("unet.safetensors", "0" * 64, 1)
    base = BaseModelRef("someone/diffusion", "", "a" * 40, None)
    checkpoint = DreamBoothCheckpoint(200, weights, weights, base)
    text = checkpoint_card(checkpoint, photos(), "me/corgi", {"run": "a run", "code": ""}, lora_file=lora_file)
    card = ModelCard(text)
    assert card.data.base_model == "someone/diffusion" and card.data.pipeline_tag == "text-to-image"
    assert card.data.library_name == "diffusers" and card.data.license == "other"
    assert card.data.to_dict()["base_model_relation"] == ("adapter" if lora_file else "finetune")
    assert ("lora" in (card.data.tags or [])) == bool(lora_file)
    assert card.data.to_dict()["instance_prompt"] == "a photo of a sks dog"
    assert "| run | a run |" in text and "| code |" not in text and "on 5 photos" in text
    (usage,) = [line for line in text.splitlines() if "from_pretrained" in line]
    assert ("someone/diffusion" if lora_file else "me/corgi") in usage
    of_bundled = DreamBoothCheckpoint(200, weights, weights, BaseModelRef("models/toybox", "b" * 64))
    data = ModelCard(checkpoint_card(of_bundled, photos(), "me/corgi", {})).data
    assert data.license == "apache-2.0" and data.base_model is None


def test_cards_in_the_repository_have_what_the_hub_reads() -> None:
    model = ModelCard.load(ROOT / "models" / "README.md").data
    assert (model.license, model.library_name, model.pipeline_tag) == ("apache-2.0", "diffusers", "text-to-image")
    data = DatasetCard.load(ROOT / "data_store" / "README.md").data
    assert data.license == "apache-2.0" and data.task_categories == ["image-to-3d", "text-to-image"]
