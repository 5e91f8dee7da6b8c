"""Tests; whatever starts them, shapes are checked, and PyTorch's threads wait as in every command of the product.

Both must come first: shapes are checked of what is imported afterwards, and OpenMP reads its settings when PyTorch is
imported, which `conftest.py` does.
"""

from __future__ import annotations

import sys

from tests.shapes import check_shapes

# A process that a test starts by `multiprocessing` has the library already when it loads the test's module.
if "pytest" in sys.modules:
    check_shapes("dreambooth3d")

from dreambooth3d import environment

environment.wait_quietly()
