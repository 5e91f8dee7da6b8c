"""The speed benchmark: what it computes from times, and that its jobs run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.speed import dreambooth, jobs, peers, report, sds
from benchmarks.speed.random_model import write_model
from benchmarks.speed.timing import Stopwatch, Timing, time_steps

CPU = torch.device("cpu")
ABOUT = {"machine": "one GPU", "commit": "abc", "date": "2026-01-01"}


def timing(median: float, **more: object) -> dict[str, object]:
    samples = [median - 1, median, median + 1]
    return ABOUT | Timing(samples, 2.0, 1.5).summary() | {"samples_ms": samples, "first_step_s": 1.0} | more


def test_summary_is_that_of_numpy() -> None:
    samples = np.random.default_rng(0).gamma(2.0, size=1001).tolist()
    summary = Timing(samples, None, None).summary()
    assert summary["median"] == pytest.approx(np.median(samples))
    assert summary["p10"] == pytest.approx(np.quantile(samples, 0.1), rel=0.01)
    assert summary["p90"] == pytest.approx(np.quantile(samples, 0.9), rel=0.01)


def test_warm_up_is_not_counted() -> None:
    calls: list[int] = []
    result = time_steps(lambda: calls.append(1), 7, CPU, warm_up=4)
    assert len(calls) == 11 and len(result.samples) == 7 and result.peak_gib is None
    assert all(sample >= 0 for sample in result.samples)


def test_the_stopwatch_adds_up_what_has_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 0.001, 0.003, 0.006, 1.0, 1.002, 1.004, 1.010])
    monkeypatch.setattr("benchmarks.speed.timing.time.perf_counter", lambda: next(moments))
    watch = Stopwatch(CPU)
    for _ in range(2):
        watch.begin()
        for name in ("render", "UNet", "render"):
            watch.mark(name)
    assert watch.means() == {"render": pytest.approx((1 + 3 + 2 + 6) / 2), "UNet": pytest.approx(2.0)}


def test_figures_follow_from_the_times() -> None:
    results = {
        "sds_compile": timing(30.0),
        "threestudio": timing(120.0),
        "dreambooth_graphs": timing(60.0),
        "dreambooth_compile": timing(50.0) | {"first_step_s": 100.0},
        "diffusers": timing(150.0),
        "encodings": ABOUT
        | {"samples_ms": {"triton fp32": [3.0], "triton fp16": [1.5], "tcnn fp16": [1.0], "torch fp32": [20.0]}},
        "two_gpus": ABOUT | {"one": {"views": 2, "median": 40.0}, "two": {"views": 4, "median": 44.0}},
        "toybox_gpu": ABOUT | {"minutes": 3.5},
    }
    found = report.figures(results)
    assert found["sds_step_ms"] == 30.0 and found["sds_peak_gib"] == 2.0 and found["threestudio_step_ms"] == 120.0
    assert found["dreambooth_speedup"] == pytest.approx(3.0)
    assert found["triton_over_tcnn"] == pytest.approx(1.5)
    assert found["two_gpu_speedup"] == pytest.approx(2 * 40 / 44)
    # 15,000 steps of 30 ms, 800 of 60 ms, and a second each to begin: compiling the latter would take longer.
    assert found["sd15_run_minutes"] == pytest.approx((450 + 48 + 2) / 60)
    assert found["toybox_gpu_minutes"] == 3.5 and found["machine"] == "one GPU" and found["commit"] == "abc"


def test_what_is_missing_is_null_and_named(tmp_path: Path) -> None:
    for name, result in {"sds_plain": timing(90.0, losses=[1.0, 2.0], profile={"UNet": 40.0}),
                         "two_gpus": ABOUT | {"missing": "this machine shows one GPU"}}.items():  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    text = report.write(tmp_path, tmp_path / "report")
    found = json.loads((tmp_path / "report" / "speed.json").read_text())
    assert [name for name, value in found.items() if value is not None] == ["machine", "commit"]
    assert "| plain calls | 90.00 [89.00, 91.00] | 2.00 | 1.50 | 1.0 |" in text
    assert "- `two_gpus`: this machine shows one GPU" in text and "nan" not in text


def test_losses_are_compared_and_compilation_is_paid_back(tmp_path: Path) -> None:
    plain = timing(90.0, losses=[1.0, 2.0, 4.0], profile={"UNet": 40.0})
    fast = timing(40.0, losses=[1.0, 2.002, 4.04], profile={"UNet": 7.0}) | {"first_step_s": 101.0}
    for name, result in {"sds_plain": plain, "sds_compile": fast}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    text = report.write(tmp_path, tmp_path)
    assert "difference 0.0e+00 at the first step, at most 1.0e-02 over 3 steps (median 1.0e-03)" in text.replace(
        "\n", ""
    )
    # 100 s more at the start, 50 ms less per step.
    assert "takes 100 s more at the first step, paid back after 2000 steps" in text
    assert re.search(r"\| UNet \| 40\.00 \| 7\.00 \|", text)


@pytest.fixture(scope="module")
def tiny_sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "sd15", scale=0.05, dtype=torch.float32)


@pytest.mark.parametrize("name", ["sds_graphs", "dreambooth_plain", "encodings", "field", "mesh", "gaussians"])
def test_jobs_run(name: str, tiny_sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (dreambooth, sds):
        monkeypatch.setattr(module, "SAME_STEPS", 2)
    result = jobs.JOBS[name](tiny_sd15, CPU, 2, tmp_path)
    if name == "encodings":
        assert len(result["samples_ms"]["torch fp32"]) == 2
        return
    assert len(result["samples_ms"]) == 2 and min(result["samples_ms"]) > 0
    assert np.isfinite(result["losses"]).all() and min(result["losses"]) > 0
    if name == "sds_graphs":
        parts = {"cameras, occupancy", "render", "encode", "UNet", "backward: encoder", "backward: render", "Adam"}
        assert set(result["profile"]) == parts and min(result["profile"].values()) > 0


def test_a_failing_job_says_why(tmp_path: Path) -> None:
    result = jobs.run("sds_graphs", tmp_path / "x.json", tmp_path / "nowhere", "cpu", 1, tmp_path / "cache")
    assert result["missing"].startswith("it failed: ") and "nowhere" in result["missing"]


def test_a_peer_is_watched_and_ended(tmp_path: Path) -> None:
    """A script that trains by accelerate, as diffusers' does, with steps of known length and far too many of them."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, time, torch\n"
        "from accelerate import Accelerator\n"
        "if __name__ == '__main__':\n"
        "    assert sys.argv[1:] == ['--flag', 'value']\n"
        "    accelerator, weight = Accelerator(cpu=True), torch.nn.Parameter(torch.ones(1))\n"
        "    for step in range(100_000):\n"
        "        time.sleep(0.02)\n"
        "        accelerator.backward((weight ** 2).sum())\n"
    )
    result = peers._run("diffusers", tmp_path / "out.json", 5, [str(script), "--flag", "value"])
    assert len(result["samples_ms"]) == 5 and 19 < result["median"] < 200


def test_a_peer_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("raise SystemExit('no such model')")
    assert peers._run("diffusers", tmp_path / "out.json", 5, [str(script)]) == {"missing": "it failed: no such model"}
