"""Views shared between two processes give the gradients that one process computes alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dreambooth3d.cameras import random_cameras
from dreambooth3d.config.distillation import InitNerfConfig, RegularizerConfig
from dreambooth3d.config.guidance import GuidanceConfig
from dreambooth3d.config.mesh import MeshConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.guidance.score_distillation import ScoreDistillation
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.diffusion.model.components import load_components
from dreambooth3d.kinds import build_asset
from dreambooth3d.nerf.training import distillation
from dreambooth3d.nerf.training.distillation import distil, follow
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.nerf.training.view_loss import ViewBatch, view_loss
from dreambooth3d.parallel import Team, team
from dreambooth3d.record import StepLog
from dreambooth3d.representation.shading import Shading
from dreambooth3d.runtime import Runtime
from tests.nerf.scenes import BallGuidance
from tests.nerf.test_distillation import settings

CPU = torch.device("cpu")
VIEWS = 3
REGULARIZERS = RegularizerConfig(sparsity=3.0, opacity=2.0, orientation=0.5, distortion=0.5)
CONFIG = settings(views_per_step=VIEWS, processes=2, regularizers=REGULARIZERS)


def batch_of_views() -> ViewBatch:
    generator = torch.Generator().manual_seed(5)
    cameras = random_cameras(VIEWS, generator, **CONFIG.cameras.model_dump())
    backgrounds, lights = torch.rand(VIEWS, 3, generator=generator), torch.randn(VIEWS, 3, generator=generator)
    return ViewBatch(cameras, backgrounds, Shading("diffuse", lights, 0.6), 0.4, 0.7)


def one_step(member: Team, model: Path) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Gradients and figures of a step of three views by the toy model's guidance, the second of two calls.

    Samples lie at fixed places along rays.
    """
    torch.set_num_threads(1)
    components = load_components(resolve(BaseModelConfig(path=str(model))), "cpu")
    guidance = ScoreDistillation(components, "a photo of a sks dog", GuidanceConfig(), seed=3)
    field = build_asset(CONFIG, 0, CPU, None)
    for _ in range(2):
        field.zero_grad()
        loss, figures = view_loss(field, member.share(batch_of_views()), guidance, CONFIG, None, member)
        loss.backward()
        member.sum_gradients(field.parameters())
    gradients = {name: parameter.grad for name, parameter in field.named_parameters() if parameter.grad is not None}
    return gradients, {name: float(value) for name, value in figures.items()}


def _share_step(member: Team, model: Path) -> None:
    one_step(member, model)


def test_gradients_and_figures_are_those_of_one_process(tiny_base_model: Path) -> None:
    alone, figures = one_step(Team(), tiny_base_model)
    with team(_share_step, (tiny_base_model,), 2, CPU) as leader:
        shared, shared_figures = one_step(leader, tiny_base_model)
    assert alone.keys() <= shared.keys()
    for name, gradient in alone.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(shared[name], gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item())
    assert {"loss", "guidance_loss", "sparsity", "evaluated_samples"} <= figures.keys()
    assert shared_figures == pytest.approx(figures, rel=1e-4)


def _follow_the_ball(member: Team, config: InitNerfConfig) -> None:
    torch.set_num_threads(1)
    follow(DistillInputs(BallGuidance(), team=member), config)


def test_a_stage_of_two_processes_learns_what_one_does(tmp_path: Path) -> None:
    config = settings(steps=60, views_per_step=2, check_every=30)
    shared = config.model_copy(update={"processes": 2})
    alone = distil(DistillInputs(BallGuidance()), config, 0, Runtime(StepLog("alone"), tmp_path / "a", progress=False))
    runtime = Runtime(StepLog("shared"), tmp_path / "b", progress=False)
    with team(_follow_the_ball, (shared,), 2, CPU) as leader:
        together = distil(DistillInputs(BallGuidance(), team=leader), shared, 0, runtime)
    curves = [
        field.record.series.query("name == 'guidance_loss' and step > 20").value.mean() for field in (alone, together)
    ]
    start = alone.record.series.query("name == 'guidance_loss'").value.iloc[0]
    assert curves[0] < 0.5 * start, "it learns"
    assert curves[1] == pytest.approx(curves[0], rel=0.25)
    difference = (alone.previews - together.previews).abs().mean().item()
    assert difference < 0.03


class Done(Team):
    """The second of two processes, when there is nothing left to do."""

    def share(self, message: object = None) -> None:
        return None


@pytest.mark.parametrize("learns", ["all", "shape", "appearance"])
def test_the_others_ask_for_gradients_of_what_learns_only(learns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = InitNerfConfig(representation="mesh", mesh=MeshConfig(resolution=8), learns=learns)
    built = []
    monkeypatch.setattr(distillation, "build_asset", lambda *given: built.append(build_asset(*given)) or built[0])
    follow(DistillInputs(BallGuidance(), team=Done(1, 2)), config)
    wanted = {name for name, value in built[0].named_parameters() if value.requires_grad}
    shape = {name for name, _ in built[0].named_parameters() if name.split(".")[0] in ("distance", "offset", "coarse")}
    every = {name for name, _ in built[0].named_parameters()}
    assert 0 < len(shape) < len(every)
    assert wanted == {"all": every, "shape": shape, "appearance": every - shape}[learns]


def test_processes_without_work_are_refused() -> None:
    with pytest.raises(ValueError, match="processes=4 needs at least as many views_per_step"):
        settings(views_per_step=2, processes=4)
    with pytest.raises(ValueError, match="vsd trains a LoRA in one process only"):
        settings(views_per_step=2, processes=2, guidance=GuidanceConfig(loss="vsd"))
