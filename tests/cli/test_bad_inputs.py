"""Every bad input ends with exit code 1 and one sentence; no traceback, nothing written."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import Result

from dreambooth3d.cli.train import checked_parameters
from dreambooth3d.photos.subject import resolve_folder
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
    assert_one_sentence(invoke("train", CONFIG, "photos.class_noun=zyxw"), "zyxw", "It knows dog, ", "noun")
    assert_one_sentence(invoke("train", CONFIG, "photos.class_noun=alsatian puppy"), "alsatian", "Nearest to it: dog.")


def test_captions_are_read_before_a_run_starts(invoke: Invoke, tmp_path: Path) -> None:
    """They were read in a step, which ended in a traceback."""
    folder = photo_set(tmp_path / "set", 4)
    (folder / "2.txt").write_bytes("ein süßer Hund".encode("latin-1"))
    for command in (("train", CONFIG, f"photos.dir={folder}", "photos.class_noun=dog"), ("photos", "check", folder)):
        options = ("--class-noun", "dog") if command[0] == "photos" else ()
        assert_one_sentence(invoke(*map(str, command), *options), "2.txt", "no UTF-8 text", "Save it so")


@pytest.mark.parametrize(
    ("name", "mask", "part"),
    [
        ("2_mask.png", Image.new("L", (80, 80)), "80 x 80 pixels"),
        ("2_mask.png", Image.new("L", (96, 96)), "is empty"),
        ("2_mask.png", Image.new("L", (96, 96), 255), "is full"),
        ("2_mask.jpg", Image.new("L", (96, 96)), "masks are PNG files"),
    ],
)
def test_masks_that_cannot_be(invoke: Invoke, tmp_path: Path, name: str, mask: Image.Image, part: str) -> None:
    folder = photo_set(tmp_path / "set", 4)
    mask.save(folder / name)
    assert_one_sentence(invoke("photos", "check", str(folder), "--class-noun", "dog"), f"set/{name}", part)
    assert_one_sentence(invoke("train", CONFIG, f"photos.dir={folder}", "photos.class_noun=dog"), name, part)


def test_a_model_of_rembg_that_is_not_here(invoke: Invoke, tmp_path: Path) -> None:
    """Under `auto` a model that was named was left out without a word."""
    folder = photo_set(tmp_path / "set", 4)
    for options in (("--masks", "rembg"), ("--rembg-model", "u2net")):
        result = invoke("photos", "check", str(folder), "--class-noun", "dog", *options)
        assert_one_sentence(result, f"dreambooth3d models fetch {'u2net' if 'u2net' in options else 'isnet'}")


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
        ("init_nerf.guidance.guidance_scale=7.5, 3", "write a list, such as [1, 2]"),
        ("seed=12345678901234567890123", "seed: is too large a number"),
        ("seed=4294967296", "less than 4294967296"),
        ("init_nerf.steps=99999999999", "less than or equal to"),
        ("init_nerf.learning_rate=.inf", "finite number"),
        ("init_nerf.learning_rate=.nan", "finite number"),
        ("init_nerf.cameras.fov_y_deg=[50, 40]", "swap them"),
        ("init_nerf.guidance.max_timestep=[2, 1]", "less than or equal to 1"),
        ("select_checkpoints.full_step=-2", "greater than 0"),
        ("generate_pseudo_views.elevations_deg=[]", "at least 1 item"),
        ("photos.min_count=30", "no photo set could pass"),
        ("photos.subject=", "photos.subject: is empty"),
        ("photos.subject=null", "photos.subject: has no value"),
        ("photos.subject=a/b", "Use photos.dir"),
        ("photos.subject=${HOME}", "environment variable in place of ${HOME}"),
        ("photos.class_noun=", "photos.class_noun: is empty"),
        ("photos.identifier=a b", "is not one word"),
        ("scorers.judge=", "scorers.judge: is empty"),
        (os.fsdecode(b"base_model.path=caf\xe9"), "not UTF-8"),
        ("contexts=", "contexts: is empty. Write contexts=[] for none."),
        ("contexts=[a red sks dog, with a hat]", "For one write 'contexts=a red sks dog, with a hat', for several"),
        ('contexts="a red sks dog", "a sks dog"', "write a list"),
        ("contexts=[v] dog", "is no list of texts"),
        ("contexts=[&a dog]", "may be one text"),
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


def test_a_folder_whose_name_no_file_could_hold(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 cannot pass JSON, and ZenML would take `${HOME}` for a variable: a URI holds both."""
    for name, kept in ((os.fsdecode(b"caf\xe9"), "caf%E9"), ("${HOME}", "%24%7BHOME%7D")):
        photo_set(tmp_path / name, 3)
        photos = checked_parameters(DEMO, [f"photos.dir={tmp_path / name}", "photos.class_noun=dog"]).photos
        assert photos.dir == f"file://{tmp_path}/{kept}"
        assert resolve_folder(photos)[0] == tmp_path / name


def test_a_folder_with_a_name_that_is_too_long(invoke: Invoke) -> None:
    """It was an OSError with a traceback."""
    assert_one_sentence(invoke("train", CONFIG, f"photos.dir={'x' * 300}"), "there is no such folder")


def test_photos_check_of_no_folder(invoke: Invoke) -> None:
    assert_one_sentence(invoke("photos", "check", ""), "photos.dir: is empty")


def test_what_is_no_text_is_typed_by_the_schema() -> None:
    overrides = [
        "finetune_dreambooth.mixed_precision=no", "seed=7", "init_nerf.guidance.guidance_scale=[7.5, 3.0]",
        "photos.description=null", "recipe.pseudo_views=true",
    ]  # fmt: skip
    chosen = checked_parameters(DEMO, overrides)
    assert chosen.finetune_dreambooth.mixed_precision == "no"
    assert (chosen.seed, chosen.init_nerf.guidance.guidance_scale) == (7, (7.5, 3.0))
    assert chosen.photos.description is None and chosen.recipe.pseudo_views is True


@pytest.mark.parametrize(
    ("text", "contexts"),
    [
        ("a red sks dog, with a hat", ["a red sks dog, with a hat"]),
        ("[a red sks dog]", ["a red sks dog"]),
        ('["a red sks dog, with a hat", "2024"]', ["a red sks dog, with a hat", "2024"]),
        ("['a: b', \"it's\"]", ["a: b", "it's"]),
        ("no", ["no"]),
        ("[]", []),
    ],
)
def test_an_item_of_text_may_hold_a_comma(text: str, contexts: list[str]) -> None:
    """Brackets were YAML's, in which the comma parts one prompt into two; without them nothing was a list."""
    assert list(checked_parameters(DEMO, [f"contexts={text}"]).contexts) == contexts


@pytest.mark.parametrize("name", ["dir", "subject", "class_noun"])
def test_a_key_without_a_value_in_a_file(name: str) -> None:
    """The preset's subject would be trained in place of the one that was to be written there."""
    problem = f"photos.{name}: has no value. Give it one, or remove the key."
    for empty in ("", "~", "null"):
        photos = {"photos": {"subject": "corgi", name: yaml.safe_load(empty)}}
        assert f"parameters.{problem}" in list_problems({"parameters": photos})
        assert f"parameters.training.{problem}" in list_problems({"parameters": {"training": photos, "gates": {}}})
    assert not list_problems({"parameters": {"photos": {"subject": "corgi", "description": None}}})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("parameters: {photos: {dir: 2024-05-01}}", "photos.dir: 2024-05-01 is a date in YAML. Put it into quotes."),
        ("parameters: {photos: {subject: 2024}}", "photos.subject: input should be a valid string, not 2024 (put it"),
        ("parameters: {seed: 12345678901234567890123}", "seed: is too large a number"),
        ("parameters: {init_nerf: {learning_rate: .inf}}", "input should be a finite number, not inf"),
        ("parameters: {seed: }", "parameters.seed: has no value"),
        ("parameters: {photos: }", "parameters.photos: has no value"),
        ("parameters: false", "parameters: must be keys and values"),
        ("parameters: {2024-05-01: 1}", "the key 2024-05-01 is no text"),
        ("parameters: &all {photos: *all}", "photos: contains itself"),
        ("parameters: {seed: !!set {1}}", "seed: is a set in YAML"),
        ("parameters: {contexts: ['${HOME} sks dog']}", "environment variable in place of ${HOME}"),
        ('parameters: {photos: {dir: "\\udce9"}}', "not UTF-8"),
        ("tags: [2024-05-01]", "tags.0: 2024-05-01 is a date in YAML"),
        ("extra: {a: .inf}", "extra.a: input should be a finite number"),
        ("extra: {a: 99999999999999999999999}", "extra.a: is too large a number"),
    ],
)
def test_what_passes_the_check_can_be_kept(tmp_path: Path, text: str, problem: str) -> None:
    """YAML knows more than JSON does, in which ZenML keeps a run's configuration."""
    found = list_problems(yaml.safe_load(text))
    assert any(problem in one for one in found), found


def test_a_schedule_begins_at_a_date() -> None:
    weekly = "schedule: {cron_expression: '0 3 * * *', start_time: 2024-05-01 12:00:00}"
    assert not list_problems(yaml.safe_load(weekly))


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
