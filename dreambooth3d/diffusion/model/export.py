"""Fine-tuned models for use elsewhere."""

from __future__ import annotations

from pathlib import Path

from dreambooth3d.artifacts import DreamBoothCheckpoint
from dreambooth3d.diffusion.model.components import load_components


def export_pipeline(checkpoint: DreamBoothCheckpoint, folder: Path | str) -> Path:
    """Write a checkpoint as a complete model folder that `StableDiffusionPipeline.from_pretrained` loads."""
    from diffusers import StableDiffusionPipeline

    parts = load_components(checkpoint.base_model, "cpu", checkpoint)
    pipeline = StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=parts.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return Path(folder)
