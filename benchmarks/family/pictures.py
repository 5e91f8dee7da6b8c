"""Sheets of small pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dreambooth3d.evaluation.figures import labelled_rows

SIZE = 64


def resized(views: Tensor) -> Tensor:
    """(n, 3, SIZE, SIZE) of views (n, 3, height, width), as sheets show them."""
    return interpolate(views, size=(SIZE, SIZE), mode="bilinear")


def two_columns(rows: Mapping[str, Tensor]) -> Tensor:
    """(3, height, width): labelled rows of four pictures, the second half beside the first."""
    names = list(rows)
    half = math.ceil(len(names) / 2)
    sheets = [
        labelled_rows({name: rows[name] for name in part}, columns=4) for part in (names[:half], names[half:]) if part
    ]
    height = max(sheet.shape[1] for sheet in sheets)
    padded = [torch.nn.functional.pad(sheet, (0, 0, 0, height - sheet.shape[1]), value=1.0) for sheet in sheets]
    return torch.cat(padded, dim=2)
