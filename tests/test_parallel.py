"""Teams of processes on a CPU (gloo): shares, sums, and the death of one of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import nn

from dreambooth3d.errors import ConfigError, DreamBooth3DError
from dreambooth3d.parallel import Team, team
from tests.resilience.shim import AVAILABLE, no_shared_memory

ROOT = Path(__file__).resolve().parents[1]  # each process of a team imports this module: it knows no large library
CPU = torch.device("cpu")


@pytest.mark.parametrize(("count", "size"), [(1, 1), (4, 2), (5, 2), (3, 3), (7, 3), (16, 5)])
def test_parts_are_all_things_once_and_of_nearly_one_size(count: int, size: int) -> None:
    parts = [list(range(count))[Team(rank, size).part(count)] for rank in range(size)]
    assert list(chain.from_iterable(parts)) == list(range(count))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


def test_a_team_of_one_starts_nothing() -> None:
    with team(_fails, (), 1, CPU) as alone:
        layer = nn.Linear(2, 1)
        layer(torch.ones(1, 2)).sum().backward()
        before = [parameter.grad.clone() for parameter in layer.parameters()]
        alone.sum_gradients(layer.parameters())
        alone.copy_from_leader(layer)
        assert alone.share("message") == "message"
        assert all(torch.equal(*pair) for pair in zip(before, (each.grad for each in layer.parameters()), strict=True))


def _layer(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layer = nn.BatchNorm1d(3)
    with torch.no_grad():
        for tensor in (*layer.parameters(), layer.running_mean):
            tensor.copy_(torch.randn(tensor.shape))
    layer.num_batches_tracked += seed
    return layer


def _gradients(member: Team) -> list[torch.Tensor]:
    return [torch.full((3,), 1.0 + member.rank), torch.full((3,), 10.0 * (1 + member.rank))]


def _helps(member: Team, folder: Path) -> None:
    layer = _layer(member.rank)
    member.copy_from_leader(layer)
    word = member.share()
    # The last parameter has no gradient here, as where a part of the field was not hit.
    layer.weight.grad = _gradients(member)[0]
    if member.rank == 1:
        layer.bias.grad = _gradients(member)[1]
    member.sum_gradients(layer.parameters())
    values = [*layer.state_dict().values()]
    (folder / f"{member.rank}.txt").write_text(word + repr([each.tolist() for each in values]))


def test_words_fields_and_gradients_travel(tmp_path: Path) -> None:
    with team(_helps, (tmp_path,), 3, CPU) as leader:
        layer = _layer(0)
        state = {name: value.clone() for name, value in layer.state_dict().items()}
        leader.copy_from_leader(layer)
        leader.share("hello")
        layer.weight.grad, layer.bias.grad = _gradients(leader)
        leader.sum_gradients(layer.parameters())
    assert torch.equal(layer.weight.grad, torch.full((3,), 6.0))
    assert torch.equal(layer.bias.grad, torch.full((3,), 30.0))
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in state.items())
    expected = "hello" + repr([each.tolist() for each in state.values()])
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (1, 2)] == [expected] * 2
    assert not torch.distributed.is_initialized()


def _fails(member: Team) -> None:
    member.share()
    raise ValueError("no more")


def test_a_failing_process_ends_the_team_with_an_error() -> None:
    started = time.monotonic()
    with pytest.raises(DreamBooth3DError, match="process 1 of 2 ended with code 1"):
        with team(_fails, (), 2, CPU) as leader:
            leader.share("go")
            leader.share("and wait for an answer that never comes")
            leader.sum_gradients(_with_gradients())
    assert time.monotonic() - started < 60
    assert not torch.distributed.is_initialized()


class _CannotStart:
    """An argument that no other process can load."""

    def __reduce__(self) -> tuple:
        return int, ("no number",)


def test_a_process_that_dies_while_it_starts_is_noticed_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(DreamBooth3DError, match="process 1 of 2 ended with code 1"):
        with team(_waits, (_CannotStart(),), 2, CPU):
            pytest.fail("it cannot start")
    assert time.monotonic() - started < 60
    assert not torch.distributed.is_initialized()


def _with_gradients() -> list[nn.Parameter]:
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.ones(3)
    return [parameter]


def _waits(member: Team) -> None:
    member.share()


def test_an_error_of_the_leader_stays_what_it_is() -> None:
    with pytest.raises(KeyError, match="mine"), team(_waits, (), 2, CPU):
        raise KeyError("mine")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="processes=2: this machine shows 1 GPU"):
        with team(_waits, (), 2, torch.device("cuda")):
            pytest.fail("nothing may start")


def _adds(member: Team, tensor: torch.Tensor) -> None:
    parameter = _with_gradients()[0]
    parameter.grad = tensor.clone()
    member.sum_gradients([parameter])


SUM = """
import torch
from torch import nn

from dreambooth3d.parallel import team
from tests.test_parallel import _adds

if __name__ == "__main__":
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.ones(3)
    with team(_adds, (torch.full((3,), 4.0),), 2, torch.device("cpu")) as leader:
        leader.sum_gradients([parameter])
    print(parameter.grad.tolist())
"""


@pytest.mark.skipif(not AVAILABLE, reason="needs Linux and a C compiler")
def test_a_team_needs_no_shared_memory(tmp_path: Path) -> None:
    """A container may have no /dev/shm, or a small one."""
    script = tmp_path / "script.py"
    script.write_text(SUM)
    variables = os.environ | no_shared_memory() | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, str(script)], env=variables, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip() == "[5.0, 5.0, 5.0]"
