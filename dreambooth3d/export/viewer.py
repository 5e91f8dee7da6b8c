"""One self-contained HTML page that shows an asset: an own small WebGL viewer, the turntable and the metrics."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from importlib.resources import files

from jaxtyping import Float
from torch import Tensor

from dreambooth3d.export.page import filled, jpeg_address, style
from dreambooth3d.export.turntable import upsample
from dreambooth3d.images import sheet, to_pil

SPRITE_COLUMNS = 6
SPRITE_TILE = 192
_JPEG_QUALITY = 86

# Order and names under which the page shows metrics; others are left to the report.
SHOWN_METRICS = {
    "clip_i": ("Likeness to the photos (CLIP-I)", "{:.3f}"),
    "clip_t": ("Fit to the caption (CLIP-T)", "{:.3f}"),
    "r_precision": ("R-precision", "{:.0%}"),
    "front_recall": ("Front recall", "{:.0%}"),
    "janus_excess": ("Janus excess over truth", "{:+.0%}"),
    "janus_rate": ("Janus rate", "{:.0%}"),
    "psnr": ("PSNR against truth", "{:.1f} dB"),
    "psnr_fg": ("PSNR on the subject", "{:.1f} dB"),
    "ssim": ("SSIM", "{:.3f}"),
    "mask_iou": ("Silhouette overlap (IoU)", "{:.2f}"),
    "mesh/psnr": ("This mesh: PSNR against truth", "{:.1f} dB"),
    "mesh/psnr_fg": ("This mesh: PSNR on the subject", "{:.1f} dB"),
    "mesh/mask_iou": ("This mesh: silhouette overlap (IoU)", "{:.2f}"),
    "mesh/field_psnr": ("This mesh against the field it was made of", "{:.1f} dB"),
    "mesh/field_iou": ("This mesh's silhouettes against the field's (IoU)", "{:.2f}"),
    "heldout_photo_iou": ("Silhouette overlap with held-out photos (IoU)", "{:.2f}"),
    "heldout_photo_psnr_fg": ("PSNR on the subject of held-out photos", "{:.1f} dB"),
}


def viewer_page(
    glb: bytes,
    frames: Float[Tensor, "n 3 height width"],
    *,
    title: str,
    prompt: str = "",
    metrics: Mapping[str, float] | None = None,
    frames_per_second: int = 12,
    facts: str = "",
) -> str:
    """The page's HTML. It holds everything it shows and asks nothing of any network.

    Args:
        glb: the mesh as binary glTF with normals, and with a texture or vertex colours.
        frames: (n, 3, h, w) turntable in [0, 1], evenly around from azimuth 0.
        title, prompt: plain text.
        metrics: by name, as in an `EvaluationReport`; those of `SHOWN_METRICS` are shown.
        frames_per_second: speed of the turntable.
        facts: one line below, plain text.
    """
    data = {
        "glb": base64.b64encode(glb).decode(),
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
        "metrics": _metrics_card(metrics or {}),
        "facts": html.escape(facts),
        "script": _resource("viewer.js"),
        # "<" would end the script element early if it came in a string.
        "data": json.dumps(data).replace("<", "\\u003c"),
        "style": style(),
    }
    return filled(_resource("viewer.html"), parts)


def _resource(name: str) -> str:
    return files("dreambooth3d.export").joinpath(name).read_text(encoding="utf-8")


def _sprite(frames: Tensor) -> str:
    """All frames in one JPEG, as a data address."""
    tiles = sheet(upsample(frames.detach().float().cpu(), SPRITE_TILE), columns=SPRITE_COLUMNS, gap=0)
    return jpeg_address(to_pil(tiles), _JPEG_QUALITY)


def _metrics_card(metrics: Mapping[str, float]) -> str:
    rows = [
        f'<tr><th scope="row">{html.escape(label)}</th><td>{style.format(metrics[name])}</td></tr>'
        for name, (label, style) in SHOWN_METRICS.items()
        if name in metrics
    ]
    if not rows:
        return ""
    return f'<section class="card" aria-label="Metrics"><h2>Measured</h2><table>{"".join(rows)}</table></section>'
