"""Several runs side by side: which is best, what differs, and a table that spreadsheets may open."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import Any

import pytest

from dreambooth3d.cli.run_pages import comma_separated
from dreambooth3d.run_report.comparison import Seen, called, comparison_page, side_by_side
from dreambooth3d.run_report.figures import best_of
from tests.browser import OnPhone, in_a_phone, needs_browser
from tests.run_report.runs import PAYLOAD, noise
from tests.run_report.test_report import checked

FIRST, SECOND = "first-run", PAYLOAD


def described() -> list[dict[str, Any]]:
    """Two runs, as `operations.records.tables.describe` gives them; the first one's row is of an earlier version."""
    first = {"evaluate/psnr_fg": 20.9, "evaluate/janus_rate": 0.0, "evaluate/clip_i": 0.8,
             "evaluate/chroma_excess": -1.0, "evaluate/coarse/psnr_fg": 19.0, "init_nerf/seconds": 100.0,
             "evaluate_context_0/clip_t": 0.3, "init_nerf/loss": 3.0, "export_asset/mesh/psnr": 24.5}  # fmt: skip
    second = {"evaluate/psnr_fg": 22.25, "evaluate/janus_rate": 0.25, "evaluate/clip_i": 0.8,
              "evaluate/chroma_excess": 3.0, "evaluate_context_0/clip_t": 0.2, "init_nerf/seconds": 50.0,
              "export_asset/mesh/psnr": 23.5}  # fmt: skip
    return [
        {"run": FIRST, "status": "completed", "subject": "corgi", "preset": "demo", "duration_s": 200.0,
         "metrics": first, "params": {"refine_nerf.steps": "150", "same": "1"}},
        {"run": SECOND, "status": "interrupted", "subject": PAYLOAD, "preset": "paper", "duration_s": 4000.0,
         "metrics": second, "params": {"refine_nerf.steps": "300", "same": "1", PAYLOAD: PAYLOAD}},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def page() -> str:
    """Their page."""
    return comparison_page(side_by_side(described()), {FIRST: Seen(tuple(noise(48, 48, index) for index in range(36)))})


def row(page: str, label: str) -> str:
    """The row of a table that begins with a label."""
    (found,) = [part for part in re.findall(r"<tr>.*?</tr>", page, re.DOTALL) if label in part]
    return found


def test_the_best_is_marked_where_there_is_one(page: str) -> None:
    assert re.search(r"<td>20.9 dB</td><td class=\"best\"><b>22.2 dB</b>", row(page, "PSNR on the subject<"))
    assert re.search(r"<td class=\"best\"><b>0.0%</b>.*<td>25.0%</td>", row(page, "Janus rate<"))
    assert "<td>100 s</td><td>50 s</td>" in row(page, '<th scope="row">init_nerf<')
    for label in ("CLIP-I", "Chroma beyond truth"):
        assert "best" not in re.sub("less is better|more is better", "", row(page, label)), label
    assert "How close the subject" in row(page, "PSNR on the subject<")


def test_the_page_is_whole_and_holds_nothing_foreign(page: str) -> None:
    checker = checked(page)
    assert checker.names.count("img") == 4
    assert "Its pictures are gone." in checker.text and "refine_nerf.steps" in checker.text
    assert "evaluate_context_0/clip_t" in checker.text and "evaluate/psnr_fg" not in checker.text
    assert "This mesh: PSNR against truth" in checker.text and "init_nerf/loss" not in checker.text
    assert "same" not in re.findall(r"<code>(.*?)</code>", page)


def test_no_figure_is_best_among_what_nobody_knows() -> None:
    assert best_of("psnr", [1.0, math.nan, None, 2.0]) == {3}
    assert best_of("janus_rate", [0.5, 0.25, 0.25]) == {1, 2}
    assert best_of("psnr", [None, 2.0]) == best_of("psnr", [2.0, 2.0]) == best_of("nobody/knows", [1.0, 2.0]) == set()


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("evaluate/psnr", "psnr"), ("export_asset/mesh/psnr", "mesh/psnr"), ("evaluate_prompt/clip_t", "clip_t"),
        ("evaluate/coarse/psnr", "evaluate/coarse/psnr"), ("evaluate_coarse/psnr", "evaluate_coarse/psnr"),
        ("export_asset/mesh/black/psnr", "export_asset/mesh/black/psnr"),
        ("evaluate_context_0/clip_t", "evaluate_context_0/clip_t"), ("init_nerf/opacity", "init_nerf/opacity"),
    ],
)  # fmt: skip
def test_only_what_is_of_the_asset_itself_goes_by_its_own_name(key: str, name: str) -> None:
    assert called(key) == name


def test_a_spreadsheet_computes_nothing() -> None:
    runs = [
        {"run": "a", "status": "completed", "subject": "=1+1", "preset": "", "duration_s": 2.5,
         "metrics": {"evaluate/psnr": 25.5, "evaluate/nan": math.nan}, "params": {"x.low": "-1.5", "p": "@SUM(A1)"}},
        {"run": "b,\n", "status": "failed", "subject": "-dog", "preset": "+1", "duration_s": 1.0, "metrics": {},
         "params": {"=key": "1"}},
    ]  # fmt: skip
    table = list(csv.DictReader(io.StringIO(comma_separated(runs))))
    assert [row["run"] for row in table] == ["a", "b,\n"]
    assert table[0]["evaluate/psnr"] == "25.5" and table[0]["evaluate/nan"] == "" and table[1]["evaluate/psnr"] == ""
    assert table[0]["x.low"] == "-1.5" and table[1]["preset"] == "+1"
    assert table[0]["subject"] == "'=1+1" and table[0]["p"] == "'@SUM(A1)" and table[1]["subject"] == "'-dog"
    assert "'=key" in table[0]


@needs_browser
def test_a_phone_shows_it_without_sideways_scrolling(page: str, tmp_path: Path) -> None:
    assert in_a_phone(page, tmp_path) == OnPhone(beyond=0, pictures=4, ran=False, films=0)
