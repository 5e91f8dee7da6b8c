"""The running average of an asset's parameters, without waiting for the device."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from dreambooth3d.representation.interface import Representation


class RunningAverage:
    """Exponential moving average: the first update copies, each later one moves by `1 - decay` towards the asset.

    PyTorch's own keeps its count in a tensor, which the host reads at each step.

    Attributes:
        module: the averaged asset; its buffers, such as a field's occupancy, are those of the last update.
    """

    def __init__(self, asset: Representation, decay: float) -> None:
        self.decay = decay
        self.restart(asset)

    def restart(self, asset: Representation) -> None:
        """Begin anew, with the parameters that the asset has now."""
        self.module, self.updates = copy.deepcopy(asset).requires_grad_(False), 0
        self.module.zero_grad(set_to_none=True)

    @torch.no_grad()
    def update(self, asset: Representation) -> None:
        """Take a step of the asset in."""
        ours: list[torch.Tensor] = list(self.module.parameters())
        theirs: list[torch.Tensor] = list(asset.parameters())
        if self.updates == 0:
            torch._foreach_copy_(ours, theirs)  # pyright: ignore[reportPrivateImportUsage]  # has no public name
        else:
            torch._foreach_lerp_(ours, theirs, 1 - self.decay)  # pyright: ignore[reportPrivateImportUsage]  # likewise
        self.updates += 1
        for own, other in zip(self.module.buffers(), asset.buffers(), strict=True):
            own.copy_(other)
        self.module.mark_changed()

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"asset": dict(self.module.state_dict()), "updates": self.updates}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self.module.load(state["asset"])
        self.updates = int(state["updates"])
