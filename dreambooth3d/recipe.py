"""The method from photos to asset, top to bottom, for whatever runs its stages: a process, a pipeline, a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from dreambooth3d import stages
from dreambooth3d.artifacts import (
    AssetBundle,
    CheckpointChoice,
    DreamBoothCheckpoint,
    EvaluationReport,
    RadianceField,
    SubjectPhotos,
)
from dreambooth3d.config.base import Section
from dreambooth3d.config.distillation import DistillConfig, InitNerfConfig, RefineNerfConfig
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.results import ExportConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from dreambooth3d.diffusion.model.base_model import base_model_identity
from dreambooth3d.diffusion.model.pretrained import pretrained_identity
from dreambooth3d.evaluation.clip import scorer_ref
from dreambooth3d.photos.dataset import dataset_hash
from dreambooth3d.photos.models import photo_models
from dreambooth3d.runtime import Runtime

Settings = TypeVar("Settings", bound=Section)
Distilled = TypeVar("Distilled", bound=DistillConfig)
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
    from dreambooth3d.surface.files import with_mesh_digests

    recipe, seed = config.recipe, config.seed
    first, refining = with_mesh_digests(config.init_nerf), with_mesh_digests(config.refine_nerf)
    editing = with_mesh_digests(config.edit_nerf)
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
    coarse = run_stage("init_nerf", stages.init_nerf, start, photos, selector, first, seed)
    pseudo, guide, asset = None, full, coarse
    if recipe.pseudo_views:
        settings = config.generate_pseudo_views
        pseudo = run_stage("generate_pseudo_views", stages.generate_pseudo_views, coarse, full, photos, settings, seed)
        if recipe.multiview:
            settings = config.finetune_multiview
            guide = run_stage("finetune_multiview", stages.finetune_multiview, partial, pseudo, photos, settings, seed)
    if recipe.refine_with != "none":
        guide = full if recipe.refine_with == "full" else guide
        inputs = (guide, coarse, photos, selector, refining, seed)
        asset = run_stage("refine_nerf", stages.refine_nerf, *inputs, pseudo=pseudo)
    truth = run_stage("load_ground_truth", stages.load_ground_truth, config.photos, data_md5)
    report = run_stage("evaluate", stages.evaluate, asset, coarse, photos, truth, judge, config.evaluate)
    bundle = run_stage("export_asset", stages.export_asset, asset, report, photos, config.export_asset, truth=truth)
    edited = []
    for index, prompt in enumerate(config.contexts):
        inputs = (partial, asset, photos, prompt, selector, editing, seed)
        field = run_stage(f"edit_nerf_{index}", stages.edit_nerf, *inputs)
        inputs = (field, asset, prompt, photos, truth, judge, config.evaluate)
        verdict = run_stage(f"evaluate_context_{index}", stages.evaluate_context, *inputs)
        inputs = (field, verdict, photos, config.export_asset)
        files = run_stage(f"export_context_{index}", stages.export_asset, *inputs, prompt=prompt, truth=truth)
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
    bundle = run_stage("export_asset", stages.export_asset, asset, report, photos, config.export_asset, truth=truth)
    return Made(data_md5, photos, asset, asset, report, bundle)


def generate(config: TextTo3dConfig, run_stage: RunStage, guide: DreamBoothCheckpoint | None = None) -> Made:
    """Make an asset from a prompt alone: distil the guide, and measure and export what comes of it.

    Args:
        config: of the generation.
        run_stage: runs the stages.
        guide: the checkpoint that guides, where it is a run's; else the one that `generation.guide` names is read.

    Raises:
        DreamBooth3DError: the prompt has no noun that the base model knows; base model, guide or a scorer are missing
            or damaged; a stage failed.
    """
    from dreambooth3d.diffusion.model.guides import guide_identity, prompt_noun
    from dreambooth3d.photos.prompted import prompt_hash
    from dreambooth3d.surface.files import with_mesh_digests

    asked, seed = config.generation, config.seed
    first, refining = with_mesh_digests(config.init_nerf), with_mesh_digests(config.refine_nerf)
    selector, judge = scorer_ref(config.scorers.selector), scorer_ref(config.scorers.judge)
    noun = prompt_noun(asked, config.base_model)

    photos = run_stage("read_prompt", stages.read_prompt, asked.prompt, noun)
    if guide is None:
        given = (config.base_model, base_model_identity(config.base_model), asked.guide, guide_identity(asked.guide))
        guide = run_stage("read_guide", stages.read_guide, *given)
    settings = _with_negative_prompt(_as(InitNerfConfig, first), asked.negative_prompt)
    coarse = asset = run_stage("init_nerf", stages.init_nerf, guide, photos, selector, settings, seed)
    if asked.refine:
        settings = _with_negative_prompt(_as(RefineNerfConfig, refining), asked.negative_prompt)
        asset = run_stage("refine_nerf", stages.refine_nerf, guide, coarse, photos, selector, settings, seed)
    report = run_stage("evaluate_prompt", stages.evaluate_prompt, asset, photos, judge, config.evaluate)
    exported = _as(ExportConfig, config.export_asset)
    bundle = run_stage("export_asset", stages.export_asset, asset, report, photos, exported)
    return Made(prompt_hash(asked.prompt), photos, coarse, asset, report, bundle)


def _as(kind: type[Settings], settings: Settings) -> Settings:
    """Settings as those that a stage takes, with every default of their own said: who passes them on may leave out what
    is not said, and would take the other's."""
    return kind.model_validate(settings.model_dump())


def _with_negative_prompt(settings: Distilled, prompt: str) -> Distilled:
    """A stage's settings with a negative prompt, unless they have one of their own."""
    guidance = settings.guidance
    if not prompt or guidance.negative_prompt:
        return settings
    return settings.model_copy(update={"guidance": guidance.model_copy(update={"negative_prompt": prompt})})


def make_asset(config: TrainingConfig | TextTo3dConfig, folder: Path | str) -> Made:
    """Run the whole method in this process, without an orchestrator and a tracker.

    Args:
        config: of the training, or of the generation from a prompt alone.
        folder: for all files, below which the bundle's lie; a call that was broken off goes on from what is there.

    Returns:
        The result; `bundle.folder` holds the files that `bundle.files` names.

    Raises:
        DreamBooth3DError: as for `run`.
    """
    from dreambooth3d.in_process import InProcess
    from dreambooth3d.runtime import pick_device

    run_stage = InProcess(Path(folder), pick_device(config.device))
    return generate(config, run_stage) if isinstance(config, TextTo3dConfig) else run(config, run_stage)
