"""An asset and what trains it: optimiser, learning rates, running average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.config.distillation import DistillConfig, Learning
from dreambooth3d.errors import ConfigError
from dreambooth3d.kinds import build_asset
from dreambooth3d.parallel import Team
from dreambooth3d.representation.average import RunningAverage
from dreambooth3d.representation.interface import ParameterGroup, Position, Representation
from dreambooth3d.representation.latents import LatentColors
from dreambooth3d.runtime import optimizer_state, restore_optimizer

ADAM_BETAS = (0.9, 0.99)
ADAM_EPSILON = 1e-15


class Learner:
    """An asset with its optimiser and, where that is wanted, the running average of its parameters.

    Args:
        config: kind of asset, learning rates, decay of the average.
        seed: of a fresh asset's initial values.
        device: where it learns.
        init: an asset to continue from, or None.
        latent_colors: how the latents look that a fresh asset holds, where the stage renders these.
    """

    def __init__(
        self,
        config: DistillConfig,
        seed: int,
        device: torch.device,
        init: RadianceField | None,
        latent_colors: LatentColors | None = None,
    ) -> None:
        self.config, self.device = config, device
        self.asset = build_asset(config, seed, device, init)
        if init is None and latent_colors is not None:
            self.asset.take_latents(latent_colors)
        self.average = RunningAverage(self.asset, config.average_decay) if config.average_decay > 0 else None
        self.optimizer = self._make_optimizer()

    def _make_optimizer(self) -> torch.optim.Optimizer:
        groups = [
            {"params": list(group.parameters), "name": group.name, "rate_factor": group.rate_factor}
            for group in learning_groups(self.asset, self.config.learns)
        ]
        return torch.optim.Adam(groups, self.config.learning_rate, betas=ADAM_BETAS, eps=ADAM_EPSILON, fused=True)

    @property
    def shown(self) -> Representation:
        """The asset as it is looked at: the running average, or as the last step left it."""
        return self.asset if self.average is None else self.average.module

    @property
    def rate(self) -> float:
        """The learning rate in force, before the factors of the groups."""
        group = self.optimizer.param_groups[0]
        return group["lr"] / group["rate_factor"]

    def set_rate(self, progress: float) -> None:
        """Exponential decay between the two configured rates, at a position in [0, 1]."""
        config = self.config
        rate = config.learning_rate * (config.final_learning_rate / config.learning_rate) ** progress
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]

    def learn(self, loss: Tensor, team: Team, position: Position) -> None:
        """Take a step against the gradient of the loss, summed over the team."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        team.sum_gradients(self.asset.parameters())
        if position.progress < self.config.progressive.levels_until:
            self._hold_fine_levels_back(position.progress)
        self.optimizer.step()
        replaced = self.asset.after_step(position, self.optimizer)
        if self.average is not None:
            if replaced:
                self.average.restart(self.asset)
            self.average.update(self.asset)

    def _hold_fine_levels_back(self, progress: float) -> None:
        """Let finer levels of detail begin to learn one after the other."""
        config, gradients = self.config.progressive, self.asset.level_gradients()
        learning = config.first_levels + (len(gradients) - config.first_levels) * progress / config.levels_until
        for level, gradient in enumerate(gradients):
            gradient.mul_(min(max(learning - level, 0.0), 1.0))

    def take_turn(self, angle_deg: float, generator: torch.Generator) -> None:
        """The shown asset was turned: turn the trained one if it is another, and bring it up to date."""
        if angle_deg != 0:
            if self.average is not None:
                self.asset.turn_by(angle_deg)
            self.asset.refresh(generator)

    def state(self) -> dict[str, Any]:
        """What a resumed attempt needs."""
        state = {"asset": dict(self.asset.state_dict()), "optimizer": optimizer_state(self.optimizer)}
        return state if self.average is None else state | {"average": self.average.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self.asset.load(state["asset"])
        if self.average is not None:
            self.average.restore(state["average"])
        self.optimizer = self._make_optimizer()
        restore_optimizer(self.optimizer, state["optimizer"])


def learning_groups(asset: Representation, learns: Learning) -> list[ParameterGroup]:
    """The groups of parameters that a stage changes; gradients of the others are not asked for from now on.

    Raises:
        ConfigError: the asset's shape and appearance cannot be told apart.
    """
    groups = asset.parameter_groups()
    if learns == "all":
        return groups
    if all(group.shapes is None for group in groups):
        raise ConfigError(
            f"learns: {learns} needs an asset whose shape and appearance are kept apart, and this is a {asset.kind}. "
            "Set representation=mesh, or learns=all."
        )
    chosen = [group for group in groups if group.shapes is (learns == "shape")]
    kept = {id(each) for group in chosen for each in group.parameters}
    for parameter in asset.parameters():
        parameter.requires_grad_(id(parameter) in kept)
    return chosen
