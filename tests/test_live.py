"""What a running stage shows of itself, written and read; and that nothing there ends a stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dreambooth3d import live
from dreambooth3d.live import (
    LIVE_VARIABLE,
    Growth,
    LiveFolder,
    Series,
    live_folder,
    read_growth,
    read_picture,
    read_status,
)
from dreambooth3d.nerf.training.checks import PREVIEW_SIZE, preview_cameras, seen_growth
from dreambooth3d.record import StepLog
from dreambooth3d.representation.interface import Rendering

RADIUS = 0.6


def ball() -> Rendering:
    """An opaque ball as the previews' cameras see it, computed by hand: each point has the colour of its place."""
    origins, directions = preview_cameras().rays(PREVIEW_SIZE, PREVIEW_SIZE)
    along = (origins * directions).sum(-1)
    inside = along**2 - (origins**2).sum(-1) + RADIUS**2
    hit, depth = inside > 0, -along - inside.clamp(min=0).sqrt()
    places = origins + depth[..., None] * directions
    color = torch.where(hit[..., None], (places / RADIUS + 1) / 2, torch.ones(3))
    return Rendering(color.permute(0, 3, 1, 2), hit.float(), torch.where(hit, depth, 0.0))


def test_the_points_of_previews_lie_on_what_they_show() -> None:
    grown = seen_growth(ball())
    assert grown.views.shape == (8, PREVIEW_SIZE, PREVIEW_SIZE, 3) and len(grown.points) > 5000
    assert np.linalg.norm(grown.points, axis=1) == pytest.approx(RADIUS, abs=1e-3)
    expected = (grown.points / RADIUS + 1) / 2 * 255
    assert np.abs(grown.colors - expected).max() < 1.0
    # All around, and as the cameras' azimuths say: the front looks at +x.
    assert grown.points.min() < -0.9 * RADIUS and grown.points.max() > 0.9 * RADIUS
    assert grown.azimuths_deg[0] == 0 and grown.views[0, 32, 32, 0] > 240


def test_half_transparent_parts_keep_their_own_colour() -> None:
    solid = ball()
    color = solid.color * 0.6 + 0.4  # over white
    thin = seen_growth(Rendering(color, solid.opacity * 0.6, solid.depth))
    assert np.abs(thin.colors.astype(int) - seen_growth(solid).colors).max() <= 2


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None and read_growth(tmp_path) is None and read_picture(tmp_path) is None
    LiveFolder(tmp_path, "finetune").image("samples/000002", np.full((4, 6, 3), 7, np.uint8))
    log = StepLog("init_nerf", watcher=LiveFolder(tmp_path, "init_nerf"))
    log.scalars(1, loss=2.0, opacity=0.5)
    log.scalars(2, loss=1.0)
    log.growth(lambda: seen_growth(ball()))
    status, grown, picture = read_status(tmp_path), read_growth(tmp_path), read_picture(tmp_path)
    assert status is not None and grown is not None and picture is not None
    assert (status.stage, status.stages, status.step) == ("init_nerf", ("finetune", "init_nerf"), 2)
    assert status.values == {"loss": 1.0, "opacity": 0.5}
    assert (status.grown_in, status.grown_step) == ("init_nerf", 2)
    assert Series(tmp_path, "loss").of("init_nerf") == ([1, 2], [2.0, 1.0])
    assert Series(tmp_path, "loss").of("finetune") == ([], [])
    assert (picture == 7).all() and picture.shape == (4, 6, 3)
    np.testing.assert_array_equal(grown.colors, seen_growth(ball()).colors)
    # The next stage says so at once, and keeps the asset of the one before.
    LiveFolder(tmp_path, "export_asset")
    after = read_status(tmp_path)
    assert after is not None and after.stage == "export_asset" and after.grown_in == "init_nerf"


def test_each_look_reads_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line is read once it is whole, and a file that has begun again from its beginning."""
    monkeypatch.setattr(live, "WRITE_S", 0.0)
    series, writing = Series(tmp_path, "loss"), LiveFolder(tmp_path, "init_nerf")
    assert series.of("init_nerf") == ([], [])
    writing.scalars(1, {"loss": 2.0})
    assert series.of("init_nerf") == ([1], [2.0])
    # What has been read is not looked at again: here it would not even be readable.
    file = tmp_path / live.SERIES
    file.write_bytes(b"#" * (file.stat().st_size - 1) + b"\n")
    writing.scalars(2, {"opacity": 0.5})
    writing.scalars(3, {"loss": 1.0})
    with file.open("a") as half:
        half.write('{"stage": "init_nerf", "step": 4,')
    assert series.of("init_nerf") == ([1, 3], [2.0, 1.0])
    with file.open("a") as half:
        half.write(' "values": {"loss": 0.5}}\n')
    assert series.of("init_nerf") == ([1, 3, 4], [2.0, 1.0, 0.5]) and series.of("refine_nerf") == ([], [])
    file.unlink()
    LiveFolder(tmp_path, "refine_nerf").scalars(7, {"loss": 3.0})
    assert series.of("refine_nerf") == ([7], [3.0]) and series.of("init_nerf") == ([], [])


def test_a_view_that_fails_ends_no_stage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "taken").write_text("a file")
    log = StepLog("init_nerf", watcher=LiveFolder(tmp_path / "taken", "init_nerf"))
    log.scalars(1, loss=2.0)
    log.image("previews", torch.zeros(3, 4, 4))
    log.growth(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert caplog.text.count("The run goes on.") == 1
    assert len(log.record().series) == 1 and "previews" in log.record().images

    folder = LiveFolder(tmp_path / "good", "init_nerf")
    folder.growth(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert caplog.text.count("The run goes on.") == 2 and "division by zero" in caplog.text


def test_half_a_file_is_no_status(tmp_path: Path) -> None:
    folder = LiveFolder(tmp_path, "init_nerf")
    folder.scalars(1, {"loss": 1.0})
    folder.image("photos", np.zeros((2, 2, 3), np.uint8))
    assert read_status(tmp_path) is not None and read_picture(tmp_path) is not None
    for name in (live.STATUS, live.ASSET, live.PICTURE):
        (tmp_path / name).write_bytes(b'{"stage": "in')
    with (tmp_path / live.SERIES).open("a") as file:
        file.write('{"stage": "in')
    assert read_status(tmp_path) is None and read_growth(tmp_path) is None and read_picture(tmp_path) is None
    assert Series(tmp_path, "loss").of("init_nerf") == ([1], [1.0])


def test_nothing_is_made_where_nobody_watches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def made() -> Growth:
        raise AssertionError("nobody watches")

    monkeypatch.delenv(LIVE_VARIABLE, raising=False)
    assert live_folder("init_nerf") is None
    StepLog("init_nerf").growth(made)
    monkeypatch.setenv(LIVE_VARIABLE, str(tmp_path / "live"))
    watcher = live_folder("init_nerf")
    assert watcher is not None and read_status(tmp_path / "live") is not None
