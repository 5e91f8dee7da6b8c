"""What all sections share: immutable, every field documented, unknown keys refused, units in the names."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dreambooth3d.naming import printable

_LARGEST = 2**31 - 1
_VARIABLE = re.compile(r"\$\{[a-zA-Z0-9_]+\}")


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty. Give it a value, or remove the key")
    return text


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the first of the two is above the second: swap them")
    return bounds


Count = Annotated[int, Field(ge=0, le=_LARGEST)]
Positive = Annotated[int, Field(gt=0, le=_LARGEST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""NumPy takes 32 bits."""
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Range = tuple[float, float]
"""At the start and at the end."""
ShareRange = tuple[Share, Share]
Rising = AfterValidator(_rising)
RisingRange = Annotated[Range, Rising]
"""Smallest and largest."""
Filled = Annotated[str, AfterValidator(_filled)]
Acceleration = Literal["compile", "graphs", "none"]


class Choice:
    """Marks an optional setting that is either left out or chosen: its key without a value is an error in a file."""


class Section(BaseModel):
    """Base of all sections: immutable, strict about names, and all numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def text_problem(text: str, variables: bool = True) -> str | None:
    """Why a text cannot be a setting, which is kept as JSON and passes through ZenML; None where it can be one.

    Args:
        text: any.
        variables: whether `${NAME}`, in place of which ZenML sets an environment variable, is a problem.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{printable(text)} holds bytes that are not UTF-8. Rename it"
    if variables and (found := _VARIABLE.search(text)):
        return f"{text!r}: ZenML would set an environment variable in place of {found[0]}. Write the value itself"
    return None
