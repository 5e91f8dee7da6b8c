"""Which photos of a set nothing learns from, so that the finished asset can be compared with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.errors import PhotoSetError
from dreambooth3d.naming import printable
from dreambooth3d.photos.subject import shown_path


def held_out_files(files: Sequence[Path], config: PhotosConfig) -> tuple[str, ...]:
    """The names of the photos that `photos.hold_out` keeps from training, sorted.

    A number h of n photos are those in the middles of h equal parts of the sorted names: of eight photos, the fifth,
    or the third and the seventh.

    Raises:
        PhotoSetError: there is no photo of such a name, or too few remain.
    """
    names, wanted = [path.name for path in files], config.hold_out
    if isinstance(wanted, int):
        chosen = names if wanted >= len(names) else [names[index] for index in evenly_spread(len(names), wanted)]
    else:
        _refuse_unknown(files, wanted)
        chosen = [name for name in names if name in wanted]
    left = len(names) - len(chosen)
    if chosen and left < config.min_count:
        raise PhotoSetError(
            f"{shown_path(files[0].parent)}: photos.hold_out keeps {len(chosen)} of {len(names)} photos from training, "
            f"and at least {config.min_count} must remain. Hold out fewer, or add photos from other sides."
        )
    return tuple(chosen)


def evenly_spread(count: int, chosen: int) -> list[int]:
    """Places of `chosen` among `count` things, in the middles of equal parts."""
    return [(2 * part + 1) * count // (2 * chosen) for part in range(chosen)]


def _refuse_unknown(files: Sequence[Path], wanted: Sequence[str]) -> None:
    names = [path.name for path in files]
    unknown = [printable(name) for name in wanted if name not in names]
    if unknown:
        raise PhotoSetError(
            f"{shown_path(files[0].parent)}: photos.hold_out names {', '.join(unknown)}, but the photos there are "
            f"{', '.join(map(printable, names))}. Name some of them, or say how many."
        )
