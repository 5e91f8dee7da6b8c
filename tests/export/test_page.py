"""The viewer page: that it says all and is safe, and how a browser shows it."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.export.about import about_asset
from dreambooth3d.export.gltf import to_glb
from dreambooth3d.export.surface import decimated, sample_density, surface_at
from dreambooth3d.export.texture import textured, with_vertex_colors
from dreambooth3d.export.viewer import About, viewer_page
from dreambooth3d.record import StepRecord
from tests.browser import PHONE, needs_browser, without_policy
from tests.cli.test_photo_page import Checker
from tests.export.fields import as_source, ball, blob_field, no_pictures
from website.browser import PATIENCE_S, Page, browser

PAYLOAD = "</title></script><img src=x onerror=top.ran=1>'\"{{title}}<script>top.ran=1</script>"
METRICS = {"psnr_fg": 20.87, "mask_iou": 0.9579, "mesh/psnr": 25.04, "janus_rate": 0.25, "unknown": 1.0}
GLB, FILM = bytes(range(256)) * 20, b"a film </script>"


@needs_browser
@pytest.mark.parametrize("colors", ["texture", "vertices"])
def test_browser_shows_the_colours_of_the_mesh(colors, tmp_path):
    shape = decimated(surface_at(sample_density(ball, 32), 10.0), 800)
    paint = {"texture": lambda: textured(shape, as_source(ball), 128, 0.05, *no_pictures()),
             "vertices": lambda: with_vertex_colors(shape, as_source(ball), 0.05, *no_pictures())}[colors]  # fmt: skip
    page = viewer_page(to_glb(paint()), torch.ones(4, 3, 16, 16), title="ball")
    (tmp_path / "page.html").write_text(page)
    with browser(1100, 900) as tab:
        tab.hold_still()
        tab.open((tmp_path / "page.html").as_uri())
        shares, end = shares_of_colours(tab), time.monotonic() + PATIENCE_S
        while min(shares.values()) <= 0.01:
            assert time.monotonic() < end, f"shares of the stage: {shares}"
            time.sleep(0.3)
            shares = shares_of_colours(tab)


def shares_of_colours(tab: Page) -> dict[str, float]:
    """Of the stage's pixels, how many are clearly red, green and blue."""
    stage = np.asarray(tab.picture()).astype(int)[100:760, 20:680].reshape(-1, 3)
    others = np.stack([np.delete(stage, channel, axis=1).max(axis=1) for channel in range(3)], axis=1)
    clear = (stage > 120) & (others < 0.5 * stage)
    return dict(zip(("red", "green", "blue"), clear.mean(axis=0).tolist(), strict=True))


def whole_page() -> str:
    """A page with everything, and a payload wherever text comes in."""
    photos = tuple(torch.rand(3, 40, 60 - index) for index in range(14))
    about = About(photos, (PAYLOAD,), {"Made on": "9 March 2026", "Run": PAYLOAD, "Code": ""})
    return viewer_page(
        GLB, torch.ones(4, 3, 16, 16), title=PAYLOAD, prompt=PAYLOAD, metrics=METRICS, facts=PAYLOAD, about=about,
        film=FILM,
    )  # fmt: skip


def test_the_page_is_whole_and_holds_nothing_foreign() -> None:
    checker = Checker()
    checker.feed(whole_page())
    checker.close()
    assert checker.open == [] and checker.names.count("main") == 1 and checker.names.count("h1") == 1
    assert checker.names.count("script") == 2 and not {"link", "iframe", "object", "a"} & set(checker.names)
    assert checker.names.count("img") == 12 and "2 more are not shown" in checker.text
    for tag, name, value in checker.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "href") or value.startswith("data:image/jpeg;base64,"), (tag, value[:80])
    identifiers = [value for _, name, value in checker.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    assert {value for _, name, value in checker.attributes if name == "aria-labelledby"} <= set(identifiers)
    assert checker.text.count(PAYLOAD) == 6


def test_each_figure_has_its_sentence() -> None:
    page = whole_page()
    for text in ("20.9 dB", "0.958", "25.0 dB", "25.0%", "How close the exported mesh", "9 March 2026", "5 kB"):
        assert text in page, text
    assert page.count("<dt>") == 4 + 2 and "unknown" not in page.split('id="data"')[0]


def test_a_page_without_photos_and_figures_has_no_empty_cards() -> None:
    page = viewer_page(GLB, torch.ones(4, 3, 16, 16), title="ball")
    assert not re.search(r'id="(photos|measured|made)"', page) and 'data-file="turntable.mp4"' not in page


@pytest.mark.parametrize(
    ("count", "stage", "said"),
    [(3, "refine_nerf", "learned from 3 photos"), (0, "init_nerf", "asked for the words"),
     (3, "fit_true_views", "true views from all sides")],
)  # fmt: skip
def test_it_says_how_the_asset_was_made(count: int, stage: str, said: str) -> None:
    photos = SubjectPhotos((torch.zeros(3, 4, 4),) * count, pd.DataFrame(), (), "rex", "sks", "dog", "", "")
    asset = replace(blob_field(), record=StepRecord(stage), steps=1450)
    about = about_asset(asset, photos, {"run": "a-run", "commit": "unknown"})
    assert said in " ".join(about.story) and len(about.photos) == count
    facts = {"Subject": "dog", "Kind of asset": "field", "Training steps in 3D": "1,450", "Run": "a-run", "Code": ""}
    assert facts.items() <= dict(about.facts).items()


@needs_browser
def test_on_a_phone_it_turns_by_itself_and_hands_out_its_files(tmp_path: Path) -> None:
    """The file here is no mesh, so that the turntable stands in; nothing of a payload runs, without the policy too."""
    script = """(async () => {
        const saved = [], address = URL.createObjectURL;
        URL.createObjectURL = (blob) => { saved.push(blob); return address(blob); };
        for (const button of document.querySelectorAll("button.save")) button.click();
        return [saved.map((blob) => [blob.type, blob.size]), await saved[1].text()];
    })()"""
    with browser(*PHONE) as tab:
        tab.open(without_policy(whole_page(), tmp_path))
        tab.wait("Number(document.getElementById('slider').value) > 0")
        assert tab.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        assert not tab.ask("!!window.ran") and not tab.ask("document.getElementById('fallback').hidden")
        sizes, film = tab.ask(script)
    assert sizes == [["model/gltf-binary", len(GLB)], ["video/mp4", len(FILM)]] and film == FILM.decode()
