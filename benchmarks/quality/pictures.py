"""One picture per subject: photos, truth and every method from four sides."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.quality.stages import SHOWN_FRAMES
from dreambooth3d.cameras import turntable_cameras
from dreambooth3d.evaluation.figures import labelled_rows
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import casual_photos, subject_recipe

SIZE = 96


def subject_sheet(name: str, methods: Mapping[str, Tensor | None]) -> Tensor:
    """(3, height, width): the five photos above the front, left, back and right side of truth and methods.

    Args:
        name: a toybox subject.
        methods: (4, 3, h, w) by method; None is left out.
    """
    cameras = turntable_cameras()[list(SHOWN_FRAMES)]
    rows = {"photos": casual_photos(name, SIZE), "truth": render_views(subject_recipe(name), cameras, size=SIZE).image}
    rows |= {
        method: interpolate(views, size=(SIZE, SIZE), mode="bilinear")
        for method, views in methods.items()
        if views is not None
    }
    return labelled_rows({label: images.float() for label, images in rows.items()}, columns=5)
