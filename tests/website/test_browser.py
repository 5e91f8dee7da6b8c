"""The browser that tests and screenshots use: that it sees what there is, and that its checks can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreambooth3d.errors import ConfigError
from tests.browser import OnPhone, in_a_phone, needs_browser
from website import browser as browsers

POLICY = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'">'
BAD = f"""<!doctype html><html><head>{POLICY}<style>@keyframes turn {{ to {{ opacity: 0 }} }}</style></head><body>
<div style="width: 500px; height: 9px; background: red; animation: turn 9s infinite"></div>
<img src=x onerror=top.ran=1><script src="http://elsewhere.example/a.js"></script></body></html>"""


@needs_browser
def test_what_a_phone_must_not_show_is_seen(tmp_path: Path) -> None:
    seen = in_a_phone(BAD, tmp_path)
    assert seen == OnPhone(beyond=508 - 390, pictures=1, ran=True, films=1)


@needs_browser
def test_a_page_is_asked_and_says_where_it_fails(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("""<title>a</title><body><p id=said>none</p><input placeholder="dog">
        <script>setTimeout(() => document.body.insertAdjacentHTML("beforeend", `<button onclick=
        "said.innerText = document.querySelector('input').value + ' ' + innerWidth">Say it</button>`), 300)</script>
        <script src="http://elsewhere.example/a.js"></script>""")
    with browsers.browser(300, 200) as page:
        page.open(file.as_uri(), "none")
        page.write("dog", "a 'duck'")
        page.click("Say it")
        page.wait_for("a 'duck' 300")
        assert page.picture().size == (300, 200) and "http://elsewhere.example/a.js" in page.asked
        with pytest.raises(ConfigError, match=r"fails: TypeError"):
            page.ask("null.x")
        with pytest.raises(ConfigError, match=r"The page never has 1 > 2; it says: a 'duck' 300"):
            page.wait("1 > 2", 0.3)
        with pytest.raises(ConfigError, match=r"does not show 'a goose' within 1 s"):
            page.open(file.as_uri(), "a goose", 1.2)


def test_no_browser_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsers, "BROWSER", None)
    with pytest.raises(ConfigError, match="apt-get install chromium"), browsers.browser(300, 200):
        pass
