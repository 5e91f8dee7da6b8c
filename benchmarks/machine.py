"""Where a benchmark ran."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({len(names)} logical cores)" if names else platform.processor() or "unknown processor"


def machine(device: str) -> str:
    """The GPU, or the CPU, and torch's version."""
    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    return f"{name}, torch {torch.__version__.partition('+')[0]}"
