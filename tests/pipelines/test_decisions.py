"""When a subject is trained again, and when a new version may become production: the rules alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from pydantic import ValidationError

from dreambooth3d.config.fleet import PromotionConfig, RetrainConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.errors import DreamBooth3DError
from operations.launch import checking, identity, strict
from operations.launch.sources import training_digest
from operations.registry.decisions import PARTS, Verdict, decide, objections

NOW = {key: f"{key}-1" for key in PARTS}
GATES = {
    "bounds": {"evaluate/psnr_fg": {"min": 10.0}, "evaluate/janus_excess": {"max": 0.25}},
    "regression": {
        "evaluate/psnr_fg": {"tolerance": 0.5, "better": "higher"},
        "evaluate/janus_excess": {"tolerance": 0.1, "better": "lower"},
    },
}
GOOD = {"evaluate/psnr_fg": 12.0, "evaluate/janus_excess": 0.1, "init_nerf/guards/empty_trips": 0.0}


@dataclass(frozen=True)
class Version:
    """A version as the rules see it."""

    metrics: Mapping[str, float] = field(default_factory=lambda: GOOD)
    identity: Mapping[str, str] = field(default_factory=lambda: NOW)
    interrupted: bool = False
    number: str = "4"
    run: str = "earlier"


def test_first_version_is_trained() -> None:
    assert decide(NOW, None) == (True, "there is no production version yet")


def test_nothing_changed_is_skipped_with_the_version_and_its_run() -> None:
    assert decide(NOW, Version()) == (False, "nothing changed since production version 4 (run earlier)")


@pytest.mark.parametrize("key", PARTS)
def test_each_part_alone_is_reason_enough(key: str) -> None:
    needed, reason = decide({**NOW, key: "other"}, Version())
    assert needed and reason == f"changed since production version 4: {PARTS[key]}"


def test_all_changed_parts_are_named() -> None:
    assert decide({**NOW, "data": "x", "judge": "y"}, Version())[1].endswith(": photos, judge")


def test_production_that_does_not_know_its_parts_is_trained_again() -> None:
    assert decide(NOW, Version(identity={}))[0]
    partial = {key: value for key, value in NOW.items() if key != "code"}
    assert decide(NOW, Version(identity=partial))[1].endswith(": code")


@pytest.mark.parametrize(
    "changes, before, word",
    [
        ({}, GOOD, ""),
        ({"evaluate/psnr_fg": 10.0}, None, ""),
        ({"evaluate/psnr_fg": 9.99}, None, "below 10"),
        ({"evaluate/psnr_fg": math.nan}, None, "not measured"),
        ({"evaluate/janus_excess": 0.25}, None, ""),
        ({"evaluate/janus_excess": 0.26}, None, "above 0.25"),
        ({"evaluate/psnr_fg": 11.5}, GOOD, ""),
        ({"evaluate/psnr_fg": 11.49}, GOOD, "worse than production's 12"),
        ({"evaluate/psnr_fg": 30.0}, GOOD, ""),
        ({"evaluate/janus_excess": 0.2}, GOOD, ""),
        ({"evaluate/janus_excess": 0.21}, GOOD, "worse than production's 0.1"),
        ({"evaluate/janus_excess": -1.0}, GOOD, ""),
        # What production was not measured on cannot be compared.
        ({"evaluate/psnr_fg": 10.5}, {"evaluate/clip_i": 0.5}, ""),
        ({}, {}, "production's metrics are gone"),
        ({"evaluate/psnr_fg": 10.5}, {"evaluate/psnr_fg": math.nan}, ""),
        ({"init_nerf/gates/empty_trips": 1.0}, None, "a guard tripped (init_nerf/gates/empty_trips = 1)"),
        ({"refine_nerf/guards/clip_i_trips": math.nan}, None, "a guard tripped"),
        ({"init_nerf/collapse_retries": 2.0}, None, ""),
        ({"init_nerf/gates/empty_trips_allowed": 2.0}, None, ""),
    ],
)
def test_gates(changes: dict[str, float], before: dict[str, float] | None, word: str) -> None:
    gates = PromotionConfig.model_validate(GATES)
    found = objections(gates, Version({**GOOD, **changes}), None if before is None else Version(before))
    assert (found == []) if not word else any(word in clause for clause in found)


def test_a_metric_that_is_missing_does_not_pass() -> None:
    found = objections(PromotionConfig.model_validate(GATES), Version({}), Version())
    assert sum("not measured" in clause for clause in found) == 4


def test_a_mistyped_gate_lets_nothing_pass() -> None:
    gates = PromotionConfig.model_validate({"regression": {"evaluate/psnr_gf": {"tolerance": 0.5}}})
    (found,) = objections(gates, Version(), Version())
    assert found == "evaluate/psnr_gf was measured neither now nor in production"


def test_an_interrupted_run_does_not_pass() -> None:
    assert objections(PromotionConfig(), Version(interrupted=True), None) == ["the run was interrupted"]


def test_every_gate_that_failed_is_named() -> None:
    bad = {"evaluate/psnr_fg": 1.0, "evaluate/janus_excess": 0.9}
    assert len(objections(PromotionConfig.model_validate(GATES), Version(bad, interrupted=True), Version())) == 5


@pytest.mark.parametrize(
    "section",
    [{"bounds": {"x": {}}}, {"bounds": {"x": {"min": 2.0, "max": 1.0}}}, {"regression": {"x": {"better": "up"}}}],
)
def test_gates_that_say_nothing_are_refused(section: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PromotionConfig.model_validate(section)


def test_photos_of_many_subjects_are_not_named_in_the_training() -> None:
    for photos in ({"subject": "corgi"}, {"dir": "mine"}, {"class_noun": "dog"}):
        (problem,) = checking.parameter_problems({"gates": {}, "training": {"photos": photos}})
        assert "cannot be set for many subjects" in problem
    checking.parse_parameters({"gates": {}, "training": {"photos": {"min_count": 4}}}, RetrainConfig)


def test_config_digest_is_of_what_shapes_the_result() -> None:
    base = TrainingConfig(photos=PhotosConfig(subject="corgi"))
    digest = identity.config_digest(base)
    other_subject = base.model_copy(update={"photos": PhotosConfig(subject="mallard"), "device": "cpu"})
    assert identity.config_digest(other_subject) == digest
    for changed in ({"seed": 1}, {"photos": PhotosConfig(subject="corgi", identifier="zwx")}):
        assert identity.config_digest(base.model_copy(update=changed)) != digest


def test_identity_has_exactly_the_compared_parts() -> None:
    found = identity.training_identity(TrainingConfig(photos=PhotosConfig(subject="corgi")), "abc.dir")
    assert found.keys() == PARTS.keys()
    assert found["data"] == "abc.dir" and found["code"] == f"sha256:{training_digest()}"
    assert found["selector"] != found["judge"]


def test_failures_end_a_run_over_many_subjects() -> None:
    good, bad = Verdict("corgi", "promoted", "new"), Verdict("mallard", "failed", "no photos")
    strict.require_no_failure([good])
    with pytest.raises(DreamBooth3DError, match=r"1 of the subjects failed \(mallard\). The first one: no photos"):
        strict.require_no_failure([good, bad])
