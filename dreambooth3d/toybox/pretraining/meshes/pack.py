"""A pack of pictures: views, backgrounds or cutouts, each kind in one file, and a table of what and where they are."""

from __future__ import annotations

import io
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image

from dreambooth3d.errors import DatasetError
from dreambooth3d.toybox.pretraining.meshes import assimp
from dreambooth3d.toybox.pretraining.meshes.backgrounds import cut_backgrounds, split_by_name
from dreambooth3d.toybox.pretraining.meshes.candidates import Candidate
from dreambooth3d.toybox.pretraining.meshes.cutouts import cutouts
from dreambooth3d.toybox.pretraining.meshes.render import VIEWS, MeshRenderer, random_cameras, random_light
from dreambooth3d.toybox.pretraining.meshes.screen import Seen, check_size, look
from dreambooth3d.toybox.pretraining.meshes.sources import list_candidates
from dreambooth3d.toybox.pretraining.meshes.textured import MeshError

PIXELS = 96
_SUPERSAMPLING = 3
_QUALITY, _ALPHA_QUALITY = 85, 90
_SAME_LIGHT = 0.75
TEST_COLLECTIONS = frozenset({"torcs-data", "trigger-rally-data", "sweethome3d-furniture/KatorLegaz"})
_TEST_SHARE = 0.03
"""Of the meshes of all other collections."""
LIMITS = {
    "sweethome3d-furniture": 750,
    "0ad-data": 450,
    "megaglest-data": 300,
    "supertuxkart-data": 270,
    "ufoai-data": 280,
    "flightgear-data-models": 140,
    "warzone2100-data": 110,
    "flightgear-data-ai": 100,
    "torcs-data": 40,
    "trigger-rally-data": 9,
}
"""The most meshes that each package gives, so that none of them is the whole world."""


@dataclass(frozen=True)
class RenderedMesh:
    """All views of one mesh.

    Attributes:
        rows: what the table says of each view, without place and length.
        pictures: its views as WebP.
        look: (views, size, size, 4) by which meshes are compared.
    """

    rows: list[dict]
    pictures: list[bytes]
    look: Float[ndarray, "views size size 4"]


def encoded(picture: UInt8[ndarray, "height width 4"]) -> bytes:
    """As WebP, lossy in colour, nearly lossless in opacity."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "webp", quality=_QUALITY, alpha_quality=_ALPHA_QUALITY, method=4)
    return out.getvalue()


def split_of(package: str, name: str) -> str:
    """`test` for whole collections and a share of all others, chosen by name; `train` otherwise."""
    if not TEST_COLLECTIONS.isdisjoint((package, f"{package}/{name.split('/')[0]}")):
        return "test"
    return split_by_name(f"{package}/{name}", _TEST_SHARE)


def render_candidate(candidate: Candidate) -> RenderedMesh:
    """Read, check and render one model; the same views for the same name.

    Raises:
        MeshError: it cannot be read, or is not worth rendering.
    """
    mesh = candidate.read().normalized(candidate.axes)
    check_size(mesh)
    renderer = MeshRenderer(mesh)
    seen = look(renderer)
    rng = np.random.default_rng(zlib.crc32(f"{candidate.package}/{candidate.name}".encode()))
    light, fixed = random_light(rng), rng.random() < _SAME_LIGHT
    rows, pictures = [], []
    for view, camera in enumerate(random_cameras(mesh, VIEWS, rng)):
        picture = renderer.render(camera, light, pixels=PIXELS, supersampling=_SUPERSAMPLING)
        pictures.append(encoded(picture))
        rows.append(
            {
                "mesh": f"{candidate.package}/{candidate.name}",
                "package": candidate.package,
                "noun": candidate.noun,
                "heading_known": candidate.heading_known,
                "split": split_of(candidate.package, candidate.name),
                "view": view,
                "azimuth_deg": camera.azimuth_deg,
                "elevation_deg": camera.elevation_deg,
                "distance": camera.distance,
                "fov_y_deg": camera.fov_y_deg,
                **{f"target_{axis}": value for axis, value in zip("xyz", camera.target, strict=True)},
                "same_light": fixed,
                "coverage": float(picture[..., 3].mean() / 255),
            }
        )
        light = light if fixed else random_light(rng)
    return RenderedMesh(rows, pictures, seen)


def _try_to_render(candidate: Candidate) -> RenderedMesh | str:
    try:
        return render_candidate(candidate)
    except MeshError as error:
        return str(error)


def render_candidates(
    candidates: list[Candidate],
    limits: dict[str, int],
    *,
    processes: int = 2,
    on_mesh: Callable[[int, int], None] = lambda taken, left_out: None,
) -> Iterator[RenderedMesh]:
    """The renders of up to `limits` models of each package, in an order drawn at random, no two of them alike."""
    order = np.random.default_rng(0).permutation(len(candidates))
    taken, seen, left_out = Counter(), defaultdict(Seen), 0
    with ProcessPoolExecutor(processes) as pool:
        for start in range(0, len(order), 64):
            batch = [candidates[i] for i in order[start : start + 64]]
            batch = [one for one in batch if taken[one.package] < limits.get(one.package, 0)]
            for one, result in zip(batch, pool.map(_try_to_render, batch, chunksize=4), strict=True):
                full = taken[one.package] >= limits[one.package]
                if isinstance(result, str) or full or not seen[one.package].is_new(result.look):
                    left_out += 1
                else:
                    taken[one.package] += 1
                    yield result
                on_mesh(sum(taken.values()), left_out)


def write_pack(pictures: Iterator[tuple[dict, bytes]], folder: Path, name: str) -> pd.DataFrame:
    """Write NAME.bin and NAME.parquet, complete or not at all.

    Returns:
        The table, with each picture's `offset` and `length` in the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, offset = [], 0
    unfinished = folder / f"{name}.bin.unfinished"
    with unfinished.open("wb") as out:
        for row, data in pictures:
            out.write(data)
            rows.append({**row, "offset": offset, "length": len(data)})
            offset += len(data)
    table = pd.DataFrame(rows)
    table.to_parquet(folder / f"{name}.parquet.unfinished")
    unfinished.rename(folder / f"{name}.bin")
    (folder / f"{name}.parquet.unfinished").rename(folder / f"{name}.parquet")
    return table


def read_picture(data: bytes, offset: int, length: int) -> UInt8[ndarray, "height width channels"]:
    """One picture of a pack's file."""
    with Image.open(io.BytesIO(data[offset : offset + length])) as image:
        return np.asarray(image)


def make_pack(
    folder: Path, out: Path, *, share: float = 1.0, processes: int = 2, tell: Callable[[str], None] = lambda line: None
) -> str:
    """Write `views`, `backgrounds` and `cutouts` of all packages in `folder` into `out`.

    Args:
        folder: in which each package has been unpacked into a folder of its name.
        out: where the pack goes.
        share: of `LIMITS`.
        processes: how many render.
        tell: told how far it is, now and then.

    Returns:
        What was made, in one line.

    Raises:
        DatasetError: there is no model in `folder`, or a package is missing that renders need.
    """
    candidates = list(list_candidates(folder))
    if not candidates:
        raise DatasetError(f"{folder}: no unpacked package with models. Call the command with --fetch.")
    _check_renderer()
    limits = {package: max(1, round(limit * share)) for package, limit in LIMITS.items()}

    def on_mesh(taken: int, left_out: int) -> None:
        if (taken + left_out) % 500 == 0:
            tell(f"{taken} of {len(candidates)} models taken, {left_out} left out")

    rendered = render_candidates(candidates, limits, processes=processes, on_mesh=on_mesh)
    views = write_pack((pair for one in rendered for pair in zip(one.rows, one.pictures, strict=True)), out, "views")
    pictures = write_pack(cut_backgrounds(folder), out, "backgrounds")
    cut = write_pack(((row, encoded(picture)) for row, picture in cutouts(folder)), out, "cutouts")
    size = sum(table["length"].sum() for table in (views, pictures, cut) if len(table)) / 1e6
    meshes = views["mesh"].nunique() if len(views) else 0
    return (
        f"{out}: {meshes} meshes in {len(views)} views, {len(pictures)} backgrounds, {len(cut)} cutouts, {size:.0f} MB"
    )


def _check_renderer() -> None:
    missing = [name for name in ("embreex", "pyassimp") if find_spec(name) is None]
    if missing:
        raise DatasetError(f"{' and '.join(missing)} not installed. Run pip install 'dreambooth3d[pretraining]'.")
    if not assimp.has_library():
        raise DatasetError("pyassimp finds no assimp library. Run apt-get install libassimp5.")
