"""Fantasia3D's preset at tiny size, from the prompt to the textured file, without an orchestrator."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.export.gltf import read_glb
from dreambooth3d.recipe import make_asset
from operations.launch.checking import check_file
from tests.evaluation.stand_ins import write_tiny_clip
from tests.product import ROOT
from tests.tiny_configs import shrunk
from tests.tiny_models import write_tiny_base_model

PRESET = ROOT / "configs" / "text_to_3d_fantasia3d.yaml"
AS_PUBLISHED = {"guide_on": "normals", "latents_until": 0.5, "learns": "shape"}


@pytest.mark.parametrize("changes", [{}, AS_PUBLISHED], ids=["preset", "normals"])
def test_shape_then_material_then_textures(changes: dict[str, object], tmp_path: Path) -> None:
    models = (
        write_tiny_base_model(tmp_path / "base"),
        *(write_tiny_clip(tmp_path / name, size=size) for name, size in (("selector", 32), ("judge", 24))),
    )
    config = check_file(PRESET)
    assert isinstance(config, TextTo3dConfig) and config.refine_nerf.learns == "appearance"
    config = shrunk(config, *models)
    first = config.init_nerf.model_copy(update=changes)
    asked = config.generation.model_copy(update={"prompt": "a photo of a red dog"})
    config = config.model_copy(update={"init_nerf": first, "generation": asked})
    made = make_asset(config, tmp_path / "made")
    assert made.asset.kind == "mesh" and made.asset.config["material"] == "pbr"
    coarse, fine = made.coarse.state, made.asset.state
    shape = [name for name in fine if name.startswith(("distance", "offset", "coarse"))]
    assert shape and all(torch.equal(coarse[name], fine[name]) for name in shape)
    assert any(not torch.equal(coarse[name], fine[name]) for name in fine if name.startswith("paint"))
    mesh = read_glb((made.bundle.folder / "asset.glb").read_bytes())
    assert mesh.texture.shape == mesh.metallic_roughness.shape == mesh.normal_map.shape == (64, 64, 3)
