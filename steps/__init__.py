"""ZenML steps: thin adapters between the pipeline and the library, one per file.

`steps.init_nerf` is the step itself, not its module, so that a pipeline reads as `steps.init_nerf(...)`.
"""

from operations.launch import zenml_steps
from steps.decide_subjects import decide_subjects
from steps.edit_nerf import edit_nerf
from steps.evaluate import evaluate
from steps.evaluate_context import evaluate_context
from steps.evaluate_prompt import evaluate_prompt
from steps.export_asset import export_asset
from steps.finetune_dreambooth import finetune_dreambooth
from steps.finetune_multiview import finetune_multiview
from steps.fit_true_views import fit_true_views
from steps.generate_pseudo_views import generate_pseudo_views
from steps.init_nerf import init_nerf
from steps.load_ground_truth import load_ground_truth
from steps.publish import publish
from steps.read_guide import read_guide
from steps.read_prompt import read_prompt
from steps.refine_nerf import refine_nerf
from steps.resolve_dataset import resolve_dataset
from steps.retrain_apart import retrain_apart
from steps.select_checkpoints import select_checkpoints
from steps.summarize import summarize
from steps.validate_photos import validate_photos

# Before any of them runs: ZenML loads a step before it prepares it.
zenml_steps.take_part()

__all__ = [
    "decide_subjects",
    "edit_nerf",
    "evaluate",
    "evaluate_context",
    "evaluate_prompt",
    "export_asset",
    "finetune_dreambooth",
    "finetune_multiview",
    "fit_true_views",
    "generate_pseudo_views",
    "init_nerf",
    "load_ground_truth",
    "publish",
    "read_guide",
    "read_prompt",
    "refine_nerf",
    "resolve_dataset",
    "retrain_apart",
    "select_checkpoints",
    "summarize",
    "validate_photos",
]
