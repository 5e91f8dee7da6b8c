"""The glossary of metrics as a page, made of `dreambooth3d.glossary`."""

from __future__ import annotations

from dreambooth3d.glossary import METRICS
from website.markdown import cell, table

PAGE = "metrics.md"
_BETTER = {"up": "higher", "down": "lower", "": ""}
_HEAD = """# What the figures mean

In MLflow's rows a figure has its step before it: `psnr_fg` below is `evaluate/psnr_fg` there, `loss` is
`init_nerf/loss` and `refine_nerf/loss`. A star stands for any text. *Truth* are true pictures of a toybox subject,
drawn from its recipe: of real photographs there are none, so that such figures are absent. The *judge* is a CLIP model
that steers nothing in a run, the *selector* another one that does.

This page is made of `dreambooth3d/glossary.py` when the site is built.
"""


def page() -> str:
    """The page's Markdown."""
    rows = [
        [f"`{name}`", cell(found.unit), _BETTER[found.better], cell(found.meaning)] for name, found in METRICS.items()
    ]
    return "\n".join([_HEAD, *table(["metric", "unit", "better", "meaning"], rows), ""])
