"""The method from photos to asset, top to bottom, for whatever runs its stages: a process, a pipeline, a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from dreambooth3d import stages
from dreambooth3d.artifacts import AssetBundle, CheckpointChoice, EvaluationReport, RadianceField, SubjectPhotos
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from dreambooth3d.diffusion.model.base_model import base_model_identity
from dreambooth3d.diffusion.model.pretrained import pretrained_identity
from dreambooth3d.evaluation.clip import scorer_ref
from dreambooth3d.photos.dataset import dataset_hash
from dreambooth3d.photos.models import photo_models
from dreambooth3d.runtime import Runtime

Inputs = ParamSpec("Inputs")
Result = TypeVar("Result", covariant=True)


class RunStage(Protocol):
    """Runs one stage, now or later, and gives the stage its surroundings."""

    def __call__(
        self,
        name: str,
        stage: Callable[Concatenate[Runtime, Inputs], Result],
        /,
        *inputs: Inputs.args,
        **options: Inputs.kwargs,
    ) -> Result:
        """The stage's result, or what stands for it: a recipe passes results on, and never looks into them.

        Args:
            name: of this call; a stage that runs once per context has another one each time.
            stage: one of `dreambooth3d.stages`.
            inputs: what the stage takes after its surroundings.
            options: those inputs that have a default.
        """
        ...


@dataclass(frozen=True)
class Edited:
    """What was made for one context: the edited field, what the judge says, and the exported files."""

    asset: RadianceField
    report: EvaluationReport
    bundle: AssetBundle


@dataclass(frozen=True)
class Made:
    """What a recipe has made.

    Attributes:
        data_md5: hash of the photo set.
        photos: checked.
        coarse: the first field.
        asset: the finished field.
        report: how good it is.
        bundle: the exported files.
        choice: which checkpoints guided it, and why; None where none did.
        contexts: one more asset for each of the configured prompts, in their order.
    """

    data_md5: str
    photos: SubjectPhotos
    coarse: RadianceField
    asset: RadianceField
    report: EvaluationReport
    bundle: AssetBundle
    choice: CheckpointChoice | None = None
    contexts: tuple[Edited, ...] = ()


def run(config: TrainingConfig, run_stage: RunStage) -> Made:
    """Personalise the base model with the photos, lift it to 3D, and measure and export the asset.

    So is one more asset for each of the contexts, made from the finished one.

    Raises:
        DreamBooth3DError: photos, base model or a scorer are missing or damaged; a stage failed.
    """
    recipe, seed = config.recipe, config.seed
    data_md5 = dataset_hash(config.photos)
    base_digest = base_model_identity(config.base_model)
    pretrained_digest = pretrained_identity(config.finetune_dreambooth)
    selector, judge = scorer_ref(config.scorers.selector), scorer_ref(config.scorers.judge)

    given = (config.photos, data_md5, selector, photo_models(config.photos))
    photos = run_stage("validate_photos", stages.validate_photos, *given)
    tuning = (config.base_model, base_digest, config.finetune_dreambooth, pretrained_digest)
    checkpoints = run_stage("finetune_dreambooth", stages.finetune_dreambooth, photos, *tuning, seed)
    partial, full, choice = run_stage(
        "select_checkpoints", stages.select_checkpoints, checkpoints, photos, selector, config.select_checkpoints, seed
    )
    start = full if recipe.init_from == "full" else partial
    coarse = run_stage("init_nerf", stages.init_nerf, start, photos, selector, config.init_nerf, seed)
    pseudo, guide, asset = None, full, coarse
    if recipe.pseudo_views:
        settings = config.generate_pseudo_views
        pseudo = run_stage("generate_pseudo_views", stages.generate_pseudo_views, coarse, full, photos, settings, seed)
        if recipe.multiview:
            settings = config.finetune_multiview
            guide = run_stage("finetune_multiview", stages.finetune_multiview, partial, pseudo, photos, settings, seed)
    if recipe.refine_with != "none":
        guide = full if recipe.refine_with == "full" else guide
        inputs = (guide, coarse, photos, selector, config.refine_nerf, seed)
        asset = run_stage("refine_nerf", stages.refine_nerf, *inputs, pseudo=pseudo)
    truth = run_stage("load_ground_truth", stages.load_ground_truth, config.photos, data_md5)
    report = run_stage("evaluate", stages.evaluate, asset, coarse, photos, truth, judge, config.evaluate)
    bundle = run_stage("export_asset", stages.export_asset, asset, report, photos, truth, config.export_asset)
    edited = []
    for index, prompt in enumerate(config.contexts):
        inputs = (partial, asset, photos, prompt, selector, config.edit_nerf, seed)
        field = run_stage(f"edit_nerf_{index}", stages.edit_nerf, *inputs)
        inputs = (field, asset, prompt, photos, truth, judge, config.evaluate)
        verdict = run_stage(f"evaluate_context_{index}", stages.evaluate_context, *inputs)
        inputs = (field, verdict, photos, truth, config.export_asset)
        files = run_stage(f"export_context_{index}", stages.export_asset, *inputs, prompt=prompt)
        edited.append(Edited(field, verdict, files))
    return Made(data_md5, photos, coarse, asset, report, bundle, choice, tuple(edited))


def fit_truth(config: CeilingConfig, run_stage: RunStage) -> Made:
    """The ceiling: fit a field to the truth that `run` only sees in evaluation, and measure and export it.

    Raises:
        DreamBooth3DError: photos or a scorer are missing or damaged; no truth is known; a stage failed.
    """
    data_md5 = dataset_hash(config.photos)
    selector, judge = scorer_ref(config.scorers.selector), scorer_ref(config.scorers.judge)

    given = (config.photos, data_md5, selector, photo_models(config.photos))
    photos = run_stage("validate_photos", stages.validate_photos, *given)
    truth = run_stage("load_ground_truth", stages.load_ground_truth, config.photos, data_md5)
    asset = run_stage("fit_true_views", stages.fit_true_views, truth, config.fit_true_views, config.seed)
    report = run_stage("evaluate", stages.evaluate, asset, asset, photos, truth, judge, config.evaluate)
    bundle = run_stage("export_asset", stages.export_asset, asset, report, photos, truth, config.export_asset)
    return Made(data_md5, photos, asset, asset, report, bundle)


def make_asset(config: TrainingConfig, folder: Path | str) -> Made:
    """Run the whole method in this process, without an orchestrator and a tracker.

    Args:
        config: of the training.
        folder: for all files, below which the bundle's lie; a call that was broken off goes on from what is there.

    Returns:
        The result; `bundle.folder` holds the files that `bundle.files` names.

    Raises:
        DreamBooth3DError: as for `run`.
    """
    from dreambooth3d.in_process import InProcess
    from dreambooth3d.runtime import pick_device

    return run(config, InProcess(Path(folder), pick_device(config.device)))
