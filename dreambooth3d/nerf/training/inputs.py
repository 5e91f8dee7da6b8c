"""What goes into a stage of score distillation."""

from __future__ import annotations

from dataclasses import dataclass

from dreambooth3d.artifacts import PseudoViews, RadianceField, SubjectPhotos
from dreambooth3d.config.distillation import DistillConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.guidance import Guidance
from dreambooth3d.kinds import asset_kind, kind_named, settings_of
from dreambooth3d.nerf.photo_cameras.heading import ViewLogits
from dreambooth3d.nerf.training.guards import Likeness
from dreambooth3d.parallel import ALONE, Team
from dreambooth3d.representation.latents import LatentColors


@dataclass(frozen=True)
class DistillInputs:
    """What a stage learns from, and who takes part.

    Attributes:
        guidance: judges renders.
        init: an asset to continue from; None begins with a fresh one.
        pseudo_views: to reconstruct alongside.
        photos: the subject's, to reconstruct alongside once their cameras have been found; those whose subject cannot
            be told from the background are left out.
        view_logits: how a scorer sees the subject's views; corrects the field's heading when cameras are searched, and
            counts fronts for the guards.
        likeness: how alike the same scorer finds views and the photos; for the guards.
        latent_colors: how the latents of the guidance look, for a field that holds them.
        team: shares each step's views among processes; the others run `follow`.
    """

    guidance: Guidance
    init: RadianceField | None = None
    pseudo_views: PseudoViews | None = None
    photos: SubjectPhotos | None = None
    view_logits: ViewLogits | None = None
    likeness: Likeness | None = None
    team: Team = ALONE
    latent_colors: LatentColors | None = None

    @property
    def fresh(self) -> bool:
        """Whether the asset begins as a blob."""
        return self.init is None

    def require_fit(self, config: DistillConfig) -> None:
        """Refuse combinations that would silently ignore an argument.

        Raises:
            ValueError: the configuration does not say what a fresh asset is made of, or how pseudo views count.
            ConfigError: there is no such kind of asset, or several processes cannot train one.
        """
        kind = asset_kind(config, self.init)
        if not kind_named(kind).fixed_size and config.processes > 1:
            raise ConfigError(f"representation: {kind} is trained by one process only. Set processes=1.")
        if self.fresh and settings_of(config, kind) is None:
            raise ValueError(f"distil: without init, config.{kind} must say what to build.")
        if self.pseudo_views is not None and config.reconstruction is None:
            raise ValueError("distil: with pseudo_views, config.reconstruction must say how much they weigh.")
