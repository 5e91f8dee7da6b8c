"""The recipe on a photo set at Stable Diffusion 1.5's size, with random weights: time and memory of each stage.

Usage: python -m benchmarks.full_size FOLDER [--scale 0.05] [--device cpu] [key.sub=value ...]

The settings are those of configs/sd15_dog.yaml but for a few steps of everything. What comes out is noise; that masks,
cameras, masked fine-tuning and photo targets go through at 512 pixels, and what they take, is what this shows.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from omegaconf import OmegaConf

from benchmarks.machine import machine
from benchmarks.quality.plan import ROOT
from benchmarks.quality.stages import without_export
from benchmarks.speed.random_model import write_model
from dreambooth3d import recipe
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.in_process import FinishedStage, InProcess
from dreambooth3d.runtime import pick_device
from operations.launch.checking import parse_parameters
from operations.launch.presets import read_preset

PRESET = ROOT / "configs" / "sd15_dog.yaml"
FEW = (
    "finetune_dreambooth.steps=20",
    "finetune_dreambooth.checkpoint_every=10",
    "finetune_dreambooth.class_images=2",
    "finetune_dreambooth.class_inference_steps=4",
    "finetune_dreambooth.sample_inference_steps=4",
    "select_checkpoints.samples_per_view=1",
    "select_checkpoints.inference_steps=4",
    "init_nerf.steps=60",
    "init_nerf.check_every=30",
    "init_nerf.collapse_retries=0",
    "init_nerf.guidance.acceleration=graphs",
    "generate_pseudo_views.count=4",
    "generate_pseudo_views.inference_steps=4",
    "finetune_multiview.steps=4",
    "finetune_multiview.sample_inference_steps=4",
    "refine_nerf.steps=40",
    "refine_nerf.check_every=20",
    "refine_nerf.collapse_retries=0",
    "refine_nerf.guidance.acceleration=graphs",
)
CLASS_NOUN = "dog"
"""Whatever the photos show: the random model's vocabulary is small."""
FINE_TUNING = ("finetune_dreambooth", "finetune_multiview")


def configured(folder: Path, model: Path, device: str, overrides: list[str]) -> TrainingConfig:
    """The preset with few steps, on a model in a folder, judged by the bundled scorers.

    Raises:
        ConfigError: an override is wrong.
    """
    here = {
        "device": device,
        "photos": {"subject": None, "dir": str(folder), "class_noun": CLASS_NOUN},
        "base_model": {"path": str(model), "revision": None},
        "scorers": {name: str(ROOT / "models" / name) for name in ("selector", "judge")},
        "contexts": [],
    }
    values = OmegaConf.merge(
        read_preset(PRESET).values["parameters"], OmegaConf.from_dotlist([*FEW, *overrides]), OmegaConf.create(here)
    )
    config = parse_parameters(OmegaConf.to_container(values))
    if not isinstance(config, TrainingConfig):
        raise TypeError(f"{PRESET} is no training")
    return config


def table(made: recipe.Made, used: list[FinishedStage], device: str) -> str:
    """Markdown: seconds and memory of each stage, and what the photos were good for."""
    rows = [f"| {stage.name} | {stage.seconds:.1f} | {stage.peak_mib:.0f} |" for stage in used]
    facts = made.photos.facts
    located, count = int(facts["azimuth_deg"].notna().sum()), len(facts)
    sources = ", ".join(sorted(set(facts["mask_source"])))
    notes = {stage.name: stage.value.record.metrics for stage in used if stage.name in ("init_nerf", "refine_nerf")}
    overlap = notes["refine_nerf"].get("photo_overlap", float("nan"))
    return "\n".join(
        [
            f"{machine(device)}; masks: {sources}; {int(made.photos.trusted.sum())} of {count} photos are targets, "
            f"{located} located; the asset's overlap with them {overlap:.2f}.",
            "",
            "| stage | seconds | peak memory (MiB) |",
            "| --- | --- | --- |",
            *rows,
        ]
    )


def main() -> None:
    """Run it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="width of the networks in terms of the real ones")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("overrides", nargs="*", help="key.sub=value over the preset")
    given = parser.parse_intermixed_args()
    device = pick_device(given.device)
    with tempfile.TemporaryDirectory() as work:
        half = device.type == "cuda"
        dtype, variant = (torch.float16, "fp16") if half else (torch.float32, None)
        model = write_model(Path(work) / "model", "sd15", scale=given.scale, dtype=dtype, variant=variant)
        more = [] if half else ["base_model.variant=null"]
        more += [] if half else [f"{stage}.mixed_precision='no'" for stage in FINE_TUNING]
        config = configured(given.folder, model, device.type, [*more, *given.overrides])
        run_stage = InProcess(Path(work) / "stages", device, progress=False)
        made = recipe.run(config, without_export(run_stage))
        print(table(made, run_stage.used, device.type))


if __name__ == "__main__":
    main()
