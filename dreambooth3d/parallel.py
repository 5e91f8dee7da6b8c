"""Several processes on one machine that work on one training step, each on a GPU of its own."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dreambooth3d.errors import ConfigError, DreamBooth3DError

TIMEOUT = timedelta(minutes=30)
"""Longest wait for the others: rank 0 may be drawing samples or searching cameras meanwhile."""
START_TIMEOUT = timedelta(minutes=5)
JOIN_SECONDS = 30.0
LOOK_SECONDS = 0.5
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Team:
    """The processes that share a training step; rank 0 leads.

    Attributes:
        rank: of this process.
        size: number of processes.
        device: of this process.
        control: the process group that small messages go through, on the CPU; None for a team of one.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    control: Any = None

    def part(self, count: int) -> slice:
        """This process' share of `count` things: all shares together are all of them, and differ by at most one."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def share(self, message: Any = None) -> Any:
        """What rank 0 says; a small object that can be pickled, tensors on the CPU."""
        if self.size == 1:
            return message
        box = [message]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    @torch.no_grad()
    def copy_from_leader(self, module: nn.Module) -> None:
        """Parameters and buffers of rank 0's module, in every process' own."""
        if self.size > 1:
            for tensors in _by_type([*module.parameters(), *module.buffers()]):
                flat = torch.cat([each.detach().flatten() for each in tensors])
                dist.broadcast(flat, src=0)
                if self.rank > 0:
                    _unflatten(flat, tensors)

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sums over the processes, in rank 0's `.grad`; a parameter without a gradient counts as zeros."""
        if self.size == 1:
            return
        parameters = list(parameters)
        for each in parameters:
            if each.grad is None:
                each.grad = torch.zeros_like(each)
        for gradients in _by_type([each.grad for each in parameters if each.grad is not None]):
            flat = torch.cat([each.flatten() for each in gradients])
            dist.reduce(flat, dst=0)
            if self.rank == 0:
                _unflatten(flat, gradients)

    @torch.no_grad()
    def sum_figures(self, figures: Mapping[str, Tensor | float]) -> dict[str, Tensor | float]:
        """Sums over the processes in rank 0, of scalars under the same names everywhere; what others get is no sum."""
        if self.size == 1:
            return dict(figures)
        values = [torch.as_tensor(value, dtype=torch.float32) for value in figures.values()]
        summed = torch.stack([value.to(self.device, non_blocking=True) for value in values])
        dist.reduce(summed, dst=0)
        return dict(zip(figures, summed, strict=True))


ALONE = Team()
"""One process, which needs no other."""


def _by_type(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The tensors in groups of one data type each, in the same order in every process."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for each in tensors:
        groups.setdefault(each.dtype, []).append(each)
    return [groups[kind] for kind in sorted(groups, key=str)]


def _unflatten(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy the parts of `flat` into tensors that it was made of."""
    for part, target in zip(flat.split([each.numel() for each in tensors]), tensors, strict=True):
        target.copy_(part.view_as(target))


Work = Callable[..., None]


@contextmanager
def team(work: Work, arguments: Sequence[Any], processes: int, device: torch.device) -> Iterator[Team]:
    """A team that this process leads.

    Args:
        work: what the others do: `work(team, *arguments)`, a function at the top of a module; it must end once the
            leader says so.
        arguments: can be pickled, tensors on the CPU.
        processes: how many, this one included; 1 starts none.
        device: of this process; on CUDA the others take the next GPUs, on a CPU they share it.

    Raises:
        ConfigError: there are fewer GPUs than processes.
        DreamBooth3DError: one of the others failed; all are stopped then.
    """
    if processes == 1:
        yield Team(device=device)
        return
    if device.index not in (None, 0):
        raise ConfigError(
            f"processes={processes} on {device}: several processes take GPUs from the first on. Set device to cuda."
        )
    if device.type == "cuda" and processes > torch.cuda.device_count():
        raise ConfigError(
            f"processes={processes}: this machine shows {torch.cuda.device_count()} GPU(s). Set processes to at most "
            "that, or run on a machine with more."
        )
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    # By value: PyTorch would hand tensors over in /dev/shm, which is small or missing in many containers.
    packed = pickle.dumps(tuple(arguments))
    spawner = torch.multiprocessing.get_context("spawn")
    others = [
        spawner.Process(target=_follow, args=(rank, processes, address, device.type, work, packed), daemon=True)
        for rank in range(1, processes)
    ]
    for each in others:
        each.start()
    watch = _Watch(others)
    with _as_rank(0, processes, address):
        try:
            yield _join(0, processes, device, watch)
            # All leave the group together.
            dist.destroy_process_group()
            for each in others:
                each.join(JOIN_SECONDS)
        except (RuntimeError, ValueError) as error:
            # In a call of the group an error may be the first sign that another process is about to end. Of a group
            # that was given up because of that, PyTorch says it with a ValueError.
            failure = watch.wait_for_failure() if isinstance(error, RuntimeError) else watch.failure()
            if failure is None:
                raise
            raise DreamBooth3DError(f"{failure}; its own message stands above.") from error
        finally:
            watch.stop()
            for each in others:
                if each.is_alive():
                    each.kill()
                each.join(JOIN_SECONDS)
            if dist.is_initialized():
                dist.destroy_process_group()


class _Watch:
    """Looks after the other processes: if one dies, the leader must not wait for it for ever."""

    def __init__(self, others: Sequence[Any]) -> None:
        self._others, self._done = others, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def failure(self) -> str | None:
        """Which process failed, if one did."""
        for rank, each in enumerate(self._others, start=1):
            if each.exitcode not in (None, 0):
                return f"process {rank} of {len(self._others) + 1} ended with code {each.exitcode}"
        return None

    def wait_for_failure(self) -> str | None:
        """`failure`, once it shows; None if it does not for a while."""
        deadline = time.monotonic() + JOIN_SECONDS
        while self.failure() is None and time.monotonic() < deadline and any(each.is_alive() for each in self._others):
            time.sleep(LOOK_SECONDS / 5)
        return self.failure()

    def _look(self) -> None:
        while not self._done.wait(LOOK_SECONDS):
            if self.failure() is not None:
                # Gloo notices by itself; NCCL's calls would wait until they time out.
                if dist.is_initialized() and dist.get_backend() == "nccl":
                    dist.distributed_c10d._abort_process_group()
                return

    def stop(self) -> None:
        """No longer look."""
        self._done.set()
        self._thread.join()


def _follow(rank: int, size: int, address: dict[str, str], kind: str, work: Work, packed: bytes) -> None:
    """The life of one of the others."""
    arguments = pickle.loads(packed)
    # The leader decides when to stop, also where a signal reaches the whole group.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    with _as_rank(rank, size, address):
        work(_join(rank, size, device), *arguments)
        dist.destroy_process_group()


def _join(rank: int, size: int, device: torch.device, watch: _Watch | None = None) -> Team:
    backend = "nccl" if device.type == "cuda" else "gloo"
    port = int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage] - public, but torch re-exports it silently
        os.environ["MASTER_ADDR"], port, size, is_master=rank == 0, timeout=START_TIMEOUT, wait_for_workers=False
    )
    if watch is None:
        store.set(_arrival(rank), "")
    else:
        _wait_for_arrivals(store, size, watch)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    control = dist.new_group(backend="gloo", timeout=TIMEOUT) if backend == "nccl" else dist.group.WORLD
    return Team(rank, size, device, control)


def _arrival(rank: int) -> str:
    return f"process {rank} has started"


def _wait_for_arrivals(store: Any, size: int, watch: _Watch) -> None:
    """PyTorch's own wait for the others would not see that one of them died while it started."""
    arrivals = [_arrival(rank) for rank in range(1, size)]
    deadline = time.monotonic() + START_TIMEOUT.total_seconds()
    while not store.check(arrivals):
        if watch.failure() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"not all of {size} processes have started")
        time.sleep(LOOK_SECONDS / 5)


@contextmanager
def _as_rank(rank: int, size: int, address: dict[str, str]) -> Iterator[None]:
    """The environment from which PyTorch and accelerate read who they are."""
    names = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    before = {name: os.environ.get(name) for name in (*names, *address)}
    os.environ.update(names | address)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
