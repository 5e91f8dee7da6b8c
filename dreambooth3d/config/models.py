"""The models that a run takes as they are: the text-to-image base model and two scorers."""

from __future__ import annotations

from dreambooth3d.config.base import Filled, Section


class BaseModelConfig(Section):
    """The text-to-image model to personalise, in Stable Diffusion's layout."""

    path: Filled = "models/toybox"
    """Hub id or local folder."""
    revision: Filled | None = None
    """Commit, branch or tag of a hub model; default main. A run keeps to the commit that it resolves to."""
    variant: Filled | None = None
    """Weight variant such as fp16; networks that lack it are loaded from their plain weights."""


class ScorerRef(Section):
    """A scorer with what pins it: steps take the two as one value, so that neither is given without the other."""

    path: str
    """Local folder, or hub id with or without @revision."""
    digest: str
    """`sha256:<digest>` of a local scorer's files, `commit:<revision>` of a hub model."""


class ScorersConfig(Section):
    """Two different CLIP models: one steers, the other only judges."""

    selector: Filled = "models/selector"
    """Scorer of everything that steers: checkpoint selection, guards. A local folder, or a hub id such as owner/name or
    owner/name@commit."""
    judge: Filled = "models/judge"
    """Scorer of the evaluation, loaded by evaluate and evaluate_context only; a folder or hub id like the selector."""
