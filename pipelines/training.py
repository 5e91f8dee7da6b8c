"""The main job: photos of one subject in, a personalised 3D asset out."""

from __future__ import annotations

from typing import Literal

import steps
from dreambooth3d.config.distillation import EditNerfConfig, InitNerfConfig, RefineNerfConfig
from dreambooth3d.config.finetuning import FinetuneConfig, MultiviewConfig, SelectConfig
from dreambooth3d.config.models import BaseModelConfig, ScorersConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.pseudo_views import PseudoViewsConfig
from dreambooth3d.config.results import EvaluateConfig, ExportConfig
from dreambooth3d.config.training import RecipeConfig, TrainingConfig
from dreambooth3d.photos.dataset import dataset_hash
from operations.launch.identity import base_model_identity, pretrained_identity, scorer_identity, training_identity
from operations.launch.strict import strict_pipeline


@strict_pipeline(experiment="dreambooth3d")
def dreambooth3d(
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    photos: PhotosConfig = PhotosConfig(),
    base_model: BaseModelConfig = BaseModelConfig(),
    scorers: ScorersConfig = ScorersConfig(),
    recipe: RecipeConfig = RecipeConfig(),
    contexts: tuple[str, ...] = (),
    finetune_dreambooth: FinetuneConfig = FinetuneConfig(),
    select_checkpoints: SelectConfig = SelectConfig(),
    init_nerf: InitNerfConfig = InitNerfConfig(),
    generate_pseudo_views: PseudoViewsConfig = PseudoViewsConfig(),
    finetune_multiview: MultiviewConfig = MultiviewConfig(),
    refine_nerf: RefineNerfConfig = RefineNerfConfig(),
    edit_nerf: EditNerfConfig = EditNerfConfig(),
    evaluate: EvaluateConfig = EvaluateConfig(),
    export_asset: ExportConfig = ExportConfig(),
) -> None:
    """Personalise the base model with the photos, lift it to 3D, and measure, export and publish the asset.

    So is one more asset for each of the contexts, made from the finished one.
    """
    config = TrainingConfig(**locals())
    common = {"seed": seed, "device": device}
    data = dataset_hash(photos)
    selector, selector_digest = scorers.selector, scorer_identity(scorers.selector)
    judge, judge_digest = scorers.judge, scorer_identity(scorers.judge)

    subject = steps.validate_photos(photos, data, selector, selector_digest)
    inputs = (base_model_identity(base_model), finetune_dreambooth, pretrained_identity(finetune_dreambooth))
    checkpoints = steps.finetune_dreambooth(subject, base_model, *inputs, **common)
    partial, full, _ = steps.select_checkpoints(
        checkpoints, subject, selector, selector_digest, select_checkpoints, **common
    )
    start = full if recipe.init_from == "full" else partial
    coarse = steps.init_nerf(start, subject, selector, selector_digest, init_nerf, **common)
    pseudo, guide, asset = None, full, coarse
    if recipe.pseudo_views:
        pseudo = steps.generate_pseudo_views(coarse, full, subject, generate_pseudo_views, **common)
    if recipe.multiview:
        guide = steps.finetune_multiview(partial, pseudo, subject, finetune_multiview, **common)
    if recipe.refine_with != "none":
        guide = full if recipe.refine_with == "full" else guide
        inputs = (guide, coarse, subject, selector, selector_digest, refine_nerf)
        asset = steps.refine_nerf(*inputs, pseudo=pseudo, **common)
    truth = steps.load_ground_truth(photos, data)
    report = steps.evaluate(asset, coarse, subject, truth, judge, judge_digest, evaluate, device)
    bundle = steps.export_asset(asset, report, subject, export_asset, device)
    edited_bundles = []
    for index, prompt in enumerate(contexts):
        inputs = (partial, asset, subject, prompt, selector, selector_digest, edit_nerf)
        edited = steps.edit_nerf(*inputs, **common, id=f"edit_nerf_{index}")
        inputs = (edited, asset, prompt, subject, truth, judge, judge_digest, evaluate, device)
        edit_report = steps.evaluate_context(*inputs, id=f"evaluate_context_{index}")
        inputs = (edited, edit_report, subject, export_asset, device, prompt)
        edited_bundles.append(steps.export_asset(*inputs, id=f"export_context_{index}"))
    steps.publish(report, bundle, asset, subject, config, training_identity(config, data), after=edited_bundles)
