"""Folders and photos of any name, from the check to the end of a run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from dreambooth3d.naming import model_name, parameter_name, printable, subject_named, subject_of
from tests.pipelines.test_end_to_end import tracker
from tests.product import SHORTEST, Product, make_product

BYTES = os.fsdecode(b"caf\xe9 {date}\n")
NAMES = [
    "Rex: the dog", "a", "2024", "no", " rex ", ".rex", "..rex", "it's \"Rex\"", "[red]", "{date}", "${HOME}", "%41",
    "A", "rex\n", "rex\t", "a\\nb", "a\nb", "Zoë", "犬", "犬" * 85, "\U0001f436", "\U0001f469\u200d\U0001f33e",
    "\U0001f436" * 63, "\U0001f436" * 62 + "abc", "x" * 255, "x" * 254 + "y", os.fsdecode(b"\xe9"), "\xe9", "\\xe9",
    "\x85", os.fsdecode(b"\x85"), "a*b?", "-rf", "~", "\u202egod", "a\u00a0b", "a b",
]  # fmt: skip


def test_no_two_folders_share_a_name_or_a_model() -> None:
    for named in (subject_named, lambda name: model_name(subject_named(name)), printable):
        assert len({named(name) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_can_be_kept(name: str) -> None:
    """By what MLflow, ZenML and JSON themselves say."""
    from mlflow.utils.validation import _validate_model_name, _validate_param_name
    from zenml.models import ModelRequest
    from zenml.utils.string_utils import format_name_template, validate_name

    subject = subject_named(name)
    model = model_name(subject)
    _validate_model_name(model)
    _validate_param_name(f"{parameter_name(subject)}.action")
    for kept in (model, f"lock.{model}"):
        validate_name(ModelRequest(name=kept, project="00000000-0000-0000-0000-000000000000"))
        assert format_name_template(kept) == kept
    assert len(f"lock.{model}") <= 255 and len(f"{parameter_name(subject)}.action") <= 250
    assert "'" not in model
    assert subject_of(model) == subject
    assert (json.loads(json.dumps(subject).encode()) == subject and subject.isprintable()) or "\u200d" in subject


def test_usual_names_stay_as_they_are() -> None:
    for name in ("corgi", "My dog-2_b.c", "Zoë", "2024"):
        assert (subject_named(name), model_name(name)) == (name, f"dreambooth3d-{name}")
    assert model_name("Rex: the dog") == "dreambooth3d-Rex%3A the dog"
    assert subject_named(BYTES) == r"caf\xe9 {date}\n"


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """A product of its own."""
    made = make_product(tmp_path_factory.mktemp("names"))
    assert made.dreambooth3d("setup").returncode == 0
    return made


def photo_folder(product: Product, name: str) -> Path:
    """Photos in a folder of this name, one of which has a name that is not UTF-8."""
    folder = product.root / name
    shutil.copytree(product.root / "data" / "mallard", folder)
    (folder / "ground_truth.yaml").unlink()
    first = sorted(folder.glob("*.jpg"))[0]
    first.rename(folder / os.fsdecode(b"\xff: 'first'.jpg"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Rex: the [red] dog's", BYTES], ids=ascii)
def test_a_run_to_its_end(product: Product, name: str) -> None:
    photo_folder(product, name)
    config = product.write_config("shortest", **SHORTEST)
    checked = product.dreambooth3d("photos", "check", name)
    assert checked.returncode == 0 and r"\xff: 'first'.jpg" in checked.stdout, checked.stderr
    result = product.dreambooth3d("train", config, f"photos.dir={name}")
    assert result.returncode == 0, result.stderr[-3000:]
    subject = subject_named(name)
    values = json.loads(product.dreambooth3d("runs", "show", "latest", "--json").stdout)
    assert values["status"] == "completed" and values["tags"]["subject"] == subject
    assert subject in product.dreambooth3d("runs", "show").stdout
    (version,) = tracker(product).search_model_versions(f"name='{model_name(subject)}'")
    assert version.tags["subject"] == subject
    assert (product.root / "outputs" / values["run"] / "asset.glb").is_file()
    promoted = product.dreambooth3d("production", "promote", "latest")
    assert promoted.returncode == 0 and subject in promoted.stdout, promoted.stderr
    (shown,) = [
        one
        for one in json.loads(product.dreambooth3d("production", "show", "--json").stdout)
        if one["run"] == values["run"]
    ]
    assert shown["subject"] == subject
    assert product.dreambooth3d("production", "show", subject).stdout.startswith(subject)
