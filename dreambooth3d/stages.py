"""The method's stages: one function per step, from artifacts and settings to an artifact.

Each takes its surroundings, then what its result depends on. What a stage uses is imported inside it, so that what its
function imports is what its result depends on (`dreambooth3d.sources`).
"""

from __future__ import annotations

from dreambooth3d.artifacts import (
    AssetBundle,
    CheckpointChoice,
    CheckpointSet,
    DreamBoothCheckpoint,
    EvaluationReport,
    GroundTruth,
    PseudoViews,
    RadianceField,
    SubjectPhotos,
)
from dreambooth3d.config.distillation import EditNerfConfig, FitTrueViewsConfig, InitNerfConfig, RefineNerfConfig
from dreambooth3d.config.finetuning import FinetuneConfig, MultiviewConfig, SelectConfig
from dreambooth3d.config.generation import EvaluatePromptConfig
from dreambooth3d.config.models import BaseModelConfig, ScorerRef
from dreambooth3d.config.photos import PhotoModels, PhotosConfig
from dreambooth3d.config.pseudo_views import PseudoViewsConfig
from dreambooth3d.config.results import EvaluateConfig, ExportConfig
from dreambooth3d.runtime import Runtime


def validate_photos(
    runtime: Runtime, config: PhotosConfig, data_md5: str, selector: ScorerRef, models: PhotoModels
) -> SubjectPhotos:
    """Read, check and mask the photos whose hash is `data_md5`; the selector names views, they tell cameras.

    Errors stop, warnings travel along.
    """
    from dataclasses import replace

    from dreambooth3d.evaluation.viewpoints import with_viewpoints
    from dreambooth3d.photos.check import check_photos

    photos = check_photos(config, data_md5, models, runtime)
    located = with_viewpoints(photos, selector, models, runtime.device)
    runtime.log.params(views=", ".join(located.views))
    runtime.log.metrics(photos_located=int(located.facts["azimuth_deg"].notna().sum()))
    return replace(located, record=runtime.log.record())


def load_ground_truth(runtime: Runtime, config: PhotosConfig, data_md5: str) -> GroundTruth:
    """Read the recipe from which true views are rendered, where there is one; only evaluation may take it."""
    from dreambooth3d.photos.dataset import ground_truth

    return ground_truth(config)


def finetune_dreambooth(
    runtime: Runtime,
    photos: SubjectPhotos,
    base_model: BaseModelConfig,
    base_digest: str,
    config: FinetuneConfig,
    pretrained_digest: str,
    seed: int,
) -> CheckpointSet:
    """Teach the base model the subject, and keep a checkpoint every few steps.

    `base_digest` is the SHA-256 of a local base model, or the commit of a hub model: new weights are another input.
    So is `pretrained_digest`, of the checkpoints that are taken in place of training.
    """
    from dreambooth3d.diffusion.finetuning.dreambooth import finetune
    from dreambooth3d.diffusion.model.base_model import identified

    runtime.log.params(base_model=base_digest)
    return finetune(photos, identified(base_model, base_digest), config, seed, runtime)


def select_checkpoints(
    runtime: Runtime,
    checkpoints: CheckpointSet,
    photos: SubjectPhotos,
    selector: ScorerRef,
    config: SelectConfig,
    seed: int,
) -> tuple[DreamBoothCheckpoint, DreamBoothCheckpoint, CheckpointChoice]:
    """Score every checkpoint with the selector; `partial` still obeys view words, `full` knows the subject best."""
    from dreambooth3d.evaluation.clip import ClipScorer, pinned
    from dreambooth3d.evaluation.selection import select

    runtime.log.params(selector=selector.digest)
    scorer = ClipScorer.load(pinned(selector), runtime.device)
    choice = select(checkpoints, photos, scorer, config, seed, runtime)
    pairs = checkpoints.checkpoints
    return pairs[choice.partial_step], pairs[choice.full_step], choice


def init_nerf(
    runtime: Runtime,
    checkpoint: DreamBoothCheckpoint,
    photos: SubjectPhotos,
    selector: ScorerRef,
    config: InitNerfConfig,
    seed: int,
) -> RadianceField:
    """Distil a checkpoint into a first radiance field, whose heading the selector corrects (stage 1)."""
    from dreambooth3d.checkpoint_distillation import distil_checkpoint

    return distil_checkpoint(checkpoint, photos.instance_prompt, config, seed, runtime, photos, selector)


def generate_pseudo_views(
    runtime: Runtime,
    coarse: RadianceField,
    checkpoint: DreamBoothCheckpoint,
    photos: SubjectPhotos,
    config: PseudoViewsConfig,
    seed: int,
) -> PseudoViews:
    """Render evenly spread views, and redo part of the noise schedule with the full checkpoint (stage 2)."""
    import torch

    from dreambooth3d.cameras import spread_cameras
    from dreambooth3d.diffusion.sampling.img2img import RenderedViews, pseudo_views
    from dreambooth3d.kinds import render_asset

    cameras = spread_cameras(config.count, config.elevations_deg)
    renders = render_asset(
        coarse,
        cameras,
        size=config.render.size,
        samples_per_ray=config.render.samples_per_ray,
        background=torch.tensor(config.background),
        device=runtime.device,
    )
    views = RenderedViews(renders.color, renders.opacity, cameras)
    return pseudo_views(views, checkpoint, photos, config, seed, runtime)


def finetune_multiview(
    runtime: Runtime,
    checkpoint: DreamBoothCheckpoint,
    pseudo: PseudoViews,
    photos: SubjectPhotos,
    config: MultiviewConfig,
    seed: int,
) -> DreamBoothCheckpoint:
    """Teach the partial checkpoint how the subject looks from all sides (stage 3, first half)."""
    from dreambooth3d.diffusion.finetuning import dreambooth

    return dreambooth.finetune_multiview(checkpoint, pseudo, photos, config, seed, runtime)


def refine_nerf(
    runtime: Runtime,
    checkpoint: DreamBoothCheckpoint,
    coarse: RadianceField,
    photos: SubjectPhotos,
    selector: ScorerRef,
    config: RefineNerfConfig,
    seed: int,
    pseudo: PseudoViews | None = None,
) -> RadianceField:
    """Distil on random cameras from where the coarse field is, alongside the pseudo views (stage 3, second half)."""
    from dreambooth3d.checkpoint_distillation import distil_checkpoint

    given = (checkpoint, photos.instance_prompt, config, seed, runtime, photos, selector)
    return distil_checkpoint(*given, init=coarse, reconstruction=pseudo)


def edit_nerf(
    runtime: Runtime,
    checkpoint: DreamBoothCheckpoint,
    asset: RadianceField,
    photos: SubjectPhotos,
    prompt: str,
    selector: ScorerRef,
    config: EditNerfConfig,
    seed: int,
) -> RadianceField:
    """Distil under a context's prompt, from where the finished asset is."""
    from dreambooth3d.checkpoint_distillation import distil_checkpoint

    runtime.log.params(prompt=prompt)
    return distil_checkpoint(checkpoint, prompt, config, seed, runtime, photos, selector, init=asset)


def fit_true_views(runtime: Runtime, truth: GroundTruth, config: FitTrueViewsConfig, seed: int) -> RadianceField:
    """Fit a fresh field to true views: what reconstruction alone could reach. Only the ceiling does this."""
    from dreambooth3d.evaluation import ceiling
    from dreambooth3d.photos.dataset import require_ground_truth

    require_ground_truth(truth)
    return ceiling.fit_true_views(truth, config, seed, runtime)


def evaluate(
    runtime: Runtime,
    asset: RadianceField,
    coarse: RadianceField,
    photos: SubjectPhotos,
    truth: GroundTruth,
    judge: ScorerRef,
    config: EvaluateConfig,
) -> EvaluationReport:
    """Score refined and coarse asset; the judge steers nothing, so no other stage may load it."""
    from dreambooth3d.evaluation import report
    from dreambooth3d.evaluation.clip import ClipScorer, pinned

    runtime.log.params(judge=judge.digest)
    scorer = ClipScorer.load(pinned(judge), runtime.device)
    return report.evaluate(asset, coarse, photos, truth, scorer, config, runtime)


def evaluate_context(
    runtime: Runtime,
    asset: RadianceField,
    source: RadianceField,
    prompt: str,
    photos: SubjectPhotos,
    truth: GroundTruth,
    judge: ScorerRef,
    config: EvaluateConfig,
) -> EvaluationReport:
    """Score the edited asset beside the one that it was made from; as in `evaluate`, the judge steers nothing."""
    from dreambooth3d.evaluation import contexts
    from dreambooth3d.evaluation.clip import ClipScorer, pinned

    runtime.log.params(judge=judge.digest)
    scorer = ClipScorer.load(pinned(judge), runtime.device)
    return contexts.evaluate_context(asset, source, prompt, photos, truth, scorer, config, runtime)


def read_prompt(runtime: Runtime, prompt: str, class_noun: str) -> SubjectPhotos:
    """The subject that a prompt describes: a photo set without photos."""
    from dreambooth3d.photos.prompted import prompted_subject

    runtime.log.params(prompt=prompt, class_noun=class_noun)
    return prompted_subject(prompt, class_noun, runtime.log.record())


def read_guide(
    runtime: Runtime, base_model: BaseModelConfig, base_digest: str, guide: str, guide_digest: str
) -> DreamBoothCheckpoint:
    """The model that guides an asset made from a prompt alone, as a checkpoint of the base model.

    `base_digest` and `guide_digest` pin their weights, as in `finetune_dreambooth`.
    """
    from dreambooth3d.diffusion.model import guides

    runtime.log.params(base_model=base_digest, guide=guide, guide_digest=guide_digest)
    return guides.read_guide(base_model, base_digest, guide, runtime.folder)


def evaluate_prompt(
    runtime: Runtime, asset: RadianceField, photos: SubjectPhotos, judge: ScorerRef, config: EvaluatePromptConfig
) -> EvaluationReport:
    """Score an asset that was made from a prompt alone; as in `evaluate`, the judge steers nothing."""
    from dreambooth3d.evaluation import prompts
    from dreambooth3d.evaluation.clip import ClipScorer, pinned

    runtime.log.params(judge=judge.digest)
    scorer = ClipScorer.load(pinned(judge), runtime.device)
    return prompts.evaluate_prompt(asset, photos, scorer, config, runtime)


def export_asset(
    runtime: Runtime,
    asset: RadianceField,
    report: EvaluationReport,
    photos: SubjectPhotos,
    config: ExportConfig,
    prompt: str = "",
    truth: GroundTruth | None = None,
) -> AssetBundle:
    """Write the mesh, the turntable and the viewer page, which shows the report's metrics and a context's prompt.

    The finished mesh is compared with the asset and, where it is known, with the truth, of which nothing goes into it.
    """
    from functools import partial

    from dreambooth3d.evaluation.meshes import mesh_metrics
    from dreambooth3d.evaluation.truth import edited_truth
    from dreambooth3d.export.about import about_asset
    from dreambooth3d.export.bundle import export

    truth = truth or GroundTruth({})
    true = edited_truth(truth, prompt, photos.identifier) if prompt else truth
    measure = partial(mesh_metrics, truth=true, size=config.measured_size)
    shown = prompt or photos.instance_prompt
    about = about_asset(asset, photos, runtime.origin)
    return export(asset, config, runtime, photos.subject, report.metrics, shown, measure, about)
