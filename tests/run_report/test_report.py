"""The report of a run: that it says all, is safe, valid and bounded, and how a browser shows it."""

from __future__ import annotations

import math
import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
import torch

from dreambooth3d.cameras import Cameras, orbit_cameras
from dreambooth3d.run_report.content import RunContent
from dreambooth3d.run_report.curve import curve
from dreambooth3d.run_report.page import run_report
from dreambooth3d.run_report.parts import LIMIT_BYTES
from dreambooth3d.run_report.sketch import sketch
from tests.browser import OnPhone, in_a_phone, needs_browser
from tests.cli.test_photo_page import Checker
from tests.run_report.runs import PAYLOAD, whole


@pytest.fixture(scope="module")
def page() -> str:
    """The report of a run with everything, and a payload everywhere."""
    return run_report(whole())


def words(page: str) -> str:
    """What a page says, without tags, style and pictures."""
    return unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))


def checked(page: str) -> Checker:
    """The page's elements; nothing of it runs, or is fetched from anywhere."""
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == [] and checker.names.count("main") == 1 and checker.names.count("h1") == 1
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(checker.names)
    for tag, name, value in checker.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "href") or value.startswith("data:image/jpeg;base64,"), (tag, value[:80])
        assert name != "alt" or value.strip()
    identifiers = [value for _, name, value in checker.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    assert {value for _, name, value in checker.attributes if name == "aria-labelledby"} <= set(identifiers)
    assert "@import" not in page
    assert all(found.startswith("data:image/jpeg;") for found in re.findall(r"url\((.*?)\)", page))
    return checker


def test_the_report_is_whole_and_holds_nothing_foreign(page: str) -> None:
    checker = checked(page)
    # Photos, both strips, one sheet of each kind; the turntable is no element of its own.
    assert checker.names.count("img") == 5 + 5 * 1 + 5 + 3
    assert checker.text.count(PAYLOAD) > 20 and checker.names.count("svg") == 2


def test_it_says_what_there_is_to_say(page: str) -> None:
    said = words(page)
    for text in (
        "9 March 2026, 08:30 UTC", "took 6 min 40 s", "20.9 dB", "19.2 dB", "21.8 dB", "10.0 dB", "0.958", "25.0%",
        "2 more are not shown", "1 at 0°, 15° up; 2 at 90°, 15° up; 4 at -180°", "janus 0.4 > 0.3 at step 300: warned",
        "from the cache", "812 MiB", "seed: 0", "partial: 40", "full: 80", "How close the subject's own pixels are",
    ):  # fmt: skip
        assert text.replace("-180°", "180°") in said.replace("-180°", "180°"), text


@pytest.mark.parametrize("content", [RunContent("lost"), RunContent("failed", steps=whole("x").steps)])
def test_what_is_missing_is_left_out(content: RunContent) -> None:
    """Of a run that failed early, or whose results are deleted."""
    page = run_report(content)
    checker = checked(page)
    assert content.run in checker.text and "img" not in checker.names
    assert ("refine_nerf" in checker.text) == bool(content.steps)
    assert "Measured" not in checker.text


def test_what_is_gone_is_said() -> None:
    page = run_report(RunContent("run-1", metrics={"psnr": 20.5}, gone=("init_nerf", "<evaluate>")))
    said = " ".join(words(page).split())
    assert "is gone: init_nerf, <evaluate>." in said and "20.5" in said
    assert "is gone" not in run_report(RunContent("run-1", metrics={"psnr": 20.5}))


def test_its_size_is_bounded() -> None:
    """Pictures become smaller until it fits, and go where nothing else helps."""
    content = whole("x", side=130)
    usual = len(run_report(content).encode())
    smaller, bare = (run_report(content, limit) for limit in (usual * 2 // 3, 60_000))
    assert usual < LIMIT_BYTES and len(bare) <= 60_000 < len(smaller) <= usual * 2 // 3
    assert checked(smaller).names.count("img") == checked(run_report(content)).names.count("img") > 0
    assert "img" not in checked(bare).names and "Its pictures are left out" in bare


def places(svg: str, kind: str) -> list[tuple[float, float]]:
    """Centres of a drawing's circles of a kind."""
    found = re.findall(rf'<circle class="{kind}" cx="(.*?)" cy="(.*?)"', svg)
    return [(float(x), float(y)) for x, y in found]


def test_cameras_stand_where_they_stood() -> None:
    """OnPhone from above and from the front's left: the front is near and low, the back far and high."""
    cameras = orbit_cameras(torch.tensor([0.0, 90.0, 180.0, 270.0]), elevation_deg=0.0)
    svg = sketch(cameras, [1, 2, 3, 4], "label")
    front, left, back, right = sorted_by_number(svg)
    assert front[1] > back[1] and left[0] > front[0] > right[0] and left[0] > back[0] > right[0]
    # What is behind the subject is drawn before it, and what is before it after it.
    order = [svg.index(mark) for mark in (">3</text>", 'class="subject"', ">1</text>")]
    assert order == sorted(order)
    inside = [0 < x < 460 and 0 < y < 330 for x, y in (front, left, back, right)]
    assert all(inside)


def sorted_by_number(svg: str) -> list[tuple[float, float]]:
    """Where each numbered camera is, by its number."""
    found = re.findall(r'<circle class="taken" cx="(.*?)" cy="(.*?)" r="10"/><text[^>]*>(\d+)</text>', svg)
    return [(float(x), float(y)) for x, y, _ in sorted(found, key=lambda each: int(each[2]))]


def test_unknown_cameras_are_left_out() -> None:
    cameras = Cameras(*(torch.tensor([value, math.nan]) for value in (0.0, 10.0, 2.5, 42.0)))
    assert len(places(sketch(cameras, [1, 2], ""), "taken")) == 1


def test_the_curve_rises_where_scores_do() -> None:
    scores = {"step": [80, 0, 40], "subject_similarity": [0.7, 0.5, 0.6], "view_obedience": [0.5, 1.0, 0.75]}
    table = pd.DataFrame({**scores, "partial": [False, False, True], "full": [True, False, False]})
    likeness, view = (places(curve(table), name) for name in ("subject_similarity", "view_obedience"))
    assert [x for x, _ in likeness] == sorted(x for x, _ in likeness)
    assert likeness[0][1] > likeness[1][1] > likeness[2][1] and view[0][1] < view[1][1] < view[2][1]
    # Evenly spaced values lie evenly.
    assert likeness[0][1] - likeness[1][1] == pytest.approx(likeness[1][1] - likeness[2][1], abs=0.2)
    assert (likeness[0][0] + likeness[2][0]) / 2 == pytest.approx(likeness[1][0], abs=0.2)


@needs_browser
def test_a_phone_shows_it_without_sideways_scrolling(page: str, tmp_path: Path) -> None:
    """Also without the policy that would keep a payload from running anyway; the turntable turns."""
    assert in_a_phone(page, tmp_path) == OnPhone(beyond=0, pictures=18, ran=False, films=2)
