"""`dreambooth3d checkpoint`: fine-tuned models of a run, for use outside the product."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dreambooth3d.artifacts import CheckpointSet, DreamBoothCheckpoint
from dreambooth3d.environment import quiet
from dreambooth3d.errors import ConfigError, RunNotFoundError
from operations.records import rows

CHOICES = {
    "partial": ("select_checkpoints", "partial"),
    "full": ("select_checkpoints", "full"),
    "multiview": ("finetune_multiview", "multiview"),
}
"""Step and output that hold each of a run's chosen checkpoints."""


def export_checkpoint(
    run: str, folder: Path, *, step: int | None = None, which: str | None = None, lora: bool = False
) -> list[Path]:
    """Write a checkpoint of a run as a complete model folder, or only its LoRA.

    Args:
        run: name, id or start of either, or `latest`.
        folder: new or empty.
        step: of fine-tuning; or
        which: one of `CHOICES`, by default full.
        lora: write the LoRA alone, as `pytorch_lora_weights.safetensors` and as `kohya_lora.safetensors`.

    Returns:
        What was written: the folder, or the files.

    Raises:
        RunNotFoundError: there is no such run, or it has no such checkpoint.
        ConfigError: the arguments contradict each other, the folder is in use, or the checkpoint is no LoRA.
    """
    if step is not None and which is not None:
        raise ConfigError("checkpoint export: --step and --which exclude each other. Give one of them.")
    if which is not None and which not in CHOICES:
        raise ConfigError(f"checkpoint export: --which {which} is unknown. Choose one of {', '.join(CHOICES)}.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder}: is there already and not an empty folder. Choose another one.")
    checkpoint = find_checkpoint(run, step, which or "full")
    # After the checks, since it takes seconds to import.
    from dreambooth3d.diffusion.model.export import export_pipeline
    from dreambooth3d.diffusion.model.lora import KOHYA_FILE, LORA_FILE, export_kohya_lora, export_lora

    if lora:
        export_lora(checkpoint, folder / LORA_FILE)
        export_kohya_lora(checkpoint, folder / KOHYA_FILE)
        return [folder / LORA_FILE, folder / KOHYA_FILE]
    return [export_pipeline(checkpoint, folder)]


def find_checkpoint(run: str, step: int | None, which: str) -> DreamBoothCheckpoint:
    """A checkpoint of a run: that of a fine-tuning step, or else a chosen one.

    Raises:
        RunNotFoundError: there is no such run, or it has no such checkpoint.
    """
    quiet()
    name = rows.row_name(rows.find_row(run))
    if step is None:
        return _output(name, *CHOICES[which])
    checkpoints: CheckpointSet = _output(name, "finetune_dreambooth", "checkpoints")
    if step not in checkpoints.checkpoints:
        raise RunNotFoundError(
            f"{name}: there is no checkpoint of step {step}. Choose one of {', '.join(map(str, checkpoints.steps))}."
        )
    return checkpoints.checkpoints[step]


def _output(run: str, step: str, output: str) -> Any:
    """One artifact of a run, with its weights as handles."""
    from zenml.client import Client

    try:
        version = Client().get_pipeline_run(run).steps[step].outputs[output][0]
    except (KeyError, IndexError):
        raise RunNotFoundError(
            f"{run}: this run has no output {output!r} of the step {step}. It may have been deleted, have stopped "
            "before that step, or have a recipe without it; `dreambooth3d runs show` tells."
        ) from None
    return version.load()
