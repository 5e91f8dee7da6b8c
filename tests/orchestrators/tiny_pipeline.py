"""Two steps with the names of real ones, so that the product's YAML configures their pods; in place of training.

The tests copy this file into a checkout as `pipelines/tiny.py`. The seed says what the second step does: 1 fails,
2 takes long, 3 fails in the first pod of Kubeflow's two.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from typing import Annotated

from zenml import step

from operations.launch import strict

FAILS, TAKES_LONG, FAILS_ONCE = 1, 2, 3

# There are neither photos nor models here, and no asset of which a summary could tell.
strict.preflight = lambda config: "snail"
strict._conclude = lambda run, config: print(f"Run {run.name} completed.")


@step
def validate_photos(seed: int) -> Annotated[dict, "photos"]:
    """Tell where it runs."""
    return {"host": socket.gethostname(), "gpus": os.environ["NVIDIA_VISIBLE_DEVICES"]}


@step
def finetune_dreambooth(photos: dict, seed: int) -> Annotated[dict, "checkpoints"]:
    """Say in the log where both steps ran and what is there, unless the seed says otherwise."""
    if seed == FAILS or (seed == FAILS_ONCE and socket.gethostname().startswith("finetune-dreambooth-0-")):
        raise RuntimeError("out of memory, says the test")
    if seed == TAKES_LONG:
        time.sleep(300)
    found = {"host": socket.gethostname(), "gpus": os.environ["NVIDIA_VISIBLE_DEVICES"], "photos": photos}
    found["shared_memory"] = shutil.disk_usage("/dev/shm").total
    print(f"FOUND {json.dumps(found)}")
    return found


@strict.strict_pipeline(experiment="dreambooth3d")
def dreambooth3d(seed: int = 0) -> None:
    """Two steps, one of them on a GPU."""
    finetune_dreambooth(validate_photos(seed), seed)
