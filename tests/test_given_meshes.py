"""Whole runs of the presets that hold latents, follow a sketch or paint a given mesh, in small and in one process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dreambooth3d import recipe
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.in_process import InProcess
from dreambooth3d.surface.files import read_mesh
from dreambooth3d.toybox import subjects
from dreambooth3d.toybox.subjects import write_subject
from operations.launch.checking import check_file
from tests.coarse import search_coarsely
from tests.evaluation.stand_ins import write_tiny_clip
from tests.tiny_configs import shrunk
from tests.tiny_models import write_tiny_base_model

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.fixture(autouse=True)
def _small_photos_and_coarse_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "PHOTO_SIZE", 64)
    search_coarsely(monkeypatch)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Base model, selector and judge."""
    folder = tmp_path_factory.mktemp("models")
    clips = (write_tiny_clip(folder / name, size=size) for name, size in (("selector", 32), ("judge", 24)))
    return (write_tiny_base_model(folder / "base"), *clips)


def made_by(name: str, models: tuple[Path, Path, Path], folder: Path) -> recipe.Made:
    config = check_file(CONFIGS / f"{name}.yaml")
    run_stage = InProcess(folder, torch.device("cpu"), progress=False)
    if isinstance(config, TrainingConfig):
        write_subject("corgi", folder)
        config = config.model_copy(update={"photos": PhotosConfig(dir=str(folder / "corgi"))})
        return recipe.run(shrunk(config, *models), run_stage)
    assert isinstance(config, TextTo3dConfig)
    generation = config.generation.model_copy(update={"prompt": "a photo of a red dog"})
    return recipe.generate(shrunk(config.model_copy(update={"generation": generation}), *models), run_stage)


def test_a_latent_field_is_refined_in_colours(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    made = made_by("text_to_3d_latent", models, tmp_path)
    assert made.coarse.steps == 3 and made.asset.steps == 6
    before, after = (field.state["latent_head.decoder"] for field in (made.coarse, made.asset))
    assert before.abs().sum() > 0 and not torch.equal(before, after), "the head learns in the second stage only"
    assert "latent_colors_r2" in made.coarse.record.metrics
    assert (made.bundle.folder / "asset.glb").stat().st_size > 0


def test_a_sketch_is_followed(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    made = made_by("text_to_3d_sketch", models, tmp_path)
    assert "sketch" in set(made.asset.record.series["name"]) and made.asset.kind == "field"


@pytest.mark.parametrize("name", ["text_to_3d_paint", "paint"])
def test_a_painted_mesh_leaves_as_it_came(name: str, models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    made = made_by(name, models, tmp_path)
    assert made.asset.kind == "painted" and made.asset.config["file"] == "configs/sketches/chair.obj"
    read = trimesh.load_mesh(made.bundle.folder / "asset.glb", process=False)
    given = read_mesh("configs/sketches/chair.obj")
    corners = [mesh.vertices[mesh.faces].reshape(-1, 9) for mesh in (read, given)]
    np.testing.assert_allclose(corners[0].reshape(-1, 3, 3)[..., [2, 0, 1]].reshape(-1, 9), corners[1], atol=1e-5)
    assert read.visual.material.baseColorTexture.size == (64, 64)
