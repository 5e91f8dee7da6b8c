"""The product's own surroundings: ZenML's and MLflow's state inside the repository, never in the user's home.

The same settings are written into the virtual environment's `activate` script and set by every command of the console
script. Nothing here imports ZenML or MLflow, which read their settings once, on import.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 240
ACTIVE = "DREAMBOOTH3D_ACTIVE"
HOME = "DREAMBOOTH3D_HOME"
ACTIVATE = "DREAMBOOTH3D_ACTIVATE"
_BEGIN, _END = "# >>> dreambooth3d >>>", "# <<< dreambooth3d <<<"

# {root} is the folder that holds all state.
SETTINGS = {
    "ZENML_CONFIG_PATH": "{root}/.zenconfig",
    "ZENML_REPOSITORY_PATH": "{root}",
    "ZENML_ANALYTICS_OPT_IN": "false",
    "ZENML_ENABLE_RICH_TRACEBACK": "false",
    "AUTO_OPEN_DASHBOARD": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Files go through MLflow's server: the name by which it knows its S3 store may mean nothing here.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
    "DVC_SITE_CACHE_DIR": "{root}/.dreambooth3d/dvc",
    "DVC_NO_ANALYTICS": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DREAMBOOTH3D_WORK": "{root}/.dreambooth3d/work",
}


def repository() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parents[1]


def home() -> Path:
    """The folder that holds all state: the repository, or `DREAMBOOTH3D_HOME`."""
    return Path(os.environ.get(HOME) or repository()).resolve()


def enter() -> None:
    """Set the product's settings in this process, unless the activated environment has set them."""
    root = str(home())
    if os.environ.get(ACTIVE) == root:
        return
    for name, value in SETTINGS.items():
        os.environ[name] = value.format(root=root)
    os.environ[ACTIVE] = root
    if root not in sys.path:
        sys.path.insert(0, root)


def quiet() -> None:
    """Nothing but the answer on stdout, where ZenML's handler writes what any library logs."""
    os.environ["ZENML_LOGGING_VERBOSITY"] = "ERROR"  # ZenML sets the root logger's level when it is imported
    logging.getLogger().setLevel(logging.ERROR)
    for name in ("zenml", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def console() -> Console:
    """Where tables go; in a file or a pipe they are as wide as they need to be, unless COLUMNS says otherwise."""
    from rich.console import Console

    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=_WIDE if wide else None)


def activate_script() -> Path | None:
    """The `activate` script of the running virtual environment, or the one named by `DREAMBOOTH3D_ACTIVATE`, if any."""
    if given := os.environ.get(ACTIVATE):
        return Path(given)
    script = Path(sys.prefix) / "bin" / "activate"
    return script if sys.prefix != sys.base_prefix and script.is_file() else None


def write_activation(script: Path, root: Path) -> None:
    """Write the settings into an `activate` script, and their withdrawal into its `deactivate`; any number of times."""
    text = _without_blocks(script.read_text())
    opening = "deactivate () {\n"
    text = text.replace(opening, opening + _withdraw_block(), 1).rstrip("\n") + "\n"
    # Two clones may be set up at once in one environment.
    partial = script.with_name(f"{script.name}.{os.getpid()}.partial")
    partial.write_text(text + _enter_block(script, root))
    partial.chmod(script.stat().st_mode)
    partial.replace(script)


def _without_blocks(text: str) -> str:
    while _BEGIN in text:
        before, _, rest = text.partition(_BEGIN)
        text = before.rstrip(" ") + rest.partition(_END)[2].removeprefix("\n")
    return text


def _enter_block(script: Path, root: Path) -> str:
    """Shell lines that set everything, relative to the environment where it lies inside the repository."""
    environment = script.parents[1]
    inside = environment.resolve().is_relative_to(root.resolve())
    place = f"$VIRTUAL_ENV/{os.path.relpath(root, environment)}" if inside else str(root)
    lines = [_BEGIN, f'_dreambooth3d_root="$(cd "{place}" && pwd -P)"']
    for name, value in [*SETTINGS.items(), (ACTIVE, "{root}")]:
        lines += [
            f'if [ -n "${{{name}+set}}" ] ; then _OLD_DREAMBOOTH3D_{name}="${name}" ; fi',
            f'export {name}="{value.format(root="$_dreambooth3d_root")}"',
        ]
    return "\n".join([*lines, "unset _dreambooth3d_root", _END, ""])


def _withdraw_block() -> str:
    """Shell lines that give back what was set before."""
    lines = [_BEGIN, f'if [ -n "${{{ACTIVE}:-}}" ] ; then']
    for name in [*SETTINGS, ACTIVE]:
        old = f"_OLD_DREAMBOOTH3D_{name}"
        lines.append(
            f'  if [ -n "${{{old}+set}}" ] ; then export {name}="${old}" ; unset {old} ; else unset {name} ; fi'
        )
    return "\n".join([*lines, "fi", _END, ""])
