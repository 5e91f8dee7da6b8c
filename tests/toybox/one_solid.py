"""A scene of one primitive, whose closed forms are known."""

import torch

from dreambooth3d.toybox.shapes import KINDS, Scene


def one_solid(kind: str, size: tuple[float, float, float], rounding: float = 0.0) -> Scene:
    """A red solid of a given kind and size at (0.1, -0.2, 0.05)."""
    return Scene(
        slots=tuple(int(name == kind) for name in KINDS),
        centre=torch.tensor([[[0.1, -0.2, 0.05]]]),
        rotation=torch.eye(3)[None, None],
        size=torch.tensor([[size]]),
        rounding=torch.tensor([[rounding]]),
        colour=torch.tensor([[[1.0, 0.0, 0.0]]]),
        patterned=torch.tensor([[False]]),
        pattern=torch.tensor([0]),
        pattern_colour=torch.zeros(1, 3),
        pattern_wave=torch.tensor([[0.0, 0.0, 1.0]]),
        extent=torch.ones(1, 3),
    )
