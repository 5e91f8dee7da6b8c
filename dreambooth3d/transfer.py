"""Copies to a GPU that nobody waits for."""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor


def send(tensor: Shaped[Tensor, "*shape"], device: torch.device | str) -> Shaped[Tensor, "*shape"]:
    """The tensor on a device; towards a GPU from page-locked memory, so that the host goes on at once.

    A copy from ordinary memory above 64 KiB would wait for all that the device has been given before.
    """
    if torch.device(device).type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
