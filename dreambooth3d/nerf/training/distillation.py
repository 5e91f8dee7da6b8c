"""Score distillation: an asset learns from guidance on its renders, and optionally from pseudo views and photos."""

from __future__ import annotations

import logging

import torch

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.config.distillation import DistillConfig
from dreambooth3d.errors import CollapseError, GuardError
from dreambooth3d.kinds import build_asset
from dreambooth3d.nerf.training.guards import Collapse
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.nerf.training.learner import learning_groups
from dreambooth3d.nerf.training.trainer import Attempt, Trainer
from dreambooth3d.nerf.training.view_loss import view_loss
from dreambooth3d.runtime import Runtime

logger = logging.getLogger(__name__)


def distil(inputs: DistillInputs, config: DistillConfig, seed: int, runtime: Runtime) -> RadianceField:
    """Train an asset by score distillation.

    Args:
        inputs: what it learns from.
        config: the stage; `representation` says what kind of asset, the section of the kind's name what a fresh one is
            made of, `reconstruction` what pseudo views count.
        seed: of cameras, backgrounds, light, jitter and a fresh asset's initial values.
        runtime: log, device, resumable state, stop signal. A killed run continues from its state; after a stop signal
            the state is kept as well, so that a re-run goes on where this one ended.

    Returns:
        The asset with previews on white. Its record holds the metrics `steps`, `seconds`, `ms_per_step`, `opacity`,
        `collapse_retries`, `converged`, `interrupted`, `peak_memory_mib` and `guards/<name>_trips`, the series
        `guards/<name>`, and what the guards did as the parameter `guard_events`.

    Raises:
        CollapseError: a guard that tries again tripped (by default: the field became empty, full or NaN), also with
            `config.collapse_retries` other seeds.
        GuardError: a guard that stops the run tripped.
        ValueError: `config` does not fit the inputs.
    """
    inputs.require_fit(config)
    resume = runtime.resume_point("distil")
    state = resume.load()
    attempt = Attempt() if state is None else Attempt.of_state(state)
    while True:
        trainer = Trainer(inputs, config, seed, runtime, attempt)
        if state is not None:
            trainer.restore(state)
            state = None
        try:
            asset = trainer.run(resume)
        except GuardError:
            resume.clear()
            raise
        except Collapse as collapse:
            resume.clear()
            attempt = _given_up(trainer, collapse)
            continue
        if not trainer.interrupted:
            resume.clear()
        inputs.team.share(None)
        return asset


def _given_up(trainer: Trainer, collapse: Collapse) -> Attempt:
    """Note that an attempt is given up, and return the next one.

    Raises:
        CollapseError: there is no next one.
    """
    name, retries, number = trainer.runtime.log.name, trainer.config.collapse_retries, trainer.attempt.number
    trainer.guards.note(collapse.event, trainer.step, "tried again")
    logger.warning("%s: the field %s at step %d (attempt %d)", name, collapse.reason, trainer.step, number + 1)
    if number >= retries:
        tried = f", also with {retries} other seed(s)" if retries else ""
        raise CollapseError(
            f"{name}: the field {collapse.reason} at step {trainer.step}{tried}. {collapse.remedy}."
        ) from None
    return trainer.attempt.next(trainer.step)


def follow(inputs: DistillInputs, config: DistillConfig) -> None:
    """Do a process' share of another's `distil`, until that one is done.

    Args:
        inputs: this process' place in the team; guidance like the leader's, of the same model, prompt, config and seed;
            and the stage's field to continue from.
        config: the stage's.
    """
    team = inputs.team
    asset = build_asset(config, 0, team.device, inputs.init)
    learning_groups(asset, config.learns)
    jitter = torch.Generator(team.device).manual_seed(team.rank)
    parameters = list(asset.parameters())
    while (batch := team.share()) is not None:
        team.copy_from_leader(asset)
        asset.zero_grad(set_to_none=True)
        asset.mark_changed()
        loss, _ = view_loss(asset, batch, inputs.guidance, config, jitter, team)
        loss.backward()
        team.sum_gradients(parameters)
