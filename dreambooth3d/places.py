"""Where this product's files are: its code, presets and models, and the folder that holds all state.

In a clone both are the repository. A wheel has what a clone has beside the library in a folder inside the library
(setup.py), so that nothing is installed under a top-level name as common as `steps`; state lies in a folder of the
user's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ACTIVE = "DREAMBOOTH3D_ACTIVE"
HOME = "DREAMBOOTH3D_HOME"
STATE, PROJECT = ".zenconfig", ".zen"
"""What a folder that is set up has: ZenML's settings, which only ours have inside, and the mark of a ZenML project."""
LIBRARY = Path(__file__).resolve().parent
_INSIDE = LIBRARY / "_product"


def installed() -> bool:
    """Whether this is a wheel's installation, and no clone."""
    return _INSIDE.is_dir()


def repository() -> Path:
    """The folder with presets, bundled models and the packages beside the library: the clone, or the wheel's."""
    return _INSIDE if installed() else LIBRARY.parent


def home() -> Path:
    """The folder that holds all state.

    `DREAMBOOTH3D_HOME`, else the clone. Of a wheel: the nearest folder that is set up, at or above the working
    directory, else that of the activated environment, else the working directory.
    """
    if given := os.environ.get(HOME):
        return Path(given).resolve()
    if not installed():
        return repository()
    here = Path.cwd()
    found = (folder for folder in (here, *here.parents) if (folder / STATE).is_dir())
    return next(found, Path(os.environ.get(ACTIVE) or here)).resolve()


def is_set_up(folder: Path) -> bool:
    """Whether a folder holds the state of this product; a clone counts as one that does."""
    return not installed() or all((folder / name).is_dir() for name in (STATE, PROJECT))


def make_importable() -> None:
    """Let this process import `operations`, `steps` and the others of a wheel, before any of the same names."""
    if installed() and str(_INSIDE) not in sys.path:
        sys.path.insert(0, str(_INSIDE))
