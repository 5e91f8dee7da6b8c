"""The model card: what the bundled models are, and what was measured of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from dreambooth3d.toybox.captions import GENERIC_NOUNS, VOCABULARY
from dreambooth3d.toybox.pretraining import networks
from dreambooth3d.toybox.recipes import COLOUR_NAMES, RESERVED, TRAINING_CLASSES

_ROWS = (
    ("vae_psnr_db", "Autoencoder: PSNR on unseen renders (dB)", 31.0),
    ("selector_class", "Selector: class on unseen renders", 0.98),
    ("selector_view", "Selector: view, away from the borders", 0.90),
    ("selector_r_precision", "Selector: R-precision on true views of all named subjects", None),
    ("judge_class", "Judge: class on unseen renders", 0.98),
    ("judge_view", "Judge: view, away from the borders", 0.90),
    ("judge_r_precision", "Judge: R-precision on true views of all named subjects", None),
    ("obeyed_class", "Samples at guidance scale 4: class obeyed", 0.95),
    ("obeyed_colour", "Samples at guidance scale 4: colour obeyed", 0.90),
    ("obeyed_view", "Samples at guidance scale 4: view obeyed", 0.85),
    ("mesh_vae_psnr_db", "Autoencoder: PSNR on test meshes (dB)", None),
    ("mesh_unet_loss", "UNet: denoising loss on test meshes", None),
    ("selector_mesh_noun", "Selector: generic noun of test meshes, of ten", None),
    ("selector_mesh_view", "Selector: view of test meshes with a known front", None),
    ("judge_mesh_noun", "Judge: generic noun of test meshes, of ten", None),
    ("judge_mesh_view", "Judge: view of test meshes with a known front", None),
)
_MESHES = ", and continued\non these and pictures of meshes by other people (`docs/pretraining.md`)"
_TEXT = """---
license: apache-2.0
language: en
library_name: diffusers
pipeline_tag: text-to-image
tags:
- dreambooth
- dreambooth3d
- stable-diffusion
- text-to-3d
- toybox
---

# Bundled toybox models

A complete base model in Stable Diffusion's layout (`toybox/`, on the hub the top folder) and two CLIP scorers
(`selector/`, `judge/`); half precision, safetensors. They were trained on renders of the procedural world in
`dreambooth3d/toybox`{meshes}. They know
{classes} classes ({class_list}), the generic nouns {generic}, {colours} colours, and {words} words in all. They are
small, and meant for toybox subjects and for things that a generic noun names.

| part | parameters |
|---|---|
{sizes}

Held out of all training: the subjects' recipes, colour pairs and accessories in their colours
(`dreambooth3d/toybox/recipes.py`). The base model has seen none of the reserved classes, patterns and accessories
({reserved}) either; the scorers have, in other colours, since they have to judge them. The scorers differ in
architecture, seed and training renders.

| measured on {machine} ({renders} unseen renders, {samples} samples) | target | value | before |
|---|---|---|---|
{rows}

![Samples: class, colour and view by prompt](samples.webp)

`before` is what the models gave that these were continued from. Reproduce: `dreambooth3d toybox pretrain vae`, then
`unet`, `selector`, `judge` and `card`, on one GPU; then the same with `--pack PACK --from models`
(`docs/pretraining.md`).
"""


def _sizes() -> list[tuple[str, int]]:
    from dreambooth3d.toybox.pretraining.folders import toybox_tokenizer

    tokenizer = toybox_tokenizer()
    models = {
        "UNet": networks.new_unet(),
        "autoencoder": networks.new_vae(),
        "text encoder": networks.new_text_encoder(tokenizer),
        **{name: networks.new_scorer(name, tokenizer) for name in networks.SCORER_NAMES},
    }
    return [(name, networks.parameter_count(model)) for name, model in models.items()]


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def write(models: Path, figures: Mapping[str, float], setting: Mapping[str, object]) -> None:
    """Write `README.md` and `card.json` into the models' folder."""
    rows = "\n".join(
        f"| {label} | {_cell(target, 'g')} | {figures[key]:.3f} | {_cell(figures.get(f'{key}_before'), '.3f')} |"
        for key, label, target in _ROWS
        if key in figures
    )
    text = _TEXT.format(
        classes=len(TRAINING_CLASSES),
        class_list=", ".join(TRAINING_CLASSES),
        meshes=_MESHES if "mesh_unet_loss" in figures else "",
        generic=", ".join(GENERIC_NOUNS),
        colours=len(COLOUR_NAMES),
        words=len(VOCABULARY),
        reserved=", ".join(sorted(RESERVED)),
        sizes="\n".join(f"| {name} | {count / 1e6:.2f} M |" for name, count in _sizes()),
        rows=rows,
        **setting,
    )
    (models / "README.md").write_text(text)
    (models / "card.json").write_text(json.dumps({**setting, "figures": dict(figures)}, indent=1) + "\n")
