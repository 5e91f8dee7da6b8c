"""What an exported asset's page says of how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from dreambooth3d.artifacts import RadianceField, SubjectPhotos
from dreambooth3d.export.viewer import About


def about_asset(asset: RadianceField, photos: SubjectPhotos, origin: Mapping[str, str]) -> About:
    """The photos of an asset, and how, when and of what it was made.

    Args:
        asset: that is exported.
        photos: of its subject, or a prompt in their place.
        origin: facts about what makes it, such as run and commit.
    """
    noun, count = photos.class_noun, len(photos.images)
    if asset.record.name == "fit_true_views":
        story: tuple[str, ...] = (
            "The 3D asset was fitted to true views from all sides, which no other run sees: it shows what "
            "reconstruction alone could reach.",
        )
    elif photos.images:
        story = (
            f"A diffusion model learned from {count} photos what this {noun} looks like. What it had learned, together "
            "with the photos, shaped a 3D asset view by view, from which the mesh was cut.",
        )
    else:
        story = (
            "A diffusion model, asked for the words above, shaped a 3D asset view by view, from which the mesh was "
            "cut. There are no photos.",
        )
    now = datetime.now(UTC)
    facts = {
        "Made on": f"{now.day} {now:%B %Y}",
        "Subject": noun,
        "Kind of asset": asset.kind.replace("_", " "),
        "Training steps in 3D": f"{asset.steps:,}",
        "Run": origin.get("run", ""),
        "Code": origin.get("commit", "").removeprefix("unknown")[:12],
    }
    return About(photos.images, story, facts)
