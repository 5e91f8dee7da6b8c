"""A run's content with a payload wherever somebody else's text may come in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import torch
from PIL import Image

from dreambooth3d.cameras import orbit_cameras
from dreambooth3d.run_report.content import (
    Choice,
    Compared,
    Photo,
    Placed,
    RunContent,
    Sheet,
    Shot,
    StepTaken,
    Strip,
)

PAYLOAD = "</title><img src=x onerror=top.ran=1>'\"{{title}}<script>top.ran=1</script>"
METRICS = {
    "clip_i": 0.8, "psnr": 25.5, "psnr_fg": 20.9, "mask_iou": 0.958, "janus_rate": 0.25, "janus_rate_truth": 0.0,
    "mesh/psnr_fg": 20.0, "coarse/psnr_fg": 19.25, "baseline_mean/psnr_fg": 10.0, "truth/clip_i": 0.81,
}  # fmt: skip


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """What compresses worst."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def whole(text: str = PAYLOAD, side: int = 64) -> RunContent:
    """Everything that a report can show.

    Args:
        text: in all places that take any.
        side: of the pictures in pixels.
    """
    scores = pd.DataFrame(
        {
            "step": [0, 40, 80, 120], "subject_similarity": [0.5, 0.6, 0.72, 0.7],
            "view_obedience": [1.0, 0.9, 0.8, 0.85], "partial": [False, True, False, False],
            "full": [False, False, True, False],
        }
    )  # fmt: skip
    picture = noise(side, side)
    shots = tuple(Shot(f"step {step}", picture) for step in range(0, 100, 20))
    steps = (
        StepTaken("validate_photos", seconds=2.0),
        StepTaken("finetune_dreambooth", seconds=120.0, cached=True, memory_mib=812.4, status="cached"),
        StepTaken("init_nerf", seconds=300.0, guards=f"janus 0.4 > 0.3 at step 300: warned {text}"),
        StepTaken("refine_nerf", status="failed", guards="none", error=text),
    )
    return RunContent(
        run=text, subject=text, prompt=text, status="completed", preset=text,
        started=datetime(2026, 3, 9, 8, 30, tzinfo=UTC), seconds=400.0, commit=text, data_hash=text, class_noun=text,
        metrics=METRICS, production=Compared(text, {**METRICS, "psnr_fg": 21.75}),
        photos=tuple(Photo(f"{text}{index}", picture, "can be a target", (text,)) for index in range(5)),
        more_photos=2,
        placed=Placed((1, 2, 4), orbit_cameras(torch.tensor([0.0, 90.0, 180.0])), text),
        seen=Sheet(text, text, noise(side * 5, side * 2)),
        choice=Choice(scores, text), samples=Strip(text, text, shots), growth=(Strip(text, text, shots),),
        sheets=(Sheet(text, text, noise(side * 8, side * 4)),), contexts=(Sheet(text, text, noise(side * 8, side)),),
        turntable=tuple(noise(side, side, index) for index in range(36)), steps=steps,
        config=f"seed: 0\nname: {text}\n",
    )  # fmt: skip


def renamed(content: RunContent, run: str) -> RunContent:
    """The same under another name."""
    return replace(content, run=run)
