"""Any preset made so small that all of its stages run in seconds on one CPU core, its choices kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig

Config = TypeVar("Config", TrainingConfig, CeilingConfig, TextTo3dConfig)

_RENDER = {"sampler": "dense", "size": 12, "samples_per_ray": 10, "occupancy_resolution": 8}
_GAUSSIANS = {"count": 80, "max_count": 120, "fit_steps": 2, "densify_every": 2}
_STAGE = {
    "gaussians": _GAUSSIANS,
    "sketch": {"points": 64},
    "steps": 3, "views_per_step": 2, "check_every": 2, "render": _RENDER, "convergence_patience": 0,
    "guidance": {"inversion_steps": 1}, "mesh": {"resolution": 8}, "photos": {"search_every": 1.0, "min_overlap": 0.0},
}  # fmt: skip
_FIELD = {"levels": 2, "log2_table_size": 8, "hidden_width": 8, "volume_resolution": 10}
_SIZES = {
    "device": "cpu",
    "finetune_dreambooth": {
        "steps": 4, "checkpoint_every": 2, "batch_size": 1, "class_images": 2, "class_inference_steps": 2,
        "sample_inference_steps": 2, "warmup_steps": 1, "mixed_precision": "no",
    },
    "select_checkpoints": {"samples_per_view": 1, "inference_steps": 2},
    "init_nerf": _STAGE | {"field": _FIELD, "painted": {"texture": {"volume_resolution": 10}}},
    "generate_pseudo_views": {"count": 3, "inference_steps": 8, "render": _RENDER},
    "finetune_multiview": {"steps": 2, "batch_size": 2, "warmup_steps": 1, "mixed_precision": "no"},
    "refine_nerf": _STAGE | {"reconstruction": {"views_per_step": 1}},
    "fit_true_views": _STAGE | {
        "reconstruction": {"views_per_step": 1}, "field": _FIELD, "count": 4, "view_size": 16,
    },
    "evaluate": {"size": 16, "samples_per_ray": 8},
    "export_asset": {
        "mesh_resolution": 16, "mesh_threshold": 1.0, "frame_size": 32, "frame_rays": 12, "samples_per_ray": 8,
        "max_triangles": 500, "texture_size": 64, "measured_size": 16,
    },
}  # fmt: skip
_FORCED_STEPS = {"partial_step": 2, "full_step": 4}


def shrunk(config: Config, base_model: Path, selector: Path, judge: Path) -> Config:
    """The same method with tiny sizes and models; checkpoints are forced where they were, at steps that exist."""
    values = config.model_dump()
    sizes = {name: section for name, section in _SIZES.items() if name in values}
    if "true_subjects" in values["evaluate"]:
        sizes["evaluate"] = sizes["evaluate"] | {"true_subjects": 1}
    models = {"scorers": {"selector": str(selector), "judge": str(judge)}}
    if "base_model" in values:
        models["base_model"] = {"path": str(base_model), "revision": None, "variant": None}
    if "select_checkpoints" in values:
        chosen = values["select_checkpoints"]
        forced = {name: step for name, step in _FORCED_STEPS.items() if chosen[name] is not None}
        sizes["select_checkpoints"] = sizes["select_checkpoints"] | forced
    return type(config).model_validate(_merged(values, sizes | models))


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(values)
    for key, change in changes.items():
        result[key] = _merged(result[key] or {}, change) if isinstance(change, Mapping) else change
    return result
