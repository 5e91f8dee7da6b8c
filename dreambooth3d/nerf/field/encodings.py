"""The encoding that a configuration asks for, by the implementation that works on the machine at hand."""

from __future__ import annotations

import logging

import torch

from dreambooth3d.config.field import FieldConfig
from dreambooth3d.errors import ConfigError, gist
from dreambooth3d.nerf.field.dense_volume import DenseVolume
from dreambooth3d.nerf.field.encoding import LOGITS, Encoding
from dreambooth3d.nerf.field.hash_grid import HashEncoding, HashGrid, TcnnGrid

REMEDIES = {
    "tcnn": "Build tinycudann for this machine's GPU",
    "triton": "Install triton in the version that torch asks for",
}
logger = logging.getLogger(__name__)


def make_encoding(config: FieldConfig, device: torch.device | str = "cpu", logits: int = LOGITS) -> Encoding:
    """The encoding that `config` asks for, on `device`, of so many logits where its features are these.

    A hash grid with `implementation: auto` is on CUDA the first of triton, tcnn and torch that works there, with one
    log line that names it and says why the ones before it were passed over; on a CPU it is torch. It never fails.

    Raises:
        ConfigError: `tcnn` or `triton` was asked for and cannot be used.
    """
    device = torch.device(device)
    if config.encoding == "dense":
        return DenseVolume(config, logits).to(device)
    if config.implementation == "torch" or (config.implementation == "auto" and device.type != "cuda"):
        return HashGrid(config).to(device)
    if config.implementation == "auto":
        return _first_that_works(config, device)
    try:
        return _on_gpu(config.implementation, config, device)
    except ConfigError:
        raise
    except Exception as error:  # a library built for another card can raise anything
        raise ConfigError(
            f"field.implementation={config.implementation} cannot be used here: {gist(error).rstrip('.')}. "
            f"{REMEDIES[config.implementation]}, or set field.implementation=auto."
        ) from error


def _first_that_works(config: FieldConfig, device: torch.device) -> HashEncoding:
    """A hash grid for a CUDA device by the fastest implementation that works, and a log line that says which."""
    errors: dict[str, Exception] = {}
    for name in ("triton", "tcnn"):
        try:
            grid = _on_gpu(name, config, device)
        except Exception as error:  # a library built for another card can raise anything
            errors[name] = error
        else:
            break
    else:
        name, grid = "torch", HashGrid(config).to(device)
    expected = name != "torch" and all(isinstance(error, ModuleNotFoundError) for error in errors.values())
    reasons = "; ".join(f"{passed_over}: {gist(error).rstrip('.')}" for passed_over, error in errors.items())
    level = logging.INFO if expected else logging.WARNING
    logger.log(level, "hash grid by %s (%s)", name, reasons or "the first choice on CUDA")
    return grid


def _on_gpu(name: str, config: FieldConfig, device: torch.device) -> HashEncoding:
    """A hash grid by `tcnn` or `triton`, after one trial point, forward and backward, so that it is known to work.

    Raises:
        Exception: whatever the import, the compiler or the trial raises.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        raise RuntimeError("it needs a CUDA device")
    if name == "tcnn":
        grid: HashEncoding = TcnnGrid(config).to(device)
    else:
        from dreambooth3d.nerf.field.triton_grid import TritonGrid

        grid = TritonGrid(config).to(device)
    (table,) = grid.parameters()
    with torch.enable_grad():
        torch.autograd.grad(grid(torch.zeros(1, 3, device=table.device)).sum(), table)
    return grid
