"""What this machine has: its GPU, and the compilers and packages that make things fast on it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch

from dreambooth3d.cli.findings import Finding

GIB = 2**30
_TCNN = (
    "CC=/usr/bin/gcc CXX=/usr/bin/g++ TCNN_CUDA_ARCHITECTURES={architecture} python -m pip install "
    '--no-build-isolation "git+https://github.com/NVlabs/tiny-cuda-nn#subdirectory=bindings/torch"'
)


@dataclass(frozen=True)
class Machine:
    """What was found.

    Attributes:
        gpu: name of the GPU that PyTorch sees, or None.
        capability: its compute capability.
        free_bytes, total_bytes: of its memory.
        torch_version: of PyTorch.
        torch_cuda: the CUDA that PyTorch was built with, None for a CPU build.
        architectures: for which PyTorch was built, such as `sm_90` or `compute_90`.
        driver: version of NVIDIA's driver, None where `nvidia-smi` is missing or fails.
        driver_cuda: the newest CUDA that the driver supports.
        tools: names of those that are there: `cc`, `c++`, `nvcc`, `ninja` and `python headers`.
        packages: names of those that are there: `triton`, `tinycudann`, `nerfacc` and `nerfacc.csrc`.
    """

    gpu: str | None = None
    capability: tuple[int, int] = (0, 0)
    free_bytes: int = 0
    total_bytes: int = 0
    torch_version: str = torch.__version__
    torch_cuda: str | None = None
    architectures: tuple[str, ...] = ()
    driver: str | None = None
    driver_cuda: str | None = None
    tools: frozenset[str] = frozenset()
    packages: frozenset[str] = frozenset()

    @staticmethod
    def read() -> Machine:
        """Look around; nothing is compiled, and no memory of the GPU is taken but PyTorch's own."""
        driver, driver_cuda = _driver()
        found = {
            "torch_version": torch.__version__, "torch_cuda": torch.version.cuda, "driver": driver,
            "driver_cuda": driver_cuda, "tools": _tools(), "packages": _packages(),
        }  # fmt: skip
        if not torch.cuda.is_available():
            return Machine(**found)
        free, total = torch.cuda.mem_get_info()
        return Machine(
            gpu=torch.cuda.get_device_name(),
            capability=torch.cuda.get_device_capability(),
            free_bytes=free,
            total_bytes=total,
            architectures=tuple(torch.cuda.get_arch_list()),
            **found,
        )

    def lacking(self, *names: str) -> list[str]:
        """Those of the named tools and packages that are not there."""
        return [name for name in names if name not in self.tools | self.packages]


def _driver() -> tuple[str | None, str | None]:
    """Version of the driver and of the newest CUDA that it supports, as `nvidia-smi` heads its table."""
    try:
        result = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None, None
    found = [re.search(rf"{name} Version: *([\d.]+)", result.stdout) for name in ("Driver", "CUDA")]
    driver, cuda = (match and match[1] for match in found)
    return driver, cuda


def _tools() -> frozenset[str]:
    commands = {"cc": ("cc", "gcc", "clang"), "c++": ("c++", "g++"), "nvcc": ("nvcc",), "ninja": ("ninja",)}
    found = {tool for tool, names in commands.items() if any(shutil.which(name) for name in names)}
    if Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        found.add("python headers")
    return frozenset(found)


def _packages() -> frozenset[str]:
    names = ("triton", "tinycudann", "nerfacc")
    found = {name for name in names if importlib.util.find_spec(name)}
    if "nerfacc" in found and importlib.util.find_spec("nerfacc.csrc"):
        found.add("nerfacc.csrc")
    return frozenset(found)


def commands_for(machine: Machine, *names: str) -> tuple[str, ...]:
    """The commands that bring these tools and packages, as far as they are missing."""
    major, minor = machine.capability
    toolkit = (machine.torch_cuda or "13.0").replace(".", "-")
    known = {
        "cc": "sudo apt-get install --yes build-essential",
        "c++": "sudo apt-get install --yes build-essential",
        "python headers": f"sudo apt-get install --yes python{sys.version_info.major}.{sys.version_info.minor}-dev",
        # From NVIDIA's package repository, whose set-up depends on the distribution.
        "nvcc": f"sudo apt-get install --yes cuda-toolkit-{toolkit}",
        "ninja": "python -m pip install ninja",
        "triton": "python -m pip install triton",
        "nerfacc": "python -m pip install nerfacc",
        "tinycudann": _TCNN.format(architecture=f"{major}{minor}"),
    }
    return tuple(dict.fromkeys(known[name] for name in machine.lacking(*names) if name in known))


def check_device(machine: Machine, wanted: str = "auto") -> Finding:
    """Which device is used, and whether PyTorch, driver and GPU fit together.

    Args:
        wanted: auto, cpu or cuda, as in the configuration.
    """
    about = f"torch {machine.torch_version}"
    if machine.gpu is None or wanted == "cpu":
        return _check_cpu(machine, wanted, about)
    capability = f"compute capability {machine.capability[0]}.{machine.capability[1]}"
    driver = f"driver {machine.driver} for CUDA up to {machine.driver_cuda}" if machine.driver else "driver unknown"
    text = f"cuda ({machine.gpu}, {capability}), {about} with CUDA {machine.torch_cuda}, {driver}"
    if not _has_kernels(machine):
        built = " ".join(machine.architectures)
        return Finding(
            "device", False, f"{text}: this PyTorch has no code for the GPU (only {built}). Use another GPU, or a "
            "PyTorch that was built for this one.",
        )  # fmt: skip
    return Finding("device", True, text)


def _check_cpu(machine: Machine, wanted: str, about: str) -> Finding:
    text, commands = f"cpu ({torch.get_num_threads()} threads), {about}", ()
    if machine.gpu is None and machine.driver is not None:
        if machine.torch_cuda is None:
            text += f"; there is an NVIDIA GPU (driver {machine.driver}), which this CPU build of PyTorch cannot use"
            version = machine.torch_version.partition("+")[0]
            commands = (f"python -m pip install --force-reinstall torch=={version}",)
        elif _older(machine.driver_cuda, machine.torch_cuda):
            text += (
                f"; PyTorch was built with CUDA {machine.torch_cuda}, and driver {machine.driver} supports only "
                f"{machine.driver_cuda}: update the driver, or install a PyTorch that was built with an older CUDA"
            )
        else:
            text += f"; driver {machine.driver} is there, yet PyTorch sees no GPU: look at CUDA_VISIBLE_DEVICES"
    if wanted == "cuda":
        text += ". device: cuda is asked for: run this on a machine with an NVIDIA GPU, or make PyTorch see it"
    # A GPU that is there, and that nothing of this can use.
    unused = machine.gpu is None and machine.driver is not None
    return Finding("device", wanted != "cuda", text, commands, warns=unused)


def _older(first: str | None, second: str) -> bool:
    """Whether the major version of the first CUDA is lower: drivers support all minor ones of theirs."""
    return first is not None and int(first.partition(".")[0]) < int(second.partition(".")[0])


def _has_kernels(machine: Machine) -> bool:
    """Whether PyTorch holds binaries for this major version, up to this minor one, or code that is compiled for it."""
    for architecture in machine.architectures:
        kind, _, number = architecture.partition("_")
        number = re.sub(r"\D", "", number)
        built = int(number[:-1]), int(number[-1])
        if kind == "compute" and built <= machine.capability:
            return True
        if kind == "sm" and built[0] == machine.capability[0] and built[1] <= machine.capability[1]:
            return True
    return not machine.architectures


def check_compile(machine: Machine) -> Finding:
    """Whether `torch.compile` can work; where it cannot, everything runs, only slower."""
    needed = ("cc", "python headers", "triton") if machine.gpu else ("c++",)
    if missing := machine.lacking(*needed):
        return Finding(
            "compile", True, f"torch.compile cannot work: {' and '.join(missing)} missing; everything runs without it, "
            "only slower", commands_for(machine, *needed), warns=True,
        )  # fmt: skip
    return Finding("compile", True, f"torch.compile can work (found: {', '.join(needed)})")
