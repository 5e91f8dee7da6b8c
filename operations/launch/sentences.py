"""What is wrong with a setting, in one sentence; without the settings of whole pipelines, which are slow to import."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dreambooth3d.config.base import Section
from dreambooth3d.errors import ConfigError

NO_VALUE = "has no value. Give it one, or remove the key."
SomeSection = TypeVar("SomeSection", bound=Section)


def checked_section(name: str, section: type[SomeSection], **settings: Any) -> SomeSection:
    """A section of settings that a command's arguments give.

    Args:
        name: of the section, for errors.
        section: its schema.
        **settings: its values.

    Raises:
        ConfigError: one does not fit.
    """
    try:
        return section.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(sentence(error.errors()[0], section, (name,))) from None


def sentence(problem: Mapping[str, Any], config: type[BaseModel], above: Sequence[str] = ("parameters",)) -> str:
    """One of pydantic's problems with a section.

    Args:
        problem: as pydantic tells it.
        config: the section's schema.
        above: names of what the section is in.
    """
    location = [part for part in problem["loc"] if "[" not in str(part)]
    where = ".".join([*above, *map(str, location)])
    if problem["type"] == "extra_forbidden":
        name, known = str(location[-1]), _known_keys(location[:-1], config)
        below = [key for key, field in known.items() if name in getattr(field.annotation, "model_fields", {})]
        inside = " or ".join(f"{key}.{name}" for key in below)
        return f"{where}: unknown key" + (f", did you mean {inside}?" if inside else suggestion(name, known))
    if problem["input"] is None:
        return f"{where}: {NO_VALUE}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if problem["type"] == "value_error":
        return f"{where}: {message}."
    shown = "" if isinstance(problem["input"], dict) else f", not {problem['input']!r}"
    return f"{where}: {message}{shown}{_hint(problem)}"


def _hint(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "string_type" and not isinstance(problem["input"], list | dict):
        return " (put it into quotes)"
    if problem["type"] == "tuple_type":
        return " (write a list, such as [1, 2])"
    return " (in YAML, write 1.0e-3 instead of 1e-3)" if _looks_like_number(problem["input"]) else ""


def _looks_like_number(value: object) -> bool:
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False


def _known_keys(location: Iterable[str | int], config: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """The fields of the section at a location of a pipeline's parameters."""
    section = config
    for name in location:
        field = section.model_fields.get(str(name))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return {}
        section = field.annotation
    return section.model_fields


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown key: the known one that is most like it, or all that there are."""
    close = difflib.get_close_matches(name, list(known), n=1)
    if close:
        return f", did you mean {close[0]}?"
    return f". Known keys are {', '.join(known)}." if known else "."
