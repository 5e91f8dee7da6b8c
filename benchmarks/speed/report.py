"""The speed report: tables in Markdown, the issue's figures in JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.timing import ratio

SDS_STEPS = 10_000 + 5_000
DREAMBOOTH_STEPS = 800
SDS = {"sds_plain": "plain calls", "sds_graphs": "CUDA graphs", "sds_compile": "compiled, CUDA graphs"}
KINDS = {"field": "radiance field", "mesh": "surface mesh", "gaussians": "3D Gaussians"}
DREAMBOOTH = {
    "dreambooth_plain": "plain calls",
    "dreambooth_graphs": "CUDA graph",
    "dreambooth_compile": "compiled, CUDA graph",
    "dreambooth_low_memory": "LoRA of rank 4, gradient checkpointing, fp16",
    "diffusers": "diffusers' train_dreambooth.py",
}
PEAKS = ("peak memory held (GiB)", "of it in tensors (GiB)")
Results = dict[str, dict[str, Any]]


def load(folder: Path) -> Results:
    """What was measured, by job."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if path.stem != "speed"}
    return {name: result for name, result in found.items() if "machine" in result}


def write(results_folder: Path, folder: Path) -> str:
    """Write `speed.md` and `speed.json` to `folder`; returns the former."""
    results = load(results_folder)
    text = "\n".join(_lines(results))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "speed.md").write_text(text + "\n")
    (folder / "speed.json").write_text(json.dumps(figures(results), indent=1) + "\n")
    return text


def figures(results: Results) -> dict[str, Any]:
    """The headline figures; null where something was not measured."""
    good = {name: result for name, result in results.items() if "missing" not in result}
    sds = good.get("sds_compile", {})
    forms = [good[name] for name in ("dreambooth_graphs", "dreambooth_compile") if name in good]
    theirs = good.get("diffusers", {})
    beside = [form for form in forms if _run(form) == _run(theirs)]
    ours = min(beside, key=lambda form: form["median"], default=None)
    encodings = good.get("encodings", {}).get("samples_ms", {})
    kinds = {name: {key: good[name][key] for key in ("median", "peak_gib")} for name in KINDS if name in good}
    known = sds or next(iter(results.values()), {})
    return {
        "sds_step_ms": sds.get("median"),
        "sds_peak_gib": sds.get("peak_gib"),
        "kinds": kinds or None,
        "threestudio_step_ms": good.get("threestudio", {}).get("median"),
        "dreambooth_speedup": ratio(theirs["samples_ms"], ours["samples_ms"]) if ours else None,
        "triton_over_tcnn": _triton_over_tcnn(encodings),
        "two_gpu_speedup": _two_gpu_speedup(good.get("two_gpus")),
        "toybox_gpu_minutes": good.get("toybox_gpu", {}).get("minutes"),
        "sd15_run_minutes": min((_whole_run(sds, form) for form in forms if sds), default=None),
        "machine": known.get("machine"),
        "commit": known.get("commit"),
    }


def _run(result: dict[str, Any]) -> tuple[str | None, ...]:
    """What tells the runs apart that results are from: ratios are of results of one run."""
    return tuple(result.get(name) for name in ("machine", "commit", "date"))


def _triton_over_tcnn(encodings: dict[str, list[float]]) -> float | None:
    """Ratio of the fastest form of each."""
    best = {
        kind: min((statistics.median(times) for name, times in encodings.items() if kind in name), default=None)
        for kind in ("triton", "tcnn")
    }
    return None if None in best.values() else best["triton"] / best["tcnn"]


def _two_gpu_speedup(result: dict[str, Any] | None) -> float | None:
    """Views per second of two GPUs at twice the views over those of one."""
    if result is None:
        return None
    one, two = result["one"], result["two"]
    return (two["views"] / two["median"]) / (one["views"] / one["median"])


def _whole_run(sds: dict[str, Any], dreambooth: dict[str, Any]) -> float:
    """Minutes of 10,000 + 5,000 steps of distillation and 800 of DreamBooth, with their start-up."""
    milliseconds = SDS_STEPS * sds["mean"] + DREAMBOOTH_STEPS * dreambooth["mean"]
    return (milliseconds / 1e3 + sds["first_step_s"] + dreambooth["first_step_s"]) / 60


def _lines(results: Results) -> Iterable[str]:
    yield "# Speed"
    yield ""
    yield "Printed by `python -m benchmarks.speed`, on random weights of Stable Diffusion 1.5's size. Medians, in"
    yield "brackets the 10th and 90th percentile; warm-up is not counted. Measured on:"
    yield ""
    for about in sorted({_run(result) for result in results.values()}):
        names = ", ".join(f"`{name}`" for name, result in results.items() if _run(result) == about)
        yield f"- {about[0]}, commit {about[1]}, {about[2]}: {names}"
    yield from _step_table("Score distillation: one step", "64x64 rays, 512 samples per ray, one view", SDS, results)
    yield from _same_losses("sds_plain", ("sds_graphs", "sds_compile"), results)
    yield from _pay_back(results)
    yield from _profile(results)
    yield from _kinds(results)
    title = "one instance and one class image, UNet and text encoder, latents cached"
    yield from _step_table("DreamBooth: one step", title, DREAMBOOTH, results)
    if _good(results, "diffusers"):
        yield ""
        yield "diffusers' script also reads, crops and encodes its images at each step; ours encodes each once."
    yield from _same_losses("dreambooth_plain", ("dreambooth_graphs", "dreambooth_compile"), results)
    yield from _encodings(results)
    yield from _scaling(results)
    yield from _two_gpus(results)
    yield from _whole(results)
    missing = {name: result["missing"] for name, result in results.items() if "missing" in result}
    if missing:
        yield from ("", "## Not measured", "", *(f"- `{name}`: {why}" for name, why in missing.items()))


def _good(results: Results, name: str) -> dict[str, Any] | None:
    result = results.get(name)
    return None if result is None or "missing" in result else result


def _peaks(result: dict[str, Any]) -> list[str]:
    """Cells for `PEAKS`."""
    return [_number(result["peak_gib"], 2), _number(result["allocated_gib"], 2)]


def _step_table(title: str, what: str, names: dict[str, str], results: Results) -> Iterable[str]:
    rows = []
    for name, shown in names.items():
        result = _good(results, name)
        if result is not None:
            first = result.get("first_step_s")
            rows.append([shown, _spread(result), *_peaks(result), _number(first, 1)])
    if rows:
        yield from ("", f"## {title}", "", f"{what[0].upper()}{what[1:]}.", "")
        yield from markdown(["form", "ms per step", *PEAKS, "first step (s)"], rows)


def _same_losses(plain: str, others: Sequence[str], results: Results) -> Iterable[str]:
    """How far the losses of the first steps are from those of the plain form."""
    reference = _good(results, plain)
    for name in others:
        result = _good(results, name)
        if reference is not None and result is not None:
            errors = [abs(a - b) / abs(a) for a, b in zip(reference["losses"], result["losses"], strict=True)]
            yield ""
            yield (
                f"Losses of `{name}` against `{plain}`, same seed: relative difference {errors[0]:.1e} at the first "
                f"step, at most {max(errors):.1e} over {len(errors)} steps (median {statistics.median(errors):.1e})."
            )


def _pay_back(results: Results) -> Iterable[str]:
    plain = _good(results, "sds_plain")
    for name, shown in (("sds_compile", "from cold"), ("sds_compile_warm", "with a warm cache of compiled artefacts")):
        fast = _good(results, name)
        if plain is not None and fast is not None:
            saved = (plain["median"] - fast["median"]) / 1e3
            extra = fast["first_step_s"] - plain["first_step_s"]
            yield ""
            paid = f"paid back after {extra / saved:.0f} steps" if saved > 0 else "never paid back"
            yield f"Compilation {shown} takes {extra:.0f} s more at the first step, {paid}."


def _profile(results: Results) -> Iterable[str]:
    names = [name for name in SDS if _good(results, name)]
    parts = list(dict.fromkeys(part for name in names for part in results[name]["profile"]))
    rows = [[part, *(_number(results[name]["profile"].get(part), 2) for name in names)] for part in parts]
    if rows:
        yield from ("", "Where the milliseconds go (means, between marks on the device's clock):", "")
        yield from markdown(["part", *(SDS[name] for name in names)], rows)


def _kinds(results: Results) -> Iterable[str]:
    rows = [
        [
            shown,
            result["what"],
            str(result["size"]),
            _spread(result),
            *_peaks(result),
            _number(result["first_step_s"], 1),
        ]
        for name, shown in KINDS.items()
        if (result := _good(results, name)) is not None
    ]
    if rows:
        yield from ("", "## The kinds of assets: one step of score distillation", "")
        yield "The first stage of `configs/sd15_dog.yaml` as each kind: one view, which guidance sees at 512 pixels."
        yield ""
        header = ["kind", "of", "pixels per side rendered", "ms per step", *PEAKS, "first step (s)"]
        yield from markdown(header, rows)


def _encodings(results: Results) -> Iterable[str]:
    result = _good(results, "encodings")
    if result is not None:
        rows = [[name, _spread(_summary(times))] for name, times in result["samples_ms"].items()]
        yield from ("", f"## Hash grid: {result['points']:,} points, forward and backward", "")
        yield from markdown(["implementation", "ms"], rows)


def _scaling(results: Results) -> Iterable[str]:
    result = _good(results, "scaling")
    if result is not None:
        keys = ("acceleration", "size", "samples", "views")
        rows = [[*(str(row[key]) for key in keys), _spread(row), *_peaks(row)] for row in result["rows"]]
        yield from ("", "## How a step grows", "")
        yield from markdown(["form", "rays per side", "samples per ray", "views", "ms per step", *PEAKS], rows)


def _two_gpus(results: Results) -> Iterable[str]:
    result = _good(results, "two_gpus")
    if result is not None:
        rows = [
            [shown, str(result[name]["views"]), _spread(result[name])]
            for name, shown in (
                ("one", "one GPU"),
                ("one_with_twice_the_views", "one GPU, twice the views"),
                ("two", "two GPUs, twice the views"),
            )
        ]
        yield from ("", "## Two GPUs of one host", "")
        yield from markdown(["on", "views", "ms per step"], rows)
        yield ""
        yield f"Throughput of two GPUs over one: {_two_gpu_speedup(result):.2f}."
        last = [_mean_and_error(result[name]["losses"][-50:]) for name in ("one_with_twice_the_views", "two")]
        steps = len(result["two"]["losses"])
        yield f"Mean guidance loss of the last 50 of {steps} steps: {last[0]} on one and {last[1]} on two."


def _mean_and_error(values: Sequence[float]) -> str:
    """The mean and its standard error."""
    if len(values) < 2:
        return f"{statistics.mean(values):.3g}"
    return f"{statistics.mean(values):.3g} ± {statistics.stdev(values) / len(values) ** 0.5:.1g}"


def _whole(results: Results) -> Iterable[str]:
    known = figures(results)
    rows = [
        ["`configs/toybox_gpu.yaml` end to end (measured)", _number(known["toybox_gpu_minutes"], 1)],
        [
            "Stable Diffusion 1.5: 10,000 + 5,000 + 800 steps (from the steps above)",
            _number(known["sd15_run_minutes"], 1),
        ],
    ]
    yield from ("", "## Whole runs", "")
    yield from markdown(["run", "minutes"], rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _summary(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    tenth = len(ordered) // 10
    return {"median": statistics.median(ordered), "p10": ordered[tenth], "p90": ordered[-1 - tenth]}


def _spread(result: dict[str, Any]) -> str:
    return f"{result['median']:.2f} [{result['p10']:.2f}, {result['p90']:.2f}]"


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"
