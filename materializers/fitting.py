"""Whether a value that was read from files is what its type says: files from elsewhere may hold anything."""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from dreambooth3d.errors import ArtifactError


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def require_fitting(value: object) -> None:
    """Check the fields of a dataclass, and those of dataclasses in it, against their declared types.

    Raises:
        ArtifactError: names the first one that is of another type, or a tensor of another shape.
    """
    for entry in dataclasses.fields(type(value)):  # type: ignore[arg-type]
        inner = getattr(value, entry.name)
        if not _fits(inner, _hints(type(value))[entry.name]):
            raise ArtifactError(f"{entry.name} of {type(value).__name__} has another type or shape")


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is tuple and arguments[1:] == (...,):
        return isinstance(value, tuple) and all(_fits(one, arguments[0]) for one in value)
    if origin is not None and issubclass(origin, Mapping):
        items = value.items() if isinstance(value, Mapping) else [(value, value)]
        return isinstance(value, Mapping) and all(_fits(a, arguments[0]) and _fits(b, arguments[1]) for a, b in items)
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, float) or (isinstance(value, int) and abs(value) <= sys.float_info.max)
    if isinstance(value, str) and any(map(_is_half_a_character, value)):
        return False
    if not isinstance(value, hint if hint is not None else types.NoneType):
        return False
    if dataclasses.is_dataclass(hint):
        require_fitting(value)
    return True


def _is_half_a_character(character: str) -> bool:
    """Whether it is a surrogate, which JSON can write, and no file or database can keep."""
    return 0xD800 <= ord(character) <= 0xDFFF
