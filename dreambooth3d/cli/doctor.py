"""`dreambooth3d doctor`: is the installation whole?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dreambooth3d import environment, places
from dreambooth3d.cli.activation import activate_script, is_current
from dreambooth3d.cli.findings import Finding, attempt, shown
from dreambooth3d.environment import quiet
from dreambooth3d.errors import ConfigError

if TYPE_CHECKING:
    from dreambooth3d.config.training import TrainingConfig

LOCK = "requirements.lock"
OURS = "ours"


def run_doctor(as_json: bool, config: str | None = None, overrides: Sequence[str] = ()) -> bool:
    """Print one line per check, then commands that bring what is missing; whether all are good.

    Args:
        config: a pipeline's YAML; what it needs is checked against this machine.
        overrides: `key.sub=value`, as of `train`.

    Raises:
        ConfigError: the configuration is wrong.
    """
    quiet()
    findings = list(_findings(config, overrides))
    if as_json:
        print(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        print("\n".join(shown([_brief(finding) for finding in findings])))
    return all(finding.good for finding in findings)


def _brief(finding: Finding) -> Finding:
    """The finding as a terminal shows it: twenty variables that are as they should be are a number."""
    if finding.name != OURS:
        return finding
    return replace(finding, text=f"{finding.text.count('=')} environment variables are this product's; --json has them")


def _findings(config: str | None, overrides: Sequence[str]) -> Iterator[Finding]:
    from dreambooth3d.cli.fitness import check_fitness, check_installed_gpu

    checked = None if config is None else _training_config(config, overrides)
    yield from attempt({"python": _python, "packages": _packages})
    yield from _settings()
    shown = " ".join([str(config), *overrides])
    yield from check_installed_gpu() if checked is None else check_fitness(checked, Path(str(config)).stem, shown)
    yield from attempt(
        {"activation": _activation, "stack": _stack, "models": _models, "data": _data, "configs": _configs}
    )


def _training_config(config: str, overrides: Sequence[str]) -> TrainingConfig:
    from dreambooth3d.cli.train import checked_parameters
    from dreambooth3d.config.training import TrainingConfig

    parameters = checked_parameters(config, overrides)
    if not isinstance(parameters, TrainingConfig):
        raise ConfigError(f"{config}: holds the parameters of another pipeline. Choose one that `train` takes.")
    return parameters


def _python() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        raise RuntimeError(f"Python {version} is not supported. Use 3.11 or 3.12: make setup PYTHON=python3.11")
    return f"Python {version}"


def _packages() -> str:
    from importlib.metadata import PackageNotFoundError, version

    if places.installed():
        return _declared()
    wanted = _pinned((places.repository() / LOCK).read_text())
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


def _declared() -> str:
    """As of a wheel, which asks for ranges of versions."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    every = [Requirement(text) for text in requires("dreambooth3d") or ()]
    wanted = [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]
    for requirement in wanted:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = ""
        if not requirement.specifier.contains(found or "0", prereleases=True):
            raise RuntimeError(f"{requirement.name} is {found or 'missing'}, not {requirement}. Install it again")
    return f"{len(wanted)} packages as dreambooth3d {version('dreambooth3d')} asks for them"


def _pinned(lock: str) -> dict[str, str]:
    """Name -> version of the lines of a lock file whose markers hold on this machine."""
    from packaging.requirements import Requirement

    # The hashes of a package's files follow it, each on a continued line.
    kept = (line.removesuffix("\\") for line in lock.splitlines() if "--hash=" not in line)
    lines = (line.partition("#")[0].strip() for line in kept)
    requirements = [Requirement(line) for line in lines if line]
    needed = [requirement for requirement in requirements if not requirement.marker or requirement.marker.evaluate()]
    return {requirement.name: str(requirement.specifier).removeprefix("==") for requirement in needed}


def _settings() -> Iterator[Finding]:
    """Which environment variables count, whose they are, and which were ignored."""
    try:
        environment.settle()
    except ConfigError as error:
        yield Finding("settings", False, str(error), (f"unset {environment.STORE_URL}",))
        # The other checks are then of the state here.
        environment.withdraw([environment.STORE_URL])
        environment.settle()
    for name, values in ((OURS, environment.in_force()), ("yours", environment.users_own())):
        if values:
            yield Finding(name, True, ", ".join(f"{key}={value}" for key, value in values.items()))
    if ignored := environment.ignored():
        yield Finding("ignored", True, ", ".join(f"{key} ({environment.because(key)})" for key in ignored), warns=True)


def _activation() -> str:
    script = activate_script()
    if script is not None and not is_current(script, environment.home()):
        if places.installed():
            return f"{script} has not these settings, which only zenml's own commands need: dreambooth3d setup"
        raise RuntimeError(f"{script} lacks this product's settings. Run: dreambooth3d setup")
    return "no virtual environment is in use" if script is None else f"{script} holds these settings"


def _stack() -> str | Finding:
    if not places.is_set_up(environment.home()):
        return Finding("stack", True, f"{environment.home()} is not set up; train does it, or setup", warns=True)
    from operations.records.local_stores import local_stores
    from operations.records.rows import EXPERIMENT, tracking_uri

    # Where ZenML and MLflow keep files here, these tell it without seconds of importing both.
    if stores := local_stores(EXPERIMENT):
        return f"{stores.stack} with an MLflow tracker"
    from zenml.client import Client

    tracking_uri()
    return f"{Client().active_stack_model.name} with an MLflow tracker"


def _models() -> str:
    from dreambooth3d.config.models import BaseModelConfig, ScorersConfig
    from dreambooth3d.diffusion.model.base_model import base_model_identity
    from dreambooth3d.evaluation.clip import scorer_ref
    from operations.launch.scorers import check_scorers

    scorers = ScorersConfig()
    base = base_model_identity(BaseModelConfig())
    check_scorers(scorers)
    names = {"base": base, "selector": scorer_ref(scorers.selector).digest, "judge": scorer_ref(scorers.judge).digest}
    return ", ".join(f"{name} {identity.removeprefix('sha256:')[:12]}" for name, identity in names.items())


def _data() -> str | Finding:
    from dreambooth3d.config.photos import PhotosConfig
    from dreambooth3d.photos.dataset import dataset_hash

    subjects = sorted(path.name for path in (environment.home() / "data").glob("*/"))
    if not subjects:
        if places.installed():
            return Finding("data", True, "data/ is empty; setup renders photos of six toybox subjects", warns=True)
        raise RuntimeError("data/ is empty. Run: dreambooth3d setup")
    for subject in subjects:
        dataset_hash(PhotosConfig(subject=subject), environment.home())
    return f"{len(subjects)} subjects ({', '.join(subjects)}), as recorded"


def _configs() -> str:
    from operations.launch.checking import check_file

    files = sorted((places.repository() / "configs").glob("*.yaml"))
    for file in files:
        check_file(file)
    return f"{len(files)} files in configs/ are valid"
