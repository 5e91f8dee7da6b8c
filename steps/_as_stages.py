"""How a recipe of the library becomes a ZenML pipeline: each stage is the step of its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import steps
from dreambooth3d.recipe import RunStage


def stages_as_steps(device: str) -> RunStage:
    """What runs a recipe's stages inside a pipeline's body: it adds steps to the pipeline, and hands out their outputs.

    Args:
        device: of those steps that take one: auto, cpu or cuda.
    """

    def run_stage(name: str, stage: Callable[..., Any], /, *inputs: Any, **options: Any) -> Any:
        step = getattr(steps, stage.__name__)
        if "device" in inspect.signature(step.entrypoint).parameters:
            options["device"] = device
        # One that is named like its step is that step's only call; ZenML names it so.
        return step(*inputs, **options) if name == stage.__name__ else step(*inputs, **options, id=name)

    return run_stage
