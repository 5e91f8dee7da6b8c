"""Names of metrics in MLflow, whose charts and tables sort by name: first what people compare, and little of it.

| what | key |
|---|---|
| the asset's figures | `evaluate/psnr`, `evaluate_prompt/clip_t`, `evaluate_context_0/clip_t` |
| those of other views and other assets | `evaluate_near/psnr`, `evaluate_coarse/psnr`, `evaluate_baseline_mean/psnr` |
| what a step measured | `init_nerf/opacity`, `export_asset/mesh/psnr` |
| checkpoints side by side | `scores/subject_similarity`, one point per checkpoint |
| how a step ran | `steps/seconds/init_nerf`, `steps/cached/init_nerf`, `steps/peak_memory_mib/init_nerf` |

Rows of before have `evaluate/coarse/psnr` and `init_nerf/seconds`; whoever reads a row asks `current`.
"""

from __future__ import annotations

from collections.abc import Mapping

STEPS, SCORES = "steps", "scores"
SECONDS, CACHED = f"{STEPS}/seconds/", f"{STEPS}/cached/"
COMPARED = ("evaluate/", "evaluate_", SECONDS)
"""How the keys begin of what a comparison of runs shows."""
_OF_ANY_STEP = frozenset({"seconds", "cached", "peak_memory_mib", "process_memory_mib"})
_EVALUATION, _EXPORT = "evaluate", "export_asset"


def metric_key(step: str, name: str) -> str:
    """The key of a step's figure.

    Args:
        step: its name in the pipeline.
        name: of the figure, as the step's record has it.
    """
    if name in _OF_ANY_STEP:
        return f"{STEPS}/{name}/{step}"
    if step == _EVALUATION and "/" in name:
        return f"{step}_{name}"
    return f"{step}/{name}"


def asset_figures(metrics: Mapping[str, float]) -> dict[str, float]:
    """The figures of a row's asset and mesh by the names of the glossary, such as `psnr` and `coarse/psnr`.

    Args:
        metrics: of the row, under the keys of now.
    """
    found: dict[str, float] = {}
    for key, value in metrics.items():
        step, _, name = key.partition("/")
        if (step == _EXPORT and name.startswith("mesh")) or step in (_EVALUATION, f"{_EVALUATION}_prompt"):
            found[name] = value
        elif step.startswith(f"{_EVALUATION}_") and not step.startswith(f"{_EVALUATION}_context_"):
            found[f"{step.removeprefix(f'{_EVALUATION}_')}/{name}"] = value
    return found


def current_key(key: str) -> str:
    """A key of any version of this product as it is now."""
    step, slash, name = key.partition("/")
    return metric_key(step, name) if slash and step != STEPS else key


def current(metrics: Mapping[str, float]) -> dict[str, float]:
    """A row's metrics under the keys of now, whichever version of this product wrote them."""
    return {current_key(key): value for key, value in metrics.items()}
