"""`--live` in a browser: the asset that grows, and nothing for other sites' pages."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from dreambooth3d.cli.server import beside, free_port
from dreambooth3d.live import LiveFolder
from tests.browser import needs_browser, wait_for_server
from tests.cli.test_live import growth
from website.browser import PATIENCE_S, Page, browser

viser = pytest.importorskip("viser", reason="viser is not installed: make test-extras")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the view of `port` shows."""
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    """Where a view listens."""
    free = free_port("127.0.0.1", 47410)
    with beside([sys.executable, "-m", "dreambooth3d.cli.live.view", str(folder), "127.0.0.1", str(free)]):
        wait_for_server(free)
        yield free


@needs_browser
def test_a_browser_shows_the_asset_that_grows(folder: Path, port: int) -> None:
    before = LiveFolder(folder, "finetune_dreambooth")
    before.scalars(3, {"loss": 0.5})
    before.image("samples/000003", np.zeros((8, 8, 3), np.uint8))
    with browser(1300, 900) as page:
        page.open(f"http://127.0.0.1:{port}")
        page.wait_for("finetune_dreambooth, step 3")
        page.wait_for("samples/000003")
        live = LiveFolder(folder, "init_nerf")
        live.scalars(25, {"loss": 0.25, "opacity": 0.4})
        live.growth(growth)
        page.wait_for("init_nerf, step 25")
        page.wait_for("front, left, back, right (init_nerf, step 25)")
        end = time.monotonic() + PATIENCE_S
        while share_of_green(page) < 0.02:
            assert time.monotonic() < end
            time.sleep(0.5)
        assert "Share" not in page.text()
        own = (f"http://127.0.0.1:{port}", "data:", "blob:", "about:")
        assert [url for url in page.asked if not url.startswith(own)] == []


def share_of_green(page: Page) -> float:
    """Of the left half of the window, where the scene is."""
    pixels = np.asarray(page.picture()).astype(int)[:, :800]
    return float(((pixels[..., 1] > 1.15 * pixels[..., 0]) & (pixels[..., 1] > 1.15 * pixels[..., 2])).mean())


def test_other_sites_see_nothing_of_a_run(port: int) -> None:
    """Neither their pages, nor a name of theirs that leads here; no path leads out of the page's own files."""
    address, spoken = f"ws://127.0.0.1:{port}", [Subprotocol(f"viser-v{viser.__version__}")]
    with connect(address, origin=f"http://127.0.0.1:{port}", subprotocols=spoken) as own:
        assert own.recv(PATIENCE_S)
    with pytest.raises(InvalidStatus, match="403"):
        connect(address, origin="http://elsewhere.example", subprotocols=spoken)
    page = f"http://127.0.0.1:{port}"
    assert b"<html" in urlopen(page, timeout=10).read()
    with pytest.raises(HTTPError, match="403"):
        urlopen(Request(page, headers={"Host": "elsewhere.example"}), timeout=10)
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"{page}/%2e%2e/__init__.py", timeout=10)
