"""`dreambooth3d doctor`: is the installation whole?"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dreambooth3d.cli import environment

LOCK = "requirements.lock"


@dataclass(frozen=True)
class Finding:
    """One checked thing.

    Attributes:
        name: what was checked.
        good: whether it is as it must be.
        text: what was found, and what to do.
    """

    name: str
    good: bool
    text: str


def run_doctor(as_json: bool) -> bool:
    """Print one line per check; whether all are good."""
    logging.getLogger("zenml").setLevel(logging.ERROR)
    findings = list(_findings())
    if as_json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'ok    ' if finding.good else 'BROKEN'} {finding.name:<12} {finding.text}")
    return all(finding.good for finding in findings)


def _findings() -> Iterator[Finding]:
    checks: dict[str, Callable[[], str]] = {
        "python": _python,
        "packages": _packages,
        "device": _device,
        "activation": _activation,
        "stack": _stack,
        "models": _models,
        "data": _data,
        "configs": _configs,
    }
    for name, check in checks.items():
        try:
            yield Finding(name, True, check())
        except Exception as error:  # whatever is broken, the other checks are still of use
            gist = str(error).splitlines()[0] if str(error) else type(error).__name__
            yield Finding(name, False, gist)


def _python() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        raise RuntimeError(f"Python {version} is not supported. Use 3.11 or 3.12: make setup PYTHON=python3.11")
    return f"Python {version}"


def _packages() -> str:
    from importlib.metadata import PackageNotFoundError, version

    wanted = _pinned((environment.repository() / LOCK).read_text())
    wrong = []
    for name, pinned in wanted.items():
        try:
            # A local build such as 2.13.0+cpu is the pinned version.
            found = version(name).partition("+")[0]
        except PackageNotFoundError:
            found = "missing"
        if found != pinned:
            wrong.append(f"{name} is {found}, pinned is {pinned}")
    if wrong:
        raise RuntimeError(f"{'; '.join(wrong[:3])} ({len(wrong)} in all). Run: make setup")
    return f"{len(wanted)} packages as pinned in {LOCK}"


def _pinned(lock: str) -> dict[str, str]:
    """Name -> version of the lines of a lock file whose markers hold on this machine."""
    from packaging.requirements import Requirement

    lines = (line.partition("#")[0].strip() for line in lock.splitlines())
    requirements = [Requirement(line) for line in lines if line]
    needed = [requirement for requirement in requirements if not requirement.marker or requirement.marker.evaluate()]
    return {requirement.name: str(requirement.specifier).removeprefix("==") for requirement in needed}


def _device() -> str:
    import torch

    from dreambooth3d.context import pick_device

    device = pick_device()
    shown = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return f"{device.type} ({shown}), torch {torch.__version__}"


def _activation() -> str:
    script = environment.activate_script()
    if script is not None and environment.ACTIVE not in script.read_text():
        raise RuntimeError(f"{script} lacks this product's settings. Run: dreambooth3d setup")
    return f"ZENML_CONFIG_PATH={os.environ['ZENML_CONFIG_PATH']}"


def _stack() -> str:
    from zenml.client import Client

    from dreambooth3d.cli.runs import tracking_uri

    tracking_uri()
    return f"{Client().active_stack_model.name} with an MLflow tracker"


def _models() -> str:
    from dreambooth3d.config import BaseModelConfig, ScorersConfig
    from pipelines.identity import base_model_identity, scorer_identity
    from pipelines.preflight import check_scorers

    scorers = ScorersConfig()
    base = base_model_identity(BaseModelConfig())
    check_scorers(scorers)
    names = {"base": base, "selector": scorer_identity(scorers.selector), "judge": scorer_identity(scorers.judge)}
    return ", ".join(f"{name} {identity.removeprefix('sha256:')[:12]}" for name, identity in names.items())


def _data() -> str:
    from dreambooth3d.config import PhotosConfig
    from dreambooth3d.photos.dataset import dataset_hash

    subjects = sorted(path.name for path in (environment.home() / "data").glob("*/"))
    if not subjects:
        raise RuntimeError("data/ is empty. Run: dreambooth3d setup")
    for subject in subjects:
        dataset_hash(PhotosConfig(subject=subject), environment.home())
    return f"{len(subjects)} subjects ({', '.join(subjects)}), as recorded"


def _configs() -> str:
    from pipelines.checking import check_file

    files = sorted((environment.repository() / "configs").glob("*.yaml"))
    for file in files:
        check_file(file)
    return f"{len(files)} files in configs/ are valid"
