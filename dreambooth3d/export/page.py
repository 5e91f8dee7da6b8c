"""What all HTML pages share: one style, placeholders, and pictures inside the page. None asks anything of a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from importlib.resources import files

from PIL import Image


def style() -> str:
    """The style sheet of all pages."""
    return files("dreambooth3d.export").joinpath("page.css").read_text(encoding="utf-8").rstrip()


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A template with each `{{name}}` replaced by that part, which is HTML.

    All are replaced at once, so that a part that looks like a placeholder stays what it is.
    """
    pieces = template.split("{{")
    page = pieces[0]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        page += parts[name] + rest
    return page


def jpeg_address(image: Image.Image, quality: int) -> str:
    """A picture as a data address."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
