"""What a pod or a command loads before it does anything."""

from __future__ import annotations

import subprocess
import sys


def test_steps_and_pipelines_load_no_library_of_models() -> None:
    """They take seconds more, in each of a run's pods, most of which use none of them."""
    code = "import sys, pipelines.training, pipelines.generation, pipelines.retraining; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "steps.init_nerf" in loaded
    assert not {"diffusers", "transformers", "accelerate", "peft", "matplotlib", "torch._dynamo"} & {*loaded}
