"""Pages of the site that are no files in docs/: those made of the code, and files elsewhere in the checkout."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from website import configuration, metrics

ROOT = Path(__file__).resolve().parents[1]
MOVED = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "licence.md",
    "models/README.md": "models.md",
    "models/LICENSE.md": "models_licence.md",
    "models/samples.webp": "images/models.webp",
}
"""Files outside docs/ that are on the site, and their places there."""
MADE_OF = {"dreambooth3d/config": f"{configuration.FOLDER}/index.md", "dreambooth3d/glossary.py": metrics.PAGE}
"""What pages are made of: a link to it leads to them."""
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#\s])")


def made() -> dict[str, str]:
    """Markdown by path of all pages that are no files in docs/."""
    pages = configuration.pages() | {metrics.PAGE: metrics.page()}
    for name, page in MOVED.items():
        if page.endswith(".md"):
            text = (ROOT / name).read_text()
            shown = text if name.endswith(".md") else f"# Licence\n\n```text\n{text}```\n"
            pages[page] = site_links(shown, name, page)
    return pages


def site_links(text: str, source: str, page: str) -> str:
    """Markdown whose relative links hold on the site.

    Args:
        text: of a file.
        source: where the file stands, relative to the checkout.
        page: where it stands on the site, relative to docs/.
    """

    def moved(link: re.Match[str]) -> str:
        if "://" in link[0] or link[0].startswith("mailto:"):
            return link[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[0]))
        inside = (MOVED | MADE_OF).get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        return link[0] if inside is None else posixpath.relpath(inside, posixpath.dirname(page) or ".")

    return _LINK.sub(moved, text)
