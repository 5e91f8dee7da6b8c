"""A real browser for tests, driven by its own protocol: pages are opened, asked, clicked, and photographed."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from websockets.sync.client import ClientConnection, connect

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SOFTWARE = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PATIENCE_S = 60.0


class Page:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._number = connection, 0
        self.asked: list[str] = []
        self.call("Network.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol; its answer."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(timeout=PATIENCE_S))
            if answer.get("method") == "Network.requestWillBeSent":
                self.asked.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def ask(self, script: str) -> Any:
        """The value of an expression in JavaScript."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str, patience_s: float = PATIENCE_S) -> Any:
        """The same, as soon as it is true."""
        end = time.monotonic() + patience_s
        while not (value := self.ask(script)):
            assert time.monotonic() < end, f"never true: {script}; the page says {self.text()}"
            time.sleep(0.2)
        return value

    def text(self) -> str:
        """What the page says."""
        return str(self.ask("document.body ? document.body.innerText : ''"))

    def wait_for(self, words: str, patience_s: float = PATIENCE_S) -> None:
        """Until the page says something."""
        self.wait(f"!!document.body && document.body.innerText.includes({json.dumps(words)})", patience_s)

    def write(self, placeholder: str, words: str) -> None:
        """Fill a text field in, as the frameworks notice it."""
        self.ask(f"""(() => {{
            const field = document.querySelector('[placeholder={json.dumps(placeholder)}]');
            Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), 'value').set.call(field, {json.dumps(words)});
            field.dispatchEvent(new Event('input', {{bubbles: true}}));
        }})()""")

    def click(self, words: str) -> None:
        """The button with exactly these words."""
        buttons = "[...document.querySelectorAll('button')]"
        self.ask(f"{buttons}.find(button => button.innerText.trim() === {json.dumps(words)}).click()")

    def give_files(self, selector: str, files: list[Path]) -> None:
        """Put files into an input."""
        node = self.call("DOM.getDocument")["root"]["nodeId"]
        found = self.call("DOM.querySelector", nodeId=node, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=found, files=[str(file) for file in files])

    def photograph(self, path: Path) -> None:
        """Write a picture of what is seen."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def opened(address: str, profile: Path, size: str = "1300,900") -> Iterator[Page]:
    """A page in a browser of its own."""
    command = [str(EXECUTABLE), "--headless", "--no-sandbox", "--no-first-run", *SOFTWARE, f"--user-data-dir={profile}",
               "--remote-debugging-port=0", f"--window-size={size}", "about:blank"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _port(profile / "DevToolsActivePort")
        with urlopen(Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT"), timeout=30) as answer:
            debugger = json.load(answer)["webSocketDebuggerUrl"]
        with connect(debugger, max_size=None) as connection:
            page = Page(connection)
            page.call("Page.navigate", url=address)
            yield page
    finally:
        process.terminate()
        process.wait(30)


def wait_for_server(port: int) -> None:
    """Until somebody listens."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < end, "no server listens"
            time.sleep(0.1)


def _port(file: Path) -> str:
    end = time.monotonic() + PATIENCE_S
    while not (file.exists() and file.read_text().strip()):
        assert time.monotonic() < end, "the browser does not start"
        time.sleep(0.1)
    return file.read_text().split()[0]
