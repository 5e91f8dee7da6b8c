"""Training an asset whose number of parameters changes, as Gaussians that are densified have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

import pytest
import torch
from torch import Tensor, nn

from dreambooth3d import kinds
from dreambooth3d.artifacts import RadianceField
from dreambooth3d.cameras import Viewpoints
from dreambooth3d.config.base import Section
from dreambooth3d.config.distillation import DistillConfig, RefineNerfConfig
from dreambooth3d.config.field import FieldConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.nerf.field.radiance_field import Field
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.nerf.training.learner import Learner
from dreambooth3d.parallel import ALONE
from dreambooth3d.record import StepRecord
from dreambooth3d.representation.interface import (
    ParameterGroup,
    PixelRendering,
    Position,
    Rendering,
    Representation,
    TrainingViews,
    ViewPixels,
)
from tests.nerf.scenes import BallGuidance

CPU = torch.device("cpu")


class Fog(Representation):
    """A fog everywhere, of the mean of some colours, whose number doubles after the third step."""

    kind: ClassVar[str] = "mesh"
    fixed_size: ClassVar[bool] = False

    def __init__(self, colors: Tensor) -> None:
        super().__init__()
        self.colors, self.strength = nn.Parameter(colors), nn.Parameter(torch.zeros(()))

    @classmethod
    def fresh(cls, settings: Section, render: RenderConfig, device: torch.device | str) -> Self:
        return cls(torch.rand(2, 3, device=device))

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], settings: Mapping[str, object], device: torch.device | str = "cpu"
    ) -> Self:
        made = cls(state["colors"].clone())
        made.load(state)
        return made

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.colors = nn.Parameter(state["colors"].clone())
        super().load(state)

    def settings(self) -> dict[str, object]:
        return {}

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("colors", [self.colors]), ParameterGroup("strength", [self.strength], 0.25)]

    def after_step(self, position: Position, optimizer: torch.optim.Optimizer) -> bool:
        if position.step != 2:
            return False
        moments = optimizer.state.pop(self.colors)
        self.colors = nn.Parameter(torch.cat([self.colors.detach()] * 2))
        optimizer.param_groups[0]["params"] = [self.colors]
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.cat([moments[name]] * 2)
        optimizer.state[self.colors] = moments
        return True

    def render_views(self, cameras: Viewpoints, size: int, **options: object) -> TrainingViews:
        opacity = self.strength.sigmoid().expand(len(cameras), size, size)
        color = self.colors.mean(dim=0)[None, :, None, None] * opacity[:, None]
        return TrainingViews(color, opacity, torch.ones_like(opacity), haze=opacity)

    def render(self, cameras: Viewpoints, size: int, **options: object) -> Rendering:
        raise NotImplementedError

    def render_pixels(self, pixels: ViewPixels, *options: object) -> PixelRendering:
        raise NotImplementedError

    def bounds(self) -> tuple[Tensor, Tensor]:
        return -torch.ones(3), torch.ones(3)

    def move(self, rotation: Tensor, shift: Tensor | None = None, scale: float = 1.0) -> None:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def fog_is_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "KINDS", {"field": Field, "mesh": Fog})


def fog() -> RadianceField:
    made = Fog(torch.rand(2, 3, generator=torch.Generator().manual_seed(0)))
    return made.artifact(torch.zeros(0, 3, 1, 1), 5, StepRecord("init_nerf"))


CONFIG = DistillConfig(learning_rate=0.1, final_learning_rate=0.01, average_decay=0.5)


def steps(learner: Learner, numbers: range) -> None:
    for step in numbers:
        learner.set_rate(step / 10)
        views = learner.asset.render_views(_Two(), 4)
        loss = (views.color - 0.9).square().mean() + (views.opacity - 0.9).square().mean()
        learner.learn(loss, ALONE, Position(step, step / 10))


class _Two:
    """Two cameras, as far as the fog cares."""

    def __len__(self) -> int:
        return 2


def test_parameters_that_are_replaced_learn_on_and_the_average_begins_anew() -> None:
    learner = Learner(CONFIG, 0, CPU, fog())
    steps(learner, range(2))
    assert learner.average is not None and learner.average.updates == 2
    steps(learner, range(2, 3))
    assert len(learner.shown.colors) == len(learner.asset.colors) == 4 and learner.average.updates == 1
    before = learner.asset.colors.detach().clone()
    steps(learner, range(3, 5))
    assert (learner.asset.colors - before).abs().min() > 1e-3
    assert float(learner.optimizer.state[learner.asset.colors]["step"]) == 5


def test_groups_have_their_own_rates() -> None:
    learner = Learner(CONFIG, 0, CPU, fog())
    learner.set_rate(0.5)
    rates = {group["name"]: group["lr"] for group in learner.optimizer.param_groups}
    assert learner.rate == pytest.approx((0.1 * 0.01) ** 0.5)
    assert rates == pytest.approx({"colors": learner.rate, "strength": learner.rate / 4})


@pytest.mark.parametrize("stop", [2, 4], ids=["before it has grown", "after"])
def test_a_resumed_learner_ends_as_an_uninterrupted_one(stop: int) -> None:
    whole, first, rest = (Learner(CONFIG, 0, CPU, fog()) for _ in range(3))
    steps(whole, range(6))
    steps(first, range(stop))
    rest.restore(first.state())
    steps(rest, range(stop, 6))
    assert torch.equal(rest.asset.colors, whole.asset.colors)
    assert torch.equal(rest.shown.colors, whole.shown.colors)


def test_several_processes_cannot_train_it() -> None:
    config = CONFIG.model_copy(update={"processes": 2})
    with pytest.raises(ConfigError, match="mesh is trained by one process only. Set processes=1"):
        DistillInputs(BallGuidance(), init=fog()).require_fit(config)


def test_what_a_stage_makes_is_what_it_asks_for_or_what_it_gets() -> None:
    fresh, field = Field(FieldConfig(encoding="dense", volume_resolution=8)), RefineNerfConfig(representation="field")
    blob = fresh.artifact(torch.zeros(0, 3, 1, 1), 0, StepRecord("init_nerf"))
    assert kinds.asset_kind(CONFIG, None) == kinds.asset_kind(field, None) == "field"
    assert kinds.asset_kind(CONFIG, fog()) == "mesh" and kinds.asset_kind(field, blob) == "field"
    assert isinstance(kinds.build_asset(CONFIG, 0, CPU, fog()), Fog)
    with pytest.raises(ConfigError, match="field cannot go on from mesh. Leave representation out"):
        kinds.build_asset(field, 0, CPU, fog())
    with pytest.raises(ConfigError, match="clay is no kind of asset here. Choose one of: field, mesh"):
        kinds.build_asset(CONFIG, 0, CPU, replace(fog(), kind="clay"))
