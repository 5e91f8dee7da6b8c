"""DreamBooth by two processes (gloo): what they learn is what one process learns from both batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dreambooth3d.artifacts import BaseModelRef, SubjectPhotos
from dreambooth3d.config.finetuning import FinetuneConfig
from dreambooth3d.diffusion.finetuning import training
from dreambooth3d.diffusion.finetuning.dreambooth import finetune
from dreambooth3d.diffusion.finetuning.training import ImageGroup, Trainer, TrainingSettings
from dreambooth3d.diffusion.model.components import load_components
from dreambooth3d.parallel import Team, team
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime

CPU = torch.device("cpu")
STEPS = 3
MakeRuntime = Callable[..., Runtime]


class BatchPerProcess(Trainer):
    """Process r takes batch number 2 * step + r, as an accumulating process does one after the other."""

    def _draw(self, draw: int) -> tuple[torch.Tensor, ...]:
        drawn_by = training.step_generator
        training.step_generator = lambda seed, step, rank: drawn_by(seed, step)
        try:
            return super()._draw(2 * draw + self.team.rank)
        finally:
            training.step_generator = drawn_by


def learned(
    kind: type[Trainer], member: Team, base: BaseModelRef, folder: Path, batches: int
) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    components = load_components(base, CPU, trainable=True)
    latents = torch.randn(6, *components.latent_shape, generator=torch.Generator().manual_seed(1))
    groups = [ImageGroup("instance", latents, ["a photo of sks dog"] * 6, 2, 1.0)]
    settings = TrainingSettings(
        STEPS, 1e-3, 1, 0.01, 1.0, train_text_encoder=True, mixed_precision="no", gradient_accumulation_steps=batches
    )
    runtime = Runtime(StepLog("finetune_dreambooth"), folder, CPU, progress=False)
    kind(components, groups, settings, 7, runtime, team=member).run()
    return {**components.unet.state_dict(), **components.text_encoder.state_dict()}


def _learn(member: Team, base: BaseModelRef, folder: Path) -> None:
    learned(BatchPerProcess, member, base, folder, 1)


def test_two_processes_learn_what_one_learns_from_both_batches(base: BaseModelRef, tmp_path: Path) -> None:
    start = load_components(base, CPU).unet.state_dict()
    alone = learned(Trainer, Team(), base, tmp_path / "alone", 2)
    with team(_learn, (base, tmp_path / "shared"), 2, CPU) as leader:
        together = learned(BatchPerProcess, leader, base, tmp_path / "shared", 1)
    moved = max((alone[name] - start[name]).abs().max().item() for name in start)
    assert moved > 1e-3
    for name, expected in alone.items():
        torch.testing.assert_close(together[name], expected, atol=2e-5, rtol=1e-4)


def test_finetune_with_two_processes(photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime) -> None:
    config = FinetuneConfig(
        steps=4,
        checkpoint_every=2,
        batch_size=1,
        class_images=2,
        class_inference_steps=2,
        sample_every_checkpoint=False,
    )
    shared = config.model_copy(update={"processes": 2})
    checkpoints = finetune(photos, base, shared, 0, make_runtime(folder="two")).checkpoints
    assert sorted(checkpoints) == [0, 2, 4]
    weights = load_components(base, CPU, checkpoints[4]).unet.state_dict()
    alone = finetune(photos, base, config, 0, make_runtime(folder="one")).checkpoints
    other = load_components(base, CPU, alone[4]).unet.state_dict()
    differences = [(weights[name] - other[name]).abs().max().item() for name in weights]
    assert 0 < max(differences) < 1e-2, "another batch beside its own changes what is learned, and a little only"
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("processes", [0, -1])
def test_processes_are_positive(processes: int) -> None:
    with pytest.raises(ValueError, match="processes"):
        FinetuneConfig(processes=processes)
