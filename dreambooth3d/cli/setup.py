"""`dreambooth3d setup`: settings, photos, ZenML repository and stack; safe to run again at any time."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dreambooth3d import environment, places
from dreambooth3d.cli.activation import activate_script, write_activation
from dreambooth3d.errors import ConfigError, DatasetError
from dreambooth3d.photos.tracking import DATA
from dreambooth3d.temporary import temporary_folder

PRIVATE = (".dreambooth3d", places.STATE)
"""Folders of states, stores and results, which nobody else may look into."""
STACK, TRACKER, REGISTRY = "local_mlflow", "mlflow_tracker", "mlflow_registry"


def run_setup(say: Callable[[str], None]) -> None:
    """Bring everything into place that is not yet there.

    Raises:
        DatasetError: the photos could not be pulled.
        ConfigError: the folder is another ZenML project.
    """
    root = environment.home()
    _require_ours(root)
    with _alone(root):
        _set_up(root, say)


def bring_subject(name: str | None) -> None:
    """Of a wheel's installation: render the photos of one of the subjects that come with a clone, if not there."""
    from dreambooth3d.toybox.subjects import SHIPPED_SUBJECTS

    if places.installed() and name in SHIPPED_SUBJECTS:
        root = environment.home()
        _require_ours(root)
        _render(name, root)


def ensure_stack(say: Callable[[str], None]) -> None:
    """Of a wheel's installation, in a folder that is not set up: register the local stack, as setup does.

    Raises:
        ConfigError: the folder is another ZenML project.
    """
    root = environment.home()
    if not places.is_set_up(root):
        _require_ours(root)
        with _alone(root):
            say(f"{root} is set up, which holds all state from now on.")
            register_stack(root)
            make_tables(root)
        from zenml.client import Client

        Client().activate_root(root)  # this process' own client has been there before


def _require_ours(root: Path) -> None:
    """A clone is ours; a folder of a user's may be the project of other pipelines.

    Raises:
        ConfigError: it is.
    """
    if places.installed() and (root / places.PROJECT).exists() and not (root / places.STATE).is_dir():
        raise ConfigError(
            f"{root}: is a ZenML project of its own, whose active stack would change. Work in another folder, or set "
            f"{places.HOME} to one."
        )


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Wait for another setup of this folder: ZenML makes its database in many steps, and not twice at once."""
    for name in PRIVATE:
        (root / name).mkdir(parents=True, exist_ok=True)
        with suppress(PermissionError):  # of another user's, who decides
            (root / name).chmod(0o700)
    file = root / ".dreambooth3d" / "setup.lock"
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _set_up(root: Path, say: Callable[[str], None]) -> None:
    script = activate_script()
    if script is None:
        say("No virtual environment is in use: the commands of dreambooth3d set their surroundings themselves.")
    else:
        write_activation(script, root)
        say(f"Settings written to {_shown(script, root)}.")
    say(render_photos(root) if places.installed() else pull_photos(root))
    say(register_stack(root))
    make_tables(root)


def make_tables(root: Path) -> None:
    """Let MLflow make its database, which takes many steps: two runs that begin at once would each take them."""
    from mlflow import MlflowClient
    from zenml.client import Client
    from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker

    # Not ZenML's client of this process: that one still knows the stack of before.
    tracker = Client(root=root).active_stack.experiment_tracker
    if isinstance(tracker, MLFlowExperimentTracker) and (uri := tracker.get_tracking_uri()).startswith("sqlite:"):
        MlflowClient(uri).search_experiments(max_results=1)


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def pull_photos(root: Path) -> str:
    """Bring the photo sets from DVC's remote.

    Raises:
        DatasetError: with the gist of what DVC said.
    """
    if not (root / "data.dvc").is_file():
        return "There is no data.dvc, so no photos were pulled."
    from dreambooth3d.photos.tracking import present_entries, recorded_entries

    present = present_entries(root / "data", root)
    # DVC refuses to pull where the user added photos of their own; what is there already needs no pull.
    if all(present.get(name) == md5 for name, md5 in (recorded_entries(root) or {}).items()):
        return "Photos are in data/."
    if not (root / ".git").exists():
        _dvc(root, "config", "--local", "core.no_scm", "true")
    result = _dvc(root, "pull")
    if result.returncode != 0:
        lines = [line for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        gist = lines[0].removeprefix("ERROR: ") if lines else f"exit code {result.returncode}"
        raise DatasetError(
            f"data.dvc: the photos could not be pulled ({gist}). Restore data_store/ with `git checkout data_store`, "
            "or put back the recorded photos with `dvc pull --force`."
        )
    return "Photos were pulled into data/."


def render_photos(root: Path) -> str:
    """Render the photo sets that come with a clone, which a wheel does not hold; those that are there stay."""
    from dreambooth3d.toybox.subjects import SHIPPED_SUBJECTS

    made = [name for name in SHIPPED_SUBJECTS if _render(name, root)]
    return f"Photos were rendered into {DATA}/: {', '.join(made)}." if made else f"Photos are in {DATA}/."


def _render(name: str, root: Path) -> bool:
    """Render a subject's photos, all or none, unless its folder is there; whether it was not."""
    from dreambooth3d.toybox.subjects import write_subject

    target = root / DATA / name
    if target.exists():
        return False
    for parent in (target.parent, root / PRIVATE[0]):
        parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(root / PRIVATE[0]) as folder, suppress(FileExistsError):
        write_subject(name, folder).rename(target)
    return True


def _dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def register_stack(root: Path) -> str:
    """Make the folder a ZenML repository, and register the local stack with MLflow's tracker and registry."""
    import logging

    logging.getLogger("zenml").setLevel(logging.ERROR)
    from zenml.client import Client
    from zenml.enums import StackComponentType

    if not Client.is_repository_directory(root):
        Client.initialize(root)
    client = Client(root=root)
    parts = {
        StackComponentType.ORCHESTRATOR: "default",
        StackComponentType.ARTIFACT_STORE: "default",
        StackComponentType.EXPERIMENT_TRACKER: TRACKER,
        StackComponentType.MODEL_REGISTRY: REGISTRY,
    }
    for kind, name in parts.items():
        if name != "default" and not exists(client.get_stack_component, kind, name):
            # No tracking_uri: the tracker then keeps its database inside the artifact store.
            client.create_stack_component(name=name, flavor="mlflow", component_type=kind, configuration={})
    if not exists(client.get_stack, STACK):
        client.create_stack(name=STACK, components=parts)
    if client.active_stack_model.name == "default":
        client.activate_stack(STACK)
    return f"ZenML's active stack is {client.active_stack_model.name}."


def exists(get: Callable[..., object], *arguments: object) -> bool:
    """Whether one of ZenML's getters finds something of exactly this name."""
    try:
        get(*arguments, allow_name_prefix_match=False)
    except KeyError:
        return False
    return True
