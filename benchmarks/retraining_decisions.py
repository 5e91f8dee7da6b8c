"""What it costs a retraining to decide about many subjects: CPU time and memory of its first two steps.

Made-up subjects with photos, tracked by DVC, and registries of ZenML and MLflow with versions in production, all below
a temporary folder. A process of its own decides, as a run's process does; what it needs for its imports is told apart.
It prints a table with a line for each number of subjects, of which every other one has a version in production.

Usage: python -m benchmarks.retraining_decisions [--subjects 100 300 1000] [--photos 5] [--profile FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.simultaneous import activated
from dreambooth3d.places import repository

_PHOTO_BYTES = 200_000


def write_dataset(root: Path, subjects: int, photos: int) -> list[str]:
    """A checkout's `data/` of as many subjects, with its `data.dvc` and the list of files in DVC's cache.

    The photos hold random bytes: a decision reads their hashes, and never decodes one.
    """
    names, entries = [f"subject{index:04}" for index in range(subjects)], []
    for name in names:
        folder = root / "data" / name
        folder.mkdir(parents=True)
        files = {f"{index:02}.jpg": os.urandom(_PHOTO_BYTES) for index in range(photos)}
        files["subject.yaml"] = b"class_noun: dog\n"
        for file, content in files.items():
            folder.joinpath(file).write_bytes(content)
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            entries.append({"md5": md5, "relpath": f"{name}/{file}"})
    listing = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True).encode()
    oid = hashlib.md5(listing, usedforsecurity=False).hexdigest()
    target = root / ".dvc" / "cache" / "files" / "md5" / oid[:2] / f"{oid[2:]}.dir"
    target.parent.mkdir(parents=True)
    target.write_bytes(listing)
    root.joinpath("data.dvc").write_text(f"outs:\n- md5: {oid}.dir\n  hash: md5\n  path: data\n")
    return names


def register(names: list[str]) -> None:
    """A version in production for each, of the present code and models and of other photos."""
    from zenml.client import Client
    from zenml.enums import MetadataResourceTypes
    from zenml.models import RunMetadataResource

    from dreambooth3d.config.photos import PhotosConfig
    from dreambooth3d.config.training import TrainingConfig
    from dreambooth3d.naming import LINEAGE, model_name
    from operations.launch.identity import training_identity
    from operations.records import rows
    from operations.registry import promotion

    mlflow, client = rows.client(), Client()
    experiment = mlflow.create_experiment(rows.EXPERIMENT)
    for subject in names:
        run, name = f"run-of-{subject}", model_name(subject)
        tags = dict.fromkeys(LINEAGE, "made up") | {
            rows.RUN_TAG: run, "subject": subject, "status": "completed", "bundle": f"bundles/{run}",
        }  # fmt: skip
        client.create_model(name)
        version = client.create_model_version(name)
        identity = training_identity(TrainingConfig(photos=PhotosConfig(subject=subject)), "of before")
        target = RunMetadataResource(id=version.id, type=MetadataResourceTypes.MODEL_VERSION)
        client.create_run_metadata(tags | {"identity": identity}, resources=[target])
        row = mlflow.create_run(experiment, tags=tags, run_name=run)
        mlflow.log_metric(row.info.run_id, "evaluate/psnr_fg", 20.0)
        mlflow.set_terminated(row.info.run_id)
        mlflow.create_registered_model(name)
        mlflow.create_model_version(name, f"{row.info.artifact_uri}/asset_model", run_id=row.info.run_id, tags=tags)
        promotion.promote(promotion.candidate(subject, run), "made up")


def decide() -> None:
    """Decide about all subjects of the working directory, and print the figures as JSON."""
    from dreambooth3d.config.fleet import PromotionConfig
    from dreambooth3d.config.photos import DatasetConfig
    from dreambooth3d.config.training import TrainingConfig
    from steps.decide_subjects import decide_subjects
    from steps.resolve_dataset import resolve_dataset

    imports_s, imports_kib = time.process_time(), _peak_kib()
    found = resolve_dataset.entrypoint(DatasetConfig(), [])
    found_s = time.process_time() - imports_s
    decisions = decide_subjects.entrypoint(found, TrainingConfig(), PromotionConfig())
    figures = {
        "start_mib": imports_kib / 1024,
        "find_cpu_s": found_s,
        "decide_cpu_s": time.process_time() - imports_s - found_s,
        "peak_mib": _peak_kib() / 1024,
        "actions": Counter(f"{row['action']}: {row['reason'].partition(' since')[0]}" for row in decisions),
    }
    print(json.dumps(figures))


def _peak_kib() -> int:
    """The most memory that this process has had (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


HEAD = (
    "| subjects | in production | finding, CPU s | deciding, CPU s | together, CPU s | memory over idle, MiB |",
    "|---|---|---|---|---|---|",
)


def measured(subjects: int, photos: int, profile: Path | None) -> str:
    """A line of the table, after all decisions have been made in a process of their own."""
    registered = subjects // 2
    with tempfile.TemporaryDirectory() as temporary:
        root, checkout = Path(temporary, "state"), Path(temporary, "checkout")
        write_dataset(checkout, subjects, photos)
        environment = activated(root) | {"PYTHONPATH": str(repository())}
        setup = [str(Path(sys.executable).with_name("dreambooth3d")), "setup"]
        subprocess.run(setup, cwd=repository(), env=environment, check=True, capture_output=True)
        inside = ["-m", "benchmarks.retraining_decisions", "--inside"]
        registering = [sys.executable, *inside, "register", "--registered", str(registered)]
        subprocess.run(registering, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
        profiled = ["-m", "cProfile", "-o", str(profile.absolute())] if profile else []
        deciding = [sys.executable, *profiled, *inside, "decide"]
        result = subprocess.run(deciding, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    figures = json.loads(result.stdout.splitlines()[-1])
    expected = {"train: changed": registered, "train: there is no production version yet": subjects - registered}
    if figures["actions"] != expected:
        raise RuntimeError(f"{figures['actions']} was decided, {expected} would be right")
    finding, deciding = figures["find_cpu_s"], figures["decide_cpu_s"]
    more = figures["peak_mib"] - figures["start_mib"]
    return f"| {subjects} | {registered} | {finding:.1f} | {deciding:.1f} | {finding + deciding:.1f} | {more:.0f} |"


def main() -> None:
    """Print what finding and deciding cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--photos", type=int, default=5)
    parser.add_argument("--profile", type=Path, help="write a profile of the last line's decisions there (cProfile)")
    parser.add_argument("--inside", choices=("register", "decide"), help=argparse.SUPPRESS)
    parser.add_argument("--registered", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside == "register":
        names = sorted(path.name for path in Path("data").iterdir())
        register(names[: arguments.registered])
        return
    if arguments.inside == "decide":
        decide()
        return
    print("\n".join(HEAD), flush=True)
    for subjects in arguments.subjects:
        print(measured(subjects, arguments.photos, arguments.profile), flush=True)


if __name__ == "__main__":
    main()
