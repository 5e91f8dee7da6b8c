"""Adding and removing Gaussians."""

from __future__ import annotations

import pytest
import torch

from dreambooth3d.cameras import orbit_cameras
from dreambooth3d.config.gaussians import GaussiansConfig
from dreambooth3d.config.rendering import RenderConfig
from dreambooth3d.gaussians.density_control import FEWEST, Census, halves, planned
from dreambooth3d.gaussians.gaussians import Gaussians, rotation_matrices
from dreambooth3d.representation.interface import Position

AROUND = orbit_cameras(torch.tensor([0.0, 120.0, 240.0]))
NOW = Position(9, 0.3)


def made(count: int = 60, **settings: object) -> Gaussians:
    draw = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(count, 3, generator=draw), dim=-1) * 0.5
    config = GaussiansConfig(count=count, densify_every=10, background="white", **settings)  # pyright: ignore[reportArgumentType]
    return Gaussians.from_points(points, torch.rand(count, 3, generator=draw), config)


def optimizer_of(gaussians: Gaussians) -> torch.optim.Adam:
    groups = [{"params": list(each.parameters), "name": each.name} for each in gaussians.parameter_groups()]
    return torch.optim.Adam(groups, lr=0.01)


def step(gaussians: Gaussians, optimizer: torch.optim.Adam, bright: float = 1.0) -> None:
    """Towards a bright front half: what lies there has gradients."""
    views = gaussians.render_views(AROUND[:1], 32, background=torch.zeros(1, 3))
    optimizer.zero_grad(set_to_none=True)
    (views.color - bright).square().mean().backward()
    optimizer.step()


def test_those_with_large_gradients_are_cloned_if_small_and_split_if_large_and_the_rest_stays() -> None:
    pull = torch.cat([torch.full((20,), 0.5), torch.tensor([8.0, 9.0, 0.0])])
    radius = torch.cat([torch.full((20,), 0.02), torch.tensor([0.02, 0.08, 0.9])])
    opacity = torch.cat([torch.full((20,), 0.8), torch.tensor([0.9, 0.9, 0.5])])
    opacity[3] = 0.001
    change = planned(GaussiansConfig(count=23, max_count=100), Census(pull, radius, opacity))
    assert (change.cloned, change.split) == (1, 2)
    assert sorted(change.sources.tolist()) == sorted([*[i for i in range(20) if i != 3], 20, 20, 21, 21])
    assert change.sources[change.kept :].tolist() == [20, 21, 21], "copies at the end"
    none = planned(GaussiansConfig(count=21, max_count=21), Census(pull, radius, opacity))
    assert (none.cloned, none.split, none.kept) == (0, 0, 21)
    full = planned(GaussiansConfig(count=21, max_count=22), Census(pull, radius, opacity))
    assert (full.cloned, full.split) == (0, 2), "where there is room for one only, the strongest gradient gets it"


def test_scaling_all_gradients_changes_nothing_and_something_is_always_left() -> None:
    draw = torch.Generator().manual_seed(1)
    pull, radius = torch.rand(200, generator=draw).square(), torch.full((200,), 0.02)
    opacity, config = torch.full((200,), 0.5), GaussiansConfig(count=200)
    small, large = (planned(config, Census(pull * factor, radius, opacity)) for factor in (1e-6, 1e5))
    assert small.cloned == large.cloned > 5 and torch.equal(small.sources, large.sources)
    gone = planned(config, Census(pull, radius, torch.zeros(200)))
    assert len(gone.sources.unique()) == FEWEST


def test_halves_have_together_the_mean_and_covariance_of_the_whole() -> None:
    draw = torch.Generator().manual_seed(2)
    log_scales, axes = torch.randn(5, 3, generator=draw) * 0.5, rotation_matrices(torch.randn(5, 4, generator=draw))
    scales, offset = halves(log_scales, axes)

    def covariance(logs: torch.Tensor) -> torch.Tensor:
        spread = axes * logs.exp()[:, None]
        return spread @ spread.transpose(1, 2)

    both = covariance(scales) + offset[:, :, None] * offset[:, None]
    torch.testing.assert_close(both, covariance(log_scales))
    assert (scales.exp().prod(1) < log_scales.exp().prod(1)).all()


def test_gradients_are_counted_where_they_arise() -> None:
    """Only the front is pulled; a copy of the whole, such as an average, counts nothing."""
    gaussians = made()
    gaussians.begin_stage(RenderConfig(), fresh=False)
    step(gaussians, optimizer_of(gaussians))
    front = gaussians.positions[:, 0] > 0.2
    back = gaussians.positions[:, 0] < -0.3
    assert gaussians.seen.max() == 1 and gaussians.pull[front].mean() > 5 * gaussians.pull[back].mean()
    gaussians.begin_stage(RenderConfig(), fresh=False)
    assert gaussians.pull.max() == gaussians.seen.max() == 0


def test_an_optimiser_goes_on_with_what_stays_and_begins_anew_with_what_is_added() -> None:
    gaussians = made(max_count=70, densify_threshold=1.0, split_radius=10.0)
    optimizer = optimizer_of(gaussians)
    for _ in range(3):
        step(gaussians, optimizer)
    moments = optimizer.state[gaussians.positions]["exp_avg"].clone()
    before = gaussians.positions.detach().clone()
    assert not gaussians.after_step(Position(8, 0.3), optimizer), "not its turn"
    assert gaussians.after_step(NOW, optimizer) and len(gaussians) == 70
    params = {id(each) for group in optimizer.param_groups for each in group["params"]}
    assert params == {id(each) for each in gaussians.parameters()} == {id(each) for each in optimizer.state}
    state = optimizer.state[gaussians.positions]
    assert torch.equal(state["exp_avg"][:60], moments) and state["exp_avg"][60:].abs().max() == 0 and state["step"] == 3
    assert torch.equal(gaussians.positions[:60].detach(), before)
    distance = torch.cdist(gaussians.positions[60:].detach(), before).min(dim=1).values
    assert (distance > 1e-3).all() and (distance < 0.2).all(), "copies are moved a little"
    assert gaussians.pull.shape == (70,) and gaussians.pull.max() == 0
    step(gaussians, optimizer)
    assert (gaussians.positions.detach()[60:] - before[:10]).isfinite().all()


def test_splitting_hardly_changes_what_is_seen_and_pruning_what_is_hidden_nothing() -> None:
    gaussians = made(count=400, max_count=450, densify_threshold=0.0, split_radius=1e-4)
    with torch.no_grad():
        gaussians.opacity_logits[:50] = -7.0
    optimizer = optimizer_of(gaussians)
    step(gaussians, optimizer)
    before = gaussians.render(AROUND, 48)
    gaussians.after_step(NOW, optimizer)
    after = gaussians.render(AROUND, 48)
    assert len(gaussians) == 450, "50 went, and 100 of 350 became 200"
    assert (after.color - before.color).abs().mean() < 0.02
    assert (after.opacity - before.opacity).abs().mean() < 0.02


def test_opacities_are_lowered_now_and_then() -> None:
    gaussians = made(opacity_reset_every=10, prune_opacity=0.05, densify_share=(0.9, 1.0))
    optimizer = optimizer_of(gaussians)
    step(gaussians, optimizer)
    assert gaussians.after_step(NOW, optimizer)
    assert gaussians.opacities().max().item() == pytest.approx(0.1, abs=1e-4)
    assert optimizer.state[gaussians.opacity_logits]["exp_avg"].abs().max() == 0
