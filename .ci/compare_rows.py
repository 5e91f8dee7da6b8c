"""Compare the MLflow rows of a fresh demo run and of one that the cache served: both must be complete and equal."""

import json
import sys
from pathlib import Path

TIMES, MORE_TIMES = "steps/", "ms_per_step"


def load(path: str) -> dict:
    """One answer of `dreambooth3d runs show latest --json`."""
    return json.loads(Path(path).read_text())


def main(cold_path: str, cached_path: str) -> None:
    """Exit with a message at the first difference."""
    cold, cached = load(cold_path), load(cached_path)
    if cold["run"] == cached["run"]:
        sys.exit("the second demo left no row of its own")
    missing = sorted(set(cold["metrics"]) - set(cached["metrics"]))
    if missing:
        sys.exit(f"the cached row lacks {missing}")
    times = {key for key in cold["metrics"] if key.startswith(TIMES) or key.endswith(MORE_TIMES)}
    stable = {key: value for key, value in cold["metrics"].items() if key not in times}
    changed = {key: (value, cached["metrics"][key]) for key, value in stable.items() if cached["metrics"][key] != value}
    if changed:
        sys.exit(f"the cached row differs: {changed}")
    for name, path in cached["artifacts"].items():
        if not Path(path).exists():
            sys.exit(f"artifact {name} is not at {path}")
    score = {key: round(cold["metrics"][f"evaluate/{key}"], 2) for key in ("psnr", "psnr_fg", "mask_iou")}
    durations = f"{cold['duration_s']} s, from the cache {cached['duration_s']} s"
    print(f"demo: {durations}, {len(stable)} metrics equal, {score}")


main(*sys.argv[1:])
