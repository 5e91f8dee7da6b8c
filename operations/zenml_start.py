"""What happens when ZenML is imported, before it reads its settings, in every process of this environment.

ZenML calls `dreambooth3d.cli.zenml_hook`, which calls `prepare`: also for its own commands, in an activated shell, and
for steps in containers.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

_ADVERTISING = {
    "zenml.pipelines.pipeline_definition": "You can visualize your pipeline runs in",
    "zenml.orchestrators.step_run_utils": "Models can be viewed in the dashboard using ZenML Pro",
}
"""How the lines of loggers begin that recommend ZenML's other products."""


def prepare() -> None:
    """Let the variables of `environment.VARIABLES` count here as elsewhere, and mend what ZenML does in each process.

    A setting that cannot be used ends the process with one sentence and exit code 1.
    """
    _settle()
    plain_logs_in_files()
    write_whole_files()
    list_packages_once()
    silence()
    tell_faults_in_one_sentence()


def _settle() -> None:
    from dreambooth3d import environment
    from dreambooth3d.errors import DreamBooth3DError

    environment.wait_quietly()
    # ZenML's server has an environment of its own, made by whoever starts it.
    if os.environ.get("ZENML_SERVER"):
        return
    environment.withdraw_tracker()
    try:
        if os.environ.get(environment.ACTIVE):
            environment.settle()
    except DreamBooth3DError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def plain_logs_in_files() -> None:
    """Let ZenML colour its log in terminals only, unless the user says something else."""
    if not sys.stdout.isatty():
        os.environ.setdefault("ZENML_LOGGING_COLORS_DISABLED", "true")


def silence() -> None:
    """Keep out of the log what advertises, and what libraries say of themselves that nobody here can act on."""
    for name in _ADVERTISING:
        logging.getLogger(name).addFilter(_is_no_advertisement)
    for name in ("matplotlib", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="(?s).*Any type hint is inferred as AnyType", category=UserWarning)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    words = _ADVERTISING.get(record.name)
    return words is None or not str(record.msg).startswith(words)


def tell_faults_in_one_sentence() -> None:
    """Replace what prints an error that ends a process of this product: ZenML's commands use disks before ours do."""
    if os.environ.get("DREAMBOOTH3D_ACTIVE") and getattr(sys.excepthook, "__module__", "") != __name__:
        sys.excepthook = _telling(sys.excepthook)


def _telling(show: Callable[..., Any]) -> Callable[..., Any]:
    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        from dreambooth3d.faults import explained

        told = explained(error)
        if told is None:
            show(kind, error, trace)
        else:
            print(f"Error: {told}", file=sys.stderr)

    return excepthook


def list_packages_once() -> None:
    """Replace ZenML's function that lists the installed packages: it starts pip, or uv, for each step of each run."""
    from zenml.environment import Environment

    Environment.get_python_packages = staticmethod(_packages)


@cache
def _packages() -> list[str]:
    """Those that this process can import, as `pip freeze` writes them."""
    from importlib.metadata import distributions

    found: dict[str, str] = {}
    for distribution in distributions():
        # What setuptools has for itself lies on the path once that is imported.
        if distribution.name and Path(str(distribution.locate_file(""))).name != "_vendor":
            found.setdefault(distribution.name, distribution.version)
    return [f"{name}=={found[name]}" for name in sorted(found, key=str.casefold)]


def write_whole_files() -> None:
    """Replace ZenML's function that writes YAML, for local files.

    Each of its commands writes its configuration anew when it starts, the file truncated first, so that another that
    starts at that moment reads an empty one.
    """
    from zenml.utils import yaml_utils

    if yaml_utils.write_yaml.__module__ != __name__:
        yaml_utils.write_yaml = _whole(yaml_utils.write_yaml)


def _whole(write: Callable[..., None]) -> Callable[..., None]:
    """ZenML's function, which here writes beside the file and then takes its place; what has not changed stays."""
    import yaml

    def write_yaml(file_path: str, contents: Any, sort_keys: bool = True) -> None:
        path = Path(file_path)
        if "://" in str(file_path) or not path.parent.is_dir():
            write(file_path, contents, sort_keys=sort_keys)
            return
        text = yaml.dump(contents, sort_keys=sort_keys)
        with suppress(OSError, UnicodeDecodeError):
            if path.read_text() == text:
                return
        partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
        try:
            partial.write_text(text)
            if path.exists():
                partial.chmod(path.stat().st_mode)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    return write_yaml
