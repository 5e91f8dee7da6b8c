"""Who judges the renders of a field that learns, and what such a judge says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dreambooth3d.cameras import Cameras


@dataclass(frozen=True)
class GuidanceLoss:
    """What guidance says about a batch of renders.

    Attributes:
        loss: scalar with gradient.
        metrics: detached scalars by name, left on the device so that nothing waits for them until they are logged.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)


class Guidance(ABC):
    """Judges renders.

    Attributes:
        part: (first, number of all) where the images are some of a batch that a team's processes share: what is drawn
            at random for each image must be what a process alone would draw for it. None where they are all.
    """

    part: tuple[int, int] | None = None

    @abstractmethod
    def __call__(self, images: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        """The loss of renders.

        Args:
            images: (n, 3, height, width) in [0, 1], with gradient.
            cameras: the n cameras that they were seen from, on the CPU, so that nobody who asks them something waits
                for the device.
            progress: position in the stage, in [0, 1].
        """

    def of_latents(self, latents: Tensor, cameras: Cameras, progress: float) -> GuidanceLoss:
        """The loss of what stands for latents, without an encoder between; otherwise as of renders.

        Args:
            latents: (n, *latent_shape), with gradient.
        """
        raise NotImplementedError(f"{type(self).__name__} judges images alone.")

    @property
    def image_size(self) -> int | None:
        """Pixels per side of the images that it wants; None takes any."""
        return None

    @property
    def latent_shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of the latents that it judges; None for one that judges images alone."""
        return None

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on alike, as tensors and JSON values."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Inverse of `state`."""
