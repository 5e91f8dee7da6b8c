"""What guards a stage of distillation while it runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dreambooth3d.config.base import Count, Positive, Section, Share

GuardAction = Literal["stop", "retry", "warn", "off"]


class GuardConfig(Section):
    """One guard: what the field is held to at each check, every `check_every` steps and at the end."""

    action: GuardAction = "warn"
    """When it trips: stop ends the run with an error, retry begins the stage again with another seed
    (collapse_retries times, then the run ends with an error), warn goes on; off does not look at all."""


class NanGuardConfig(GuardConfig):
    """Values that are not finite, in the previews and in the parts of the loss that are logged."""

    action: GuardAction = "retry"
    """As for any guard."""
    max_count: Count = 0
    """So many are let pass."""


class OpacityGuardConfig(GuardConfig):
    """Mean opacity of the previews: is there a field at all, and does it leave a background?"""

    action: GuardAction = "retry"
    """As for any guard."""
    min_opacity: Share = 0.005
    """Below it the field counts as empty; subjects have 0.2 to 0.4."""
    max_opacity: Share = 0.95
    """Above it the field counts as one that fills the frame."""


class OccupancyGuardConfig(GuardConfig):
    """Share of the unit ball's occupancy cells that hold density: also a fog too thin for `opacity` fills them all."""

    min_share: Share = 0.002
    """Below it the field is a speck."""
    max_share: Share = 0.7
    """Above it the field is a fog; a subject fills 0.1 to 0.35, a young field up to 0.45, a fog 0.75 and more."""
    start: Share = 0.5
    """Share of the stage after which it counts; before, a fresh field may be anywhere."""


class SaturationGuardConfig(GuardConfig):
    """Mean CIELAB chroma of the previews where they are opaque, against that of the subject in the photos."""

    max_excess: Annotated[float, Field(ge=0)] = 20.0
    """Largest chroma beyond that of the photos; true renders are within 4 of them."""
    max_chroma: Annotated[float, Field(gt=0)] = 85.0
    """Largest chroma where no photo's subject can be told from the background; pure colours have 100 to 134."""
    start: Share = 0.5
    """Share of the stage after which it counts."""


class JanusGuardConfig(GuardConfig):
    """Share of the previews away from the front that the selector takes for the front."""

    min_azimuth_deg: Annotated[float, Field(ge=0, le=180)] = 60.0
    """Views at least so far from the front count: five of the eight previews."""
    max_share: Share = 0.3
    """Largest share: one of the five, as where a field's heading is off by a word, is let pass."""
    start: Share = 0.5
    """Share of the stage after which it counts."""


class ClipGuardConfig(GuardConfig):
    """Mean cosine of the selector's features of previews and photos (CLIP-I), against the best so far."""

    max_drop: Annotated[float, Field(ge=0)] = 0.1
    """Largest drop below the best."""
    patience: Positive = 2
    """Trips once so many checks in a row were lower."""


class GuardsConfig(Section):
    """What guards a stage while it runs."""

    nan: NanGuardConfig = NanGuardConfig()
    opacity: OpacityGuardConfig = OpacityGuardConfig()
    occupancy: OccupancyGuardConfig = OccupancyGuardConfig()
    saturation: SaturationGuardConfig = SaturationGuardConfig()
    janus: JanusGuardConfig = JanusGuardConfig()
    clip_i: ClipGuardConfig = ClipGuardConfig()


class EditGuardsConfig(GuardsConfig):
    """The same for a context, without those that compare with the photos."""

    saturation: SaturationGuardConfig = SaturationGuardConfig(action="off")
    clip_i: ClipGuardConfig = ClipGuardConfig(action="off")
