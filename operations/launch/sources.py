"""What ZenML's cache and a retraining know of the code: the sources of each step's stage, and of a whole training.

ZenML sees a step's own source only; a change in the library must invalidate the cache as well. Materializers do not
count: what they write reads as the same value, whichever version wrote it, or is made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

from zenml.config.cache_policy import CachePolicy
from zenml.config.source import Source

from dreambooth3d import recipe
from dreambooth3d.places import repository
from dreambooth3d.sources import STAGES, sources_of


def sources(stage: Callable[..., Any]) -> CachePolicy:
    """The cache policy of a step that runs one of the library's stages."""
    found = sources_of(stage)
    functions = [Source.from_import_path(name) for name in sorted(found.functions)]
    return CachePolicy(file_dependencies=sorted(found.files), source_dependencies=functions)


@cache
def training_digest() -> str:
    """SHA-256 over the source that decides on a training's result: the recipe, its stages and their steps.

    What only starts, publishes, shows and compares trainings is left out, so that a change there retrains nothing.
    """
    found = sources_of(recipe.run)
    stages = [name.removeprefix(f"{STAGES}.") for name in found.functions if name.startswith(f"{STAGES}.")]
    digest = hashlib.sha256(found.digest().encode())
    for file in sorted(["pipelines/training.py", "steps/_support.py", *(f"steps/{name}.py" for name in stages)]):
        digest.update(file.encode() + b"\0" + repository().joinpath(file).read_bytes() + b"\0")
    return digest.hexdigest()
