"""One self-contained HTML page that shows an asset: a small WebGL viewer, photos, turntable and figures."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files as package_files

from jaxtyping import Float
from torch import Tensor

from dreambooth3d.export.page import filled, jpeg_address, style
from dreambooth3d.export.turntable import upsample
from dreambooth3d.glossary import LABELS, metric, shown
from dreambooth3d.images import antialiased, sheet, to_pil

SPRITE_COLUMNS = 6
SPRITE_TILE = 192
_JPEG_QUALITY = 86

PHOTO_PX, PHOTOS_SHOWN = 200, 12
SHOWN_METRICS = (
    "clip_i", "clip_t", "r_precision", "front_recall", "janus_excess", "janus_rate", "psnr", "psnr_fg", "ssim",
    "mask_iou", "mesh/psnr", "mesh/psnr_fg", "mesh/mask_iou", "mesh/field_psnr", "mesh/field_iou", "heldout_photo_iou",
    "heldout_photo_psnr_fg",
)  # fmt: skip
"""What the page shows, in this order; other metrics are left to the report."""


@dataclass(frozen=True)
class About:
    """What the page says beside the asset.

    Attributes:
        photos: (3, height, width) in [0, 1] each, of the subject; the first dozen is shown.
        story: how the asset was made, in sentences.
        facts: by name, such as when it was made; empty ones are left out.
    """

    photos: Sequence[Float[Tensor, "3 _ _"]] = ()
    story: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Download:
    """A file that the page carries along.

    Attributes:
        name: under which it is saved.
        kind: its media type.
        words: on the button.
        content: of the file.
    """

    name: str
    kind: str
    words: str
    content: bytes


def viewer_page(
    glb: bytes,
    frames: Float[Tensor, "n 3 height width"],
    *,
    title: str,
    prompt: str = "",
    metrics: Mapping[str, float] | None = None,
    frames_per_second: int = 12,
    facts: str = "",
    about: About = About(),
    film: bytes = b"",
) -> str:
    """The page's HTML. It holds everything it shows and asks nothing of any network.

    Args:
        glb: the mesh as binary glTF with normals, and with a texture or vertex colours.
        frames: (n, 3, h, w) turntable in [0, 1], evenly around from azimuth 0.
        title, prompt: plain text.
        metrics: by name, as in an `EvaluationReport`; those of `SHOWN_METRICS` are shown.
        frames_per_second: speed of the turntable.
        facts: one line below, plain text.
        about: the photos, and how the asset was made.
        film: the turntable as MP4, for a button that saves it; empty for none.
    """
    files = [Download("asset.glb", "model/gltf-binary", "Mesh (GLB)", glb)]
    files += [Download("turntable.mp4", "video/mp4", "Turntable (MP4)", film)] if film else []
    data = {
        "files": {each.name: {"kind": each.kind, "content": _base64(each.content)} for each in files},
        "turntable": {
            "count": frames.shape[0],
            "columns": SPRITE_COLUMNS,
            "tile": SPRITE_TILE,
            "frames_per_second": frames_per_second,
            "image": _sprite(frames),
        },
    }
    parts = {
        "title": html.escape(title),
        "prompt": f'<p class="prompt">“{html.escape(prompt)}”</p>' if prompt else "",
        "downloads": "".join(map(_button, files)),
        "photos": _photos_card(about),
        "metrics": _metrics_card(metrics or {}),
        "made": _made_card(about),
        "facts": html.escape(facts),
        "script": _resource("viewer.js"),
        # "<" would end the script element early if it came in a string.
        "data": json.dumps(data).replace("<", "\\u003c"),
        "style": style(),
    }
    return filled(_resource("viewer.html"), parts)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _button(file: Download) -> str:
    size = len(file.content)
    told = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"
    name, words = html.escape(file.name), html.escape(file.words)
    return f'<button type="button" class="save" data-file="{name}">{words} <span>{told}</span></button>'


def _resource(name: str) -> str:
    return package_files("dreambooth3d.export").joinpath(name).read_text(encoding="utf-8")


def _sprite(frames: Tensor) -> str:
    """All frames in one JPEG, as a data address."""
    tiles = sheet(upsample(frames.detach().float().cpu(), SPRITE_TILE), columns=SPRITE_COLUMNS, gap=0)
    return jpeg_address(to_pil(tiles), _JPEG_QUALITY)


def _metrics_card(metrics: Mapping[str, float]) -> str:
    """Each figure with its name and its sentence."""
    known = {name: found for name in SHOWN_METRICS if name in metrics and (found := metric(name)) is not None}
    figures = (
        f"<div><dt>{html.escape(LABELS[name])}</dt><dd><b>{html.escape(shown(metrics[name], found.unit))}</b>"
        f"{html.escape(found.meaning)}</dd></div>"
        for name, found in known.items()
    )
    return _card("measured", "Measured", f'<dl class="figures">{"".join(figures)}</dl>') if known else ""


def _photos_card(about: About) -> str:
    """The photos in a row."""
    pictures = "".join(
        f'<img src="{_thumbnail(photo)}" alt="Photo {number} of the subject" width="{PHOTO_PX}" height="{PHOTO_PX}">'
        for number, photo in enumerate(about.photos[:PHOTOS_SHOWN], start=1)
    )
    more = len(about.photos) - PHOTOS_SHOWN
    rest = f"<p>{more} more are not shown.</p>" if more > 0 else ""
    row = f'<div class="row">{pictures}</div>{rest}'
    return _card("photos", "The photos that it was made from", row) if pictures else ""


def _thumbnail(photo: Float[Tensor, "3 _ _"]) -> str:
    small = antialiased(photo[None].float().cpu(), PHOTO_PX)[0]
    return jpeg_address(to_pil(small), _JPEG_QUALITY)


def _made_card(about: About) -> str:
    """How the asset was made, when and of what."""
    story = f"<p>{html.escape(' '.join(about.story))}</p>" if about.story else ""
    facts = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>"
        for name, text in about.facts.items()
        if text
    )
    body = story + (f'<dl class="facts">{facts}</dl>' if facts else "")
    return _card("made", "How it was made", body) if body else ""


def _card(identifier: str, title: str, body: str) -> str:
    return (
        f'<section class="card" aria-labelledby="{identifier}"><h2 id="{identifier}">{html.escape(title)}</h2>'
        f"{body}</section>"
    )
