"""The exported asset as one folder: mesh, turntable, cameras and viewer page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from dreambooth3d.artifacts import AssetBundle, RadianceField
from dreambooth3d.cameras import Cameras, turntable_cameras
from dreambooth3d.config.results import ExportConfig
from dreambooth3d.export.build import MeshBuilder
from dreambooth3d.export.casting import MeshCaster, Pictures
from dreambooth3d.export.formats import in_metres
from dreambooth3d.export.gltf import Credits, read_glb, to_glb
from dreambooth3d.export.mesh import Mesh
from dreambooth3d.export.six_views import write_six_views
from dreambooth3d.export.source import Render, artifact_source
from dreambooth3d.export.turntable import upsample, write_film, write_frames
from dreambooth3d.export.viewer import About, viewer_page
from dreambooth3d.images import captioned, degrees, sheet
from dreambooth3d.runtime import Runtime

GLB, FILM, PAGE = "asset.glb", "turntable.mp4", "asset.html"
_SUPERSAMPLE = 4
_FEWEST_TRIANGLES = 500
MESH_VIEWS, MESH_VIEW_PX = 8, 128
Measure = Callable[[Render, Render], Mapping[str, float]]
"""Pictures of the delivered mesh, and of the asset -> figures by name."""


def export(
    asset: RadianceField,
    config: ExportConfig,
    runtime: Runtime,
    title: str,
    metrics: Mapping[str, float] | None = None,
    prompt: str = "",
    measure: Measure | None = None,
    about: About = About(),
) -> AssetBundle:
    """Write the asset in forms that other programs and people can use.

    Args:
        asset: the field.
        config: resolutions.
        runtime: the bundle lies in `runtime.folder / "bundle"`, complete or not at all.
        title: of the page.
        metrics: of the evaluation, shown on the page.
        prompt: shown below the title.
        measure: compares the mesh, as its file has it, with the asset; logged, and shown on the page.
        about: photos and facts that the page shows beside the asset.

    Raises:
        EmptyFieldError: the field has no surface at `config.mesh_threshold`.
    """
    source, cameras = artifact_source(asset, config.samples_per_ray, runtime.device), turntable_cameras()
    pictures = source.render(cameras, config.frame_rays)
    builder = MeshBuilder(source, config, cameras, pictures)
    mesh = builder.build()
    credits = Credits(title, config.copyright, {"subject": title, "prompt": prompt, **runtime.origin})
    glb = to_glb(in_metres(mesh, config.metres), credits)
    delivered = _Remembered(_unscaled(glb, mesh, config))
    figures = dict(measure(delivered, source.render)) if measure else {}
    shown = pictures if source.show is None else source.show(cameras, config.frame_rays)
    frames = upsample(shown.on(1.0), config.frame_size)
    partial = runtime.folder / "bundle.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / GLB).write_bytes(glb)
    write_frames(frames, cameras, partial)
    if config.six_views:
        write_six_views(asset, config, partial, runtime)
    encoder = write_film(frames, partial / FILM, config.frames_per_second)
    shared = {
        "title": title, "prompt": prompt, "metrics": {**(metrics or {}), **figures}, "about": about,
        "frames_per_second": config.frames_per_second,
    }  # fmt: skip
    page = _fitting_page(builder, mesh, glb, frames, (partial / FILM).read_bytes(), config, shared)
    (partial / PAGE).write_text(page, encoding="utf-8")
    folder = _replace(partial, runtime.folder / "bundle")
    if builder.threshold is not None:
        runtime.log.params(surface_density=builder.threshold)
    runtime.log.metrics(**figures)
    _log(mesh, frames, folder, encoder, config, runtime)
    if delivered.last is not None:
        views = delivered.last.on(1.0)[:: max(1, len(cameras) // MESH_VIEWS)][:MESH_VIEWS]
        runtime.log.image("mesh", sheet(upsample(views, MESH_VIEW_PX), columns=MESH_VIEWS))
    return AssetBundle(folder, bundle_files(folder), runtime.log.record())


def bundle_files(folder: Path) -> tuple[str, ...]:
    """All files below a folder, relative to it, sorted."""
    return tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))


def _unscaled(glb: bytes, mesh: Mesh, config: ExportConfig) -> Render:
    """Renders of a delivered file, in world units again."""
    delivered = read_glb(glb)
    if config.metres is not None:
        delivered = in_metres(delivered, mesh.longest_side)
    caster = MeshCaster(delivered)
    return lambda cameras, size: caster.render(cameras, size, _SUPERSAMPLE)


class _Remembered:
    """Renders, and keeps what it has rendered last."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self.last: Pictures | None = None

    def __call__(self, cameras: Cameras, size: int) -> Pictures:
        self.last = self._render(cameras, size)
        return self.last


def _fitting_page(
    builder: MeshBuilder,
    mesh: Mesh,
    glb: bytes,
    frames: Float[Tensor, "n 3 height width"],
    film: bytes,
    config: ExportConfig,
    shared: Mapping[str, Any],
) -> str:
    """The viewer page with the delivered file, or, where it would be too large, with ever less.

    The film goes first; then the mesh, which shows no more than base colours, has half the texels, then triangles.

    Args:
        builder: makes smaller meshes.
        mesh: in full.
        glb: its file.
        frames: (n, 3, height, width) turntable.
        film: the same as a film.
        config: says how large the page may be.
        shared: further arguments of `viewer_page`.
    """
    limit, count = config.page_limit_mb * 1e6, len(mesh.faces)
    whole = {"facts": f"{count:,} triangles · made with DreamBooth3D", **shared}
    for each in (film, b""):
        page = viewer_page(glb, frames, film=each, **whole)
        if len(page) <= limit:
            return page

    def page_of(shown: Mesh) -> str:
        facts = f"{len(shown.faces):,} triangles of {count:,} · {GLB} in the same folder has the full mesh"
        plain = replace(shown, metallic_roughness=None, normal_map=None)
        return viewer_page(to_glb(plain), frames, facts=f"{facts} · made with DreamBooth3D", **shared)

    page, triangles, texels = page_of(mesh), count, config.texture_size
    while len(page) > limit and triangles // 2 >= _FEWEST_TRIANGLES:
        if mesh.is_textured and texels > 512:
            texels //= 2
        else:
            triangles //= 2
            texels = max(256, texels // 2)
        page = page_of(builder.build(triangles, texels))
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
    settings = {key: value for key, value in config.model_dump().items() if value is not None}
    runtime.log.params(**settings, film_encoder=encoder)
    sizes = {f"{name}_bytes": (folder / file).stat().st_size for name, file in (("glb", GLB), ("page", PAGE))}
    runtime.log.metrics(**mesh.facts(), **sizes)
    angles = turntable_cameras().azimuth_deg[::3].tolist()
    runtime.log.image("turntable", sheet(captioned(frames[::3], list(map(degrees, angles))), columns=6))
