"""Two steps with the names of real ones, so that the product's YAML configures their pods; in place of training.

The tests copy this file into a checkout as `pipelines/tiny.py`. The seed says what the second step does: 1 fails,
2 takes long.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from typing import Annotated

from zenml import step

from pipelines import strict

FAILS, TAKES_LONG = 1, 2

# There are neither photos nor models here, and no asset of which a summary could tell.
strict.preflight = lambda config: "corgi"
strict._conclude = lambda run, config: print(f"Run {run.name} completed.")


@step
def validate_photos(seed: int) -> Annotated[dict, "photos"]:
    """Tell where it runs."""
    return {"host": socket.gethostname(), "gpus": os.environ["NVIDIA_VISIBLE_DEVICES"]}


@step
def finetune_dreambooth(photos: dict, seed: int) -> Annotated[dict, "checkpoints"]:
    """Tell where it runs and what it has there, unless the seed says otherwise."""
    if seed == FAILS:
        raise RuntimeError("out of memory, says the test")
    if seed == TAKES_LONG:
        time.sleep(300)
    return {
        "host": socket.gethostname(),
        "gpus": os.environ["NVIDIA_VISIBLE_DEVICES"],
        "shared_memory": shutil.disk_usage("/dev/shm").total,
    }


@strict.strict_pipeline(experiment="dreambooth3d")
def dreambooth3d(seed: int = 0) -> None:
    """Two steps, one of them on a GPU."""
    finetune_dreambooth(validate_photos(seed), seed)
