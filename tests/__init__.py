"""Tests; whatever starts them, shapes are checked, and PyTorch's threads wait as in every command of the product.

Both must come first: shapes are checked of what is imported afterwards, and OpenMP reads its settings when PyTorch is
imported, which `conftest.py` does.
"""

from __future__ import annotations

from tests.shapes import check_shapes

check_shapes("dreambooth3d")

from dreambooth3d import environment  # noqa: E402

environment.wait_quietly()
