"""A stage that goes on from an asset of its kind: its section says how that learns, and cannot make it anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.config.distillation import RefineNerfConfig
from dreambooth3d.config.gaussians import GaussiansConfig
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.mesh import MeshConfig
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.kinds import build_asset
from dreambooth3d.nerf.training.learner import Learner
from dreambooth3d.record import StepRecord
from dreambooth3d.representation.interface import Position, Representation
from tests.representation.test_conformance import ASSETS

CPU = torch.device("cpu")
GENERATION = {"generation": {"prompt": "a photo of a red dog", "refine": True}}


def artifact(kind: str) -> RadianceField:
    return ASSETS[kind]().artifact(torch.zeros(0, 3, 1, 1), 7, StepRecord("init_nerf"))


def gone_on(kind: str, **section: Any) -> Representation:
    return build_asset(RefineNerfConfig.model_validate({kind: section}), 0, CPU, artifact(kind))


def test_rates_are_the_stage_s() -> None:
    config = RefineNerfConfig(gaussians=GaussiansConfig(color_rate=3.0, position_rate=0.25), learning_rate=1e-2)
    learner = Learner(config, 0, CPU, artifact("gaussians"))
    learner.set_rate(0.0)
    rates = {group["name"]: group["lr"] for group in learner.optimizer.param_groups}
    assert rates["color_logits"] == pytest.approx(3e-2) and rates["positions"] == pytest.approx(2.5e-3)
    assert rates["opacity_logits"] == pytest.approx(0.1), "what the section does not say has its default"


def test_gaussians_are_pruned_as_the_stage_says() -> None:
    """All are 90 % opaque: nothing goes by the settings that they were made with."""
    asset = gone_on("gaussians", prune_opacity=0.95, densify_every=1, densify_share=(0.0, 1.0))
    optimizer = torch.optim.Adam([{"params": list(group.parameters)} for group in asset.parameter_groups()])
    assert asset.after_step(Position(0, 0.5), optimizer)
    assert 0 < len(asset.state()["positions"]) < 100


def test_a_mesh_s_regularisers_are_the_stage_s() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = RefineNerfConfig().regularizers
    parts = gone_on("mesh", normal_consistency=5.0, laplacian=2.0, sign_changes=0.0).shape_losses(weights, generator)
    assert {name: weight for name, (weight, _) in parts.items()} == {"normal_consistency": 5.0, "laplacian": 2.0}


@pytest.mark.parametrize("kind", ["gaussians", "mesh"])
def test_without_a_section_the_asset_s_own_settings_hold(kind: str) -> None:
    before = artifact(kind)
    assert build_asset(RefineNerfConfig(), 0, CPU, before).settings() == before.config


def test_what_it_is_made_of_stays() -> None:
    """The default, which nobody may have asked for, is no other making."""
    asset = gone_on("mesh", normal_consistency=5.0)
    assert asset.settings()["resolution"] == 24 != MeshConfig().resolution
    with pytest.raises(ConfigError, match=r"^mesh.resolution=40: the mesh .* has 24, which cannot change. Remove"):
        gone_on("mesh", resolution=40)
    with pytest.raises(ConfigError, match=r"^gaussians.background=white: "):
        gone_on("gaussians", background="white")


@pytest.mark.parametrize(
    ("model", "values", "place"),
    [
        (TrainingConfig, {}, "refine_nerf"),
        (TrainingConfig, {"contexts": ["a photo of a red sks dog"]}, "edit_nerf"),
        (TextTo3dConfig, GENERATION, "refine_nerf"),
    ],
)
def test_another_making_is_refused_before_anything_runs(model: Any, values: dict[str, Any], place: str) -> None:
    first = {"representation": "mesh", "mesh": {"resolution": 24}}
    with pytest.raises(
        ValidationError, match=f"{place}.mesh.resolution=40: {place} goes on with the mesh of init_nerf"
    ):
        model.model_validate(values | {"init_nerf": first, place: {"mesh": {"resolution": 40}}})
    model.model_validate(values | {"init_nerf": first, place: {"mesh": {"normal_consistency": 5.0}}})
    model.model_validate(values | {"init_nerf": first, place: {"mesh": {"resolution": 24}}})


def test_a_stage_that_makes_a_mesh_of_a_field_says_what_it_is_made_of() -> None:
    TrainingConfig.model_validate({"refine_nerf": {"representation": "mesh", "mesh": {"resolution": 40}}})
    with pytest.raises(ValidationError, match="goes on with the mesh of refine_nerf, made with 40"):
        TrainingConfig.model_validate(
            {
                "refine_nerf": {"representation": "mesh", "mesh": {"resolution": 40}},
                "edit_nerf": {"mesh": {"resolution": 24}},
                "contexts": ["a photo of a red sks dog"],
            }
        )


def test_a_mesh_that_nobody_describes_is_made_by_the_defaults() -> None:
    values = {"refine_nerf": {"representation": "mesh"}, "edit_nerf": {"mesh": {"resolution": 40}}}
    with pytest.raises(ValidationError, match="goes on with the mesh of refine_nerf, made with 32"):
        TrainingConfig.model_validate(values | {"contexts": ["a photo of a red sks dog"]})


def test_nobody_goes_on_where_there_is_no_refinement() -> None:
    """The refinement's section then means nothing, as without contexts that of `edit_nerf`."""
    values = {
        "init_nerf": {"representation": "mesh"},
        "refine_nerf": {"mesh": {"resolution": 40}},
        "edit_nerf": {"mesh": {"resolution": 40}},
    }
    with pytest.raises(ValidationError):
        TrainingConfig.model_validate(values)
    TrainingConfig.model_validate(values | {"recipe": {"refine_with": "none", "multiview": False}})
    TextTo3dConfig.model_validate({"generation": {"prompt": "a photo of a red dog"}, "init_nerf": values["init_nerf"]})
