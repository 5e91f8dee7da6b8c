"""The viewer page in a browser."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from dreambooth3d.export.gltf import to_glb
from dreambooth3d.export.surface import decimated, sample_density, surface_at
from dreambooth3d.export.texture import textured, with_vertex_colors
from dreambooth3d.export.viewer import viewer_page
from tests.export.fields import as_source, ball, no_pictures

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SOFTWARE = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: apt-get install chromium")
@pytest.mark.parametrize("colors", ["texture", "vertices"])
def test_browser_shows_the_colours_of_the_mesh(colors, tmp_path):
    shape = decimated(surface_at(sample_density(ball, 32), 10.0), 800)
    paint = {"texture": lambda: textured(shape, as_source(ball), 128, 0.05, *no_pictures()),
             "vertices": lambda: with_vertex_colors(shape, as_source(ball), 0.05, *no_pictures())}[colors]  # fmt: skip
    page = viewer_page(to_glb(paint()), torch.ones(4, 3, 16, 16), title="ball")
    (tmp_path / "page.html").write_text(page)
    command = [str(BROWSER), "--headless", "--no-sandbox", *SOFTWARE, f"--user-data-dir={tmp_path / 'profile'}",
               "--virtual-time-budget=3000", "--window-size=1100,900", f"--screenshot={tmp_path / 'page.png'}",
               (tmp_path / "page.html").as_uri()]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    stage = pixels[100:760, 20:680].reshape(-1, 3)
    for channel, name in enumerate(("red", "green", "blue")):
        others = np.delete(stage, channel, axis=1).max(axis=1)
        share = ((stage[:, channel] > 120) & (others < 0.5 * stage[:, channel])).mean()
        assert share > 0.01, f"{name} is seen on {share:.2%} of the stage"
