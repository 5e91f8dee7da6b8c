"""Tests; whatever starts them, PyTorch's threads wait as they do in every command of the product.

It is set here since OpenMP reads it when PyTorch is imported, which `conftest.py` does.
"""

from __future__ import annotations

from dreambooth3d import environment

environment.wait_quietly()
