"""What every figure of a run means: its unit, which direction is better, and one sentence.

Names are those under which stages report figures; where a tracker puts the stage's name before them, `metric` finds
them all the same. A star stands for any text: entries without one go first, then those with the longest text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Literal

Better = Literal["up", "down", ""]


@dataclass(frozen=True)
class Metric:
    """One figure.

    Attributes:
        unit: such as dB or s; `share` of a whole in [0, 1], `cosine` in [-1, 1], empty for a plain number.
        better: whether larger values (up) or smaller ones (down) are better; empty where neither is.
        meaning: one sentence.
    """

    unit: str
    better: Better
    meaning: str


def _up(unit: str, meaning: str) -> Metric:
    return Metric(unit, "up", meaning)


def _down(unit: str, meaning: str) -> Metric:
    return Metric(unit, "down", meaning)


def _plain(unit: str, meaning: str) -> Metric:
    return Metric(unit, "", meaning)


_ATTRIBUTE = (
    "Share of the 36 turntable views for which the judge prefers the caption with the asked {} among captions that "
    "differ only in it, one for each {}; they say all else of the true edited subject, or else of the prompt."
)

_EVALUATION = {
    "clip_i": _up(
        "cosine",
        "How much the asset looks like the photos: mean cosine of the judge's image features over all pairs of a "
        "turntable view and a photo.",
    ),
    "clip_t": _up(
        "cosine",
        "How well the asset fits its caption: mean cosine of the judge's features of the turntable views and of the "
        "caption (the true one, else the user's description, else the class prompt).",
    ),
    "r_precision": _up(
        "share",
        "Share of turntable views for which the judge ranks the true caption first among 200 captions that name no "
        "view, at least 60 of them of the same class and 60 of the same colours.",
    ),
    "view_accuracy": _up(
        "share",
        "Share of the turntable and 18 views from 40 degrees above whose view (front, side, back) the judge names "
        "correctly among the class's four view captions.",
    ),
    "janus_rate": _down(
        "share",
        "How often another side shows a face: share of those views at least 60 degrees away from the front that the "
        "judge takes for the front.",
    ),
    "janus_rate_truth": _plain("share", "The same rate on true renders: what the judge gets wrong by itself."),
    "janus_excess": _down(
        "share",
        "How much more often than on true renders another side is taken for the front: janus_rate minus "
        "janus_rate_truth; it counts where front_recall is at least 0.9.",
    ),
    "front_recall": _up(
        "share",
        "Whether the front looks like one: share of the views within 30 degrees of the front that the judge takes for "
        "the front.",
    ),
    "psnr": _up(
        "dB",
        "How close the pixels are to the truth: mean over the 36 turntable views, on white and unaligned, of the whole "
        "frame's PSNR in dB.",
    ),
    "psnr_fg": _up(
        "dB",
        "How close the subject's own pixels are to the truth: as psnr, over the pixels that either mask (opacity above "
        "one half) covers.",
    ),
    "ssim": _up("", "Mean structural similarity of the 36 turntable views to the true ones, whole frame."),
    "mask_iou": _up(
        "",
        "How well the outlines fit: mean intersection over union of the 36 masks (opacity above one half) with the "
        "true ones.",
    ),
    "depth_error": _down(
        "world units",
        "Mean absolute difference in depth along the ray, in world units, over the pixels in both masks of the 36 "
        "turntable views.",
    ),
    "color_error": _down(
        "delta E",
        "Mean colour difference (CIE 1976 delta E) over the pixels in both masks of the 36 turntable views.",
    ),
    "chroma_excess": _plain(
        "", "Mean CIELAB chroma beyond that of the truth, over the same pixels; positive if over-saturated."
    ),
    "rotation_deg": _plain(
        "degrees",
        "By how many degrees the asset is turned for the aligned metrics, counter-clockwise from above.",
    ),
    "scale": _plain("", "By which factor it is scaled for them."),
    "heldout_photo_iou": _up(
        "",
        "Mean intersection over union of the masks (opacity above one half) of held-out photos and of the asset from "
        "the cameras in which it looks the most like them.",
    ),
    "heldout_photo_psnr_fg": _up(
        "dB",
        "Mean PSNR in dB of those renders against the photos, cut out on white, over the pixels that either mask "
        "covers. Each photo is turned so that its subject is in the middle; its exposure is as it is.",
    ),
    "heldout_photo_psnr_fg_mean": _plain(
        "dB",
        "As heldout_photo_psnr_fg, with the mean of the training photos in place of the render, each of them turned "
        "so that its subject is in the middle.",
    ),
}

_PREFIXES = {
    "coarse/": "The first radiance field, before its refinement.",
    "near/": "Over the turntable views at most 20 degrees of azimuth from a photo.",
    "far/": "Over the turntable views more than 20 degrees of azimuth from every photo.",
    "aligned/": "After a rotation about z and a scaling of the asset that fit it best to the truth on views from 40 "
    "degrees above, which no pixel metric is computed on.",
    "truth/": "True renders in place of the asset's: what a perfect asset would score.",
    "baseline_blank/": "White frames with empty masks.",
    "baseline_mean/": "The mean of the 36 true views in place of each, its mask where the mean true mask exceeds one "
    "half.",
    "baseline_silhouette/": "Each true silhouette in one colour, the mean of the true foreground.",
}

_MESH = {
    "mesh/field_psnr": _up(
        "dB",
        "How close the exported mesh is to the asset that it was made of: mean over the 36 turntable views, on white "
        "and on black, of the PSNR in dB against the asset's own render.",
    ),
    "mesh/field_iou": _up("", "Mean intersection over union of the exported mesh's 36 masks with the asset's."),
    "mesh/psnr": _up("dB", "How close the exported mesh, as its file has it, is to the truth: as psnr."),
    "mesh/psnr_fg": _up("dB", "The same over the subject's own pixels: as psnr_fg, of the exported mesh."),
    "mesh/mask_iou": _up("", "How well the outlines of the exported mesh fit the true ones: as mask_iou."),
    "mesh/black/psnr": _up("dB", "As mesh/psnr, before black."),
    "mesh/black/psnr_fg": _up("dB", "As mesh/psnr_fg, before black."),
    "mesh_vertices": _plain("", "Vertices of the exported mesh."),
    "mesh_faces": _plain("", "Triangles of the exported mesh."),
    "mesh_parts": _down("", "Separate pieces of the exported mesh."),
    "mesh_watertight": _up("", "1 where the exported mesh is closed, else 0."),
    "mesh_volume": _plain("", "Volume that the exported mesh encloses, in cubic world units."),
    "glb_bytes": _plain("bytes", "Size of asset.glb."),
    "page_bytes": _plain("bytes", "Size of the viewer page."),
}

_PROMPTED = {
    "evaluate_prompt/clip_t": _up(
        "cosine", "Mean cosine of the judge's features of the 36 turntable views and of the prompt."
    ),
    "evaluate_prompt/r_precision": _up(
        "share",
        "Share of the 36 turntable views for which the judge ranks the prompt first among the captions that it "
        "competes with: those of the configuration, else one of each class and of each colour.",
    ),
    "evaluate_prompt/colour_accuracy": _up(
        "share",
        "Share of the 36 turntable views for which the judge prefers the caption with the asked colour among captions "
        "that differ only in it, one for each colour.",
    ),
    "evaluate_prompt/view_accuracy": _up(
        "share",
        "Share of the turntable and 18 views from 40 degrees above whose view the judge names correctly.",
    ),
    "evaluate_prompt/janus_rate": _down(
        "share",
        "Share of those views at least 60 degrees away from the front that the judge takes for the front.",
    ),
    "evaluate_prompt/janus_excess": _down(
        "share", "How much janus_rate is above janus_rate_truth; it counts where front_recall is high."
    ),
    "evaluate_prompt/front_recall": _up(
        "share", "Share of those views within 30 degrees of the front that the judge takes for the front."
    ),
    "evaluate_prompt/opacity": _plain("share", "Mean opacity of the 36 turntable views."),
    "evaluate_prompt/*_truth": _plain(
        "", "The same of true renders of subjects that the prompt describes, drawn at random: a perfect asset's."
    ),
}

_CONTEXT = {
    "evaluate_context_*/clip_t": _up(
        "cosine",
        "Mean cosine of the judge's features of the turntable views and of the context's caption without identifier "
        "(that of the true edited subject where it is known, else the prompt's).",
    ),
    "evaluate_context_*/attribute_accuracy": _up(
        "share",
        "Share of the 36 turntable views for which the judge prefers the asked word for each attribute that the "
        "prompt names, as in the accuracies of single attributes.",
    ),
    "evaluate_context_*/colour_accuracy": _up("share", _ATTRIBUTE.format("main colour", "colour")),
    "evaluate_context_*/second_colour_accuracy": _up("share", _ATTRIBUTE.format("second colour", "colour")),
    "evaluate_context_*/pattern_accuracy": _up("share", _ATTRIBUTE.format("pattern", "pattern")),
    "evaluate_context_*/accessory_accuracy": _up("share", _ATTRIBUTE.format("accessory", "accessory")),
    "evaluate_context_*/accessory_colour_accuracy": _up("share", _ATTRIBUTE.format("accessory's colour", "colour")),
    "evaluate_context_*/view_accuracy": _up(
        "share",
        "Share of the turntable and 18 views from 40 degrees above whose view the judge names correctly.",
    ),
    "evaluate_context_*/janus_rate": _down(
        "share",
        "Share of those views at least 60 degrees away from the front that the judge takes for the front.",
    ),
    "evaluate_context_*/front_recall": _up(
        "share", "Share of those views within 30 degrees of the front that the judge takes for the front."
    ),
    "evaluate_context_*/psnr": _up(
        "dB", "Mean PSNR in dB of the 36 turntable views, whole frame, against the true edited subject."
    ),
    "evaluate_context_*/psnr_fg": _up(
        "dB", "As psnr, over the pixels that either mask (opacity above one half) covers."
    ),
    "evaluate_context_*/mask_iou": _up(
        "", "Mean intersection over union of the 36 masks with those of the true edited subject."
    ),
    "evaluate_context_*/color_error": _down(
        "delta E",
        "Mean colour difference (CIE 1976 delta E) to the true edited subject, over pixels in both masks of the 36 "
        "turntable views.",
    ),
    "evaluate_context_*_source": _plain(
        "", "The same of the asset before the edit, by the same captions and the same truth."
    ),
    "evaluate_context_*_truth": _plain(
        "", "The same of true renders of the edited subject: what a perfect edit would score."
    ),
}

_PHOTOS = {
    "photos": _plain("", "Photos of the set."),
    "distinct_photos": _plain("", "Photos that are no exact copy of another one."),
    "findings": _down("", "Warnings of the photo check."),
    "smallest_side_px": _up("px", "Shortest side of any photo."),
    "lowest_sharpness": _up("", "Sharpness of the least sharp photo: the lower, the more it looks blurred."),
    "mean_exposure": _plain("", "Mean brightness of the photos, from 0 to 1."),
    "mean_subject_share": _plain("share", "Mean share of a photo that the subject covers."),
    "smallest_subject_share": _plain("share", "The same of the photo where it is smallest."),
    "photos_usable_as_targets": _up("", "Photos whose mask is trusted, so that the asset is compared with them."),
    "photos_held_out": _plain("", "Photos that nothing learns from, only the evaluation looks at them."),
    "photos_located": _up("", "Photos whose camera was told from the photos alone."),
    "mean_mask_confidence": _up("share", "Mean confidence in the photos' masks."),
    "lowest_mask_confidence": _up("share", "Confidence in the least certain mask."),
}

_FINETUNING = {
    "checkpoints": _plain("", "Checkpoints that were kept."),
    "loss": _down("", "The training loss: mean over the steps since the last point."),
    "instance_loss": _down("", "Its part on the subject's photos: mean squared error of the predicted noise."),
    "prior_loss": _down("", "Its part on the base model's own pictures of the class, which keeps the class known."),
    "photo_loss": _down("", "Its part on the photos."),
    "pseudo_loss": _down("", "Its part on the pseudo views."),
    "gradient_norm": _plain("", "Length of the gradient before it is clipped."),
    "learning_rate": _plain("", "Learning rate at that step."),
    "partial_step": _plain("", "Step of the partial checkpoint: it knows the subject and still obeys the view."),
    "full_step": _plain("", "Step of the full checkpoint: it knows the subject best."),
    "subject_similarity": _up(
        "cosine", "How much a checkpoint's samples look like the photos: mean cosine of the selector's features."
    ),
    "view_obedience": _up("share", "Share of a checkpoint's samples that show the view that the prompt asked for."),
    "harmonic_mean": _up(
        "share",
        "Harmonic mean of a checkpoint's subject_similarity, counted from the base model's to the run's best one, and "
        "its view_obedience, relative to the best one; the partial checkpoint has the best mean.",
    ),
    "partial_subject_similarity": _up("cosine", "The subject_similarity of the partial checkpoint."),
    "partial_view_obedience": _up("share", "The view_obedience of the partial checkpoint."),
    "full_subject_similarity": _up("cosine", "The subject_similarity of the full checkpoint."),
    "full_view_obedience": _up("share", "The view_obedience of the full checkpoint."),
    "mean_abs_change": _plain("", "Mean difference of pixels between renders and the pseudo views made of them."),
    "subject_change": _plain("", "The same inside the subject."),
    "background_change": _plain("", "The same outside the subject: what should not change."),
}

_DISTILLATION = {
    "steps": _plain("", "Training steps that were done."),
    "ms_per_step": _down("ms", "Mean time per training step."),
    "opacity": _plain("share", "Mean opacity of the renders: near 0 the asset is empty, near 1 it fills the frame."),
    "preview_opacity": _plain("share", "Mean opacity of the eight previews."),
    "preview_change": _plain("", "Mean difference of pixels between two checks' previews: 0 when the asset rests."),
    "converged": _plain("", "1 where the stage ended early because the asset no longer changed."),
    "interrupted": _plain("", "1 where a stop signal ended the stage early."),
    "collapse_retries": _down("", "Attempts that were given up because the asset became empty, full or not finite."),
    "guidance_loss": _plain("", "Loss of the diffusion model's guidance; its size says nothing about quality."),
    "guidance/gradient_norm": _plain("", "Length of the guidance's gradient with respect to the renders."),
    "guidance/guidance_scale": _plain("", "Classifier-free guidance scale at that step."),
    "guidance/timestep": _plain("", "Mean diffusion timestep that was drawn."),
    "guidance/lora_loss": _plain("", "Loss of the network that learns what the renders look like (VSD)."),
    "reconstruction": _down("", "Mean squared difference between renders and pseudo views."),
    "silhouette": _down("", "Difference between opacity and the pseudo views' masks."),
    "photo_reconstruction": _down("", "Mean squared difference between renders and the photos, from their cameras."),
    "photo_silhouette": _down("", "Difference between opacity and the photos' masks."),
    "mirror_reconstruction": _down("", "As photo_reconstruction, of mirrored photos of a symmetric subject."),
    "mirror_silhouette": _down("", "As photo_silhouette, of mirrored photos of a symmetric subject."),
    "mirror_error": _down("", "Mean difference between the mirrored photos and renders from their cameras."),
    "mirror_overlap": _up("share", "Overlap of the mirrored photos' subjects with renders from their cameras."),
    "photos_found": _up("", "Photos whose camera was found around the asset."),
    "photo_error": _down("", "Mean difference between the photos and renders from the cameras found."),
    "photo_overlap": _up("share", "Mean overlap of the photos' subjects with renders from the cameras found."),
    "heading_corrected_deg": _plain("degrees", "By how much the asset was turned to face the front."),
    "plane_error": _down("", "How far the asset is from its mirror image in the plane found."),
    "plane_deg": _plain("degrees", "Heading of the asset's plane of symmetry."),
    "plane_clear": _plain("", "1 where one plane of symmetry is clearly better than all others."),
    "latent_colors_r2": _up("share", "How well colours explain the latents in which the field was trained."),
    "occupied_share": _plain("share", "Share of the grid's cells that rays do not skip."),
    "evaluated_samples": _plain("", "Samples per step in which the field was evaluated."),
    "density_max": _plain("", "Largest density of the field."),
    "opacity_entropy": _down("", "Regulariser: high where rays are neither clear nor opaque."),
    "distortion": _down("", "Regulariser: high where density is spread along rays."),
    "sparsity": _down("", "Regulariser: mean opacity, which favours empty space."),
    "smoothness": _down("", "Regulariser: how much normals change between neighbouring points."),
    "guards/*_trips": _down("", "How often this guard found the asset out of its bounds."),
    "guards/nan": _down("", "Values of the previews and losses that are not finite."),
    "guards/opacity": _plain("share", "Mean opacity of the previews, as the guard sees it."),
    "guards/occupancy": _plain("share", "Share of the unit ball that is filled, as the guard sees it."),
    "guards/saturation": _plain("", "Mean CIELAB chroma of the previews, as the guard sees it."),
    "guards/janus": _down("share", "Share of the previews from behind and aside that look like the front."),
    "guards/clip_i": _up("cosine", "Likeness of previews and photos to the selector, as the guard sees it."),
}

_STEPS = {
    "seconds": _down("s", "Time that the step took when it was computed."),
    "peak_memory_mib": _down(
        "MiB",
        "Peak memory of the GPU; of a stage that distils on a CPU, of its process.",
    ),
    "process_memory_mib": _down(
        "MiB", "Peak memory of the process until then, with what earlier steps of the same process took."
    ),
    "cached": _plain("", "1 where the step's result came from the cache, so that its time was spent in another run."),
}

METRICS: dict[str, Metric] = {
    **_EVALUATION,
    **_MESH,
    **_PROMPTED,
    **_CONTEXT,
    **_PHOTOS,
    **_FINETUNING,
    **_DISTILLATION,
    **_STEPS,
    **{f"{prefix}*": _plain("", meaning) for prefix, meaning in _PREFIXES.items()},
}
PREFIXES: dict[str, str] = _PREFIXES
"""What a figure's name begins with where it is not of the finished asset, as in `coarse/psnr`."""
LABELS: dict[str, str] = {
    "clip_i": "Likeness to the photos (CLIP-I)",
    "clip_t": "Fit to the caption (CLIP-T)",
    "r_precision": "R-precision",
    "colour_accuracy": "Colour as asked",
    "psnr": "PSNR against truth",
    "psnr_fg": "PSNR on the subject",
    "ssim": "Structural similarity (SSIM)",
    "mask_iou": "Silhouette overlap (IoU)",
    "depth_error": "Depth error",
    "color_error": "Colour error",
    "chroma_excess": "Chroma beyond truth",
    "janus_rate": "Janus rate",
    "janus_excess": "Janus excess over truth",
    "front_recall": "Front recall",
    "view_accuracy": "View accuracy",
    "heldout_photo_iou": "Silhouette overlap with held-out photos (IoU)",
    "heldout_photo_psnr_fg": "PSNR on the subject of held-out photos",
    "mesh/psnr": "This mesh: PSNR against truth",
    "mesh/psnr_fg": "This mesh: PSNR on the subject",
    "mesh/mask_iou": "This mesh: silhouette overlap (IoU)",
    "mesh/field_psnr": "This mesh against the asset that it was made of",
    "mesh/field_iou": "This mesh's silhouettes against the asset's (IoU)",
}
"""How pages call the figures that say the most, in the order in which they show them; others keep their names."""


def meanings(names: Iterable[str], stage: str = "") -> dict[str, str]:
    """The sentences of some figures by their names.

    Args:
        names: as a stage reports them.
        stage: what the table says before those names, such as `evaluate_prompt/`.
    """
    return {name: METRICS[stage + name].meaning for name in names}


def own_name(key: str) -> str:
    """The name of a figure in this table, of a tracker's key with or without a stage's name in it.

    Such as `coarse/psnr` of `evaluate/coarse/psnr` or `evaluate_coarse/psnr`, and `seconds` of `init_nerf/seconds` or
    `steps/seconds/init_nerf`; the key itself where it is unknown.
    """
    stage, _, rest = key.partition("/")
    if stage == "steps" and (figure := rest.partition("/")[0]) in _STEPS:
        return figure
    if f"{stage.removeprefix('evaluate_')}/" in PREFIXES:
        return key.removeprefix("evaluate_")
    parts = key.split("/")
    for begin in range(len(parts)):
        name = "/".join(parts[begin:])
        if name in METRICS or name.startswith(tuple(PREFIXES)):
            return name
        if any(fnmatchcase(name, pattern) for pattern in METRICS if "*" in pattern):
            return name
    return key


@cache
def metric(key: str) -> Metric | None:
    """What a figure is, by its name or by a tracker's key of it (see `own_name`); None if it is unknown.

    A figure of something else than the finished asset, such as `coarse/psnr`, has the unit and direction of its last
    part, and a sentence of both.
    """
    name = own_name(key)
    if prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
        own = metric(name.removeprefix(prefix))
        if own is None:
            return None
        better: Better = own.better if prefix in ("coarse/", "near/", "far/", "aligned/") else ""
        return Metric(own.unit, better, f"{PREFIXES[prefix]} {own.meaning}")
    if name in METRICS:
        return METRICS[name]
    fitting = [pattern for pattern in METRICS if "*" in pattern and fnmatchcase(name, pattern)]
    return _of_pattern(max(fitting, key=len), name) if fitting else None


def _of_pattern(key: str, name: str) -> Metric:
    """An entry with a star; what is compared with (`_truth`, `_source`) has the unit of what it is compared with."""
    own = METRICS[key]
    for ending in ("_truth", "_source"):
        if key.endswith(ending) and (compared := metric(name.removesuffix(ending))):
            return Metric(compared.unit, "", f"{own.meaning} {compared.meaning}")
    return own


def shown(value: float, unit: str) -> str:
    """A figure as people read it: shares in percent, and about three digits otherwise."""
    if value != value:
        return "not known"
    if unit == "share":
        return f"{value:.1%}"
    if unit == "dB":
        return f"{value:.1f} dB"
    if unit in ("s", "ms", "MiB"):
        return f"{value:,.0f} {unit}" if abs(value) >= 10 else f"{value:.1f} {unit}"
    if unit == "degrees":
        return f"{value:.0f}°"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 0.001 or abs(value) >= 1e6 else f"{value:.3f}"
