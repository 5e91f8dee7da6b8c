"""The default recipe refined as each kind of asset: on the toybox' test subjects, and on photo sets with their truth.

The kinds share photos, fine-tuning, first field and pseudo views, which are made once per subject.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.family import validation
from benchmarks.quality.plan import DEFAULT, QUICK_SUBJECTS, Method, Run
from benchmarks.quality.results import Results
from benchmarks.quality.sources import Source, Toybox
from benchmarks.real.plan import Real
from dreambooth3d.toybox.subjects import SUBJECTS, TEST_SUBJECTS

FOLDER = "personalised"
"""Of the results, below those of the prompts."""
TOYBOX = "toybox"
KINDS: Mapping[str, Method] = {
    "field": Method("field", DEFAULT, note="the default: a radiance field from the first step to the last"),
    "mesh": Method(
        "mesh",
        DEFAULT,
        ("refine_nerf.representation=mesh", "refine_nerf.render.size=64"),
        "its first field becomes a surface mesh, which is refined",
    ),
    "gaussians": Method(
        "gaussians",
        DEFAULT,
        ("refine_nerf.representation=gaussians", "refine_nerf.render.size=64"),
        "its first field becomes 3D Gaussians, which are refined",
    ),
}


def all_runs(sets: Sequence[str], seeds: Sequence[int], quick: bool = False) -> list[Run]:
    """Every kind on every toybox subject and photo set, the first seed of all first.

    Args:
        sets: keys of photo sets, such as `casual-bob`.
        seeds: of the runs.
        quick: one development subject in place of the test subjects.
    """
    subjects = (*(QUICK_SUBJECTS if quick else TEST_SUBJECTS), *sets)
    return [Run(method, name, seed) for seed in seeds for name in subjects for method in KINDS.values()]


def finished_runs(results: Results) -> list[Run]:
    """The runs whose results lie in a folder, whatever this call asks for; in the order of `all_runs`."""
    known = {subject: number for number, subject in enumerate(SUBJECTS)}
    found = []
    for file in results.folder.glob("*.json"):
        kept = json.loads(file.read_text())
        if kept.get("method") in KINDS:
            found.append(Run(KINDS[kept["method"]], kept["subject"], kept["seed"]))
    names = list(KINDS)
    return sorted(
        (run for run in found if run in results),
        key=lambda run: (run.seed, known.get(run.subject, len(known)), run.subject, names.index(run.method.name)),
    )


def set_of(subject: str) -> str:
    """Where a subject is from: the toybox, or a kind of photos such as `casual`."""
    return TOYBOX if subject in SUBJECTS else subject.partition("-")[0]


@dataclass(frozen=True)
class Sources:
    """Gives the photos of a subject by its name.

    Attributes:
        real: the folder of photo sets, where there is one.
    """

    real: Path | None = None

    def __call__(self, name: str) -> Source:
        """The toybox' subject of that name, or else the photo set of that key."""
        if name in SUBJECTS or self.real is None:
            return Toybox(name)
        return Real.of(self.real, name)


def validated(runs: Sequence[Run], results: Results) -> list[dict[str, Any]]:
    """Finished runs with what Khronos' validator says of their kept meshes as `glb/...`, where it is installed."""
    loaded = results.load(list(runs))
    for run, found in zip([run for run in runs if run in results], loaded, strict=True):
        if results.mesh(run).exists():
            issues = validation.issues(results.mesh(run))
            found["metrics"] |= {f"glb/{name}": float(count) for name, count in issues.items()}
    return loaded


def aligned(metrics: Mapping[str, Any], name: str) -> float | None:
    """A metric after alignment with the truth: the evaluation's own in the toybox, else that of the photo set."""
    return metrics.get(f"{name}_aligned", metrics.get(f"aligned/{name}"))
