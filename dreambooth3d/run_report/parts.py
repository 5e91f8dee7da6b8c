"""Building blocks of pages about runs: pictures, strips, definitions. All text is escaped here."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files

from PIL import Image

from dreambooth3d.export.page import jpeg_address
from dreambooth3d.run_report.content import Sheet, Strip

LIMIT_BYTES = 4_000_000
"""Size of a page about runs at most."""
DETAILS = (1.0, 0.7, 0.5, 0.35)
QUALITY = 80
SHEET_PX, SHOT_PX, PHOTO_PX = 1100, 240, 300
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a page may do: show itself. No scripts, and nothing from a network."""


def bounded(draw: Callable[[float], str], limit: int) -> str:
    """The first page that is small enough, with pictures of ever smaller shares of their usual size, in the end none.

    Args:
        draw: makes a page for a share.
        limit: in bytes; a page without pictures may exceed it.
    """
    for detail in DETAILS:
        page = draw(detail)
        if len(page.encode()) <= limit:
            return page
    return draw(0.0)


def resource(name: str) -> str:
    """A template or style of this package."""
    return files("dreambooth3d.run_report").joinpath(name).read_text(encoding="utf-8").rstrip()


def picture(image: Image.Image, side: int, words: str, kind: str = "") -> str:
    """An image, made smaller where it is larger than `side` pixels on its longer side.

    Args:
        image: of any mode.
        side: in pixels.
        words: what it shows, plain text.
        kind: its class.
    """
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.convert("RGB")
    small = small if small.size == size else small.resize(size, Image.Resampling.LANCZOS)
    named = f' class="{kind}"' if kind else ""
    return (
        f'<img{named} src="{jpeg_address(small, QUALITY)}" alt="{html.escape(words)}" width="{size[0]}" '
        f'height="{size[1]}">'
    )


def strip(found: Strip, detail: float, large: bool = False) -> str:
    """Pictures in a row, each with its words; large ones are sheets themselves."""
    side = round((SHEET_PX / 2 if large else SHOT_PX) * detail)
    shots = "".join(
        f"<figure>{picture(shot.picture, side, f'{found.title}, {shot.words}')}"
        f"<figcaption>{html.escape(shot.words)}</figcaption></figure>"
        for shot in found.shots
    )
    kind = "strip large" if large else "strip"
    return _titled(found.title, found.sentence, kind, shots)


def sheet(found: Sheet, detail: float) -> str:
    """One wide picture, which a phone scrolls sideways."""
    shown = picture(found.picture, round(SHEET_PX * detail), f"{found.title}: {found.sentence}")
    return _titled(found.title, found.sentence, "sheet", shown)


def _titled(title: str, sentence: str, kind: str, body: str) -> str:
    """A heading with a sentence, above what may be wider than the page."""
    name = html.escape(title)
    return (
        f"<h3>{name}</h3><p>{html.escape(sentence)}</p>"
        f'<div class="wide {kind}" tabindex="0" role="region" aria-label="{name}">{body}</div>'
    )


def definitions(values: Mapping[str, str]) -> str:
    """A list of facts; empty ones are left out."""
    rows = (
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>" for name, text in values.items() if text
    )
    return f"<dl>{''.join(rows)}</dl>"


def section(identifier: str, title: str, body: str) -> str:
    """A card with a heading; nothing where there is nothing to say."""
    if not body:
        return ""
    return (
        f'<section class="card" aria-labelledby="{identifier}"><h2 id="{identifier}">{html.escape(title)}</h2>'
        f"{body}</section>"
    )


def listed(sentences: Iterable[str]) -> str:
    """Sentences as a list; nothing for none."""
    items = "".join(f"<li>{html.escape(each)}</li>" for each in sentences)
    return f"<ul>{items}</ul>" if items else ""


def turning(frames: Sequence[Image.Image], side: int, words: str) -> str:
    """Pictures all around as a film without a script: one picture that holds all of them, moved in steps.

    Args:
        frames: of equal size; the first 36 are shown in a grid of six by six, fewer of them as a still picture.
        side: of a frame in pixels.
        words: what it shows, plain text.
    """
    columns = 6
    if len(frames) < columns * columns:
        return picture(frames[0], side, words) if frames else ""
    grid = Image.new("RGB", (columns * side, columns * side), "white")
    for index, frame in enumerate(frames[: columns * columns]):
        small = frame.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        grid.paste(small, ((index % columns) * side, (index // columns) * side))
    # Chosen in the style sheet: the box shows one cell at a time.
    return (
        f'<div class="film"><div class="turning" role="img" aria-label="{html.escape(words)}" '
        f'style="background-image:url({jpeg_address(grid, QUALITY)})"></div>'
        '<label><input type="checkbox" id="still"> Hold still</label></div>'
    )
