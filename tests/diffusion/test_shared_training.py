"""DreamBooth by two processes (gloo): what they learn is what one process learns from both batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dreambooth3d.artifacts import BaseModelRef, SubjectPhotos
from dreambooth3d.config.finetuning import FinetuneConfig
from dreambooth3d.diffusion.finetuning.batches import Batch, BatchSource
from dreambooth3d.diffusion.finetuning.dreambooth import finetune
from dreambooth3d.diffusion.finetuning.plan import ImageGroup, TrainingPlan
from dreambooth3d.diffusion.finetuning.training import DreamBoothTrainer
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.parallel import Team, team
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime

CPU = torch.device("cpu")
STEPS = 3
MakeRuntime = Callable[..., Runtime]


class OneAfterTheOther(BatchSource):
    """Process r takes batch number 2 * step + r, as an accumulating process does one after the other."""

    def __init__(self, components: Components, plan: TrainingPlan, rank: int) -> None:
        super().__init__(components, plan)
        self.place = rank

    def draw(self, number: int) -> Batch:
        return super().draw(2 * number + self.place)


def learned(member: Team, base: BaseModelRef, folder: Path, batches: int) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    components = load_components(base, CPU, trainable=True)
    latents = torch.randn(6, *components.latent_shape, generator=torch.Generator().manual_seed(1))
    group = ImageGroup("instance", latents, ["a photo of sks dog"] * 6, 2, 1.0)
    config = FinetuneConfig(steps=STEPS, learning_rate=1e-3, warmup_steps=1, gradient_accumulation_steps=batches)
    plan = TrainingPlan((group,), config, 7)
    runtime = Runtime(StepLog("finetune_dreambooth"), folder, CPU, progress=False)
    trainer = DreamBoothTrainer(components, plan, runtime, team=member)
    if member.size > 1:
        trainer.batches = OneAfterTheOther(components, plan, member.rank)
    trainer.run()
    return {**components.unet.state_dict(), **components.text_encoder.state_dict()}


def _learn(member: Team, base: BaseModelRef, folder: Path) -> None:
    learned(member, base, folder, 1)


def test_two_processes_learn_what_one_learns_from_both_batches(base: BaseModelRef, tmp_path: Path) -> None:
    start = load_components(base, CPU).unet.state_dict()
    alone = learned(Team(), base, tmp_path / "alone", 2)
    with team(_learn, (base, tmp_path / "shared"), 2, CPU) as leader:
        together = learned(leader, base, tmp_path / "shared", 1)
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
