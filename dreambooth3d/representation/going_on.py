"""Settings of an asset that a stage goes on from."""

from __future__ import annotations

from typing import TypeVar

from dreambooth3d.config.base import Section
from dreambooth3d.config.distillation import other_making
from dreambooth3d.errors import ConfigError

Settings = TypeVar("Settings", bound=Section)


def gone_on(kind: str, made: Settings, asked: Section) -> Settings:
    """An asset's settings once it learns by those of another stage.

    Args:
        kind: of the asset.
        made: its settings, of a model that names in `learning` those by which an asset learns.
        asked: the stage's, of the same model.

    Raises:
        ConfigError: they ask for another making of the asset.
    """
    other = other_making(made, asked)
    if other is not None:
        raise ConfigError(
            f"{kind}.{other}={getattr(asked, other)}: the {kind} that the stage goes on from has "
            f"{getattr(made, other)}, which cannot change. Remove the key."
        )
    learning: frozenset[str] = getattr(type(made), "learning")  # noqa: B009
    return made.model_copy(update={name: getattr(asked, name) for name in learning})
