"""`dreambooth3d web` in a browser, from photos to the download."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import uvicorn

from dreambooth3d.cli.server import free_port
from dreambooth3d.cli.web import desk as desks
from tests.browser import needs_browser, wait_for_server
from tests.cli.test_web import make_home, stand_in, write_photos
from website.browser import browser

pytest.importorskip("gradio", reason="gradio is not installed: make test-extras")
from dreambooth3d.cli.web.page import make_app


@needs_browser
def test_a_run_from_photos_to_download_in_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With commands that answer at once in place of the check and the training."""
    home, files = make_home(tmp_path, monkeypatch), write_photos(tmp_path)
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
        page = stack.enter_context(browser(1300, 900))
        page.open(address)
        page.wait("document.querySelector('input[type=file]') !== null")
        page.click("Check the photos")
        page.wait_for("There are no photos yet: drop 4 to 6 of them")
        page.give_files("input[type=file]", files)
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
        assert [url for url in page.asked if not url.startswith((address, "data:", "blob:", "about:"))] == []
        # Other sites, and other names for this machine, get nothing.
        for headers in ({"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}):
            with pytest.raises(HTTPError, match="403"):
                urlopen(Request(f"{address}/config", headers=headers), timeout=10)
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{address}/orders/..%2F..%2Fetc/photos", timeout=10)
