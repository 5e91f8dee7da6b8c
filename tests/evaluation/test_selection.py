"""The choice of checkpoints on hand-made tables, and the measuring behind it."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from dreambooth3d.artifacts import BaseModelRef, CheckpointSet, DreamBoothCheckpoint
from dreambooth3d.config.finetuning import SelectConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.evaluation.selection import choose, harmonic_means, select
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from dreambooth3d.weights import WeightsRef, sha256_file
from tests.evaluation.stand_ins import ColorScorer, photos_of

DEFAULT = SelectConfig()


def table(rows: dict[int, tuple[float, float]]) -> pd.DataFrame:
    columns = ["step", "subject_similarity", "view_obedience"]
    return pd.DataFrame([(step, *values) for step, values in rows.items()], columns=columns)


TYPICAL = {0: (0.5, 1.0), 50: (0.6, 1.0), 100: (0.8, 0.9), 150: (0.85, 0.4), 200: (0.895, 0.3), 250: (0.9, 0.25)}


def test_typical_curve():
    partial, full, reason = choose(table(TYPICAL), DEFAULT)
    assert (partial, full) == (100, 200)
    assert "step 200" in reason and "step 100" in reason and "0.895" in reason and "1.0%" in reason


def test_plateau_is_relative_and_inclusive_of_its_first_step():
    wider = SelectConfig(plateau_tolerance=0.06)
    assert choose(table(TYPICAL), wider)[1] == 150
    assert choose(table(TYPICAL), SelectConfig(plateau_tolerance=0.0))[1] == 250


def test_full_is_the_first_even_when_a_later_dip_follows():
    rows = {10: (0.7, 0.9), 20: (0.9, 0.8), 30: (0.8, 0.7), 40: (0.905, 0.1)}
    assert choose(table(rows), DEFAULT)[:2] == (10, 20)


def test_ties_go_to_the_earlier():
    rows = {10: (0.7, 0.9), 20: (0.7, 0.9), 30: (0.9, 0.2)}
    assert choose(table(rows), DEFAULT)[0] == 10


def test_order_of_rows_does_not_matter():
    shuffled = table(TYPICAL).sample(frac=1, random_state=3)
    assert choose(shuffled, DEFAULT) == choose(table(TYPICAL), DEFAULT)


def test_step_zero_is_never_chosen():
    rows = {0: (0.99, 1.0), 10: (0.6, 0.9), 20: (0.7, 0.5)}
    assert choose(table(rows), DEFAULT)[:2] == (10, 20)


def test_single_checkpoint_serves_as_both_with_a_warning():
    partial, full, reason = choose(table({0: (0.5, 1.0), 50: (0.8, 0.7)}), DEFAULT)
    assert partial == full == 50 and "warning" in reason


def test_forced_steps():
    forced = SelectConfig(partial_step=50, full_step=250)
    partial, full, reason = choose(table(TYPICAL), forced)
    assert (partial, full) == (50, 250) and reason.count("as forced") == 2
    assert choose(table(TYPICAL), SelectConfig(full_step=100))[:2] == (50, 100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"partial_step": 75}, "no checkpoint was saved at step 75"), ({"partial_step": 250}, "comes after"),
     ({"full_step": 75}, "no checkpoint was saved at step 75")],
)  # fmt: skip
def test_bad_forced_steps_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        choose(table(TYPICAL), SelectConfig(**settings))


def test_no_checkpoint_is_an_error():
    with pytest.raises(ConfigError, match="no checkpoint to choose from"):
        choose(table({0: (0.5, 1.0)}), DEFAULT)


def test_similarity_counts_from_the_base_model():
    means = harmonic_means(table(TYPICAL))
    assert means[0] == 0 and means[100] == pytest.approx(2 * 0.75 * 0.9 / 1.65)
    # Without it, cosines are taken as they are, relative to the best.
    bare = harmonic_means(table({10: (0.45, 1.0), 20: (0.9, 0.5)}))
    assert bare[10] == pytest.approx(2 * 0.5 * 1 / 1.5)


def checkpoint_set(*steps: int) -> CheckpointSet:
    base, weights = BaseModelRef("base"), WeightsRef("none", "", 0)
    return CheckpointSet({step: DreamBoothCheckpoint(step, weights, weights, base) for step in steps}, base)


PHOTO = torch.tensor([0.9, 0.3, 0.1])[:, None, None].expand(3, 8, 8)


class PaintedSamples:
    """Draws the asked view's colour, mixed with the photo's by a share that grows with the step."""

    shares = {0: 0.0, 10: 0.35, 20: 0.6, 30: 1.0, 40: 1.0}

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, checkpoint, prompts):
        step = checkpoint.step if checkpoint else 0
        self.calls.append(step)
        views = torch.stack(
            [torch.eye(3)[index] if index < 3 else torch.ones(3) for p in prompts
             for index, word in enumerate(("front", "side", "back", "overhead")) if f"{word} view" in p]
        )  # fmt: skip
        share = self.shares[step]
        color = share * PHOTO[:, 0, 0] + (1 - share) * views
        return color[:, :, None, None].expand(-1, 3, 8, 8)


def run(tmp_path, draw, **settings):
    runtime = Runtime(StepLog("select_checkpoints"), tmp_path)
    config = SelectConfig(samples_per_view=2, **settings)
    return select(checkpoint_set(10, 20, 30, 40), photos_of(PHOTO), ColorScorer(), config, 0, runtime, draw)


def test_select_measures_and_reports(tmp_path):
    choice = run(tmp_path, PaintedSamples())
    scores = choice.scores.set_index("step")
    assert scores.loc[0, "view_obedience"] == 1 and scores.loc[40, "view_obedience"] == 0.25
    assert scores["subject_similarity"].is_monotonic_increasing
    assert scores.loc[40, "obedience_front"] == 1 and scores.loc[40, "obedience_back"] == 0
    assert choice.full_step == 30 and choice.partial_step in (10, 20)
    assert scores.index[scores["partial"]].tolist() == [choice.partial_step]
    assert set(choice.record.images) == {"scores", "contact_sheet"}
    assert len(choice.record.series) == 10 and choice.record.metrics["full_step"] == 30


def test_interrupted_selection_continues(tmp_path, monkeypatch):
    monkeypatch.setattr("dreambooth3d.runtime.ResumePoint.due", lambda self: True)

    class Killed(PaintedSamples):
        def __call__(self, checkpoint, prompts):
            if checkpoint and checkpoint.step == 30:
                raise KeyboardInterrupt
            return super().__call__(checkpoint, prompts)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Killed())
    draw = PaintedSamples()
    again = run(tmp_path, draw)
    assert draw.calls == [30, 40]
    fresh = run(tmp_path / "fresh", PaintedSamples())
    pd.testing.assert_frame_equal(again.scores, fresh.scores)
    assert again.record.series.equals(fresh.record.series)


def test_stop_signal_decides_among_what_was_scored(tmp_path):
    runtime = Runtime(StepLog("select_checkpoints"), tmp_path, should_stop=lambda: True)
    draw = PaintedSamples()
    config = SelectConfig(samples_per_view=1)
    choice = select(checkpoint_set(10, 20), photos_of(PHOTO), ColorScorer(), config, 0, runtime, draw)
    assert draw.calls == [0, 10] and choice.full_step == 10


def test_bad_forced_step_fails_before_any_sampling(tmp_path):
    draw = PaintedSamples()
    with pytest.raises(ConfigError, match="Choose one of 10, 20, 30, 40"):
        run(tmp_path, draw, full_step=35)
    assert not draw.calls


def test_real_sampling_is_the_same_twice(tmp_path, tiny_base_model):
    base = BaseModelRef(str(tiny_base_model))
    files = {name: next((tiny_base_model / name).glob("*.safetensors")) for name in ("unet", "text_encoder")}
    weights = {name: WeightsRef(str(file), sha256_file(file), file.stat().st_size) for name, file in files.items()}
    checkpoints = CheckpointSet({5: DreamBoothCheckpoint(5, **weights, base_model=base)}, base)
    config = SelectConfig(samples_per_view=1, inference_steps=2)
    results = []
    for name in ("a", "b"):
        runtime = Runtime(StepLog("select_checkpoints"), tmp_path / name)
        results.append(select(checkpoints, photos_of(PHOTO), ColorScorer(), config, 3, runtime))
    pd.testing.assert_frame_equal(results[0].scores, results[1].scores)
    row = results[0].scores.set_index("step")
    assert row.loc[5, "subject_similarity"] == row.loc[0, "subject_similarity"], "the same weights as the base model"
