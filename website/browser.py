"""A browser without a window: pages are opened, asked, filled in and photographed by Chromium's DevTools protocol.

It serves the documentation's screenshots and all tests of pages. Chromium's own `--screenshot` takes its picture before
a page has loaded what it shows from a server, and its virtual time stands still while a page still asks.
"""

from __future__ import annotations

import base64
import io
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
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--lang=en", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-port=0",
    # WebGL is drawn by the CPU.
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip
"""Nothing is fetched from elsewhere, and no graphics card is looked for."""
PATIENCE_S, LOOK_S, SETTLES_S = 90.0, 0.2, 0.5


class Page:
    """The one page of a browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._number = connection, 0
        self.asked: list[str] = []
        """Addresses of everything that was fetched."""
        self.call("Network.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """The answer to one command of the protocol.

        Raises:
            ConfigError: the browser refuses it.
        """
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(PATIENCE_S))
            if answer.get("method") == "Network.requestWillBeSent":
                self.asked.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise ConfigError(f"Chromium, {method}: {answer['error']['message']}")
                return answer["result"]

    def open(self, address: str, shows: str = "", within_s: float = PATIENCE_S) -> None:
        """Go to an address and wait until it is loaded; with `shows`, until it shows this text and no longer changes.

        Raises:
            ConfigError: it does not in time.
        """
        self.call("Page.navigate", url="about:blank")  # of one that differs behind `#` only nothing would be loaded
        self.call("Page.navigate", url=address)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'", within_s)
        if not shows:
            return
        deadline, before = time.monotonic() + within_s, ""
        while time.monotonic() < deadline:
            time.sleep(SETTLES_S)
            now = self.text() + str(self.ask("document.body.innerHTML.length"))
            if shows in now and now == before:
                time.sleep(2 * SETTLES_S)  # what is drawn on a canvas, and pictures
                return
            before = now
        raise ConfigError(f"{address}: the page does not show {shows!r} within {within_s:.0f} s.")

    def ask(self, script: str) -> Any:
        """The value of an expression in JavaScript, of a promise what it promises.

        Raises:
            ConfigError: the script fails.
        """
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise ConfigError(f"The page's script {script!r} fails: {answer['result'].get('description')}")
        return answer["result"].get("value")

    def wait(self, script: str, within_s: float = PATIENCE_S) -> Any:
        """The value of an expression as soon as it is true.

        Raises:
            ConfigError: it is not in time.
        """
        deadline = time.monotonic() + within_s
        while not (value := self.ask(script)):
            if time.monotonic() > deadline:
                raise ConfigError(f"The page never has {script}; it says: {self.text()}")
            time.sleep(LOOK_S)
        return value

    def wait_for(self, words: str, within_s: float = PATIENCE_S) -> None:
        """Wait until the page says something.

        Raises:
            ConfigError: it does not in time.
        """
        self.wait(f"!!document.body && document.body.innerText.includes({json.dumps(words)})", within_s)

    def text(self) -> str:
        """What the page says."""
        return str(self.ask("document.body ? document.body.innerText : ''"))

    def write(self, placeholder: str, words: str) -> None:
        """Fill in the text field with this placeholder, as frameworks notice it."""
        self.ask(f"""(() => {{
            const field = document.querySelector('[placeholder={json.dumps(placeholder)}]');
            Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), 'value').set.call(field, {json.dumps(words)});
            field.dispatchEvent(new Event('input', {{bubbles: true}}));
        }})()""")

    def click(self, words: str) -> None:
        """Click the button with exactly these words, as soon as there is one."""
        named = f"[...document.querySelectorAll('button')].find(each => each.innerText.trim() === {json.dumps(words)})"
        self.wait(f"{named} !== undefined")
        self.ask(f"{named}.click()")

    def give_files(self, selector: str, files: list[Path]) -> None:
        """Put files into an input."""
        node = self.call("DOM.getDocument")["root"]["nodeId"]
        found = self.call("DOM.querySelector", nodeId=node, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=found, files=[str(file) for file in files])

    def resize(self, width: int, height: int) -> None:
        """Give the page this size in pixels, also one narrower than a window may be."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def hold_still(self) -> None:
        """Tell pages that whoever looks wants no motion."""
        wish = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[wish])

    def picture(self) -> Image.Image:
        """The page as it is seen."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


@contextmanager
def browser(width: int, height: int) -> Iterator[Page]:
    """A page of this size in pixels, in a browser of its own that remembers nothing.

    Raises:
        ConfigError: there is no browser, or it does not start.
    """
    if BROWSER is None:
        raise ConfigError("No Chromium is installed: apt-get install chromium.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_address(Path(profile), process), max_size=None) as connection:
                page = Page(connection)
                page.resize(width, height)
                yield page
        finally:
            process.terminate()
            process.wait(30)


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the page is talked to."""
    note, deadline = profile / "DevToolsActivePort", time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if note.is_file() and (lines := note.read_text().split()):
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=10) as answer:
                pages = [entry for entry in json.load(answer) if entry["type"] == "page"]
            if pages:
                return pages[0]["webSocketDebuggerUrl"]
        time.sleep(0.1)
    raise ConfigError("Chromium did not start.")
