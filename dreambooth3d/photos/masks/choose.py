"""Which source gives the mask of which photo, and how far it is trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dreambooth3d.backdrops import MAX_CUT_OUTLINE
from dreambooth3d.config.photos import PhotoModels, PhotosConfig
from dreambooth3d.digests import sha256_once
from dreambooth3d.errors import PhotoSetError
from dreambooth3d.naming import printable
from dreambooth3d.photos.masks import bundled, rembg
from dreambooth3d.photos.masks.given import Alpha, Files
from dreambooth3d.photos.masks.kept import KeptMasks
from dreambooth3d.photos.masks.smooth_background import SmoothBackground
from dreambooth3d.photos.masks.source import (
    SOURCES,
    MaskSource,
    PhotoMask,
    SourcePhoto,
    cut_share,
    overlap,
    require_pinned,
)
from dreambooth3d.photos.networks.weights import WEIGHTS, network_folder
from dreambooth3d.photos.subject import shown_path

SURE = 0.9
"""Confidence from which no second opinion counts."""
CERTAIN = 0.945
"""Confidence from which a background counts as smooth. Chosen by eye: the toybox's photos start at 0.95, most wrong
masks of photographs end at 0.94, but a clock with the arm that holds it reaches 0.955."""
MIN_AGREEMENT = 0.6
"""Overlap of two sources' masks below which they show different things."""
MAX_CUT = 0.5
"""Share of the outline on the frame beyond which a photo says too little of the subject's shape."""
NONE = "none"
DEFAULT_REMBG_MODEL = PhotosConfig().rembg_model
_PREFIX = "sha256:"


@dataclass(frozen=True)
class ChosenMask:
    """The mask of a photo.

    Attributes:
        source: name of its source, or `none`.
        mask: of the photo's size, empty where no source serves.
        findings: what is to be said about it.
    """

    source: str
    mask: PhotoMask
    findings: tuple[str, ...] = ()

    @property
    def cut(self) -> float:
        """Share of the subject's outline that lies on the photo's frame."""
        return cut_share(self.mask.mask)


def mask_models(config: PhotosConfig) -> PhotoModels:
    """The networks that take part, by the digests of their weights; found anew by every run.

    Raises:
        ConfigError: the one that is asked for is not installed or not here; so it is by another `rembg_model` than
            usual.
    """
    wanted = config.masks
    file = rembg.require_model(config.rembg_model) if wanted == "rembg" else None
    if wanted == "auto" and config.rembg_model != DEFAULT_REMBG_MODEL:
        file = rembg.require_model(config.rembg_model)
    elif wanted == "auto" and rembg.installed():
        file = rembg.model_file(config.rembg_model)
    folder = bundled.require_network() if wanted == "learned" else None
    if wanted == "auto":
        folder = network_folder(bundled.FOLDER)
    return PhotoModels(
        rembg="" if file is None else _PREFIX + sha256_once(file),
        learned="" if folder is None else _PREFIX + sha256_once(folder / WEIGHTS),
    )


def choose_masks(
    photos: Sequence[SourcePhoto], config: PhotosConfig, models: PhotoModels, kept: KeptMasks | None = None
) -> list[ChosenMask]:
    """A mask of each photo of a set, by the source that is asked for, or by the first that serves.

    Args:
        photos: of one subject.
        config: says which source.
        models: the networks that take part.
        kept: what the bundled network has found before, for who asks it again and again; None asks it.

    Raises:
        PhotoSetError: masks are asked for that some photos lack.
        ConfigError: a network is not here, or another than the one pinned.
    """
    if config.masks != "auto":
        return _forced(photos, config, models, kept)
    brought = [source.masks(photos) for source in (Files(), Alpha())]
    chosen = [_given(*each) for each in zip(*brought, strict=True)]
    left = [index for index, found in enumerate(chosen) if found is None]
    if left:
        # Networks see the whole set, since the photos that have masks show the subject as well.
        opinions = _opinions(photos, left, config, models, kept)
        for index in left:
            chosen[index] = _surest({name: found[index] for name, found in opinions.items()}, photos[index])
    return [_judged(found) for found in chosen if found is not None]


def require_given(photos: Sequence[SourcePhoto], config: PhotosConfig) -> None:
    """Check that photos have the masks that are asked for.

    Raises:
        PhotoSetError: some lack them.
    """
    kinds = {
        "files": (Files(), "NAME_mask.png beside NAME.jpg"),
        "alpha": (Alpha(), "transparency that is not opaque throughout"),
    }
    if config.masks not in kinds or not photos:
        return
    source, what = kinds[config.masks]
    lacking = [photo for photo, mask in zip(photos, source.masks(photos), strict=True) if mask is None]
    if lacking:
        names = ", ".join(printable(photo.path.name) for photo in lacking)
        raise PhotoSetError(
            f"{shown_path(lacking[0].path.parent)}: photos.masks={config.masks} asks for {what}, which "
            f"{len(lacking)} of {len(photos)} photos lack ({names}). Bring them, or set photos.masks=auto."
        )


def _given(file: PhotoMask | None, alpha: PhotoMask | None) -> ChosenMask | None:
    if file is not None:
        return ChosenMask("files", file)
    return None if alpha is None else ChosenMask("alpha", alpha)


def _forced(
    photos: Sequence[SourcePhoto], config: PhotosConfig, models: PhotoModels, kept: KeptMasks | None
) -> list[ChosenMask]:
    """The masks of the one source that is asked for."""
    require_given(photos, config)
    sources: Mapping[str, MaskSource] = {"files": Files(), "alpha": Alpha(), "smooth_background": SmoothBackground()}
    source = sources.get(config.masks) or _network(config.masks, config, models)
    found = _asked(source, photos, models, kept) if config.masks == "learned" else source.masks(photos)
    masks = zip(found, photos, strict=True)
    return [_judged(_empty(photo) if mask is None else ChosenMask(config.masks, mask)) for mask, photo in masks]


def _network(name: str, config: PhotosConfig, models: PhotoModels) -> MaskSource:
    """One of the networks, pinned."""
    if name == "rembg":
        return rembg.Rembg(rembg.require_model(config.rembg_model), models.rembg.removeprefix(_PREFIX))
    folder, sha256 = bundled.require_network(), models.learned.removeprefix(_PREFIX)
    require_pinned(folder / WEIGHTS, sha256)
    return bundled.Learned(folder, sha256)


def _asked(
    network: MaskSource, photos: Sequence[SourcePhoto], models: PhotoModels, kept: KeptMasks | None
) -> list[PhotoMask | None]:
    """What the bundled network says, or has said."""
    return network.masks(photos) if kept is None else kept.of(network, models.learned, photos)


def _opinions(
    photos: Sequence[SourcePhoto],
    wanted: Sequence[int],
    config: PhotosConfig,
    models: PhotoModels,
    kept: KeptMasks | None,
) -> dict[str, list[PhotoMask | None]]:
    """What all sources but the user say, by their order; rembg, which looks at each photo alone, at those wanted."""
    opinions: dict[str, list[PhotoMask | None]] = {}
    if models.rembg:
        found = _network("rembg", config, models).masks([photos[index] for index in wanted])
        opinions["rembg"] = [None] * len(photos)
        for index, mask in zip(wanted, found, strict=True):
            opinions["rembg"][index] = mask
    opinions["smooth_background"] = SmoothBackground().masks(photos)
    if models.learned:
        network = _network("learned", config, models)
        if not all(_is_settled({name: found[index] for name, found in opinions.items()}) for index in wanted):
            opinions["learned"] = _asked(network, photos, models, kept)
    return opinions


def _is_settled(opinions: Mapping[str, PhotoMask | None]) -> bool:
    """Whether no further source changes what `_surest` says."""
    served = (_if_certain(name, mask) for name, mask in opinions.items() if mask is not None)
    first = next((mask for mask in served if mask.trusted), None)
    return first is not None and first.confidence >= SURE


def _surest(opinions: Mapping[str, PhotoMask | None], photo: SourcePhoto) -> ChosenMask:
    """The first source that serves and is sure enough; trusted unless another one sees something else."""
    served = {name: _if_certain(name, mask) for name, mask in opinions.items() if mask is not None}
    if not served:
        return _empty(photo)
    name = next((name for name, mask in served.items() if mask.trusted), next(iter(served)))
    chosen = served[name]
    if not chosen.trusted or chosen.confidence >= SURE:
        return ChosenMask(name, chosen)
    for other, mask in served.items():
        if other != name and mask.trusted and overlap(mask.mask, chosen.mask) < MIN_AGREEMENT:
            said = f"{SOURCES[name]} and {SOURCES[other]} do not agree where the subject is"
            return ChosenMask(name, replace(chosen, trusted=False), (said,))
    return ChosenMask(name, chosen)


def _if_certain(name: str, mask: PhotoMask) -> PhotoMask:
    """The mask, not trusted where it comes from a background that is hardly smooth."""
    smooth = name == SmoothBackground.name
    return replace(mask, trusted=False) if smooth and mask.confidence < CERTAIN else mask


def _empty(photo: SourcePhoto) -> ChosenMask:
    nothing = PhotoMask(np.zeros(photo.pixels.shape[:2], np.uint8), 0.0, trusted=False)
    return ChosenMask(NONE, nothing, ("the subject is not told from the background",))


def _judged(chosen: ChosenMask) -> ChosenMask:
    """Not trusted where the frame cuts too much away; with what is to be said."""
    mask, findings = chosen.mask, chosen.findings
    if chosen.source == NONE or chosen.source == "smooth_background" or not mask.trusted:
        pass
    elif chosen.cut > MAX_CUT:
        mask = replace(mask, trusted=False)
        findings = (*findings, f"{chosen.cut:.0%} of the subject's outline lies on the frame")
    if not mask.trusted and not findings:
        findings = (f"{SOURCES[chosen.source]} is only {mask.confidence:.0%} sure where the subject is",)
    remedy = (
        "so that the photo is no target. Put a mask beside it as NAME_mask.png, or take it before a plain background."
    )
    said = tuple(f"{each}, {remedy}" for each in findings)
    if mask.trusted and chosen.cut > MAX_CUT_OUTLINE:
        share = f"{chosen.cut:.0%} of its outline lies on the frame"
        said = (*said, f"the frame cuts the subject off ({share}): step back, so that all of it is in the photo.")
    return replace(chosen, mask=mask, findings=said)
