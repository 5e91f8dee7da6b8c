"""Things made of cut-out photographs, of a pack written here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dreambooth3d.errors import ConfigError
from dreambooth3d.toybox.pretraining.cutout_views import THINGS, cutout_view_sets
from dreambooth3d.toybox.pretraining.meshes.pack import encoded, write_pack
from dreambooth3d.toybox.pretraining.view_sets import VIEWS

CPU = torch.device("cpu")


def write_cutouts(folder: Path) -> None:
    """A disc whose left half is red and whose right half is blue, for training."""
    line = np.linspace(-1, 1, 96)
    inside = line[:, None] ** 2 + line**2 < 0.6
    picture = np.zeros((96, 96, 4), np.uint8)
    picture[..., 0], picture[..., 2] = 200 * (line < 0), 200 * (line >= 0)
    picture[..., 3] = 255 * inside
    write_pack(iter([({"picture": "disc", "split": "train"}, encoded(picture))]), folder, "cutouts")


def test_a_cutout_is_seen_narrower_bent_and_mirrored_and_keeps_its_colours(tmp_path: Path) -> None:
    write_cutouts(tmp_path)
    torch.manual_seed(0)
    things = cutout_view_sets(tmp_path, "train", CPU)
    assert things.layers.shape == (THINGS, VIEWS, 4, 96, 96) and not things.heading_known.any()
    seen = things.layers.flatten(0, 1).float() / 255
    rgb, alpha = seen[:, :3], seen[:, 3]
    assert (rgb <= alpha[:, None] + 1e-6).all(), "colours are multiplied by opacity"
    wide, high = ((alpha.amax(axis) > 0.5).sum(1).float() for axis in (1, 2))
    assert (wide / high).min() < 0.85 and (wide / high).median() < 1.02, "turned away it is narrower"
    red, blue = rgb[:, 0].sum((1, 2)), rgb[:, 2].sum((1, 2))
    assert ((red / blue).log().abs() < 1).all() and rgb[:, 1].max() < 0.2
    left = rgb[:, 0, :, :40].sum((1, 2)) > rgb[:, 2, :, :40].sum((1, 2))
    assert 0 < (~left).sum() < len(left) / 2, "some are mirrored"


def test_a_pack_without_cutouts_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cutouts\.parquet is missing.*toybox meshes"):
        cutout_view_sets(tmp_path, "train", CPU)
    write_cutouts(tmp_path)
    with pytest.raises(ConfigError, match="nothing for split test"):
        cutout_view_sets(tmp_path, "test", CPU)
    write_pack(iter([]), tmp_path, "cutouts")
    with pytest.raises(ConfigError, match="nothing for split train"):
        cutout_view_sets(tmp_path, "train", CPU)
