"""The site as `make docs` builds it: without a warning, with nothing from elsewhere, and searched without a server."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.browser import needs_browser
from tests.website.texts import ROOT
from website.browser import browser

MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"
OUTSIDE = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)")


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MKDOCS.is_file(), reason="needs the site's environment: run `make docs` once"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    command = [str(MKDOCS), "build", "--strict", "--site-dir", str(site)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"NO_MKDOCS_2_WARNING": "1"})
    assert result.returncode == 0 and "WARNING" not in result.stderr, result.stderr
    return site


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) > 50 and (site / "search" / "search_index.json").stat().st_size > 100_000
    styles = "".join(style.read_text() for style in site.rglob("*.css"))
    assert not re.search(r"url\([\"']?(?:https?:)?//", styles)
    assert {page.name: found for page in pages if (found := OUTSIDE.findall(page.read_text()))} == {}


@needs_browser
def test_a_file_is_searched_without_a_server(site: Path) -> None:
    with browser(1280, 900) as page:
        page.open((site / "index.html").as_uri())
        page.wait("document.querySelector('.md-search__input')?.offsetWidth > 0")
        page.ask("document.querySelector('[data-md-toggle=search]').click()")
        page.ask("""(() => { const field = document.querySelector('.md-search__input');
            field.value = 'masks'; field.focus();
            field.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true})); })()""")
        page.wait("document.querySelector('.md-search-result a[href*=\"masks.html\"]') !== null")
        assert all(not address.startswith("http") for address in page.asked)
