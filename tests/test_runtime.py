"""Resumable states survive kills, and come back as they were."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dreambooth3d.runtime import (
    ResumePoint,
    optimizer_state,
    pick_device,
    restore_optimizer,
    work_folder,
    work_root,
)


def test_nested_state_comes_back_as_it_was(tmp_path: Path) -> None:
    weight = torch.randn(3, 4)
    state = {
        "step": 7,
        "loss": 0.25,
        "name": "unet",
        "history": [1, 2.5, None],
        "empty": {},
        "model": {"weight": weight, "tied": weight, "column": weight[:, 1], "deep": {"flags": torch.tensor([True])}},
        "rng": torch.get_rng_state(),
        "scalar": torch.tensor(3.0, dtype=torch.float64),
        "half": torch.ones(2, dtype=torch.bfloat16, requires_grad=True),
    }
    ResumePoint(tmp_path / "a" / "state").save(state)
    loaded = ResumePoint(tmp_path / "a" / "state").load()

    def check(left: object, right: object) -> None:
        if isinstance(left, dict):
            assert list(left) == list(right)
            for key in left:
                check(left[key], right[key])
        elif isinstance(left, torch.Tensor):
            assert left.dtype == right.dtype and torch.equal(left, right) and not right.requires_grad
        else:
            assert left == right and type(left) is type(right)

    check(state, loaded)


def test_saved_state_is_a_copy_and_the_last_one_counts(tmp_path: Path) -> None:
    point, weight = ResumePoint(tmp_path), torch.zeros(2)
    point.save({"step": 1, "weight": weight, "only_first": torch.ones(1)})
    weight.add_(1)
    assert point.load()["weight"].tolist() == [0, 0]
    point.save({"step": 2, "weight": weight})
    assert set(point.load()) == {"step", "weight"} and point.load()["step"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_nothing_saved_loads_as_none(tmp_path: Path) -> None:
    point = ResumePoint(tmp_path / "state")
    assert point.load() is None
    point.clear()
    point.save({"step": 1})
    assert point.load() == {"step": 1}
    point.clear()
    assert point.load() is None and not (tmp_path / "state").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "header", "tensor", "json", "no digest"])
def test_a_damaged_state_is_set_aside_and_said(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    point, file = ResumePoint(tmp_path), tmp_path / "state.safetensors"
    point.save({"step": 7, "weights": torch.arange(8.0), "empty": torch.zeros(0), "flag": torch.tensor(True)})
    whole = file.read_bytes()
    assert point.load() is not None
    damaged = {
        "truncated": whole[: len(whole) // 2], "empty": b"", "header": b"\xff" * 8 + whole[8:],
        "tensor": whole[:-30] + bytes([whole[-30] ^ 1]) + whole[-29:],
        "json": whole.replace(rb"\"step\": 7", rb"\"step\": 8"), "no digest": whole.replace(b"sha256", b"sha257"),
    }[damage]  # fmt: skip
    assert damaged != whole
    file.write_bytes(damaged)
    assert point.load() is None
    assert "is damaged" in caplog.text and "starts from its beginning" in caplog.text
    assert not file.exists() and (tmp_path / "state.damaged").read_bytes() == damaged
    assert point.load() is None
    point.save({"step": 1})
    assert point.load() == {"step": 1}


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_a_state_that_cannot_be_read_now_stays(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = ResumePoint(tmp_path)
    point.save({"step": 7})

    def fail(_path: Path) -> None:
        raise error

    monkeypatch.setattr("dreambooth3d.runtime.load_file", fail)
    with pytest.raises(type(error)):
        point.load()
    monkeypatch.undo()
    assert point.load() == {"step": 7}


def test_half_written_state_of_a_kill_does_not_matter(tmp_path: Path) -> None:
    point = ResumePoint(tmp_path)
    (tmp_path / "state.partial").write_bytes(b"cut off")
    assert point.load() is None
    point.save({"step": 1})
    (tmp_path / "state.partial").write_bytes(b"cut off again")
    assert point.load() == {"step": 1}
    point.save({"step": 2})
    assert point.load() == {"step": 2}


def test_a_kill_while_writing_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = ResumePoint(tmp_path)
    point.save({"step": 1})

    def killed(tensors: object, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"cut off")
        raise KeyboardInterrupt

    monkeypatch.setattr("dreambooth3d.runtime.save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        point.save({"step": 2})
    assert point.load() == {"step": 1}


def test_due_after_the_interval_since_the_last_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    point = ResumePoint(tmp_path, interval_s=30)
    assert not point.due()
    now = 130.0
    assert point.due()
    point.save({"step": 1})
    assert not point.due()


def test_a_state_that_takes_long_to_write_is_written_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def slow(*given: object, **options: object) -> None:
        nonlocal now
        now += 9.0
        save_file(*given, **options)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr("dreambooth3d.runtime.save_file", slow)
    point = ResumePoint(tmp_path, interval_s=30)
    point.save({"step": 1})
    now += 179.0
    assert not point.due()
    now += 1.0
    assert point.due()


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.RMSprop])
def test_restored_optimizer_goes_on_as_the_first(tmp_path: Path, kind: type[torch.optim.Optimizer]) -> None:
    def fresh() -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
        parameters = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(3))]
        return parameters, kind([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.02}], lr=0.1)

    def step(parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        sum((parameter**3).sum() for parameter in parameters).backward()
        optimizer.step()

    parameters, optimizer = fresh()
    for _ in range(3):
        step(parameters, optimizer)
    point = ResumePoint(tmp_path)
    point.save({"optimizer": optimizer_state(optimizer)})

    again, restored = fresh()
    for old, new in zip(parameters, again, strict=True):
        new.data.copy_(old.data)
    restore_optimizer(restored, point.load()["optimizer"])
    assert [group["lr"] for group in restored.param_groups] == [0.1, 0.02]
    for _ in range(3):
        step(parameters, optimizer)
        step(again, restored)
    for old, new in zip(parameters, again, strict=True):
        assert torch.equal(old, new)


def test_restored_moments_lie_in_memory_like_their_parameters(tmp_path: Path) -> None:
    """A fused optimizer walks over memory, so that another layout would mix up moments."""

    def fresh() -> tuple[torch.nn.Conv2d, torch.optim.Optimizer]:
        layer = torch.nn.Conv2d(3, 2, 3).to(memory_format=torch.channels_last)
        torch.nn.init.constant_(layer.weight, 0.5)
        torch.nn.init.zeros_(layer.bias)
        return layer, torch.optim.AdamW(layer.parameters(), fused=True)

    def step(layer: torch.nn.Conv2d, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        layer(torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))).square().sum().backward()
        optimizer.step()

    layer, optimizer = fresh()
    step(layer, optimizer)
    ResumePoint(tmp_path).save({"weights": layer.state_dict(), "optimizer": optimizer_state(optimizer)})
    again, restored = fresh()
    state = ResumePoint(tmp_path).load()
    again.load_state_dict(state["weights"])
    restore_optimizer(restored, state["optimizer"])
    for one, moments in ((layer, optimizer), (again, restored)):
        step(one, moments)
        assert all(
            moments.state[one.weight][name].stride() == one.weight.stride() for name in ("exp_avg", "exp_avg_sq")
        )
    torch.testing.assert_close(again.weight, layer.weight, rtol=0, atol=0)


def test_memory_of_the_gpu_grows_in_place_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "")
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:512")
    pick_device("cpu")
    assert "PYTORCH_ALLOC_CONF" not in os.environ
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    pick_device("cpu")
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


def test_work_folder_depends_on_every_input_and_their_order(tmp_path: Path) -> None:
    folder = work_folder("finetune", "data-hash", 3)
    assert folder == work_folder("finetune", "data-hash", 3) and folder.parent == work_root()
    others = [("finetune", "data-hash", 4), ("finetune", 3, "data-hash"), ("finetune", "data-hash3"), ("other", 3)]
    assert len({folder, *(work_folder(*other) for other in others)}) == 1 + len(others)
    assert work_root() == tmp_path / "work"  # set by the fixture that all tests use


def test_named_device_is_taken() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
