"""The card of a fine-tuned model, as the Hugging Face hub reads it: YAML in front, then text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dreambooth3d.artifacts import DreamBoothCheckpoint, SubjectPhotos

_TEXT = """---
{front}
---

# {subject}

{kind} that knows one subject as *{prompt}*: fine-tuned with
[DreamBooth](https://arxiv.org/abs/2208.12242) on {count} photos of it, as a stage of
[DreamBooth3D](https://arxiv.org/abs/2303.13508).

```python
from diffusers import StableDiffusionPipeline

{usage}
image = pipeline("{prompt}").images[0]
```

| | |
|---|---|
{rows}

It is meant for pictures and 3D assets of this subject. What it makes of anything else is no better than what its base
model makes, and it has the limits and the licence terms of that model.
"""


def checkpoint_card(
    checkpoint: DreamBoothCheckpoint,
    photos: SubjectPhotos,
    hub_id: str,
    origin: Mapping[str, str],
    *,
    lora_file: str | None = None,
) -> str:
    """The card of a checkpoint.

    Args:
        checkpoint: fine-tuned.
        photos: on which.
        hub_id: under which it will be found.
        origin: what a reader may want to know of where it comes from, by what it is; empty values are left out.
        lora_file: name of the file of a LoRA, which is all there is then.
    """
    from huggingface_hub import ModelCardData

    base = checkpoint.base_model
    of_hub = base.digest == ""
    bundled = not of_hub and base.path == "models/toybox"
    further: dict[str, Any] = {"instance_prompt": photos.instance_prompt}
    if of_hub:
        further["base_model_relation"] = "adapter" if lora_file else "finetune"
    front = ModelCardData(
        base_model=base.path if of_hub else None,
        library_name="diffusers",
        license="apache-2.0" if bundled else "other",
        license_name=None if bundled else "as-the-base-model",
        pipeline_tag="text-to-image",
        tags=["dreambooth", "dreambooth3d", "stable-diffusion", *(["lora"] if lora_file else [])],
        **further,
    )
    loaded = base.path if lora_file else hub_id
    usage = f'pipeline = StableDiffusionPipeline.from_pretrained("{loaded}")'
    if lora_file:
        usage += f'\npipeline.load_lora_weights("{hub_id}", weight_name="{lora_file}")'
    shown = {
        "base model": f"{base.path} {f'at {base.revision}' if base.revision else f'(SHA-256 {base.digest[:12]})'}",
        "fine-tuning step": str(checkpoint.step),
        **origin,
    }
    return _TEXT.format(
        front=front.to_yaml(),
        subject=photos.subject,
        kind="A LoRA" if lora_file else "A text-to-image model",
        prompt=photos.instance_prompt,
        count=len(photos.images),
        usage=usage,
        rows="\n".join(f"| {name} | {value} |" for name, value in shown.items() if value),
    )
