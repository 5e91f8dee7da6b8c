"""MkDocs' hooks: the site has more pages than docs/, and links lead to them as on a code host."""

from __future__ import annotations

from typing import Any

from mkdocs.structure.files import File, Files

from website.pages import MOVED, ROOT, made, site_links


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made, and what lies outside docs/."""
    for path, text in made().items():
        files.append(File.generated(config, path, content=text))
    for name, path in MOVED.items():
        if not path.endswith(".md"):
            files.append(File.generated(config, path, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead the links of docs/ that leave it to where their targets are on the site."""
    if page.file.generated_by is not None:
        return markdown
    return site_links(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)
