"""Whether the scorers of a configuration are there: apart, since what else is checked takes seconds to import."""

from __future__ import annotations

from dreambooth3d.config.models import ScorersConfig
from dreambooth3d.errors import BaseModelError
from dreambooth3d.evaluation.clip import check_scorer_folder, scorer_folder


def check_scorers(config: ScorersConfig) -> None:
    """Scorers must be there and whole, those of the hub fetched; no weights are loaded here, the judge's least of all.

    Raises:
        BaseModelError: one sentence for the first that is missing or damaged.
    """
    for name, path in (("selector", config.selector), ("judge", config.judge)):
        folder = scorer_folder(path, f"scorers.{name}")
        try:
            check_scorer_folder(folder)
        except BaseModelError as error:
            gist = str(error).splitlines()[0].rstrip(".")
            raise BaseModelError(
                f"scorers.{name}: {path} is no usable CLIP scorer ({gist}). Restore it with `git checkout models`, or "
                f"set scorers.{name} to a folder with a complete CLIPModel and its processor."
            ) from None
