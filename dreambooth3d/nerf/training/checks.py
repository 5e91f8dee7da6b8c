"""Looks at an asset every so many steps: previews, whether they still change, and what the guards make of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreambooth3d.cameras import Cameras, orbit_cameras
from dreambooth3d.config.distillation import DistillConfig
from dreambooth3d.images import captioned, degrees, sheet
from dreambooth3d.live import Growth
from dreambooth3d.nerf.training.guards import Guards, Look, Reading
from dreambooth3d.record import StepLog
from dreambooth3d.representation.interface import Rendering, Representation

PREVIEW_VIEWS = 8
PREVIEW_SIZE = 64
GROWTH_PICTURES = 12
"""At most so many pictures, evenly over a stage, show how an asset has grown."""
SEEN_OPACITY = 0.5


class Checks:
    """The checks of one attempt.

    Args:
        config: when previews count as unchanged.
        guards: look at the previews.
        log: takes the previews.

    Attributes:
        previews: of the last check, on white; None before the first.
        unchanged: checks in a row whose previews hardly differed from those before.
        growth: some of the previews, uint8 (8, 3, 64, 64), by the step at which they were taken.
    """

    def __init__(self, config: DistillConfig, guards: Guards, log: StepLog) -> None:
        self.config, self.guards, self.log = config, guards, log
        self.previews: Rendering | None = None
        self.unchanged = 0
        self.growth: dict[int, Tensor] = {}

    @property
    def converged(self) -> bool:
        """Whether the previews have stopped changing for long enough."""
        return 0 < self.config.convergence_patience <= self.unchanged

    def preview(self, shown: Representation) -> Rendering:
        """Render and log previews."""
        self.previews = render_previews(shown, self.config)
        previews = self.previews
        self.log.image("previews", preview_sheet(previews.color))
        self.log.growth(lambda: seen_growth(previews))
        return previews

    def compare(self, shown: Representation, settled: bool) -> dict[str, float]:
        """Take new previews, and count checks in a row that differ by too little in the mean; returns figures.

        Args:
            settled: whether all targets are in use; before, an asset that rests may still move.
        """
        before, now = self.previews, self.preview(shown)
        figures = {"preview_opacity": now.opacity.mean().item()}
        if before is not None:
            change = (now.color - before.color).abs().mean().item()
            unchanged = settled and change < self.config.convergence_tolerance
            self.unchanged = self.unchanged + 1 if unchanged else 0
            figures["preview_change"] = change
        return figures

    def remember(self, step: int) -> None:
        """Keep the last previews for the pictures of the growth; of regular checks only as many as there should be."""
        check, last = divmod(step, self.config.check_every)
        every = -(-self.config.steps // (self.config.check_every * GROWTH_PICTURES))
        if self.previews is not None and not (last == 0 and check % every):
            self.growth[step] = _as_bytes(self.previews)

    def show_growth(self, step: int) -> None:
        """Log the pictures of the growth, the last previews as those of the last step."""
        if self.previews is not None:
            self.growth[step] = _as_bytes(self.previews)
        for step, color in self.growth.items():
            self.log.image(f"growth/{step:06d}", preview_sheet(color.float() / 255, f"step {step}"))

    def read(self, shown: Representation, step: int, progress: float) -> list[Reading]:
        """What the guards read from the last previews; nothing where they have looked at this step already."""
        if self.previews is None or self.guards.looked_at == step:
            return []
        threshold = self.config.render.occupancy_threshold
        position = 1.0 if self.converged else progress
        return self.guards.read(Look(self.previews, preview_cameras(), shown, threshold, step, position))

    def state(self) -> dict[str, Any]:
        """What a resumed attempt needs."""
        state: dict[str, Any] = {"unchanged": self.unchanged, "guards": self.guards.state()}
        state["growth"] = {str(step): color for step, color in self.growth.items()}
        if self.previews is not None:
            state["previews"] = {name: getattr(self.previews, name) for name in ("color", "opacity", "depth")}
        return state

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Inverse of `state`."""
        self.unchanged = int(state["unchanged"])
        self.guards.restore(state["guards"])
        self.growth = {int(step): color for step, color in state["growth"].items()}
        if "previews" in state:
            self.previews = Rendering(**{key: value.to(device) for key, value in state["previews"].items()})


def _as_bytes(previews: Rendering) -> Tensor:
    """uint8 (n, 3, height, width) of previews, on the CPU."""
    return (previews.color.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)


def preview_cameras() -> Cameras:
    """Eight cameras at evenly spread azimuths from 0."""
    return orbit_cameras(torch.arange(PREVIEW_VIEWS, dtype=torch.float32) * (360.0 / PREVIEW_VIEWS))


def preview_sheet(color: Tensor, title: str = "") -> Tensor:
    """(3, height, width): the eight views in [0, 1] in a row, each with its azimuth; the first also with a title."""
    captions = list(map(degrees, preview_cameras().azimuth_deg.tolist()))
    captions[0] = f"{title}, {captions[0]}" if title else captions[0]
    return sheet(captioned(color, captions), columns=PREVIEW_VIEWS)


def render_previews(model: Representation, config: DistillConfig) -> Rendering:
    """The eight views on white."""
    return model.render(preview_cameras(), PREVIEW_SIZE, samples_per_ray=config.render.samples_per_ray)


def seen_growth(previews: Rendering) -> Growth:
    """Previews for whoever watches: as views, and as the points of the surface that they show."""
    seen = previews.cpu()
    cameras = preview_cameras()
    origins, directions = cameras.rays(*seen.opacity.shape[-2:])
    opaque = seen.opacity > SEEN_OPACITY
    points = (origins + seen.depth[..., None] * directions)[opaque]
    # Without the share of white behind them.
    opacity = seen.opacity[opaque][:, None]
    colors = (seen.color.permute(0, 2, 3, 1)[opaque] - (1 - opacity)) / opacity
    views = seen.color.permute(0, 2, 3, 1)
    return Growth(_bytes(views), cameras.azimuth_deg.numpy(), points.float().numpy(), _bytes(colors))


def _bytes(colors: Tensor) -> np.ndarray:
    return (colors.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).contiguous().numpy()
