"""The entry point `zenml.init_hooks` of pyproject.toml, which ZenML calls when it is imported in this environment."""

from __future__ import annotations

import os
import sys

_OWN = ("dreambooth3d", "operations")


def prepare() -> None:
    """Prepare ZenML (`operations.zenml_start`), wherever it is imported.

    Where a wheel is installed, other projects may use ZenML in the same environment: nothing is done for them.
    """
    before = {name for name in sys.modules if name.partition(".")[0] in _OWN}
    from dreambooth3d import places

    if places.installed() and not os.environ.get(places.ACTIVE):
        return
    places.make_importable()
    from operations import zenml_start

    zenml_start.prepare()
    # In a container the run's own code arrives later, and comes before the image's, which was imported just now.
    if before <= {"dreambooth3d", "dreambooth3d.cli", __name__}:
        for name in [name for name in sys.modules if name.partition(".")[0] in _OWN]:
            sys.modules.pop(name, None)
