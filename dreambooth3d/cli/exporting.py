"""`dreambooth3d export`: a finished run's asset as files for other programs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreambooth3d.environment import quiet
from dreambooth3d.errors import ConfigError, RunNotFoundError
from operations.records import rows

if TYPE_CHECKING:
    from mlflow.entities import Run

    from dreambooth3d.artifacts import RadianceField
    from dreambooth3d.config.results import ExportConfig
    from dreambooth3d.gaussians.gaussians import Gaussians
    from dreambooth3d.representation.interface import Representation

ASSET_STEPS = ("refine_nerf", "fit_true_views", "init_nerf")
"""Those whose output is a run's asset; the first that a run has."""
FINISHED = ("completed", "interrupted")
GAUSSIANS = 4000
"""That an asset of another kind becomes for the formats that hold Gaussians."""


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        run: name, id or start of either, or `latest`.
        formats: by name, as `MESH_FORMATS` and `SPLAT_FORMATS` have them.
        folder: to write into; default `exports/` in the run's results.
        settings: of `ExportConfig`, in place of the run's own.
        context: number of the context whose asset is meant, or None for the asset itself.
        gaussians: at most so many, where an asset of another kind is fitted by them.
    """

    run: str
    formats: tuple[str, ...]
    folder: Path | None
    settings: dict[str, Any]
    context: int | None = None
    gaussians: int = GAUSSIANS


def export_run(order: Order, say: Callable[[str], None]) -> list[Path]:
    """Write a finished run's asset; all files or none.

    Args:
        order: what is asked for.
        say: is told what is done beside writing.

    Returns:
        What was written.

    Raises:
        RunNotFoundError: there is no such run, it is not finished, or it has no asset.
        ConfigError: a format is unknown or needs a package, a setting is out of range, the folder cannot be written.
        EmptyFieldError: the asset has no surface.
    """
    from dreambooth3d.export.formats import check_formats

    check_formats(list(order.formats))
    quiet()
    row = rows.find_row(order.run)
    name, stands = rows.row_name(row), rows.status_of(row)
    if stands not in FINISHED:
        raise RunNotFoundError(f"{name}: this run is {stands}, so it has no asset to export. Choose a finished one.")
    config = _settings(row, order.settings)
    folder = order.folder or rows.outputs_folder(name) / "exports"
    with _beside(folder) as work:
        _write(_asset(name, order.context), config, order, row, work, say)
        return _moved(work, folder)


def _settings(row: Run, given: dict[str, Any]) -> ExportConfig:
    """The export's configuration: what is given, else what the run had."""
    from dreambooth3d.config.results import ExportConfig
    from operations.launch.sentences import checked_section

    params = {key: row.data.params.get(f"export_asset.{key}") for key in ExportConfig.model_fields}
    # A row keeps parameters as text, and says None where there is no value.
    own = {key: value for key, value in params.items() if value is not None and value != str(None)}
    return checked_section("export_asset", ExportConfig, **{**own, **given})


def _asset(run: str, context: int | None) -> RadianceField:
    """The field that a run ended with, or that of one of its contexts."""
    from zenml.client import Client

    steps = Client().get_pipeline_run(run).steps
    wanted = ASSET_STEPS if context is None else (f"edit_nerf_{context}",)
    for step in wanted:
        for versions in steps[step].outputs.values() if step in steps else ():
            return versions[0].load()
    what = "asset" if context is None else f"context {context}"
    raise RunNotFoundError(f"{run}: this run has no {what}, or it was deleted. `dreambooth3d runs show {run}` tells.")


def _write(
    artifact: RadianceField, config: ExportConfig, order: Order, row: Run, folder: Path, say: Callable[[str], None]
) -> None:
    from dreambooth3d.cameras import turntable_cameras
    from dreambooth3d.export.build import MeshBuilder
    from dreambooth3d.export.formats import MESH_FORMATS, in_metres
    from dreambooth3d.export.gltf import Credits
    from dreambooth3d.export.source import asset_source
    from dreambooth3d.export.splats import SPLAT_FORMATS
    from dreambooth3d.kinds import load_representation
    from dreambooth3d.runtime import pick_device

    asset = load_representation(artifact, pick_device()).eval()
    source, cameras, unit = asset_source(asset, config.samples_per_ray), turntable_cameras(), 1.0
    names = list(dict.fromkeys(order.formats))
    meshes = [MESH_FORMATS[name] for name in names if name in MESH_FORMATS]
    splats = [SPLAT_FORMATS[name] for name in names if name in SPLAT_FORMATS]
    if meshes or config.metres is not None:
        builder = MeshBuilder(source, config, cameras, source.render(cameras, config.frame_rays))
        mesh = builder.build() if meshes else builder.shape()
        unit = 1.0 if config.metres is None else config.metres / mesh.longest_side
        credits = Credits(row.data.tags.get("subject", "asset"), config.copyright, _facts(row, order.context))
        for each in meshes:
            each.write(in_metres(mesh, config.metres), folder, credits)
    if splats:
        gaussians = _gaussians(asset, order.gaussians, config.samples_per_ray, say)
        for each in splats:
            each.write(gaussians, folder / each.file, unit)


def _gaussians(asset: Representation, count: int, samples_per_ray: int, say: Callable[[str], None]) -> Gaussians:
    """What the formats for Gaussians hold; how like the asset they are is said where they are not the asset itself."""
    from dreambooth3d.artifacts import GroundTruth
    from dreambooth3d.evaluation.meshes import mesh_metrics
    from dreambooth3d.export.source import asset_source
    from dreambooth3d.export.splats import FIT_SIZE, as_gaussians

    gaussians = as_gaussians(asset, count)
    if gaussians is not asset:
        fitted, wanted = (asset_source(each, samples_per_ray).render for each in (gaussians, asset))
        figures = mesh_metrics(fitted, wanted, GroundTruth({}), FIT_SIZE)
        say(
            f"{len(gaussians)} Gaussians fitted to the {asset.kind.replace('_', ' ')}: "
            f"{figures['mesh/field_psnr']:.1f} dB and IoU {figures['mesh/field_iou']:.3f} against it"
        )
    return gaussians


def _facts(row: Run, context: int | None) -> dict[str, str]:
    tags, params = row.data.tags, row.data.params
    prompt = "" if context is None else params.get(f"evaluate_context_{context}.prompt", "")
    commit = tags.get("git.commit", "")
    return {"subject": tags.get("subject", ""), "prompt": prompt, "run": rows.row_name(row), "commit": commit}


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder in the making, inside that where its files belong; neither stays where nothing was made."""
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror}). Give another --out.") from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if new and not any(folder.iterdir()):
            folder.rmdir()


def _moved(work: Path, folder: Path) -> list[Path]:
    """Put finished files in their place, one by one, over those of an earlier export."""
    made = sorted(path for path in work.iterdir() if path.is_file())
    for path in made:
        os.replace(path, folder / path.name)
    return [folder / path.name for path in made]
