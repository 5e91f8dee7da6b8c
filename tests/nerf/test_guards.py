"""Guards on constructed fields: what trips each, what does not, and what happens then."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreambooth3d.artifacts import RadianceField
from dreambooth3d.cameras import VIEW_WORDS, orbit_cameras
from dreambooth3d.config.distillation import InitNerfConfig
from dreambooth3d.config.guards import (
    ClipGuardConfig,
    GuardAction,
    GuardsConfig,
    JanusGuardConfig,
    NanGuardConfig,
    OccupancyGuardConfig,
    OpacityGuardConfig,
    SaturationGuardConfig,
)
from dreambooth3d.errors import CollapseError, GuardError
from dreambooth3d.evaluation.views import ViewScores, verdict
from dreambooth3d.guidance import GuidanceLoss
from dreambooth3d.nerf.rendering.volume import Rendering
from dreambooth3d.nerf.training.checks import preview_cameras, render_previews
from dreambooth3d.nerf.training.distillation import distil
from dreambooth3d.nerf.training.guards import (
    FRONT,
    Collapse,
    Guards,
    Ledger,
    Look,
    Reading,
    chroma,
    photos_chroma,
)
from dreambooth3d.nerf.training.inputs import DistillInputs
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import ResumePoint, Runtime
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import SHIPPED_SUBJECTS
from tests.evaluation.stand_ins import photos_of
from tests.nerf.scenes import RED, BallGuidance, UniformBall, colored_ball
from tests.nerf.test_distillation import BreakOnce, runtime, settings

CELL_THRESHOLD = 0.01
GOOD = UniformBall(50.0, radius=0.6)
FOG = UniformBall(0.5, color=torch.full((3,), 0.5))


def look(model: UniformBall, progress: float = 1.0, step: int = 300) -> Look:
    """What the guards see of a known scene."""
    return Look(render_previews(model, settings()), preview_cameras(), model, CELL_THRESHOLD, step, progress)


def flat_look(color: Tensor, opacity: float = 1.0) -> Look:
    """Previews of one colour (3,) and one opacity."""
    images = color.view(1, 3, 1, 1).expand(8, 3, 4, 4)
    rendering = Rendering(images, torch.full((8, 4, 4), opacity), torch.zeros(8, 4, 4))
    return Look(rendering, preview_cameras(), GOOD, CELL_THRESHOLD, 300, 1.0)


def guards(config: GuardsConfig | None = None, **arguments: object) -> Guards:
    return Guards(config or GuardsConfig(), "init_nerf", 0, Ledger(), **arguments)


def read(seen: Look, config: GuardsConfig | None = None, **arguments: object) -> dict[str, Reading]:
    """What fresh guards read, by name."""
    return {reading.guard: reading for reading in guards(config, **arguments).read(seen)}


def tripped(readings: dict[str, Reading]) -> set[str]:
    return {guard for guard, reading in readings.items() if reading.trips}


def test_a_good_field_trips_nothing() -> None:
    seen = torch.eye(4)[[VIEW_WORDS.index(word) for word in ("side", "back", "back", "back", "side")]]
    photos = photos_of(*render_previews(GOOD, settings()).color[:3])
    readings = read(look(GOOD), view_logits=lambda views: seen, likeness=lambda views: torch.ones(8), photos=photos)
    assert set(readings) == {"nan", "opacity", "occupancy", "saturation", "janus", "clip_i"}
    assert tripped(readings) == set()


def test_a_fog_over_the_whole_ball_trips_occupancy_where_opacity_lets_it_pass() -> None:
    readings = read(look(FOG))
    assert 0.2 < readings["opacity"].value < 0.7
    assert readings["occupancy"].value == 1 and tripped(readings) == {"occupancy"}
    assert tripped(read(look(FOG, progress=0.4))) == set(), "a young field may be anywhere"


@pytest.mark.parametrize("radius", [0.3, 0.6, 0.86])
def test_the_filled_share_of_a_ball_is_its_volume(radius: float) -> None:
    ball = UniformBall(50.0, radius)
    ball.occupancy.resolution = 64
    assert ball.filled_share(CELL_THRESHOLD) == pytest.approx(radius**3, abs=0.01)
    assert ball.filled_share(1.0) == 0, "no cell is that opaque"


@pytest.mark.parametrize(("opacity", "trips"), [(0.004, True), (0.006, False), (0.94, False), (0.96, True)])
def test_opacity_has_two_bounds(opacity: float, trips: bool) -> None:
    assert ("opacity" in tripped(read(flat_look(RED, opacity)))) is trips


def test_where_there_is_a_nan_no_other_guard_looks() -> None:
    seen = flat_look(torch.tensor([0.5, math.nan, 0.5]))
    readings = read(seen)
    assert readings["nan"].value == 8 * 16 and set(readings) == tripped(readings) == {"nan"}
    assert tripped(read(seen, GuardsConfig(nan=NanGuardConfig(max_count=128)))) == set()
    assert read(seen, GuardsConfig(nan=NanGuardConfig(action="off"))) == {}


def test_chroma_of_known_colours() -> None:
    """CIELAB of sRGB's red is (53.24, 80.09, 67.20)."""
    halves = torch.zeros(1, 3, 2, 2)
    halves[:, 0, 0], halves[:, :, 1] = 1.0, 0.3
    red, grey = torch.tensor([[[True, True], [False, False]]]), torch.tensor([[[False, False], [True, True]]])
    assert chroma(halves, red) == pytest.approx(math.hypot(80.09, 67.20), abs=0.1)
    assert chroma(halves, grey) == pytest.approx(0, abs=0.1)
    assert chroma(halves, red & grey) is None


def test_saturation_is_compared_with_the_subject_in_the_photos() -> None:
    """Photos of a dull ball before a green wall, whose chroma does not count."""
    dull, wall = 0.5 + 0.2 * (RED - 0.5), torch.tensor([0.3, 0.7, 0.3]).view(1, 3, 1, 1)
    ball = colored_ball(orbit_cameras(torch.arange(0.0, 360.0, 120.0)), 64, radius=0.6)
    inside = (ball != 1).any(1, keepdim=True)
    photos = photos_of(*torch.where(inside, dull.view(1, 3, 1, 1), wall))
    expected = chroma(dull.view(1, 3, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool))
    assert photos_chroma(photos) == pytest.approx(expected, abs=1.0)
    assert "saturation" not in tripped(read(flat_look(dull), photos=photos))
    assert "saturation" in tripped(read(flat_look(RED), photos=photos))


def test_saturation_has_a_bound_of_its_own_where_no_photo_tells() -> None:
    photos = photos_of(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert photos_chroma(photos) is None
    assert "saturation" not in tripped(read(flat_look(0.5 + 0.6 * (RED - 0.5)), photos=photos))
    assert "saturation" in tripped(read(flat_look(torch.tensor([1.0, 0.0, 0.0]))))
    assert "saturation" not in read(flat_look(RED, opacity=0.3)), "nothing is opaque"


@pytest.mark.parametrize("seed", range(5))
def test_janus_is_the_rate_that_the_evaluation_counts(seed: int) -> None:
    judged = torch.randint(0, 3, (8,), generator=torch.Generator().manual_seed(seed))
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 4, 4)
    seen = Look(Rendering(images, torch.ones(8, 4, 4), images[:, 0]), preview_cameras(), GOOD, CELL_THRESHOLD, 1, 1.0)
    reading = read(seen, view_logits=lambda shown: torch.eye(4)[judged[shown[:, 0, 0, 0].long()]])["janus"]
    expected = verdict(judged, preview_cameras()).janus_rate
    assert reading.value == pytest.approx(expected) and reading.trips == (expected > 0.3)


@pytest.mark.parametrize("name", ["corgi", "alarm_clock"])
def test_the_selector_s_guards_on_true_and_on_two_faced_views(name: str) -> None:
    recipe, cameras = SHIPPED_SUBJECTS[name], preview_cameras()
    photos = photos_of(*render_views(recipe, orbit_cameras(torch.tensor([-50.0, 30.0, 155.0])), size=64).image)
    scores = ViewScores.load("models/selector", recipe.class_noun, photos=photos.images)
    scorers = {"view_logits": scores, "likeness": scores.likeness, "photos": photos}
    config = GuardsConfig(opacity=OpacityGuardConfig(action="off"), occupancy=OccupancyGuardConfig(action="off"))

    def of(views: Tensor, masks: Tensor) -> Look:
        return Look(Rendering(views, masks, masks), cameras, GOOD, CELL_THRESHOLD, 1, 1.0)

    true = render_views(recipe, cameras, size=64)
    front = render_views(recipe, orbit_cameras(torch.zeros(8)), size=64)
    readings = read(of(true.image, true.mask), config, **scorers)
    assert readings["janus"].value == 0 and tripped(readings) == set()
    assert tripped(read(of(front.image, front.mask), config, **scorers)) == {"janus"}
    watching = guards(config, **scorers)
    blank = of(torch.ones(8, 3, 64, 64), torch.zeros(8, 64, 64))
    lasting = [{r.guard for r in watching.read(seen) if r.trips} for seen in (of(true.image, true.mask), blank, blank)]
    assert [trips - {"janus"} for trips in lasting] == [set(), set(), {"clip_i"}], "a blank picture may be any view"


def test_likeness_must_stay_low_before_it_trips() -> None:
    values = iter([0.5, 0.8, 0.65, 0.78, 0.66, 0.69, 0.71])
    watching = guards(
        GuardsConfig(clip_i=ClipGuardConfig(max_drop=0.1, patience=2)),
        likeness=lambda shown: torch.tensor([next(values)]),
    )
    seen = look(GOOD)
    trips = ["clip_i" in {reading.guard for reading in watching.read(seen) if reading.trips} for _ in range(7)]
    assert trips == [False, False, False, False, False, True, False]


def test_each_action_does_what_it_says(caplog: pytest.LogCaptureFixture) -> None:
    reading = [Reading("opacity", 0.99, 0.005, 0.95)]
    with pytest.raises(GuardError, match="guard opacity stopped the run at step 7"):
        guards(GuardsConfig(opacity=OpacityGuardConfig(action="stop"))).act(reading, 7)
    with pytest.raises(Collapse):
        guards(GuardsConfig(opacity=OpacityGuardConfig(action="retry"))).act(reading, 7)
    warning = guards(GuardsConfig(opacity=OpacityGuardConfig(action="warn")))
    with caplog.at_level(logging.WARNING):
        warning.act(reading, 7)
        warning.act(reading, 8)
    assert len(caplog.records) == 1 and "filled the whole frame" in caplog.text
    assert warning.ledger.trips == {"opacity": 2}
    assert warning.ledger.events == ["opacity 0.99 > 0.95 at step 7: warned"]


@pytest.mark.parametrize("action", ["stop", "retry"])
def test_after_a_stop_signal_only_a_useless_field_is_given_up(action: GuardAction) -> None:
    strict = GuardsConfig(janus=JanusGuardConfig(action=action))
    kept = guards(strict)
    kept.act([Reading("janus", 0.6, high=0.3)], 7, interrupted=True)
    assert kept.ledger.events == ["janus 0.6 > 0.3 at step 7: warned"]
    with pytest.raises(Collapse):
        guards(strict).act([Reading("nan", 1, high=0)], 7, interrupted=True)


# The guards in the loop.


def everywhere_front(images: Tensor) -> Tensor:
    """A scorer's view logits of a field with a front on each side."""
    return torch.eye(4)[FRONT].expand(len(images), 4)


def guarded(
    folder: Path, janus: JanusGuardConfig, views: Callable[[Tensor], Tensor], **changes: object
) -> RadianceField:
    """A fit of the ball with the given janus guard and scorer."""
    config = settings(steps=40, check_every=10, guards=GuardsConfig(janus=janus), **changes)
    return distil(DistillInputs(BallGuidance(), view_logits=views), config, 0, runtime(folder))


def test_warn_completes_the_run_and_the_record_tells(tmp_path: Path) -> None:
    record = guarded(tmp_path, JanusGuardConfig(action="warn"), everywhere_front).record
    assert record.params["guard_events"] == "janus 1 > 0.3 at step 20: warned"
    assert record.metrics["guards/janus_trips"] == 3, "at steps 20, 30 and 40"
    assert record.metrics["guards/opacity_trips"] == record.metrics["guards/nan_trips"] == 0
    assert "guards/clip_i_trips" not in record.metrics, "nobody compared with photos"
    series = record.series.pivot(index="step", columns="name", values="value")
    assert series["guards/janus"].dropna().to_dict() == {10: 1, 20: 1, 30: 1, 40: 1}
    assert series["guards/opacity"].loc[40] == pytest.approx(record.metrics["opacity"])


def test_stop_names_guard_step_bound_and_remedy(tmp_path: Path) -> None:
    message = (
        r"^init_nerf: the guard janus stopped the run at step 20, as the field shows fronts on other sides "
        r"\(.* 1, at most 0.3 is allowed\)\. Set guidance.perp_neg .*init_nerf\.guards\.janus\.action to warn\.$"
    )
    with pytest.raises(GuardError, match=message):
        guarded(tmp_path, JanusGuardConfig(action="stop"), everywhere_front)
    assert not any(tmp_path.rglob("*.safetensors"))


def test_retry_begins_again_with_another_seed(tmp_path: Path) -> None:
    verdicts: Iterator[int] = iter([FRONT, FRONT, *[VIEW_WORDS.index("back")] * 4])
    field = guarded(
        tmp_path, JanusGuardConfig(action="retry"), lambda images: torch.eye(4)[next(verdicts)].expand(len(images), 4)
    )
    assert next(verdicts, None) is None, "two looks in the first attempt, four in the second"
    assert field.record.metrics["collapse_retries"] == 1 and field.record.metrics["guards/janus_trips"] == 1
    assert field.record.params["guard_events"] == "janus 1 > 0.3 at step 20: tried again"
    steps = field.record.series.query("name == 'guards/janus'").step.tolist()
    assert steps == [10, 20, 30, 40, 50, 60], "series go on counting"
    losses = field.record.series.query("name == 'loss'").set_index("step").value
    assert losses.loc[1] != losses.loc[21], "another seed draws other cameras"


def test_retries_that_do_not_help_end_the_run(tmp_path: Path) -> None:
    message = "init_nerf: the field shows fronts on other sides .* at step 20, also with 1 other seed.*perp_neg"
    with pytest.raises(CollapseError, match=message):
        guarded(tmp_path, JanusGuardConfig(action="retry"), everywhere_front)


def test_scorers_look_at_checks_only_and_never_when_off(tmp_path: Path) -> None:
    looks: list[int] = []

    def count(images: Tensor) -> Tensor:
        looks.append(len(images))
        return everywhere_front(images)

    guarded(tmp_path / "on", JanusGuardConfig(), count)
    assert looks == [5] * 4, "the five previews away from the front, at steps 10, 20, 30 and 40"
    guarded(tmp_path / "off", JanusGuardConfig(action="off"), count)
    assert len(looks) == 4


def test_guards_do_not_change_what_is_learned(tmp_path: Path) -> None:
    watched = guarded(tmp_path / "watched", JanusGuardConfig(), everywhere_front)
    off = {guard: {"action": "off"} for guard in GuardsConfig.model_fields}
    alone = distil(
        DistillInputs(BallGuidance()), settings(steps=40, check_every=10, guards=off), 0, runtime(tmp_path / "alone")
    )
    assert all(torch.equal(value, alone.state[name]) for name, value in watched.state.items())
    assert not any(name.startswith("guards/") for name in [*alone.record.metrics, *alone.record.series.name])


class BreakLater(BallGuidance):
    """Spoils one call with a NaN; from then on follows the ball."""

    def __call__(self, images: Tensor, cameras: object, progress: float) -> GuidanceLoss:
        answer = super().__call__(images, cameras, progress)
        return GuidanceLoss(answer.loss * math.nan) if self.calls == 30 else answer


def test_a_resumed_run_tells_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt warns, then becomes NaN; the second one warns as well, is killed and resumed."""
    values = torch.linspace(0.9, 0.1, 12)

    def run(folder: Path, guidance: BallGuidance, looks: int = 0) -> RadianceField:
        fading = iter(values[looks:])
        config: InitNerfConfig = settings(steps=40, check_every=8)
        inputs = DistillInputs(
            guidance, view_logits=everywhere_front, likeness=lambda images: next(fading).expand(len(images))
        )
        return distil(inputs, config, 0, runtime(folder))

    whole = run(tmp_path / "whole", BreakLater())
    monkeypatch.setattr(ResumePoint, "due", lambda self: True)
    killed = BreakLater(interrupt_at=30 + 26)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", killed)
    monkeypatch.undo()
    resumed = run(tmp_path / "killed", BallGuidance(), looks=3 + 3)
    assert resumed.record.params == whole.record.params
    assert resumed.record.params["guard_events"] == "; ".join([
        "janus 1 > 0.3 at step 24: warned",
        "nan 2 > 0 at step 30: tried again",
        "janus 1 > 0.3 at step 24 of attempt 2: warned",
        "clip_i 0.464 < 0.582 at step 32 of attempt 2: warned",
    ])  # fmt: skip
    counts = {name: value for name, value in whole.record.metrics.items() if name.startswith("guards/")}
    assert {name: resumed.record.metrics[name] for name in counts} == counts
    trips = [counts[f"guards/{guard}_trips"] for guard in ("nan", "janus", "clip_i")]
    assert trips == [1, 1 + 3, 2]
    expected = whole.record.series.query("name != 'ms_per_step'")
    assert resumed.record.series.query("name != 'ms_per_step'").equals(expected)


def test_a_nan_that_is_let_pass_is_counted(tmp_path: Path) -> None:
    let_pass = GuardsConfig(
        nan=NanGuardConfig(action="warn"),
        opacity=OpacityGuardConfig(action="warn"),
        occupancy=OccupancyGuardConfig(action="off"),
    )
    config = settings(steps=10, guards=let_pass)
    surroundings = Runtime(StepLog("refine_nerf"), tmp_path, progress=False)
    record = distil(DistillInputs(BreakOnce()), config, 0, surroundings).record
    assert record.metrics["guards/nan_trips"] == 2, "the loss at steps 1 and 10; a field of NaN shows nothing"
    assert record.params["guard_events"] == "nan 2 > 0 at step 1: warned; opacity 0 < 0.005 at step 10: warned"


def test_bounds_of_the_configuration_count() -> None:
    saturation, occupancy = SaturationGuardConfig(max_chroma=10.0), OccupancyGuardConfig(max_share=0.1)
    strict = GuardsConfig(saturation=saturation, occupancy=occupancy)
    assert tripped(read(look(GOOD), strict)) == {"saturation", "occupancy"}
