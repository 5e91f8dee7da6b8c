"""A browser without a window that is told what to show: pages that load what they show from a server afterwards.

Chromium's own `--screenshot` takes its picture before that, and its virtual time stands still while a page still asks.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from websockets.sync.client import ClientConnection, connect

from dreambooth3d.errors import ConfigError

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--lang=en", "--no-first-run",
    "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
)  # fmt: skip
STARTS_WITHIN_S, ANSWERS_WITHIN_S, LOOK_S = 60.0, 120.0, 0.5


class Page:
    """The one page of a browser, by Chromium's DevTools protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._numbers = connection, itertools.count(1)

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """The answer to one command."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(ANSWERS_WITHIN_S))
            if answer.get("id") == number:
                return answer.get("result", {})

    def open(self, address: str, shows: str, within_s: float = 90.0) -> None:
        """Go to an address, and wait until it shows a text and then no longer changes.

        Raises:
            ConfigError: it does not show it in time.
        """
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=address)
        deadline, before = time.monotonic() + within_s, ""
        while time.monotonic() < deadline:
            time.sleep(LOOK_S)
            html = self.evaluate("document.body ? document.body.innerText + document.body.innerHTML.length : ''")
            if shows in html and html == before:
                time.sleep(2 * LOOK_S)  # what is drawn on a canvas, and pictures
                return
            before = html
        raise ConfigError(f"{address}: the page does not show {shows!r} within {within_s:.0f} s.")

    def evaluate(self, script: str) -> str:
        """The value of JavaScript as text."""
        return str(self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value", ""))

    def picture(self) -> Image.Image:
        """The page as it is seen."""
        data = self.ask("Page.captureScreenshot", format="png")["data"]
        return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


@contextmanager
def browser(width: int, height: int) -> Iterator[Page]:
    """A page of this size in pixels.

    Raises:
        ConfigError: there is no browser, or it does not start.
    """
    if BROWSER is None:
        raise ConfigError("No Chromium is installed: apt-get install chromium.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [BROWSER, *FLAGS, f"--window-size={width},{height}", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_address(Path(profile), process), max_size=None) as connection:
                yield Page(connection)
        finally:
            process.terminate()
            process.wait(30)


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the page is talked to."""
    note, deadline = profile / "DevToolsActivePort", time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        if note.is_file() and (lines := note.read_text().split()):
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=10) as answer:
                pages = [entry for entry in json.load(answer) if entry["type"] == "page"]
            if pages:
                return pages[0]["webSocketDebuggerUrl"]
        time.sleep(0.1)
    raise ConfigError("Chromium did not start.")
