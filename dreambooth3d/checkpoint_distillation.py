"""Where diffusion and field meet: a checkpoint distilled into a field, alone or as a team of processes."""

from __future__ import annotations

import torch

from dreambooth3d.artifacts import DreamBoothCheckpoint, PseudoViews, RadianceField, SubjectPhotos
from dreambooth3d.config.distillation import DistillConfig
from dreambooth3d.config.guidance import GuidanceConfig
from dreambooth3d.config.models import ScorerRef
from dreambooth3d.diffusion.guidance.score_distillation import ScoreDistillation
from dreambooth3d.diffusion.model.components import load_components
from dreambooth3d.diffusion.sampling.latent_colors import latent_colors
from dreambooth3d.evaluation.clip import pinned
from dreambooth3d.evaluation.views import ViewScores
from dreambooth3d.nerf.training.distillation import distil, follow
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.parallel import Team, team
from dreambooth3d.representation.latents import LatentColors
from dreambooth3d.runtime import Runtime


def distil_checkpoint(
    checkpoint: DreamBoothCheckpoint,
    prompt: str,
    config: DistillConfig,
    seed: int,
    runtime: Runtime,
    photos: SubjectPhotos,
    selector: ScorerRef,
    *,
    init: RadianceField | None = None,
    reconstruction: PseudoViews | None = None,
) -> RadianceField:
    """Score distillation from a checkpoint under a prompt; `config.processes` share each step's views.

    Args:
        checkpoint: guides the field.
        prompt: the subject's, without a view.
        selector: scorer that watches, and corrects the heading; loaded only where something asks it.

    For the other arguments, result and errors see `distil`.
    """
    if config.processes > 1:
        # The other processes know no artifact store.
        checkpoint = checkpoint.kept_in(runtime.folder / "checkpoint")
    with team(_follow, (checkpoint, prompt, config, seed, init), config.processes, runtime.device) as members:
        guidance = _guidance(checkpoint, prompt, config.guidance, seed, runtime.device)
        latent = init is None and config.render.space == "latent"
        colors = _latent_colors(guidance, prompt, seed, runtime) if latent else None
        guidance.components.set_aside()
        wanted = needs_selector(config)
        views = ViewScores.load(pinned(selector), photos.class_noun, runtime.device, photos.images) if wanted else None
        likeness = views.likeness if views and photos.images else None
        shown = photos if photos.images else None
        inputs = DistillInputs(guidance, init, reconstruction, shown, views, likeness, members, colors)
        return distil(inputs, config, seed, runtime)


def _guidance(
    checkpoint: DreamBoothCheckpoint, prompt: str, config: GuidanceConfig, seed: int, device: torch.device
) -> ScoreDistillation:
    """Guidance by a checkpoint towards a prompt."""
    components = load_components(checkpoint.base_model, device, checkpoint, acceleration=config.acceleration)
    return ScoreDistillation(components, prompt, config, seed)


def _latent_colors(guidance: ScoreDistillation, prompt: str, seed: int, runtime: Runtime) -> LatentColors:
    """How the guidance's latents look, while its decoder is on the device."""
    colors, explained = latent_colors(guidance.components, prompt, seed)
    runtime.log.metrics(latent_colors_r2=explained)
    return colors


def needs_selector(config: DistillConfig) -> bool:
    """Whether photos or the front are searched for, or a guard looks through the selector's eyes."""
    watching = config.guards.janus.action != "off" or config.guards.clip_i.action != "off"
    return config.photos.weight > 0 or config.face_front or watching


def _follow(
    members: Team,
    checkpoint: DreamBoothCheckpoint,
    prompt: str,
    config: DistillConfig,
    seed: int,
    init: RadianceField | None,
) -> None:
    """What the other processes do."""
    guidance = _guidance(checkpoint, prompt, config.guidance, seed, members.device)
    guidance.components.set_aside()
    follow(DistillInputs(guidance, init, team=members), config)
