"""A field and what trains it: optimiser, learning rate, running average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.config.distillation import DistillConfig
from dreambooth3d.nerf.field.average import RunningAverage
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.parallel import Team
from dreambooth3d.runtime import optimizer_state, restore_optimizer

ADAM_BETAS = (0.9, 0.99)
ADAM_EPSILON = 1e-15


class FieldLearner:
    """A field with its optimiser and, where that is wanted, the running average of its parameters.

    Args:
        config: field, learning rates, decay of the average.
        seed: of a fresh field's initial values.
        device: where it learns.
        init: a field to continue from, or None.
    """

    def __init__(self, config: DistillConfig, seed: int, device: torch.device, init: RadianceField | None) -> None:
        self.config, self.device = config, device
        self.field = build_field(config, seed, device, init)
        self.average = RunningAverage(self.field, config.average_decay) if config.average_decay > 0 else None
        self.optimizer = torch.optim.Adam(
            self.field.parameters(), config.learning_rate, betas=ADAM_BETAS, eps=ADAM_EPSILON, fused=True
        )

    @property
    def shown(self) -> Field:
        """The field as it is looked at: the running average, or as the last step left it."""
        return self.field if self.average is None else self.average.module

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return self.optimizer.param_groups[0]["lr"]

    def set_rate(self, progress: float) -> None:
        """Exponential decay between the two configured rates, at a position in [0, 1]."""
        config = self.config
        rate = config.learning_rate * (config.final_learning_rate / config.learning_rate) ** progress
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def learn(self, loss: Tensor, team: Team) -> None:
        """Take a step against the gradient of the loss, summed over the team."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        team.sum_gradients(self.field.parameters())
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.field)

    def look_for_density(self, field: Field, generator: torch.Generator) -> None:
        """Update the occupancy of the trained or the shown field."""
        field.occupancy.update(field.density, self.config.render.occupancy_threshold, generator)

    def take_turn(self, angle_deg: float, generator: torch.Generator) -> None:
        """The shown field was turned: turn the trained one if it is another, and look where density is now."""
        if angle_deg != 0:
            if self.average is not None:
                self.field.turn_by(angle_deg)
            self.look_for_density(self.field, generator)

    def state(self) -> dict[str, Any]:
        """What a resumed attempt needs."""
        state = {"field": dict(self.field.state_dict()), "optimizer": optimizer_state(self.optimizer)}
        return state if self.average is None else state | {"average": self.average.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self.field.load_state_dict(state["field"])
        self.field.occupancy.mark_changed()
        if self.average is not None:
            self.average.restore(state["average"])
        restore_optimizer(self.optimizer, state["optimizer"])


def build_field(config: DistillConfig, seed: int, device: torch.device, init: RadianceField | None) -> Field:
    """A field on the device: that of `init`, or a fresh one with random values drawn from `seed`.

    Raises:
        ValueError: neither `init` nor `config.field` says what it is.
    """
    if init is not None:
        return Field.from_artifact(init, device)
    if config.field is None:
        raise ValueError("build_field: without init, config.field must say what field to build.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Field(config.field, device, config.render.occupancy_resolution)
