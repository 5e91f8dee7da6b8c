"""What doctor says of a configuration on a machine, for machines that are made up."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from benchmarks.speed.random_model import write_model
from dreambooth3d.cli import fitness, machine
from dreambooth3d.cli.doctor import _pinned
from dreambooth3d.cli.findings import Finding, attempt, shown
from dreambooth3d.cli.machine import GIB, Machine, check_compile, check_device
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.weights import save_weights
from operations.launch.checking import check_file
from tests.product import ROOT, Product

Invoke = Callable[..., Result]
SD15 = ROOT / "configs" / "sd15_dog.yaml"
H100 = Machine(
    gpu="NVIDIA H100", capability=(9, 0), free_bytes=70 * GIB, total_bytes=80 * GIB, torch_version="2.13.0+cu130",
    torch_cuda="13.0", architectures=("sm_80", "sm_90", "compute_120"), driver="580.65.06", driver_cuda="13.0",
    tools=frozenset({"cc", "c++", "nvcc", "ninja", "python headers"}),
    packages=frozenset({"triton", "tinycudann", "nerfacc"}),
)  # fmt: skip
BARE = dataclasses.replace(H100, tools=frozenset(), packages=frozenset({"nerfacc"}))


def without(found: Machine, *names: str) -> Machine:
    """A machine that lacks these tools and packages."""
    return dataclasses.replace(found, tools=found.tools - set(names), packages=found.packages - set(names))


@pytest.fixture
def config() -> TrainingConfig:
    """The preset for Stable Diffusion."""
    config = check_file(SD15)
    assert isinstance(config, TrainingConfig)
    return config


def fake_gpu(monkeypatch: pytest.MonkeyPatch, free_gib: float = 70.0) -> None:
    """Let PyTorch see a GPU that is not there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA Made Up")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 6))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (int(free_gib * GIB), 80 * GIB))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    monkeypatch.setattr(torch.version, "cuda", "13.0")


def test_the_machine_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch)
    table = "| NVIDIA-SMI 580.65.06      Driver Version: 580.65.06      CUDA Version: 13.0     |"
    answer = subprocess.CompletedProcess([], 0, stdout=table)
    monkeypatch.setattr(machine.subprocess, "run", lambda command, **options: answer)
    found = Machine.read()
    assert (found.gpu, found.capability, found.torch_cuda) == ("NVIDIA Made Up", (8, 6), "13.0")
    assert (found.free_bytes, found.total_bytes) == (70 * GIB, 80 * GIB)
    assert (found.driver, found.driver_cuda) == ("580.65.06", "13.0")
    text = check_device(found).text
    for part in ("NVIDIA Made Up", "8.6", torch.__version__, "CUDA 13.0", "580.65.06"):
        assert part in text


def test_no_gpu_and_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", "/nowhere")
    found = Machine.read()
    assert found.gpu is None and found.driver is None and not found.tools - {"python headers"}
    assert check_device(found).good and not check_device(found, "cuda").good


@pytest.mark.parametrize(
    ("built", "capability", "fits"),
    [
        (("sm_80", "sm_90"), (8, 6), True),
        (("sm_86", "sm_90"), (8, 0), False),
        (("sm_80",), (9, 0), False),
        (("sm_80", "compute_80"), (9, 0), True),
        (("sm_90a",), (9, 0), True),
        (("sm_100", "sm_120"), (12, 0), True),
        (("sm_75",), (6, 1), False),
    ],
)
def test_binaries_fit_gpus(built: tuple[str, ...], capability: tuple[int, int], fits: bool) -> None:
    """CUDA's rule: binaries run on the same major and a later minor version, PTX on anything later."""
    found = dataclasses.replace(H100, architectures=built, capability=capability)
    assert check_device(found).good is fits


@pytest.mark.parametrize(
    ("changes", "part", "commands"),
    [
        ({"torch_cuda": None}, "CPU build", ("python -m pip install --force-reinstall torch==2.13.0",)),
        ({"driver_cuda": "12.2"}, "supports only 12.2: update the driver", ()),
        ({}, "CUDA_VISIBLE_DEVICES", ()),
    ],
)
def test_a_gpu_that_pytorch_does_not_see(changes: dict[str, object], part: str, commands: tuple[str, ...]) -> None:
    hidden = dataclasses.replace(H100, gpu=None, **changes)
    finding = check_device(hidden)
    assert finding.good and part in finding.text and finding.commands == commands
    assert not check_device(hidden, "cuda").good


def test_memory_against_the_measured_need(config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(found: Machine) -> Finding:
        return fitness.check_memory(found, config, "sd15_dog", "configs/sd15_dog.yaml")

    unknown = {"sd15_dog": {"gpu_gib": None, "measured_on": None}}
    monkeypatch.setattr(fitness, "measured_needs", lambda: unknown)
    finding = check(H100)
    assert finding.good and finding.text == "70.0 of 80.0 GiB free; what sd15_dog needs was not measured"
    # 16 bytes for each of 983 million parameters: float32 weights, gradients, and AdamW's two moments.
    small = check(dataclasses.replace(H100, free_bytes=10 * GIB, total_bytes=12 * GIB))
    assert not small.good and "take 14.6 GiB" in small.text and "lora_rank=4" in small.commands[0]
    known = {"sd15_dog": {"gpu_gib": 18.5, "measured_on": "H100, torch 2.11"}}
    monkeypatch.setattr(fitness, "measured_needs", lambda: known)
    assert check(H100).good and "needs 18.5 GiB (measured on H100, torch 2.11)" in check(H100).text
    busy = check(dataclasses.replace(H100, free_bytes=4 * GIB))
    assert not busy.good and "Close what else uses the GPU" in busy.text
    small = check(dataclasses.replace(H100, free_bytes=7 * GIB, total_bytes=8 * GIB))
    assert not small.good and "Use a GPU with more, or make it smaller" in small.text
    (command,) = small.commands
    assert command.startswith("dreambooth3d train configs/sd15_dog.yaml ")
    assert "finetune_dreambooth.train_text_encoder=false" in command and "batch_size=1" in command
    lora = "finetune_dreambooth.lora_rank=4 finetune_dreambooth.learning_rate=1.0e-4"
    assert f"{lora} finetune_dreambooth.gradient_checkpointing=true" in command
    # The preset's is 1 already.
    assert "finetune_dreambooth.batch_size" not in command


def test_host_memory(config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """12 bytes for each of 983 million parameters, and 2 GiB: 13.0 GiB."""
    monkeypatch.setattr(fitness, "_MEMINFO", tmp_path / "meminfo")
    assert fitness.check_host_memory(config) == Finding("host memory", True, "not known", warns=True)
    for free, good in ((12, False), (14, True)):
        (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:   {free * 1024**2} kB\n")
        finding = fitness.check_host_memory(config)
        assert finding.good is good and f"{free}.0 GiB free; about 13.0 GiB are needed" in finding.text
    lora = config.finetune_dreambooth.model_copy(update={"lora_rank": 4})
    (tmp_path / "meminfo").write_text(f"MemAvailable: {3 * 1024**2} kB\n")
    assert fitness.check_host_memory(config.model_copy(update={"finetune_dreambooth": lora})).good


def test_bf16_needs_ampere(config: TrainingConfig) -> None:
    turing = dataclasses.replace(H100, capability=(7, 5))
    assert fitness.check_precision(H100, config, True).good
    finding = fitness.check_precision(turing, config, True)
    assert not finding.good and "finetune_multiview.mixed_precision=fp16" in finding.text
    assert fitness.check_precision(turing, TrainingConfig(), True).good


def test_checkpoints_are_counted_as_they_are_kept(config: TrainingConfig) -> None:
    """Steps 0, 100, ..., 800 and the multiview one; a last step that is no multiple counts as well."""
    assert fitness.checkpoint_count(config) == 10
    finetune = config.finetune_dreambooth.model_copy(update={"steps": 850})
    assert fitness.checkpoint_count(config.model_copy(update={"finetune_dreambooth": finetune})) == 11


def test_sizes_come_from_the_files_where_they_are_here(tmp_path: Path) -> None:
    """A checkpoint takes what is said: its two files are written, and their lengths compared but for their headers."""
    folder = write_model(tmp_path / "model", scale=0.05)
    base = BaseModelConfig(path=str(folder))
    sizes = fitness.network_sizes(base)
    assert sizes is not None
    written = 0
    for network, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        from safetensors.torch import load_file

        half = {key: value.half() for key, value in load_file(folder / network / f"{name}.safetensors").items()}
        written += save_weights(half, tmp_path / f"{network}.safetensors").size_bytes
    assert 0 < written - 2 * sum(sizes) < 0.05 * written
    once = TrainingConfig.model_validate(
        {"base_model": {"path": str(folder)}, "finetune_dreambooth": {"steps": 50, "checkpoint_every": 50}}
    )
    # Three pairs, each in two places, and twice a state of 12 bytes per parameter.
    assert fitness.disk_need(once, *sizes) == (3 * 2 * 2 + 2 * 12) * sum(sizes)


def test_disk_of_a_lora_and_of_fewer_checkpoints(config: TrainingConfig) -> None:
    sizes = (859_520_964, 123_060_480)
    full = fitness.disk_need(config, *sizes)

    def changed(**values: object) -> int:
        sections = {
            name: getattr(config, name).model_copy(update={key: value for key, value in values.items() if key in known})
            for name, known in (
                ("finetune_dreambooth", values),
                ("finetune_multiview", {"lora_rank"}),
            )
        }
        return fitness.disk_need(config.model_copy(update=sections), *sizes)

    # Ten adapters of about a thousandth, twice, and two states of them.
    assert 0 < changed(lora_rank=4) < 0.002 * full
    pair = 2 * sum(sizes)
    # Of steps 0, 100, ..., 800 only 0, 700 and 800.
    assert full - changed(checkpoints_kept=2) == 2 * 6 * pair
    assert changed(ema_decay=0.9) - full == 2 * 4 * sum(sizes)
    assert full - changed(pretrained="some/folder") == 2 * 12 * sum(sizes)


def test_disk(config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """1.0 billion parameters, ten pairs of them twice, two states: 58.6 GiB."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, 100 * GIB))
    finding = fitness.check_disk(config)
    assert finding.good and "100 GiB free" in finding.text and "58.6 GiB are needed" in finding.text
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, 30 * GIB))
    finding = fitness.check_disk(config)
    assert not finding.good and "finetune_dreambooth.checkpoint_every=200" in finding.text
    unknown = config.model_copy(update={"base_model": BaseModelConfig(path="some/one")})
    assert (
        fitness.check_disk(unknown).good and "not known before some/one is fetched" in fitness.check_disk(unknown).text
    )


@pytest.mark.parametrize(
    ("found", "implementation", "on_cuda", "good", "part", "command"),
    [
        (H100, "auto", True, True, "by Triton, the fastest", None),
        (H100, "torch", True, True, "in PyTorch, as implementation: torch asks for", None),
        (H100, "triton", True, True, "by Triton, as implementation: triton asks for", None),
        (
            without(H100, "triton"),
            "auto",
            True,
            True,
            "by tiny-cuda-nn, which is installed, since Triton needs triton",
            None,
        ),
        (BARE, "auto", True, True, "in PyTorch, since Triton needs cc and python headers and triton", "install triton"),
        (BARE, "tcnn", True, False, "implementation: tcnn needs tinycudann", "TCNN_CUDA_ARCHITECTURES=90"),
        (BARE, "triton", True, False, "implementation: triton needs cc and", "install triton"),
        (H100, "auto", False, True, "since the device is the CPU", None),
        (H100, "tcnn", False, False, "implementation: tcnn needs CUDA", None),
    ],
)
def test_encoder(
    found: Machine, implementation: str, on_cuda: bool, good: bool, part: str, command: str | None
) -> None:
    finding = fitness.check_encoder(found, FieldConfig(implementation=implementation), on_cuda)
    assert finding.good is good and part in finding.text
    assert bool(finding.commands) is (command is not None)
    assert command is None or any(command in each for each in finding.commands)


@pytest.mark.parametrize(
    ("found", "sampler", "on_cuda", "part", "commands"),
    [
        (H100, "auto", True, "occupancy grid; its CUDA code is compiled once", ()),
        (H100, "dense", True, "as sampler: dense asks for", ()),
        (H100, "auto", False, "the device is the CPU", ()),
        (without(H100, "nvcc"), "auto", True, "needs nvcc", ("sudo apt-get install --yes cuda-toolkit-13-0",)),
        (without(H100, "ninja"), "occupancy", True, "needs ninja", ("python -m pip install ninja",)),
    ],
)
def test_sampler(found: Machine, sampler: str, on_cuda: bool, part: str, commands: tuple[str, ...]) -> None:
    finding = fitness.check_sampler(found, RenderConfig(sampler=sampler), on_cuda)
    assert finding.good and part in finding.text and finding.commands == commands


def test_compile() -> None:
    assert "can work" in check_compile(H100).text
    finding = check_compile(BARE)
    assert finding.good and "cc and python headers and triton missing" in finding.text
    assert "python -m pip install triton" in finding.commands


def test_commands_are_listed_once() -> None:
    def broken() -> str:
        raise RuntimeError("first line\nsecond")

    findings = list(attempt({"fine": lambda: "all", "broken": broken}))
    findings += [Finding("a", True, "", ("do this",)), Finding("b", False, "", ("do this", "do that"))]
    lines = shown(findings)
    assert lines[0].startswith("ok     fine") and lines[1] == "BROKEN broken       first line"
    assert lines[2].startswith("WARN   a") and lines[3].startswith("BROKEN b")
    assert lines[-3:] == ["What brings what is missing:", "  do this", "  do that"]


def test_doctor_with_a_configuration(invoke: Invoke, product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the console script: what the tiny preset needs, and a made-up GPU that is too full."""
    findings = {
        finding["name"]: finding for finding in json.loads(invoke("doctor", "configs/tiny.yaml", "--json").stdout)
    }
    for name in (
        "device",
        "gpu memory",
        "host memory",
        "precision",
        "disk",
        "base model",
        "scorers",
        "photos",
        "encoder",
        "sampler",
    ):
        assert findings[name]["good"], findings[name]
    assert "models/tiny" in findings["base model"]["text"] and "corgi" in findings["photos"]["text"]

    fake_gpu(monkeypatch, free_gib=3.0)
    monkeypatch.setattr(fitness, "measured_needs", lambda: {"tiny": {"gpu_gib": 5.0, "measured_on": "this"}})
    result = invoke("doctor", "configs/tiny.yaml", "device=auto")
    assert result.exit_code == 1
    assert "BROKEN gpu memory   3.0 of 80.0 GiB free; tiny needs 5.0 GiB" in result.stdout


def test_doctor_names_what_has_to_be_fetched(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    result = invoke("doctor", "configs/sd15_dog.yaml")
    assert result.exit_code == 1
    assert "  dreambooth3d models fetch configs/sd15_dog.yaml" in result.stdout
    assert "  dreambooth3d photos fetch dog" in result.stdout
    assert "WARN   base model   not here yet" in result.stdout
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "BROKEN base model   not here yet" in invoke("doctor", "configs/sd15_dog.yaml").stdout


def test_doctor_refuses_a_wrong_configuration(invoke: Invoke) -> None:
    result = invoke("doctor", "configs/tiny.yaml", "init_nerf.stepz=3")
    assert result.exit_code == 1 and "did you mean steps?" in result.stderr
    result = invoke("doctor", "configs/bench/multiview_truth.yaml")
    assert result.exit_code == 1 and "another pipeline" in result.stderr


def test_models_fetch_prints_the_folders(invoke: Invoke, product: Product) -> None:
    result = invoke("models", "fetch", "configs/tiny.yaml")
    assert result.exit_code == 0, result.stderr
    root = product.root / "models"
    assert result.stdout.splitlines() == [
        f"base model: {root / 'tiny'}", f"selector: {root / 'selector'}", f"judge: {root / 'judge'}"
    ]  # fmt: skip


def test_needs_are_listed_for_presets_that_exist() -> None:
    """The packaged file: known presets, numbers with their source or neither."""
    needs = fitness.measured_needs()
    presets = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    assert set(needs) <= presets and {name for name in presets if name.startswith("sd15_")} <= set(needs)
    for entry in needs.values():
        assert set(entry) == {"gpu_gib", "measured_on"}
        assert (entry["gpu_gib"] is None) == (entry["measured_on"] is None)
        assert entry["gpu_gib"] is None or 0 < entry["gpu_gib"] < 200


def test_lines_whose_marker_does_not_hold_are_not_wanted() -> None:
    here, elsewhere = f'sys_platform == "{sys.platform}"', 'sys_platform == "atari"'
    hashes = f" \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{'1' * 64}\n"
    lock = f"# six==1.0\nfirst-name==1.2.3{hashes}\nsecond==2.0; {here}\nthird==3.0; {elsewhere}{hashes}"
    assert _pinned(lock) == {"first-name": "1.2.3", "second": "2.0"}


def test_every_line_of_the_lock_file_is_read() -> None:
    text = (Path(__file__).parents[2] / "requirements.lock").read_text()
    lines = [line.removesuffix(" \\") for line in text.splitlines() if line and line[0] not in "# "]
    always = [line.split("==") for line in lines if ";" not in line]
    pinned = _pinned(text)
    assert dict(always).items() <= pinned.items() and "triton" not in dict(always)
    assert len(always) <= len(pinned) <= len(lines)
