"""`--live`: what it shows, and what it says where it cannot; the view in a browser is in tests/extras."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dreambooth3d.cli import extras
from dreambooth3d.cli.live import shown
from dreambooth3d.cli.main import app
from dreambooth3d.cli.server import beside, is_own_request
from dreambooth3d.live import Growth, Status

COLORS = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]], np.uint8)


def growth() -> Growth:
    """Eight views around, of which those from the four sides have each a colour; and a green wall of points."""
    views = np.full((8, 16, 16, 3), 255, np.uint8)
    views[::2] = COLORS[:, None, None]
    y, z = np.meshgrid(np.linspace(-1, 1, 120), np.linspace(-1, 1, 120))
    points = np.stack([np.zeros(y.size), y.ravel(), z.ravel()], axis=1).astype(np.float32)
    return Growth(views, np.arange(8, dtype=np.float32) * 45, points, np.tile(COLORS[1], (len(points), 1)))


def test_the_four_sides_are_those_of_their_azimuths() -> None:
    for turned in (0, 3):
        grown = growth()
        grown = Growth(np.roll(grown.views, turned, 0), np.roll(grown.azimuths_deg, turned), grown.points, grown.colors)
        sides, half = shown.four_sides(grown), shown.VIEW_PX
        found = [sides[y, x] for y in (half // 2, half * 3 // 2) for x in (half // 2, half * 3 // 2)]
        np.testing.assert_array_equal(found, COLORS)


def test_what_is_said_of_a_status() -> None:
    assert shown.heading(None) == shown.WAITING
    status = Status("init_nerf", ("finetune", "finetune", "init_nerf"), 40, {}, grown=1.0, grown_step=25, grown_in="x")
    assert shown.heading(status) == "**init_nerf**, step 40\n\nBefore: finetune"
    assert shown.caption(status) == "front, left, back, right (x, step 25)"
    values = {"guards/nan": 0.0, "sds": 3.0, "opacity": 0.25, "broken": float("nan"), "loss": 12345.6}
    assert [name for name, _ in shown.ranked(values)] == ["loss", "opacity", "sds"]
    assert "| loss | 1.235e+04 |" in shown.table(values) and shown.table({}) == ""


def test_a_curve_keeps_its_ends() -> None:
    assert shown.curve([1], [2.0]) is None
    steps, values = shown.curve(list(range(5000)), [float(-step) for step in range(5000)])
    assert len(steps) == 500 and (steps[0], steps[-1]) == (0, 4999)
    np.testing.assert_array_equal(values, -steps)


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("viser", ["train", "no_such_file.yaml", "--live"]),
        ("viser", ["generate", "a photo of a red snowman", "--live"]),
        ("gradio", ["web"]),
    ],
)
def test_a_missing_package_is_one_sentence_before_anything_starts(
    package: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == package else found(name))
    result = CliRunner().invoke(app, arguments)
    extra = {"viser": "live", "gradio": "web"}[package]
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.endswith(f"{package} is not installed. Run `pip install 'dreambooth3d[{extra}]'`.\n")
    assert len(result.stderr.splitlines()) == 1


def test_a_server_beside_a_run_ends_with_it(tmp_path: Path) -> None:
    """And one that fails at once is no matter to the run."""
    started = tmp_path / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(60)"
    with beside([sys.executable, "-c", code]):
        end = time.monotonic() + 30
        while not (started.exists() and started.read_text()):
            assert time.monotonic() < end
            time.sleep(0.05)
        os.kill(int(started.read_text()), 0)
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(int(started.read_text()), 0)
            time.sleep(0.05)
    with beside([sys.executable, "-c", "raise SystemExit(3)"]):
        time.sleep(0.3)


@pytest.mark.parametrize(
    ("host", "named", "origin", "own"),
    [
        ("127.0.0.1", "127.0.0.1:8080", None, True),
        ("127.0.0.1", "localhost:8080", "http://localhost:8080", True),
        ("127.0.0.1", "[::1]:8080", "http://[::1]:8080", True),
        ("127.0.0.1", "127.0.0.1:8080", "http://127.0.0.1:8081", False),  # another server of this computer
        ("127.0.0.1", "127.0.0.1:8080", "https://elsewhere.example", False),
        ("127.0.0.1", "127.0.0.1:8080", "null", False),  # a frame in a sandbox, or a file
        ("127.0.0.1", "elsewhere.example:8080", "http://elsewhere.example:8080", False),  # a name that leads here
        ("127.0.0.1", "", None, False),
        ("127.0.0.1", "[:8080", None, False),
        ("0.0.0.0", "box.example:8080", "http://box.example:8080", True),
        ("0.0.0.0", "box.example:8080", "http://elsewhere.example", False),
    ],
)
def test_only_its_own_page_is_answered(host: str, named: str, origin: str | None, own: bool) -> None:
    assert is_own_request(host, named, origin) is own
