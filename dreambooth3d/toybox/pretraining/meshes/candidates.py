"""A model of a package that may be rendered, and how it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dreambooth3d.toybox.pretraining.meshes.textured import TexturedMesh

Axes = Float[ndarray, "3 3"]


def axes(forward: str, up: str) -> Axes:
    """The turn that brings a model's `forward` and `up`, such as "+z" and "+y", to +x and +z."""
    columns = [_unit(forward), np.cross(_unit(up), _unit(forward)), _unit(up)]
    return np.stack(columns)


def _unit(name: str) -> Float[ndarray, " 3"]:
    return np.eye(3)["xyz".index(name[1])] * (1 if name[0] == "+" else -1)


LEFT_HANDED = np.diag([-1.0, 1.0, 1.0])
"""Makes a left-handed world right-handed, for models with x to the right of what looks along +z."""


@dataclass(frozen=True)
class Candidate:
    """A model that may be rendered.

    Attributes:
        package: Debian package.
        name: unique within the package.
        noun: one of `nouns.NOUNS`.
        heading_known: whether `axes` brings its front to +x.
        axes: (3, 3) turn into the product's world.
        read: reads the file.
    """

    package: str
    name: str
    noun: str
    heading_known: bool
    axes: Axes
    read: Callable[[], TexturedMesh]
