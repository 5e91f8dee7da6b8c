"""`dreambooth3d web`: serves the page until it is told to end."""

from __future__ import annotations

import sys
from collections.abc import Callable

from dreambooth3d.cli.extras import require_extra
from dreambooth3d.cli.server import free_port, run_until_told


def serve(host: str, port: int, tell: Callable[[str], None]) -> int:
    """Run the page's server; its exit code.

    Args:
        host: to listen at.
        port: the next free one is taken where it is in use.
        tell: gets the address.

    Raises:
        ConfigError: gradio is missing, or no port is free.
    """
    require_extra("web", "gradio", "web")
    free = free_port(host, port)
    if free != port:
        tell(f"Port {port} is in use; the next free one is {free}.")
    tell(f"Open http://{host}:{free} in a browser. Ctrl+C ends the page; a run that it has started goes on.")
    sys.stdout.flush()
    return run_until_told([sys.executable, "-m", "dreambooth3d.cli.web.page", host, str(free)])
