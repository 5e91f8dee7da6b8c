"""The page's own viewer beside Google's model-viewer: both show the same file the same way round, in the same colours.

Nothing of model-viewer belongs to this repository: `npm pack @google/model-viewer` brings it, and
DREAMBOOTH3D_MODEL_VIEWER names its `model-viewer-umd.min.js`.
"""

from __future__ import annotations

import base64
import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import rgb2hsv

from dreambooth3d.export.gltf import read_glb, to_glb, to_gltf_axes
from dreambooth3d.export.surface import decimated, sample_density, surface_at
from dreambooth3d.export.texture import textured
from dreambooth3d.export.viewer import viewer_page
from tests.browser import needs_browser
from tests.export.fields import as_source, ball, no_pictures
from website.browser import browser

LIBRARY = os.environ.get("DREAMBOOTH3D_MODEL_VIEWER", "")
SIDE = 480
AZIMUTH, ELEVATION, DISTANCES, FOV_DEG = 0.5, 0.26, 3.35, 34
"""Where viewer.js starts: in radians, and in terms of the mesh's half diagonal."""
SETTLES_S = 4.0
LEAST_IOU, MOST_DEGREES = 0.99, 3.0
"""Of the outlines, and of the mean difference in hue where both show the mesh: their lights differ, hues may not."""

pytestmark = [
    pytest.mark.slow,
    needs_browser,
    pytest.mark.skipif(not Path(LIBRARY).is_file(), reason="DREAMBOOTH3D_MODEL_VIEWER names no model-viewer"),
]


def screenshot(page: str, folder: Path, name: str, shown: str) -> np.ndarray:
    """(SIDE, SIDE, 3) in [0, 1]: what a browser shows of a page once a script says that it is shown."""
    (folder / f"{name}.html").write_text(page)
    with browser(SIDE, SIDE + 200) as tab:
        tab.hold_still()
        tab.open((folder / f"{name}.html").as_uri())
        tab.wait(shown)
        time.sleep(SETTLES_S)
        return np.asarray(tab.picture())[:SIDE, :SIDE] / 255


def own_page(glb: bytes) -> str:
    """Our page, its stage alone on white."""
    page = viewer_page(glb, torch.ones(4, 3, 16, 16), title="ball")
    alone = f"""<style>.stage {{ position: fixed !important; z-index: 9; top: 0; left: 0; width: {SIDE}px;
        height: {SIDE}px; aspect-ratio: auto !important; min-height: 0 !important; max-height: none !important;
        background: #fff !important; border: 0; border-radius: 0 }} .stage .tools, .stage .hint {{ display: none }}
        </style>"""
    return page.replace("</head>", f"{alone}</head>")


def their_page(glb: bytes) -> str:
    """model-viewer, from where ours looks."""
    corners = to_gltf_axes(read_glb(glb).vertices)
    low, high = corners.min(axis=0), corners.max(axis=0)
    centre, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    orbit = f"{AZIMUTH}rad {math.pi / 2 - ELEVATION}rad {DISTANCES * radius}m"
    target = " ".join(f"{value}m" for value in centre)
    source = "data:model/gltf-binary;base64," + base64.b64encode(glb).decode()
    return f"""<!doctype html><meta charset="utf-8"><style>body {{ margin: 0; background: #fff }}</style>
        <model-viewer src="{source}" camera-orbit="{orbit}" camera-target="{target}" field-of-view="{FOV_DEG}deg"
          min-camera-orbit="auto auto 0m" max-camera-orbit="auto auto 100m" min-field-of-view="5deg"
          max-field-of-view="90deg" loading="eager"
          interaction-prompt="none" shadow-intensity="0" style="width: {SIDE}px; height: {SIDE}px; background: #fff">
          <div slot="progress-bar"></div></model-viewer><script src="{Path(LIBRARY).absolute().as_uri()}"></script>"""


def test_both_show_the_same_asset(tmp_path: Path) -> None:
    shape = decimated(surface_at(sample_density(ball, 32), 10.0), 800)
    glb = to_glb(textured(shape, as_source(ball), 128, 0.05, *no_pictures()))
    ours = screenshot(own_page(glb), tmp_path, "ours", "true")
    theirs = screenshot(their_page(glb), tmp_path, "theirs", "document.querySelector('model-viewer').loaded")
    masks = [(picture.min(axis=2) < 0.9) for picture in (ours, theirs)]
    both, either = masks[0] & masks[1], masks[0] | masks[1]
    assert either.mean() > 0.1
    assert both.sum() / either.sum() > LEAST_IOU
    assert apart(ours, theirs)[both].mean() < MOST_DEGREES
    # Mirrored, or seen from elsewhere, the colours would lie in other places.
    assert apart(ours[:, ::-1], theirs)[both & masks[0][:, ::-1]].mean() > 2 * MOST_DEGREES


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(height, width) difference of two pictures' hues in degrees."""
    turn = 360 * np.abs(rgb2hsv(one)[..., 0] - rgb2hsv(other)[..., 0])
    return np.minimum(turn, 360 - turn)
