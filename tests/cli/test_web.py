"""`dreambooth3d web`: what it makes of what is filled in, and the page in a browser."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from dreambooth3d import places
from dreambooth3d.cli.server import free_port
from dreambooth3d.cli.train import checked_parameters
from dreambooth3d.cli.web import desk as desks
from dreambooth3d.cli.web import order as orders
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.errors import ConfigError
from tests.browser import EXECUTABLE, opened, wait_for_server
from tests.photos.photo_sets import photo

GRADIO = importlib.util.find_spec("gradio") is not None
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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where orders are kept."""
    monkeypatch.setenv(places.HOME, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return (tmp_path / "home").resolve()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Five photos, as they are uploaded."""
    paths = [tmp_path / f"IMG {number}.PNG" for number in range(5)]
    for number, path in enumerate(paths):
        photo(number).save(path)
    return [str(path) for path in paths]


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


@pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium is installed: apt-get install chromium")
@pytest.mark.skipif(not GRADIO, reason="gradio is not installed: pip install 'dreambooth3d[web]'")
def test_a_run_from_photos_to_download_in_a_browser(home: Path, files: list[str], tmp_path: Path, monkeypatch) -> None:
    """With commands that answer at once in place of the check and the training."""
    import uvicorn

    from dreambooth3d.cli.web.page import make_app

    stand_in(monkeypatch)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    desk, port = desks.Desk(), free_port("127.0.0.1", 47510)
    address = f"http://127.0.0.1:{port}"
    server = uvicorn.Server(uvicorn.Config(make_app(desk, "127.0.0.1", port), port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    with ExitStack() as stack:
        thread.start()
        stack.callback(thread.join, 20)
        stack.callback(setattr, server, "force_exit", True)
        stack.callback(setattr, server, "should_exit", True)
        wait_for_server(port)
        page = stack.enter_context(opened(address, tmp_path / "profile"))
        page.wait("document.querySelector('input[type=file]') !== null")
        page.click("Check the photos")
        page.wait_for("There are no photos yet: drop 4 to 6 of them")
        page.give_files("input[type=file]", [Path(file) for file in files])
        page.wait_for(".PNG")
        page.write("dog", "duck")
        page.click("Check the photos")
        page.wait("document.querySelector('iframe')?.contentDocument?.body?.innerText.includes('4 of 5')")
        page.click("Start the run")
        page.wait_for("init_nerf, step 25")
        page.wait("[...document.images].some(image => image.naturalWidth === 384)")
        page.wait("document.querySelector('.log textarea').value.includes('True')")
        page.click("Start the run")
        page.wait_for("A run of this page is under way")
        (home / "go").touch()
        page.wait_for("Download the GLB")
        link = page.ask("[...document.links].find(a => a.innerText === 'Download the GLB').href")
        assert urlopen(link, timeout=10).read() == b"glTF"
        page.wait("[...document.querySelectorAll('iframe')].at(-1).contentDocument?.title === 'asset'")
        assert "Share" not in page.text() and "gradio" not in page.text().lower()
        assert [url for url in page.asked if not url.startswith((address, "data:", "blob:"))] == []
        # Other sites, and other names for this machine, get nothing.
        for headers in ({"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}):
            with pytest.raises(HTTPError, match="403"):
                urlopen(Request(f"{address}/config", headers=headers), timeout=10)
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{address}/orders/..%2F..%2Fetc/photos", timeout=10)
