"""The exported asset as one folder: mesh, turntable, cameras and viewer page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from dreambooth3d.artifacts import AssetBundle, RadianceField
from dreambooth3d.cameras import Cameras, turntable_cameras
from dreambooth3d.config.results import ExportConfig
from dreambooth3d.errors import EmptyFieldError
from dreambooth3d.export.mesh import Mesh, surface_of, to_glb
from dreambooth3d.export.turntable import upsample, write_film, write_frames
from dreambooth3d.export.viewer import viewer_page
from dreambooth3d.images import sheet
from dreambooth3d.kinds import load_representation
from dreambooth3d.representation.interface import Representation
from dreambooth3d.runtime import Runtime

GLB, FILM, PAGE = "asset.glb", "turntable.mp4", "asset.html"
_COARSER = 0.8
_COARSEST = 24


def export(
    asset: RadianceField,
    config: ExportConfig,
    runtime: Runtime,
    title: str,
    metrics: Mapping[str, float] | None = None,
    prompt: str = "",
) -> AssetBundle:
    """Write the asset in forms that other programs and people can use.

    Args:
        asset: of any kind.
        config: resolutions.
        runtime: the bundle lies in `runtime.folder / "bundle"`, complete or not at all.
        title: of the page.
        metrics: of the evaluation, shown on the page.
        prompt: shown below the title.

    Raises:
        EmptyFieldError: the asset has no surface at `config.mesh_threshold`.
    """
    shown = load_representation(asset, runtime.device).eval()
    mesh = surface_of(shown, config.mesh_resolution, config.mesh_threshold)
    glb = to_glb(mesh)
    cameras = turntable_cameras()
    frames = _render_frames(shown, cameras, config)
    partial = runtime.folder / "bundle.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / GLB).write_bytes(glb)
    write_frames(frames, cameras, partial)
    encoder = write_film(frames, partial / FILM, config.frames_per_second)
    page = _fitting_page(shown, glb, mesh, frames, config, title, prompt, metrics)
    (partial / PAGE).write_text(page, encoding="utf-8")
    folder = _replace(partial, runtime.folder / "bundle")
    _log(mesh, frames, folder, encoder, config, runtime)
    return AssetBundle(folder, bundle_files(folder), runtime.log.record())


def bundle_files(folder: Path) -> tuple[str, ...]:
    """All files below a folder, relative to it, sorted."""
    return tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))


def _render_frames(shown: Representation, cameras: Cameras, config: ExportConfig) -> Tensor:
    """(36, 3, frame_size, frame_size) on white."""
    rendering = shown.render(cameras, config.frame_rays, samples_per_ray=config.samples_per_ray)
    return upsample(rendering.color.detach().float().cpu().clamp(0, 1), config.frame_size)


def _fitting_page(
    asset: Representation,
    glb: bytes,
    mesh: Mesh,
    frames: Float[Tensor, "n 3 height width"],
    config: ExportConfig,
    title: str,
    prompt: str,
    metrics: Mapping[str, float] | None,
) -> str:
    """The viewer page; while it is too large, its mesh (not the bundle's GLB) is taken at a coarser resolution."""

    def page_of(shown: bytes, faces: int) -> str:
        facts = f"{faces:,} triangles · {GLB} in the same folder has the full mesh · made with DreamBooth3D"
        return viewer_page(
            shown, frames, title=title, prompt=prompt, metrics=metrics, facts=facts,
            frames_per_second=config.frames_per_second,
        )  # fmt: skip

    page, resolution = page_of(glb, len(mesh.faces)), config.mesh_resolution
    while len(page) > config.page_limit_mb * 1e6 and resolution * _COARSER >= _COARSEST:
        resolution = int(resolution * _COARSER)
        try:
            coarse = surface_of(asset, resolution, config.mesh_threshold)
        except EmptyFieldError:
            break  # thinner than the coarse grid: better a large page than none
        page = page_of(to_glb(coarse), len(coarse.faces))
    return page


def _replace(partial: Path, final: Path) -> Path:
    """Put a complete folder in place of an old one."""
    old = final.with_name(final.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.replace(final, old)
    os.replace(partial, final)
    shutil.rmtree(old, ignore_errors=True)
    return final


def _log(mesh: Mesh, frames: Tensor, folder: Path, encoder: str, config: ExportConfig, runtime: Runtime) -> None:
    runtime.log.params(**config.model_dump(), film_encoder=encoder)
    sizes = {f"{name}_bytes": (folder / file).stat().st_size for name, file in (("glb", GLB), ("page", PAGE))}
    runtime.log.metrics(**mesh.facts(), **sizes)
    runtime.log.image("turntable", sheet(frames[::3], columns=6))
