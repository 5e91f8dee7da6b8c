"""Models from the hub, with the hub's own client against a server on the loopback: pinned, cached, told about."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from dreambooth3d.artifacts import BaseModelRef
from dreambooth3d.config.models import BaseModelConfig, ScorerRef, ScorersConfig
from dreambooth3d.diffusion.model.base_model import base_model_identity, model_folder, resolve
from dreambooth3d.diffusion.model.components import load_components
from dreambooth3d.errors import BaseModelError
from dreambooth3d.evaluation.clip import ClipScorer, pinned, scorer_ref
from operations.launch.scorers import check_scorers
from tests.evaluation.stand_ins import write_tiny_clip
from tests.hub_server import Hub, running_hub

MODEL, SCORER = "someone/tiny-diffusion", "someone/tiny-clip"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub and an empty cache."""
    with running_hub(tmp_path / "cache", monkeypatch) as running:
        yield running


@pytest.fixture
def published(tiny_base_model: Path, tmp_path: Path) -> Path:
    """A model repository as they are on the hub: with variants, old formats and whatever else."""
    folder = Path(shutil.copytree(tiny_base_model, tmp_path / "published"))
    for network, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        weights = load_file(folder / network / f"{name}.safetensors")
        half = {key: value.half() for key, value in weights.items()}
        save_file(half, folder / network / f"{name}.fp16.safetensors", {"format": "pt"})
        (folder / network / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"not wanted")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"not wanted")
    (folder / "v1-5-pruned.safetensors").write_bytes(b"not wanted")
    return folder


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with HF_HUB_OFFLINE=1."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_only_what_is_loaded_is_fetched(hub: Hub, published: Path) -> None:
    commit = hub.add(MODEL, published)
    base = resolve(BaseModelConfig(path=MODEL))
    assert base == BaseModelRef(MODEL, "", commit, None)
    assert model_folder(base).name == commit
    weights = {name for name in hub.downloads() if name.endswith((".safetensors", ".bin"))}
    networks = {"unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"}
    assert weights == {f"{name}.safetensors" for name in networks}
    assert "model_index.json" in hub.downloads()


def test_a_variant_that_some_networks_lack(hub: Hub, published: Path) -> None:
    """The VAE has no half-precision file; the others load theirs, as float32."""
    hub.add(MODEL, published)
    base = resolve(BaseModelConfig(path=MODEL, variant="fp16"))
    weights = {name for name in hub.downloads() if name.endswith(".safetensors")}
    assert weights == {
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    components = load_components(base, "cpu", trainable=True)
    plain = load_file(published / "unet" / "diffusion_pytorch_model.safetensors")
    for name, value in components.unet.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, plain[name].half().float())
    vae = load_file(published / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, vae[name]) for name, value in components.vae.state_dict().items())


def test_a_run_keeps_to_the_commit(hub: Hub, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was resolved is loaded, though the main branch moves on, and without asking again."""
    first = hub.add(MODEL, published)
    base = resolve(BaseModelConfig(path=MODEL))
    newer = Path(shutil.copytree(published, tmp_path / "newer"))
    (newer / "model_index.json").write_text('{"newer": true}')
    second = hub.add(MODEL, newer)
    hub.requests.clear()
    assert model_folder(base).name == first and hub.requests == []
    assert resolve(BaseModelConfig(path=MODEL)).revision == second
    assert base_model_identity(BaseModelConfig(path=MODEL)) == f"commit:{second}"
    pin = BaseModelConfig(path=MODEL, revision=first)
    hub.requests.clear()
    assert resolve(pin) == base and hub.requests == []
    go_offline(monkeypatch)
    assert resolve(pin) == base
    assert resolve(BaseModelConfig(path=MODEL)).revision == second
    assert resolve(BaseModelConfig(path=MODEL, revision=first[:8])).revision == first


def test_a_download_that_was_cut_off_goes_on(hub: Hub, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.add(MODEL, published)
    folder = model_folder(resolve(BaseModelConfig(path=MODEL)))
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    pin = BaseModelConfig(path=MODEL, revision=commit)
    assert resolve(pin).revision == commit
    assert (folder / "vae" / "diffusion_pytorch_model.safetensors").is_file()
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    go_offline(monkeypatch)
    with pytest.raises(BaseModelError, match="its copy in .* is not complete, and it could not be fetched"):
        resolve(pin)


def test_offline_and_not_cached(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the id, the folder that was looked at, and what to provide."""
    go_offline(monkeypatch)
    with pytest.raises(BaseModelError) as error:
        resolve(BaseModelConfig(path=MODEL))
    message = str(error.value)
    assert message.startswith(f"base_model.path: {MODEL} is no local folder")
    assert str(hub.cache / "models--someone--tiny-diffusion") in message
    assert message.endswith("bring FOLDER here, and set base_model.path to it.") and "\n" not in message


def test_unknown_id(hub: Hub) -> None:
    with pytest.raises(BaseModelError, match=r"someone/else is no local folder.*RepositoryNotFoundError.*Check name"):
        resolve(BaseModelConfig(path="someone/else"))


def refusal(config: BaseModelConfig) -> str:
    """The one sentence with which a base model is refused."""
    with pytest.raises(BaseModelError) as caught:
        resolve(config)
    message = str(caught.value)
    assert message.startswith(f"base_model.path: {config.path}") and "\n" not in message
    return message


def test_each_refusal_of_the_hub_says_what_to_do(hub: Hub, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(MODEL, published)
    said = refusal(BaseModelConfig(path=MODEL, revision="no-such-branch"))
    assert "RevisionNotFoundError" in said and "It has no revision no-such-branch: choose a commit" in said
    hub.gated.add(MODEL)
    said = refusal(BaseModelConfig(path=MODEL))
    assert "GatedRepoError" in said and "Its owner grants access" in said and "HF_TOKEN" in said
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    assert "Check the connection and try again" in refusal(BaseModelConfig(path="someone/else"))


def test_a_connection_that_breaks_off_leaves_nothing_that_counts(hub: Hub, published: Path) -> None:
    """The same call goes on, with what has arrived, and ends with the whole file."""
    hub.add(MODEL, published)
    hub.cut.add("tokenizer.json")
    try:
        folder = model_folder(resolve(BaseModelConfig(path=MODEL)))
    except BaseModelError as error:
        assert "Check the connection and try again" in str(error) and "\n" not in str(error)
        folder = model_folder(resolve(BaseModelConfig(path=MODEL)))
    assert not hub.cut
    for file in (folder / "tokenizer").iterdir():
        assert file.read_bytes() == (published / "tokenizer" / file.name).read_bytes()


def test_pickled_weights_are_not_fetched(hub: Hub, published: Path) -> None:
    for file in (published / "unet").glob("*.safetensors"):
        file.unlink()
    hub.add(MODEL, published)
    with pytest.raises(BaseModelError, match="unet: only .bin weights are there"):
        resolve(BaseModelConfig(path=MODEL))
    assert hub.downloads() == set()


def test_scorers_are_pinned_and_cached(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.add(SCORER, write_tiny_clip(tmp_path / "clip"))
    scorer = scorer_ref(SCORER)
    assert scorer == ScorerRef(path=SCORER, digest=f"commit:{commit}")
    images = torch.rand(2, 3, 32, 32)
    expected = ClipScorer.load(tmp_path / "clip").image_features(images)
    hub.add(SCORER, write_tiny_clip(tmp_path / "other", size=24))
    hub.requests.clear()
    check_scorers(ScorersConfig(selector=f"{SCORER}@{commit}", judge=f"{SCORER}@{commit}"))
    assert torch.equal(ClipScorer.load(pinned(scorer)).image_features(images), expected)
    assert hub.requests == []
    go_offline(monkeypatch)
    assert torch.equal(ClipScorer.load(f"{SCORER}@{commit[:10]}").image_features(images), expected)
    with pytest.raises(
        BaseModelError, match=r"scorers.judge: some/one is no local folder, it is not in the hub's cache"
    ):
        check_scorers(ScorersConfig(selector=f"{SCORER}@{commit}", judge="some/one"))


def test_a_scorer_without_safetensors(hub: Hub, tmp_path: Path) -> None:
    """Some public CLIP models have only `pytorch_model.bin`: it is read as plain tensors."""
    folder = write_tiny_clip(tmp_path / "clip")
    expected = ClipScorer.load(folder).text_features(["a red dog"])
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    hub.add(SCORER, folder)
    torch.testing.assert_close(ClipScorer.load(SCORER).text_features(["a red dog"]), expected)


def test_local_scorers_have_no_revision(tmp_path: Path) -> None:
    folder = write_tiny_clip(tmp_path / "clip")
    assert pinned(scorer_ref(str(folder))) == str(folder)
    with pytest.raises(BaseModelError, match="Leave @main out"):
        ClipScorer.load(f"{folder}@main")
