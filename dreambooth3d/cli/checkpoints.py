"""`dreambooth3d checkpoint`: fine-tuned models of a run, for use outside the product."""

from __future__ import annotations

from pathlib import Path

from dreambooth3d.errors import ConfigError
from operations.records.checkpoints import CHOICES, find_checkpoint


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
