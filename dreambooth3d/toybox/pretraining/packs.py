"""Reading a pack (`dreambooth3d.toybox.pretraining.meshes`) onto the training device."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dreambooth3d.cameras import SUBJECT_RADIUS
from dreambooth3d.errors import ConfigError
from dreambooth3d.toybox.captions import GENERIC_NOUNS
from dreambooth3d.toybox.pretraining.meshes.pack import read_picture
from dreambooth3d.toybox.pretraining.view_sets import VIEWS, ViewSets


@dataclass(frozen=True)
class MeshViews:
    """Views of meshes, each by itself.

    Attributes:
        layers: (n, 4, size, size) colours times opacity, and opacity.
        noun: (n,) into `GENERIC_NOUNS`.
        azimuth_deg, elevation_deg: (n,) of the cameras.
        heading_known: (n,) whether azimuth 0 is where the mesh's front is.
        ball: (n,) radius of the ball around the mesh, as a share of half the picture.
    """

    layers: UInt8[Tensor, "n 4 size size"]
    noun: Int[Tensor, " n"]
    azimuth_deg: Float[Tensor, " n"]
    elevation_deg: Float[Tensor, " n"]
    heading_known: Bool[Tensor, " n"]
    ball: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.layers)


def pack_views(folder: Path, split: str, device: torch.device) -> MeshViews:
    """The views of a pack's meshes with their nouns; arguments and errors as for `pack_view_sets`."""
    table = _table(folder, "views", split).sort_values(["mesh", "view"])

    def column(name: str) -> Tensor:
        return torch.from_numpy(table[name].to_numpy(np.float32, copy=True)).to(device)

    half_fov = torch.deg2rad(column("fov_y_deg") / 2)
    return MeshViews(
        layers=_premultiplied(_pictures(folder, "views", table)).to(device),
        noun=torch.tensor([GENERIC_NOUNS.index(noun) for noun in table["noun"]], device=device),
        azimuth_deg=column("azimuth_deg"),
        elevation_deg=column("elevation_deg"),
        heading_known=column("heading_known") > 0,
        ball=SUBJECT_RADIUS / (column("distance") * half_fov.tan()),
    )


def _premultiplied(pictures: UInt8[np.ndarray, "n height width 4"]) -> UInt8[Tensor, "n 4 height width"]:
    layers = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    alpha = layers[:, 3:].short()
    return torch.cat([(layers[:, :3].short() * alpha // 255).byte(), layers[:, 3:]], dim=1).contiguous()


def pack_view_sets(folder: Path, split: str, device: torch.device) -> ViewSets:
    """The views of a pack's meshes.

    Args:
        folder: of the pack.
        split: `train` or `test`.
        device: where they go.

    Raises:
        ConfigError: there is no pack, or it has no such meshes.
    """
    table = _table(folder, "views", split).sort_values(["mesh", "view"])
    premultiplied = _premultiplied(_pictures(folder, "views", table))

    def column(name: str) -> Tensor:
        return torch.from_numpy(table[name].to_numpy(np.float32)).view(-1, VIEWS)

    known = torch.from_numpy(table["heading_known"].to_numpy(bool)).view(-1, VIEWS)[:, 0]
    sets = premultiplied.unflatten(0, (-1, VIEWS))
    return ViewSets(sets, column("azimuth_deg"), column("elevation_deg"), known).to(device)


def pack_cutouts(folder: Path, split: str, device: torch.device) -> UInt8[Tensor, "k 4 size size"]:
    """(k, 4, size, size) cutouts of a pack, colours times opacity, and opacity; as for `pack_view_sets`."""
    return _premultiplied(_pictures(folder, "cutouts", _table(folder, "cutouts", split))).to(device)


def pack_backgrounds(folder: Path, split: str, device: torch.device) -> UInt8[Tensor, "k 3 height width"]:
    """(k, 3, height, width) photographs and textures of a pack; arguments and errors as for `pack_view_sets`."""
    pictures = _pictures(folder, "backgrounds", _table(folder, "backgrounds", split))
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().to(device)


def _table(folder: Path, name: str, split: str) -> pd.DataFrame:
    path = folder / f"{name}.parquet"
    if not path.is_file():
        raise ConfigError(
            f"{folder}: no pack of training data ({path.name} is missing). Make one with `dreambooth3d toybox meshes`, "
            "and name its folder with --pack."
        )
    table = pd.read_parquet(path)
    chosen = table[table["split"] == split] if len(table) else table
    if chosen.empty:
        raise ConfigError(f"{path}: has nothing for split {split}. Make more with `dreambooth3d toybox meshes`.")
    return chosen


def _pictures(folder: Path, name: str, table: pd.DataFrame) -> UInt8[np.ndarray, "n height width channels"]:
    data = (folder / f"{name}.bin").read_bytes()
    places = zip(table["offset"], table["length"], strict=True)
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(lambda place: read_picture(data, *place), places)))
