"""`--live`: a view of what a run makes, in a browser, beside the run and for as long as it takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from dreambooth3d.cli.extras import require_extra
from dreambooth3d.cli.server import beside, free_port
from dreambooth3d.errors import ConfigError
from dreambooth3d.live import LIVE_VARIABLE
from dreambooth3d.temporary import temporary_folder

HOST, PORT = "127.0.0.1", 8080


def require_live() -> None:
    """Check that there can be a view.

    Raises:
        ConfigError: viser is missing.
    """
    require_extra("live", "viser", "--live")


def watching(live: bool, tell: Callable[[str], None]) -> AbstractContextManager[None]:
    """With `live`, a view of whatever stages this process runs meanwhile.

    Args:
        live: whether there is to be one.
        tell: gets its address.

    Raises:
        ConfigError: the active stack's steps run elsewhere, or there is no free port.
    """
    return _view(tell) if live else nullcontext()


@contextmanager
def _view(tell: Callable[[str], None]) -> Iterator[None]:
    _require_steps_here()
    port = free_port(HOST, PORT)
    with temporary_folder() as folder:
        before, os.environ[LIVE_VARIABLE] = os.environ.get(LIVE_VARIABLE), str(folder)
        try:
            with beside([sys.executable, "-m", "dreambooth3d.cli.live.view", str(folder), HOST, str(port)]):
                tell(f"Live view: http://{HOST}:{port} while the run lasts.")
                yield
        finally:
            del os.environ[LIVE_VARIABLE]
            if before is not None:
                os.environ[LIVE_VARIABLE] = before


def _require_steps_here() -> None:
    """A stage shows itself to the machine on which it runs."""
    from zenml.client import Client

    stack = Client().active_stack_model
    flavor = Client().active_stack.orchestrator.flavor
    if flavor != "local":
        raise ConfigError(
            f"--live: the stack {stack.name!r} has the orchestrator flavor {flavor}, whose steps do not run in this "
            "command. Leave --live out and look at the run in MLflow, or choose another stack with `zenml stack set`."
        )
