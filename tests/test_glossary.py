"""The glossary: who is found under which name, and how figures are written."""

from __future__ import annotations

import math

import pytest

from dreambooth3d.glossary import LABELS, METRICS, metric, shown


def test_every_entry_is_one_that_can_be_shown() -> None:
    for name, entry in METRICS.items():
        assert entry.meaning[0].isupper() or entry.meaning[0].isdigit(), name
        assert entry.meaning == " ".join(entry.meaning.split()) and entry.meaning.endswith("."), name
        assert entry.better in ("up", "down", ""), name
    assert set(LABELS) <= {name.rpartition("evaluate_prompt/")[2] for name in METRICS}


@pytest.mark.parametrize(
    ("key", "unit", "better", "said"),
    [
        ("psnr", "dB", "up", "pixels"),
        ("evaluate/psnr", "dB", "up", "pixels"),
        ("export_asset/mesh/psnr", "dB", "up", "exported mesh"),
        ("evaluate/coarse/psnr", "dB", "up", "first radiance field"),
        ("evaluate/baseline_mean/mask_iou", "", "", "mean of the 36 true views"),
        ("evaluate/truth/janus_rate", "share", "", "True renders"),
        ("evaluate_context_3/psnr", "dB", "up", "true edited subject"),
        ("evaluate_context_3/psnr_source", "dB", "", "before the edit"),
        ("evaluate_prompt/clip_t", "cosine", "up", "the prompt"),
        ("evaluate_prompt/clip_t_truth", "cosine", "", "drawn at random"),
        ("diagnostics/init_nerf/guards/janus_trips", "", "down", "out of its bounds"),
        ("refine_nerf/seconds", "s", "down", "Time"),
        ("steps/seconds/refine_nerf", "s", "down", "Time"),
        ("evaluate_coarse/psnr", "dB", "up", "first radiance field"),
        ("evaluate_baseline_mean/psnr", "dB", "", "mean of the 36 true views"),
        ("scores/subject_similarity", "cosine", "up", "samples"),
    ],
)
def test_figures_are_found_with_and_without_their_stage(key: str, unit: str, better: str, said: str) -> None:
    found = metric(key)
    assert found is not None
    assert (found.unit, found.better) == (unit, better) and said in found.meaning


def test_nobody_knows_what_is_no_figure() -> None:
    assert metric("evaluate/nothing") is None and metric("") is None


def test_figures_as_people_read_them() -> None:
    cases = {
        (0.9567, "share"): "95.7%", (25.66, "dB"): "25.7 dB", (312.4, "s"): "312 s", (2.34, "ms"): "2.3 ms",
        (0.95786, ""): "0.958", (15000.0, ""): "15,000", (0.00012345, ""): "0.000123", (44.6, "degrees"): "45°",
        (math.nan, "dB"): "not known", (-0.7, ""): "-0.700",
    }  # fmt: skip
    assert {case: shown(*case) for case in cases} == cases
