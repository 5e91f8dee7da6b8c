"""What tests of pages share; the browser itself is `website.browser`."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from website.browser import BROWSER, PATIENCE_S, browser

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: apt-get install chromium")
PHONE = (390, 800)


def without_policy(page: str, folder: Path) -> str:
    """The address of a page that lacks the policy by which a browser would not run a payload anyway."""
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert free != page
    (folder / "page.html").write_text(free)
    return (folder / "page.html").as_uri()


@dataclass(frozen=True)
class OnPhone:
    """What a phone shows of a page: pixels beyond its width, pictures, whether a payload ran, films that run."""

    beyond: int
    pictures: int
    ran: bool
    films: int


def in_a_phone(page: str, folder: Path) -> OnPhone:
    """Show a page as a phone does, without its policy."""
    with browser(*PHONE) as tab:
        tab.open(without_policy(page, folder))
        found = tab.ask("""(() => { const root = document.documentElement; return [
            root.scrollWidth - root.clientWidth, document.images.length, !!window.ran, document.getAnimations().length
        ]; })()""")
    return OnPhone(*found)


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
