"""The running average of a field's parameters, without waiting for the device."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from dreambooth3d.nerf.field.radiance_field import Field


class RunningAverage:
    """Exponential moving average: the first update copies, each later one moves by `1 - decay` towards the field.

    PyTorch's own keeps its count in a tensor, which the host reads at each step.

    Attributes:
        module: the averaged field; its buffers, such as the occupancy, are those of the last update.
    """

    def __init__(self, field: Field, decay: float) -> None:
        self.module, self.decay, self.updates = copy.deepcopy(field).requires_grad_(False), decay, 0

    @torch.no_grad()
    def update(self, field: Field) -> None:
        """Take a step of the field in."""
        ours: list[torch.Tensor] = list(self.module.parameters())
        theirs: list[torch.Tensor] = list(field.parameters())
        if self.updates == 0:
            torch._foreach_copy_(ours, theirs)  # pyright: ignore[reportPrivateImportUsage]  # has no public name
        else:
            torch._foreach_lerp_(ours, theirs, 1 - self.decay)  # pyright: ignore[reportPrivateImportUsage]  # likewise
        self.updates += 1
        for own, other in zip(self.module.buffers(), field.buffers(), strict=True):
            own.copy_(other)
        self.module.occupancy.mark_changed()

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"field": dict(self.module.state_dict()), "updates": self.updates}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self.module.load_state_dict(state["field"])
        self.module.occupancy.mark_changed()
        self.updates = int(state["updates"])
