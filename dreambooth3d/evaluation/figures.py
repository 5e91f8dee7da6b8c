"""Figures of the evaluation: the checkpoint curve and labelled image rows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dreambooth3d.images import from_pil, sheet

_MIN_LABEL_PX = 76
_LABEL_MARGIN_PX = 6


def plot_scores(scores: pd.DataFrame) -> Float[Tensor, "3 height width"]:
    """(3, h, w): subject similarity and view obedience over the fine-tuning steps, with the choice marked.

    Args:
        scores: the table of `CheckpointChoice`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), dpi=110, layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    left.plot(scores["step"], scores["subject_similarity"], "o-", color="#1f6feb", label="subject similarity (CLIP-I)")
    right.plot(scores["step"], scores["view_obedience"], "s--", color="#d9730d", label="view obedience")
    right.plot(scores["step"], scores["harmonic_mean"], ":", color="#6b7280", label="harmonic mean (normalised)")
    for name, style in (("partial", "--"), ("full", "-")):
        step = scores.loc[scores[name], "step"].iloc[0]
        left.axvline(step, color="#111827", linestyle=style, linewidth=1, label=f"{name}: step {step}")
    left.set(xlabel="fine-tuning step (0 is the base model)", ylabel="cosine with the photos")
    right.set(ylabel="share", ylim=(-0.03, 1.03))
    handles = [line for axes in (left, right) for line in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def labelled_rows(
    rows: Mapping[str, Float[Tensor, "_ 3 _ _"]], columns: int, cell: int = 128
) -> Float[Tensor, "3 height width"]:
    """Rows of images with a label at their left.

    Args:
        rows: label -> (n, 3, h, w) in [0, 1], n at most `columns`; missing cells stay white.
        columns: cells per row.
        cell: side of a cell in pixels.

    Returns:
        (3, height, width) in [0, 1].
    """
    strips = []
    font = ImageFont.load_default(13)
    width = max([_MIN_LABEL_PX, *(math.ceil(font.getlength(label)) + 2 * _LABEL_MARGIN_PX for label in rows)])
    for label, images in rows.items():
        images = torch.nn.functional.interpolate(
            images[:columns].float().cpu(), size=(cell, cell), mode="bilinear", antialias=True, align_corners=False
        ).clamp(0, 1)
        blank = torch.ones(columns - images.shape[0], 3, cell, cell)
        strip = sheet(torch.cat([images, blank]), columns=columns)
        strips.append(torch.cat([_label(label, width, strip.shape[1], font), strip], dim=2))
    return torch.cat(strips, dim=1)


def _label(text: str, width: int, height: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Tensor:
    """(3, height, width): black text on white, centred vertically."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    draw.text((_LABEL_MARGIN_PX, height / 2), text, fill="#111827", font=font, anchor="lm")
    return from_pil(image)
