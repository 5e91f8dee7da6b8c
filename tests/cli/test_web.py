"""`dreambooth3d web`: what it makes of what is filled in; the page in a browser is in tests/extras."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dreambooth3d import places
from dreambooth3d.cli.train import checked_parameters
from dreambooth3d.cli.web import desk as desks
from dreambooth3d.cli.web import order as orders
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.errors import ConfigError
from tests.photos.photo_sets import photo

CHECK = """
import sys
open(sys.argv[-1], 'w').write('<title>checked</title><body>4 of 5 can be targets')
"""
TRAIN = """
import os, pathlib, sys, time
import numpy as np
from dreambooth3d.live import Growth, LiveFolder
config = pathlib.Path(sys.argv[-1]).read_text()
live = LiveFolder(pathlib.Path(os.environ['DREAMBOOTH3D_LIVE']), 'init_nerf')
live.scalars(25, {'loss': 0.25})
views, none = np.zeros((8, 16, 16, 3), np.uint8), np.zeros((0, 3), np.uint8)
live.growth(lambda: Growth(views, np.arange(8) * 45.0, none.astype(float), none))
print('class_noun: duck' in config, flush=True)
while not pathlib.Path('go').exists():
    time.sleep(0.1)
folder = pathlib.Path('outputs/run-1')
folder.mkdir(parents=True)
(folder / 'asset.glb').write_bytes(b'glTF')
(folder / 'asset.html').write_text('<title>asset</title><body>the asset')
print('Asset       outputs/run-1/asset.glb')
"""


def make_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for this process."""
    monkeypatch.setenv(places.HOME, str(folder / "home"))
    (folder / "home").mkdir()
    return (folder / "home").resolve()


def write_photos(folder: Path) -> list[Path]:
    """Five photos with names as cameras give them."""
    paths = [folder / f"IMG {number}.PNG" for number in range(5)]
    for number, path in enumerate(paths):
        photo(number).save(path)
    return paths


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where orders are kept."""
    return make_home(tmp_path, monkeypatch)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Five photos, as they are uploaded."""
    return [str(path) for path in write_photos(tmp_path)]


@pytest.mark.parametrize("preset", orders.PRESETS.values())
def test_the_file_of_a_run_passes_the_strict_check(preset: str, home: Path, files: list[str]) -> None:
    order = orders.take_order(files, " duck ", "", "")
    orders.write_config(order, preset)
    parameters, plain = checked_parameters(str(order.config)), checked_parameters(f"configs/{preset}")
    assert isinstance(parameters, TrainingConfig) and isinstance(plain, TrainingConfig)
    photos = parameters.photos
    assert (photos.dir, photos.class_noun, photos.identifier) == (str(order.photos), "duck", "sks")
    assert parameters.model_copy(update={"photos": plain.photos}) == plain
    assert order.photos.name == "duck" and order.folder.is_relative_to(home)
    assert [path.name for path in sorted(order.photos.iterdir())] == [f"{number:02d}.png" for number in range(5)]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"files": []}, "There are no photos yet"),
        ({"noun": " "}, "Say what it is"),
        ({"name": "../etc"}, "photos.subject: is not the name of a folder"),
        ({"identifier": "two words"}, "photos.identifier: is not one word"),
        ({"noun": "a\nduck"}, "photos.(subject|class_noun): "),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_nothing(given: dict, sentence: str, home: Path, files: list[str]) -> None:
    filled_in = {"files": files, "noun": "duck", "name": "mine", "identifier": "sks"} | given
    with pytest.raises(ConfigError, match=sentence):
        orders.take_order(**filled_in)
    assert list(home.iterdir()) == []


def test_too_many_photos_and_strange_presets_are_sentences(home: Path, files: list[str]) -> None:
    with pytest.raises(ConfigError, match="25 photos are too many"):
        orders.take_order(files * 5, "duck", "", "")
    order = orders.take_order(files, "duck", "", "")
    with pytest.raises(ConfigError, match="is none of this page's presets"):
        orders.write_config(order, "../secrets.yaml")
    assert not order.config.exists()


def test_a_failing_command_is_told_by_its_sentence(home: Path, files: list[str], monkeypatch) -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('a warning\\nError: data/dog: 2 photos are too few.')"]
    monkeypatch.setattr(desks, "check_command", lambda order: failing)
    desk = desks.Desk()
    with pytest.raises(ConfigError, match=r"^data/dog: 2 photos are too few\.$"):
        desk.check(files, "duck", "", "")
    assert desk.orders == {}


def test_a_log_reads_as_on_a_terminal(home: Path, files: list[str]) -> None:
    order = orders.take_order(files, "duck", "", "")
    assert orders.tail(order) == "" and orders.finished_asset(order) is None
    order.log.write_text("\x1b[1mbold\x1b[0m\r\n10 %\r20 %\nAsset       outputs/run-1/asset.glb\n")
    assert orders.tail(order) == "bold\n20 %\nAsset       outputs/run-1/asset.glb"
    assert orders.finished_asset(order) is None
    (home / "outputs" / "run-1").mkdir(parents=True)
    (home / "outputs" / "run-1" / "asset.glb").write_bytes(b"glTF")
    assert orders.finished_asset(order) == home / "outputs" / "run-1" / "asset.glb"


def test_one_run_at_a_time_and_how_it_stands(home: Path, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With commands that answer at once in place of the check and the training; the page without a browser."""
    stand_in(monkeypatch)
    desk = desks.Desk()
    order = desk.check(files, "duck", "", "")
    assert order.page.read_text().startswith("<title>checked") and not desk.standing(order).under_way
    desk.start(order, "demo.yaml")
    with pytest.raises(ConfigError, match="A run of this page is under way"):
        desk.start(order, "demo.yaml")
    wait_until(lambda: desk.standing(order).views is not None and desk.standing(order).log == "True")
    now = desk.standing(order)
    assert now.under_way and now.glb is None and "**init_nerf**, step 25" in now.text and desk.under_way() == [order]
    (home / "go").touch()
    wait_until(lambda: not desk.standing(order).under_way)
    assert desk.standing(order).glb == home / "outputs" / "run-1" / "asset.glb" and desk.under_way() == []

    failing = [sys.executable, "-c", "raise SystemExit('Error: no network')"]
    monkeypatch.setattr(desks, "train_command", lambda order: failing)
    desk.start(order, "demo.yaml")
    wait_until(lambda: not desk.standing(order).under_way)
    assert desk.standing(order).text == "**The run has ended without an asset.** no network"


def wait_until(true: Callable[[], bool]) -> None:
    """Wait, for at most half a minute."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put small scripts in place of the check and the training."""

    def run(code: str, path: Path) -> list[str]:
        return [sys.executable, "-c", code, str(path)]

    monkeypatch.setenv("PYTHONPATH", str(places.repository()))
    monkeypatch.setattr(desks, "check_command", lambda order: run(CHECK, order.page))
    monkeypatch.setattr(desks, "train_command", lambda order: run(TRAIN, order.config))
