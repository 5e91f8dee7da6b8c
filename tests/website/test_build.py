"""The site as `make docs` builds it: without a warning, and without anything from elsewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.website.texts import ROOT

MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"
OUTSIDE = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)")


@pytest.mark.slow
@pytest.mark.skipif(not MKDOCS.is_file(), reason="needs the site's environment: run `make docs` once")
def test_it_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [str(MKDOCS), "build", "--strict", "--site-dir", str(site)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"NO_MKDOCS_2_WARNING": "1"})
    assert result.returncode == 0 and "WARNING" not in result.stderr, result.stderr
    pages = [*site.rglob("*.html")]
    assert len(pages) > 50 and (site / "search" / "search_index.json").stat().st_size > 100_000
    styles = "".join(style.read_text() for style in site.rglob("*.css"))
    assert not re.search(r"url\([\"']?(?:https?:)?//", styles)
    assert {page.name: found for page in pages if (found := OUTSIDE.findall(page.read_text()))} == {}
