"""Where an attempt's random numbers come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Randomness:
    """Generators of one attempt; the process' own are part of the state, since models may draw from them.

    Attributes:
        generator: of cameras, backgrounds, light, target pixels and looks for density, on the CPU.
        jitter: of samples along rays, on the field's device.
    """

    generator: torch.Generator
    jitter: torch.Generator

    @staticmethod
    def of(seed: int, device: torch.device) -> Randomness:
        """All of it from one seed."""
        return Randomness(torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed + 1))

    def state(self) -> dict[str, Any]:
        """What a resumed attempt needs."""
        state: dict[str, Any] = {
            "generator": self.generator.get_state(),
            "jitter": self.jitter.get_state(),
            "global": torch.get_rng_state(),
        }
        if self.jitter.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.jitter.device)
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self.generator.set_state(state["generator"])
        self.jitter.set_state(state["jitter"])
        torch.set_rng_state(state["global"])
        if "cuda" in state and self.jitter.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.jitter.device)
