"""What `tests.shapes` checks: without it all of these go on with a tensor that nobody meant."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from dreambooth3d.cameras import Cameras
from dreambooth3d.images import sheet
from dreambooth3d.masks import background_mask


def test_an_argument_of_another_shape_is_caught() -> None:
    with pytest.raises(TypeCheckError, match="background_mask"):
        background_mask(torch.ones(1, 8, 8))


def test_dimensions_of_one_name_are_of_one_size() -> None:
    angles = torch.zeros(3)
    with pytest.raises(TypeCheckError, match="Cameras"):
        Cameras(angles, angles, torch.ones(1), angles)


def test_an_argument_of_another_type_is_caught() -> None:
    with pytest.raises(TypeCheckError, match="sheet"):
        sheet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), columns=2)
