"""Does a configuration fit this machine? Told by `dreambooth3d doctor CONFIG`, before hours are spent."""

from __future__ import annotations

import functools
import math
import os
import shutil
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import TypedDict

import yaml

from dreambooth3d.cli.findings import Finding, attempt
from dreambooth3d.cli.machine import GIB, Machine, check_compile, check_device, commands_for
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.finetuning import TrainerConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.diffusion.model.base_model import check_folder, local_folder, weight_files
from dreambooth3d.errors import DreamBooth3DError
from dreambooth3d.evaluation.clip import check_scorer_folder
from dreambooth3d.hub import cached_snapshot, split_revision
from dreambooth3d.runtime import work_root

# Parameters of UNet and text encoder, for models that are not on this machine yet.
_PUBLIC_SIZES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (859_520_964, 123_060_480),
    "CompVis/stable-diffusion-v1-4": (859_520_964, 123_060_480),
    "stabilityai/stable-diffusion-2-1": (865_910_724, 340_387_840),
    "stabilityai/stable-diffusion-2-1-base": (865_910_724, 340_387_840),
}
_HALF_BYTES = 2
_PROGRAM_BYTES = 2 * GIB
"""Of the host's memory for Python, PyTorch and its libraries."""
_MEMINFO = Path("/proc/meminfo")
_LORA_SHARE = 2.5e-4
"""Trained parameters of a LoRA per rank and parameter of the network, about."""


class MeasuredNeed(TypedDict, total=False):
    """What a preset was measured to need of a GPU's memory, and where; None or left out where nothing was measured."""

    gpu_gib: float | None
    measured_on: str | None


def check_fitness(config: TrainingConfig, preset: str, shown_config: str) -> Iterator[Finding]:
    """All that can be told of a configuration on this machine.

    Args:
        config: the validated parameters.
        preset: the file's name without suffix, under which its measured needs are kept.
        shown_config: the file as the user named it, for commands.
    """
    machine = Machine.read()
    on_cuda = machine.gpu is not None and config.device != "cpu"
    checks: dict[str, Callable[[], str | Finding]] = {
        "device": lambda: check_device(machine, config.device),
        "gpu memory": lambda: check_memory(machine, config, preset, shown_config),
        "host memory": lambda: check_host_memory(config),
        "precision": lambda: check_precision(machine, config, on_cuda),
        "disk": lambda: check_disk(config),
        "base model": lambda: check_base_model(config.base_model, shown_config),
        "scorers": lambda: check_scorers(config, shown_config),
        "photos": lambda: check_photos(config),
        "masks": lambda: check_masks(config.photos),
        "encoder": lambda: check_encoder(machine, config.init_nerf.field, on_cuda),
        "sampler": lambda: check_sampler(machine, config.init_nerf.render, on_cuda),
        "compile": lambda: check_compile(machine),
    }
    yield from attempt(checks)


def check_installed_gpu() -> Iterator[Finding]:
    """The device's lines without a configuration."""
    machine = Machine.read()
    checks: dict[str, Callable[[], str | Finding]] = {
        "device": lambda: check_device(machine),
        "compile": lambda: check_compile(machine),
    }
    if machine.gpu is not None:
        checks["gpu memory"] = lambda: _gpu_memory(machine)
    yield from attempt(checks)


@functools.cache
def measured_needs() -> dict[str, MeasuredNeed]:
    """`needs.yaml`, by preset."""
    return yaml.safe_load(resources.files("dreambooth3d.cli").joinpath("needs.yaml").read_text())


def _gpu_memory(machine: Machine) -> str:
    return f"{machine.free_bytes / GIB:.1f} of {machine.total_bytes / GIB:.1f} GiB free"


def check_memory(machine: Machine, config: TrainingConfig, preset: str, shown_config: str) -> Finding:
    """The GPU's free memory against what the preset was measured to need."""
    if machine.gpu is None or config.device == "cpu":
        return Finding("gpu memory", True, "no GPU is used")
    entry: MeasuredNeed = measured_needs().get(preset) or {}
    need, where = entry.get("gpu_gib"), entry.get("measured_on")
    free = _gpu_memory(machine)
    if need is None:
        return _check_unmeasured_memory(machine, config, free, preset, shown_config)
    text = f"{free}; {preset} needs {need:.1f} GiB (measured on {where})"
    if machine.free_bytes >= need * GIB:
        return Finding("gpu memory", True, text)
    if machine.total_bytes >= need * GIB:
        return Finding("gpu memory", False, f"{text}. Close what else uses the GPU", ("nvidia-smi",))
    return _too_little_memory(text, config, shown_config)


def _check_unmeasured_memory(
    machine: Machine, config: TrainingConfig, free: str, preset: str, shown_config: str
) -> Finding:
    """What can be said without a measurement: what training keeps of each parameter."""
    sizes = network_sizes(config.base_model)
    least = 0 if sizes is None else least_gpu_memory(config, *sizes)
    if machine.free_bytes >= least:
        return Finding("gpu memory", True, f"{free}; what {preset} needs was not measured", warns=True)
    text = f"{free}; weights, gradients and optimiser of the fine-tuning alone take {least / GIB:.1f} GiB"
    return _too_little_memory(text, config, shown_config)


def _too_little_memory(text: str, config: TrainingConfig, shown_config: str) -> Finding:
    """No GPU like this one will do; what would."""
    smaller = " ".join(_smaller(config))
    advice = f", or make it smaller: {smaller}" if smaller else ""
    commands = (f"dreambooth3d train {shown_config} {smaller}",) if smaller else ()
    return Finding("gpu memory", False, f"{text}. Use a GPU with more{advice}", commands)


def least_gpu_memory(config: TrainingConfig, unet: int, text_encoder: int) -> float:
    """Bytes that fine-tuning keeps on the GPU: weights, and gradients and optimiser state of what is trained."""
    finetune = config.finetune_dreambooth
    trained = _trained(finetune, unet, text_encoder)
    frozen = 0.0 if not finetune.lora_rank else _HALF_BYTES * (unet + text_encoder)
    return frozen + (4 + _state_bytes(finetune)) * trained if finetune.pretrained is None else _HALF_BYTES * unet


def _trained(section: TrainerConfig, unet: int, text_encoder: int) -> float:
    """Trained parameters."""
    share = _LORA_SHARE * section.lora_rank or 1.0
    return share * (unet + text_encoder * section.train_text_encoder)


def _state_bytes(section: TrainerConfig) -> int:
    """Bytes of a resumable state per trained parameter: float32 weights, two moments, a running average."""
    moments = 2 if section.optimizer == "adamw_8bit" else 8
    return 4 + moments + 4 * (section.ema_decay > 0)


def _smaller(config: TrainingConfig) -> list[str]:
    """Overrides that take less memory than the configuration does."""
    least = {
        "finetune_dreambooth.batch_size": (config.finetune_dreambooth.batch_size, 1),
        "finetune_dreambooth.train_text_encoder": (config.finetune_dreambooth.train_text_encoder, False),
        "finetune_multiview.batch_size": (config.finetune_multiview.batch_size, 2),
        "finetune_multiview.train_text_encoder": (config.finetune_multiview.train_text_encoder, False),
        "select_checkpoints.batch_size": (config.select_checkpoints.batch_size, 1),
        "init_nerf.views_per_step": (config.init_nerf.views_per_step, 1),
        "refine_nerf.views_per_step": (config.refine_nerf.views_per_step, 1),
    }
    overrides = [f"{key}={str(low).lower()}" for key, (value, low) in least.items() if value > low]
    for name in ("finetune_dreambooth", "finetune_multiview"):
        section = getattr(config, name)
        if not section.lora_rank:
            # A LoRA learns nothing at the rate of full fine-tuning.
            overrides += [f"{name}.lora_rank=4", f"{name}.learning_rate=1.0e-4"]
        if not section.gradient_checkpointing:
            overrides.append(f"{name}.gradient_checkpointing=true")
    return overrides


def available_memory() -> int | None:
    """Bytes of the host's memory that are free for programs, None where the system does not tell."""
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * found[0] if found else None


def check_host_memory(config: TrainingConfig) -> Finding:
    """The host's memory against a resumable state of the fine-tuning, which passes through it as a whole."""
    free, sizes = available_memory(), network_sizes(config.base_model)
    if free is None or sizes is None:
        text = "not known" if free is None else f"{free / GIB:.1f} GiB free; what is needed is not known"
        return Finding("host memory", True, text, warns=True)
    finetune = config.finetune_dreambooth
    state = 0.0 if finetune.pretrained else _state_bytes(finetune) * _trained(finetune, *sizes)
    need = state + _PROGRAM_BYTES
    text = f"{free / GIB:.1f} GiB free; about {need / GIB:.1f} GiB are needed"
    if free >= need:
        return Finding("host memory", True, text)
    advice = "Close other programs, or fine-tune a LoRA: finetune_dreambooth.lora_rank=4"
    return Finding("host memory", False, f"{text}, as a resumable state passes through it. {advice}")


def check_precision(machine: Machine, config: TrainingConfig, on_cuda: bool) -> Finding:
    """bfloat16 needs compute capability 8.0 (Ampere); older GPUs emulate it, many times slower."""
    sections = ("finetune_dreambooth", "finetune_multiview")
    chosen = {name: getattr(config, name).mixed_precision for name in sections}
    text = ", ".join(f"{name} {value}" for name, value in chosen.items())
    wrong = [f"{name}.mixed_precision=fp16" for name, value in chosen.items() if value == "bf16"]
    if on_cuda and wrong and machine.capability < (8, 0):
        return Finding("precision", False, f"{text}; this GPU has no bf16. Set {' '.join(wrong)}")
    return Finding("precision", True, text)


def check_disk(config: TrainingConfig) -> Finding:
    """Free space for checkpoints and resumable states."""
    place = next(path for path in (work_root().absolute(), *work_root().absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    sizes = network_sizes(config.base_model)
    if sizes is None:
        text = f"{free / GIB:.0f} GiB free; what is needed is not known before {config.base_model.path} is fetched"
        return Finding("disk", True, text, warns=True)
    need = disk_need(config, *sizes)
    pairs = checkpoint_count(config)
    text = f"{free / GIB:.0f} GiB free at {place}; {need / GIB:.1f} GiB are needed at most, for {pairs} checkpoints"
    if free >= need:
        return Finding("disk", True, text)
    every = 2 * config.finetune_dreambooth.checkpoint_every
    return Finding(
        "disk", False, f"{text}. Make room, set DREAMBOOTH3D_WORK to a folder on a larger disk, or keep fewer: "
        f"finetune_dreambooth.checkpoint_every={every}", (f"df -h {place}",),
    )  # fmt: skip


def checkpoint_count(config: TrainingConfig) -> int:
    """UNet and text-encoder pairs that a run keeps: at step 0, at each multiple, at the end, and the multiview one."""
    finetune = config.finetune_dreambooth
    last = finetune.steps % finetune.checkpoint_every != 0
    trained = finetune.steps // finetune.checkpoint_every + last
    return 1 + min(trained, finetune.checkpoints_kept or trained) + config.recipe.multiview


def disk_need(config: TrainingConfig, unet: int, text_encoder: int) -> int:
    """Bytes of checkpoints and states at their peak.

    Until a run ends, its checkpoints are in the work folder and in the artifact store; a resumable state exists twice
    while the new one takes the place of the old.

    Args:
        unet, text_encoder: parameters of the two.
    """
    finetune, multiview = config.finetune_dreambooth, config.finetune_multiview
    last = config.recipe.multiview
    pairs = checkpoint_count(config) - last
    kept = pairs * _trained(finetune, unet, text_encoder)
    if last:
        # A LoRA on top of full weights is merged into them.
        kept += _trained(multiview if finetune.lora_rank else finetune, unet, text_encoder)
    if not finetune.train_text_encoder:
        kept += text_encoder
    state = 0.0 if finetune.pretrained else _state_bytes(finetune) * _trained(finetune, unet, text_encoder)
    return int(2 * _HALF_BYTES * kept + 2 * state)


def network_sizes(config: BaseModelConfig) -> tuple[int, int] | None:
    """Parameters of UNet and text encoder, from the files' headers where they are here; None where nobody knows."""
    folder = local_folder(config.path) or cached_snapshot(config.path, config.revision)
    try:
        if folder is not None:
            return _parameters(folder / "unet", config.variant), _parameters(folder / "text_encoder", config.variant)
    except DreamBooth3DError:
        pass
    return _PUBLIC_SIZES.get(config.path)


def _parameters(folder: Path, variant: str | None) -> int:
    from safetensors import safe_open

    total = 0
    for file in weight_files(folder, variant):
        with safe_open(file, framework="pt") as handle:
            names = handle.keys()  # the handle itself cannot be iterated over
            total += sum(math.prod(handle.get_slice(name).get_shape()) for name in names)
    return total


def _presence(name: str, wanted: dict[str, Path | None], shown_config: str) -> Finding:
    """Whether models are here, by the path that the configuration gives."""
    missing = [path for path, folder in wanted.items() if folder is None]
    if not missing:
        return Finding(name, True, ", ".join(f"{path} in {folder}" for path, folder in wanted.items()))
    command = (f"dreambooth3d models fetch {shown_config}",)
    text = f"not here yet: {', '.join(missing)}"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        offline = "HF_HUB_OFFLINE is set. Unset it, or copy the hub's cache from a machine that has them"
        return Finding(name, False, f"{text}, and {offline}", command)
    return Finding(name, True, f"{text}; a run begins with fetching from the hub, which needs a network", command)


def _if_whole(folder: Path | None, check: Callable[[Path], None]) -> Path | None:
    """The folder, or None where there is none or a download into it was cut off."""
    try:
        if folder is not None:
            check(folder)
    except DreamBooth3DError:
        return None
    return folder


def check_base_model(config: BaseModelConfig, shown_config: str) -> Finding:
    """Whether the base model is here; nothing is fetched."""
    folder = local_folder(config.path)
    if folder is not None:
        check_folder(folder, config.variant)
    else:
        cached = cached_snapshot(config.path, config.revision)
        folder = _if_whole(cached, lambda folder: check_folder(folder, config.variant))
    return _presence("base model", {config.path: folder}, shown_config)


def check_scorers(config: TrainingConfig, shown_config: str) -> Finding:
    """Whether the scorers are here; nothing is fetched."""
    wanted: dict[str, Path | None] = {}
    for name in ("selector", "judge"):
        path = getattr(config.scorers, name)
        hub_id, revision = split_revision(path)
        folder = local_folder(hub_id, f"scorers.{name}")
        if folder is not None:
            check_scorer_folder(folder)
        else:
            folder = _if_whole(cached_snapshot(hub_id, revision), check_scorer_folder)
        wanted[path] = folder
    return _presence("scorers", wanted, shown_config)


def check_photos(config: TrainingConfig) -> Finding:
    """Whether the photos are here."""
    from dreambooth3d.photos.subject import fetchable_subjects, photo_files, resolve_folder, shown_path

    try:
        folder, info = resolve_folder(config.photos)
    except DreamBooth3DError as error:
        public = config.photos.dir is None and config.photos.subject in fetchable_subjects()
        commands = (f"dreambooth3d photos fetch {config.photos.subject}",) if public else ()
        return Finding("photos", False, str(error), commands)
    return Finding("photos", True, f"{len(photo_files(folder))} of a {info.class_noun} in {shown_path(folder)}")


def check_masks(config: PhotosConfig) -> Finding:
    """Which sources of masks a run will have."""
    from dreambooth3d.photos.masks import bundled, rembg
    from dreambooth3d.photos.networks.weights import network_folder

    wanted, model = config.masks, config.rembg_model
    brings = {"rembg": ("pip install 'dreambooth3d[masks]'", f"dreambooth3d models fetch {model}")}
    try:
        if wanted == "rembg":
            rembg.require_model(model)
        if wanted == "learned":
            bundled.require_network()
    except DreamBooth3DError as error:
        return Finding("masks", False, str(error), brings.get(wanted, ()))
    if wanted != "auto":
        return Finding("masks", True, f"{wanted}, as photos.masks asks for")
    here = rembg.installed() and rembg.model_file(model) is not None
    network = network_folder(bundled.FOLDER) is not None
    sources = {"files": True, "transparency": True, "rembg": here, "smooth backgrounds": True, "learned": network}
    return Finding("masks", True, f"the first that serves of {', '.join(name for name in sources if sources[name])}")


def check_encoder(machine: Machine, config: FieldConfig, on_cuda: bool) -> Finding:
    """Which implementation the field's encoding will have, and why."""
    wanted = config.implementation
    if config.encoding == "dense":
        return Finding("encoder", True, "dense volume, as encoding: dense asks for")
    if wanted == "torch":
        return Finding("encoder", True, "hash grid in PyTorch, as implementation: torch asks for")
    if not on_cuda:
        text, good = "hash grid in PyTorch, since the device is the CPU", wanted == "auto"
        advice = "" if good else f"; implementation: {wanted} needs CUDA. Set init_nerf.field.implementation=auto"
        return Finding("encoder", good, text + advice)
    needed = {"tcnn": ("cc", "c++", "nvcc", "ninja", "tinycudann"), "triton": ("cc", "python headers", "triton")}
    lacking = {"tcnn": machine.lacking("tinycudann"), "triton": machine.lacking(*needed["triton"])}
    names = {"tcnn": "tiny-cuda-nn", "triton": "Triton"}
    if wanted != "auto":
        if not lacking[wanted]:
            return Finding("encoder", True, f"hash grid by {names[wanted]}, as implementation: {wanted} asks for")
        text = f"implementation: {wanted} needs {' and '.join(lacking[wanted])}, missing here"
        return Finding("encoder", False, text, commands_for(machine, *needed[wanted]))
    if not lacking["triton"]:
        return Finding("encoder", True, "hash grid by Triton, the fastest (implementation: auto)")
    reason = f"since Triton needs {' and '.join(lacking['triton'])}"
    if not lacking["tcnn"]:
        return Finding("encoder", True, f"hash grid by tiny-cuda-nn, which is installed, {reason}")
    text = f"hash grid in PyTorch, {reason}; Triton is much faster"
    return Finding("encoder", True, text, commands_for(machine, *needed["triton"]), warns=True)


def check_sampler(machine: Machine, config: RenderConfig, on_cuda: bool) -> Finding:
    """Which sampler rays will have, and why."""
    if config.sampler == "dense":
        return Finding("sampler", True, "dense, as sampler: dense asks for")
    if not on_cuda:
        return Finding("sampler", True, "dense, since the device is the CPU")
    if "nerfacc.csrc" in machine.packages:
        return Finding("sampler", True, "nerfacc's occupancy grid, whose CUDA code is installed")
    needed = ("nerfacc", "nvcc", "c++", "ninja")
    if missing := machine.lacking(*needed):
        text = f"dense, since nerfacc's CUDA code needs {' and '.join(missing)}; the occupancy grid is faster"
        return Finding("sampler", True, text, commands_for(machine, *needed), warns=True)
    return Finding("sampler", True, "nerfacc's occupancy grid; its CUDA code is compiled once, about a minute")
