"""Held-out photos of a known subject, compared with assets that are it, and that are not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.config.results import EvaluateConfig
from dreambooth3d.evaluation import heldout, registration
from dreambooth3d.evaluation.heldout import DEFINITIONS, compare_held_out
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from tests.evaluation.blobs import Blobs
from tests.evaluation.test_registration import photographed
from tests.export.fields import blob_field

CONFIG = EvaluateConfig(size=48, samples_per_ray=64)
SIDES = (-100.0, -20.0, 60.0)


def photo_set(*azimuths: float, trusted: bool = True) -> SubjectPhotos:
    """Photos of the balls on grey."""
    shots = [photographed(azimuth, 15.0, 5.0, (2.0, -2.0)) for azimuth in azimuths]
    images = tuple(image * mask + 0.5 * (1 - mask) for image, mask in shots)
    facts = pd.DataFrame({"file": [f"{azimuth:.0f}.png" for azimuth in azimuths], "width": 160, "height": 160})
    facts = facts.assign(mask_source="files", mask_confidence=1.0, mask_trusted=trusted, mask_cut=0.0)
    # 36 mm along the longer side, seen within 40 degrees.
    facts = facts.assign(focal_length_35mm=49.454)
    masks = tuple(mask for _, mask in shots)
    return SubjectPhotos(images, facts, (), "rex", "sks", "toy", "", "untracked:0", masks=masks)


def compared(photos: SubjectPhotos, field: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is found, and the log."""
    monkeypatch.setattr(heldout, "load_representation", lambda asset, device: field)
    runtime = Runtime(StepLog("evaluate"), tmp_path)
    return compare_held_out(blob_field(), photos, CONFIG, runtime), runtime.log.record()


def test_a_perfect_asset_shows_the_held_out_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = replace(photo_set(*SIDES), held_out=photo_set(150.0))
    views, record = compared(photos, Blobs(), tmp_path, monkeypatch)
    metrics = views.metrics()
    assert set(metrics) == set(DEFINITIONS)
    assert metrics["heldout_photo_iou"] > 0.95
    assert metrics["heldout_photo_psnr_fg"] > 22 > 16 > metrics["heldout_photo_psnr_fg_mean"]
    found = re.match(r"150.png from azimuth (-?\d+), elevation (-?\d+), roll", record.params["heldout_photos"])
    assert found and abs(int(found[1]) - 150) < 5 and abs(int(found[2]) - 15) < 5
    assert set(record.images) == {"heldout_photos"}


def test_an_asset_in_other_colours_and_one_of_another_shape_are_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Grey(Blobs):
        def density_and_color(self, points):
            density, color = super().density_and_color(points)
            return density, torch.full_like(color, 0.5)

    class Ball(Blobs):
        def density_and_color(self, points):
            return 200.0 * (points.norm(dim=-1) < 0.5), super().density_and_color(points)[1]

    photos = replace(photo_set(*SIDES), held_out=photo_set(150.0))
    perfect, grey, ball = (compared(photos, kind(), tmp_path, monkeypatch)[0].metrics() for kind in (Blobs, Grey, Ball))
    assert grey["heldout_photo_psnr_fg"] < perfect["heldout_photo_psnr_fg"] - 6
    assert ball["heldout_photo_iou"] < perfect["heldout_photo_iou"] - 0.1
    assert grey["heldout_photo_psnr_fg_mean"] == perfect["heldout_photo_psnr_fg_mean"], "no asset takes part in it"


def test_the_mean_photo_of_the_same_photo_is_that_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "ROUNDS", ((24, 1, 1),))
    photos = replace(photo_set(150.0), held_out=photo_set(150.0))
    views, _ = compared(photos, Blobs(), tmp_path, monkeypatch)
    assert views.metrics()["heldout_photo_psnr_fg_mean"] == pytest.approx(100)


def test_without_a_trusted_mask_there_is_no_metric_but_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = replace(photo_set(*SIDES), held_out=photo_set(150.0, trusted=False))
    views, record = compared(photos, Blobs(), tmp_path, monkeypatch)
    assert views is None and not record.images
    assert record.params["heldout_photos"] == "none: no mask of 150.png is trusted"


def test_without_trusted_training_photos_there_is_no_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "ROUNDS", ((24, 1, 1),))
    photos = replace(photo_set(*SIDES, trusted=False), held_out=photo_set(150.0))
    views, _ = compared(photos, Blobs(), tmp_path, monkeypatch)
    assert set(views.metrics()) == {"heldout_photo_iou", "heldout_photo_psnr_fg"}
    assert set(views.rows()) == {"held out", "from there"}


def test_nothing_held_out_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views, record = compared(photo_set(*SIDES), Blobs(), tmp_path, monkeypatch)
    assert views is None and not record.params and not record.images


def test_an_empty_asset_is_scored_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing(Blobs):
        def density_and_color(self, points):
            density, color = super().density_and_color(points)
            return 0 * density, color

    photos = replace(photo_set(*SIDES), held_out=photo_set(150.0))
    views, _ = compared(photos, Nothing(), tmp_path, monkeypatch)
    metrics = views.metrics()
    assert metrics["heldout_photo_iou"] == 0
    assert 0 < metrics["heldout_photo_psnr_fg"] < metrics["heldout_photo_psnr_fg_mean"]
