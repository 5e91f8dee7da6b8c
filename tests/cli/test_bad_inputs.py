"""Every bad input ends with exit code 1 and one sentence; no traceback, nothing written."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import Result

from dreambooth3d.cli.train import checked_parameters
from operations.launch.checking import list_problems
from tests.product import ROOT, TINY, Product

Invoke = Callable[..., Result]
CONFIG = "configs/tiny.yaml"
DEMO = str(ROOT / "configs" / "demo.yaml")


def assert_one_sentence(result: Result, *parts: str) -> None:
    """Exit code 1, and a single line on stderr that names these parts."""
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    for part in parts:
        assert part in lines[0]


def photo_set(folder: Path, count: int) -> Path:
    """Plain noise photos that the check accepts."""
    folder.mkdir()
    for index in range(count):
        Image.effect_noise((96, 96), 60 + 10 * index).convert("RGB").save(folder / f"{index}.png")
    return folder


def test_missing_subject(invoke: Invoke) -> None:
    assert_one_sentence(invoke("train", CONFIG, "photos.subject=unicorn"), "unicorn", "corgi")


def test_missing_folder(invoke: Invoke) -> None:
    assert_one_sentence(invoke("train", CONFIG, "photos.dir=nowhere", "photos.class_noun=dog"), "nowhere")


def test_empty_photo(invoke: Invoke, tmp_path: Path) -> None:
    (photo_set(tmp_path / "set", 4) / "2.png").write_bytes(b"")
    result = invoke("train", CONFIG, f"photos.dir={tmp_path / 'set'}", "photos.class_noun=dog")
    assert_one_sentence(result, "2.png")


def test_unreadable_photo(invoke: Invoke, tmp_path: Path) -> None:
    (photo_set(tmp_path / "set", 4) / "2.png").write_bytes(b"no picture at all")
    result = invoke("train", CONFIG, f"photos.dir={tmp_path / 'set'}", "photos.class_noun=dog")
    assert_one_sentence(result, "2.png")


def test_two_photos(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("train", CONFIG, f"photos.dir={photo_set(tmp_path / 'set', 2)}", "photos.class_noun=dog")
    assert_one_sentence(result, "2 photos", "3")


def test_unknown_noun(invoke: Invoke) -> None:
    assert_one_sentence(invoke("train", CONFIG, "photos.class_noun=zyxw"), "zyxw", "noun")


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("init_nerf.stepz=3", "did you mean steps?"),
        ("inti_nerf.steps=3", "did you mean init_nerf?"),
        ("init_nerf.steps=many", "integer"),
        ("init_nerf.steps=true", "integer"),
        ("init_nerf.steps=0", "greater than 0"),
        ("generate_pseudo_views.strength=1.5", "less than or equal to 1"),
        ("device=tpu", "'cpu'"),
        ("recipe.pseudo_views=false", "multiview needs pseudo_views"),
        ("select_checkpoints.full_step=3", "checkpoint_every"),
        ("finetune_dreambooth.pretrained=nowhere", "finetune_dreambooth.pretrained: nowhere is not a folder"),
        ("finetune_dreambooth.lora_rank=-1", "greater than or equal to 0"),
        ("finetune_dreambooth.ema_decay=1.0", "less than 1"),
        ("photos", "key.sub=value"),
        (".dir=x", "key.sub=value"),
        ("photos.dir=", "photos.dir: is empty"),
        ("photos.dir=null", "photos.dir: has no value"),
        ("photos.dir.x=1", "photos.dir"),
        ("init_nerf.guidance.guidance_scale=[1", "no value in YAML"),
    ],
)
def test_bad_override(invoke: Invoke, override: str, part: str) -> None:
    assert_one_sentence(invoke("train", CONFIG, override), part)


@pytest.mark.parametrize("name", ["My Dog #1", "Rex: the dog", "2024", "no", "1e3", "[a]", "it's"])
def test_text_is_taken_as_it_stands(tmp_path: Path, name: str) -> None:
    """It was read as YAML: `My Dog #1` became `My Dog`, whose photos were trained instead."""
    chosen = checked_parameters(DEMO, [f"photos.dir={tmp_path / name}", f"photos.class_noun={name}"])
    assert (chosen.photos.dir, chosen.photos.class_noun) == (str(tmp_path / name), name)
    assert checked_parameters(DEMO, [f"photos.dir={name}"]).photos.dir == name


def test_what_is_no_text_is_typed_by_the_schema() -> None:
    overrides = [
        "finetune_dreambooth.mixed_precision=no", "seed=7", "init_nerf.guidance.guidance_scale=[7.5, 3.0]",
        "photos.description=null", "recipe.pseudo_views=true",
    ]  # fmt: skip
    chosen = checked_parameters(DEMO, overrides)
    assert chosen.finetune_dreambooth.mixed_precision == "no"
    assert (chosen.seed, chosen.init_nerf.guidance.guidance_scale) == (7, (7.5, 3.0))
    assert chosen.photos.description is None and chosen.recipe.pseudo_views is True


def test_a_key_without_a_folder_in_a_file() -> None:
    problem = "parameters.photos.dir: has no value. Name the folder with your photos, or remove the key."
    for empty in ("", "~", "null"):
        assert problem in list_problems({"parameters": {"photos": {"subject": "corgi", "dir": yaml.safe_load(empty)}}})
    assert not list_problems({"parameters": {"photos": {"subject": "corgi"}}})


def test_a_forced_checkpoint_that_will_be_deleted(invoke: Invoke) -> None:
    overrides = ("select_checkpoints.partial_step=2", "finetune_dreambooth.checkpoints_kept=1")
    assert_one_sentence(invoke("train", CONFIG, *overrides), "no checkpoint is kept at step 2", "checkpoints_kept")


def test_optimizer_without_its_package(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    for section in ("finetune_dreambooth", "finetune_multiview"):
        result = invoke("train", CONFIG, f"{section}.optimizer=adamw_8bit")
        assert_one_sentence(result, f"{section}.optimizer", "pip install bitsandbytes")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--step", "2", "--which", "full"), "exclude each other"),
        (("--which", "best"), "partial, full, multiview"),
    ],
)
def test_bad_checkpoint_export(invoke: Invoke, tmp_path: Path, options: tuple[str, ...], part: str) -> None:
    assert_one_sentence(invoke("checkpoint", "export", "nobody", str(tmp_path / "new"), *options), part)
    assert not (tmp_path / "new").exists()


def test_checkpoint_export_overwrites_nothing(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert_one_sentence(invoke("checkpoint", "export", "latest", str(tmp_path)), str(tmp_path), "not an empty folder")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("parametres: {}", "did you mean parameters?"),
        ("parameters: {seed: 1}\nsteps: {init_nrf: {}}", "did you mean init_nerf?"),
        ("parameters: {seed: 1}\nsteps: {init_nerf: {setings: {}}}", "did you mean settings?"),
        ("parameters: {seed: 1}\nsettings: {experiment_tracker: {nestd: true}}", "did you mean nested?"),
        ("parameters: {seed: 1}\nsettings: {dokcer: {}}", "did you mean docker?"),
        ("parameters: {seed: 1, seed: 2}", "given twice"),
        ("parameters: {seed: [}", "not valid YAML"),
        ("- a list", "holds no keys"),
        ("parameters: {seed: 1}\nenable_cache: true", "enable_cache"),
        ("parameters: {seed: 1}\nsteps: {publish: {enable_cache: true}}", "publish must always run"),
        ("parameters: {seed: 1}\nenable_step_logs: perhaps", "enable_step_logs"),
        ("parameters: {init_nerf: {learning_rate: 1e-3}}", "1.0e-3"),
    ],
)
def test_bad_file(invoke: Invoke, tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    assert_one_sentence(invoke("train", str(tmp_path / "bad.yaml")), "bad.yaml", part)
    assert_one_sentence(invoke("config", "check", str(tmp_path / "bad.yaml")), "bad.yaml", part)


def test_missing_file(invoke: Invoke) -> None:
    assert_one_sentence(invoke("train", "configs/none.yaml"), "configs/none.yaml", "no such file")


def test_missing_base_model(invoke: Invoke) -> None:
    assert_one_sentence(invoke("train", CONFIG, "base_model.path=models/none"), "models/none")


@pytest.mark.parametrize("file", ["unet/diffusion_pytorch_model.safetensors", "vae/config.json"])
def test_damaged_base_model(invoke: Invoke, product: Product, tmp_path: Path, file: str) -> None:
    broken = Path(shutil.copytree(product.root / "models" / "tiny", tmp_path / "broken"))
    (broken / file).write_bytes((broken / file).read_bytes()[:-40])
    assert_one_sentence(invoke("train", CONFIG, f"base_model.path={broken}"), Path(file).name, "damaged")


def test_missing_scorer(invoke: Invoke) -> None:
    assert_one_sentence(invoke("train", CONFIG, "scorers.judge=./models/none"), "scorers.judge", "models/none")


def test_data_that_differ_from_their_hash(invoke: Invoke, product: Product) -> None:
    photo = product.root / "data" / "corgi" / "00.jpg"
    original = photo.read_bytes()
    Image.open(photo).rotate(3).save(photo)
    try:
        assert_one_sentence(invoke("train", CONFIG), "data/corgi/00.jpg", "dvc pull --force")
    finally:
        photo.write_bytes(original)


@pytest.mark.parametrize(
    ("parameters", "part"),
    [({"photos": {"subject": "unicorn"}}, "unicorn"), ({"sed": 1}, "did you mean seed?")],
)
def test_documented_front_door(product: Product, tmp_path: Path, parameters: dict[str, object], part: str) -> None:
    """`zenml pipeline run` itself answers in the same way."""
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"parameters": TINY | parameters}))
    before = product.files()
    result = product.train(str(tmp_path / "bad.yaml"))
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert part in result.stderr.strip().splitlines()[-1]
    assert product.files() == before
