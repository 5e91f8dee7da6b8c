"""What a retraining decides about many subjects, whose registries are read together, is what each by itself gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from mlflow.tracking import MlflowClient
from zenml.client import Client

from dreambooth3d.config.fleet import PromotionConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.errors import BaseModelError, DreamBooth3DError
from dreambooth3d.naming import model_name
from dreambooth3d.photos.subjects import FoundSubject
from operations.launch import retraining
from operations.launch.identity import training_identity
from operations.launch.retraining import decide_subjects
from operations.records import patience, rows
from operations.records.patience import TrackerAwayError
from operations.registry import overview, promotion
from operations.registry.decisions import Verdict, decide
from operations.registry.versions import Change, note
from tests.pipelines.registries import add_version, delete_version, own_registries, set_stage
from tests.tracking_server import FaultyServer

GATES = PromotionConfig()
NOW = training_identity(TrainingConfig(), "")
SAME = "nothing changed since production version 1 (run {subject}_1)"
CHANGED = "changed since production version 1: "
EXPECTED = {
    "alpaca": ("train", "there is no production version yet"),
    "bear": ("skipped", SAME),
    "cow": ("train", f"{CHANGED}photos"),
    "deer": ("train", f"{CHANGED}configuration"),
    "elk": ("train", f"{CHANGED}base model"),
    "ferret": ("train", "there is no production version yet"),
    "goat": ("skipped", SAME),
    "hare": ("skipped", SAME),
    "ibis": ("skipped", "version 2, which was made of the same, was rolled back on "),
    "jay": ("skipped", "version 2, which was made of the same, was kept out: too dark"),
    "kiwi": ("train", f"{CHANGED}photos"),
    "lion": ("failed", "lion: version 1 is in production, but its entry in MLflow is gone or not complete."),
    "mole": ("failed", "mole/00.jpg: has changed since DVC recorded it."),
    "bear'ö %": ("skipped", SAME),
    "newt": ("train", "production version 1 does not say what it was made of"),
    "owl": ("failed", ""),
}
"""What is decided about each subject, and how the reason begins."""


def of(subject: str, **parts: str) -> dict[str, str]:
    """The identity of a version that was made of what the subject is made of now, but for some parts."""
    return {**NOW, "data": f"photos of {subject}", **parts}


def put_in_production(subject: str, identity: dict[str, str] | None) -> None:
    """Write what a promotion writes, without its lock and its readings, which take longer."""
    add_version(subject, f"{subject}_1", identity=identity)
    (version,) = Client().list_model_versions(model=model_name(subject)).items
    change = Change("promotion.1", 1, "promote", "", "1", "made up", "someone", "2030-01-01T00:00:00+00:00", "done")
    note(version, {change.key: change.record()})
    Client().update_model_version(version.model.id, version.id, stage="production", force=True)
    rows.client().set_registered_model_alias(model_name(subject), "production", "1")


def fill() -> None:
    """Versions of all subjects but the one that was never trained, in each of the states that the names stand for."""
    mlflow = rows.client()
    changed = {"cow": "data", "deer": "config", "elk": "base_model", "kiwi": "data", "jay": "data", "ibis": "data"}
    for subject in [subject for subject in EXPECTED if subject not in ("alpaca", "mole", "newt")]:
        parts = {changed[subject]: "of before"} if subject in changed else {}
        put_in_production(subject, of(subject, **parts))
    put_in_production("newt", None)
    # Of none other than these two is the name the beginning of another's.
    add_version("bear cub", "cub_1", identity=of("bear"))
    set_stage("ferret", 1, "archived")
    (entry,) = mlflow.search_model_versions(f"name='{model_name('goat')}'")
    mlflow.set_terminated(entry.run_id, "FAILED")  # a row that says what its version does not
    mlflow.delete_run(entry.run_id)
    mlflow.delete_registered_model_alias(model_name("hare"), "production")  # cut off before the alias
    for subject in ("ibis", "jay", "kiwi"):
        add_version(subject, f"{subject}_2", identity=of(subject))
    promotion.promote(promotion.candidate("ibis", "ibis_2"), "better")
    promotion.rollback("ibis", "it has six legs")
    promotion.refuse(promotion.candidate("jay", "jay_2"), "too dark", "1", GATES.digest)
    promotion.refuse(promotion.candidate("kiwi", "kiwi_2"), "too dark", "1", "other gates")
    mlflow.delete_registered_model_alias(model_name("lion"), "production")
    mlflow.delete_model_version(model_name("lion"), "1")
    (owl,) = Client().list_model_versions(model=model_name("owl")).items
    note(owl, {"promotion.damaged": {"by": "hand"}})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FoundSubject]]:
    """The subjects as the dataset's step finds them, with registries of their own."""
    with own_registries(tmp_path_factory.mktemp("registries")):
        fill()
        yield [
            FoundSubject(name, error="mole/00.jpg: has changed since DVC recorded it.")
            if name == "mole"
            else FoundSubject(name, f"photos of {name}", {"url": "https://example.com/photos.git", "rev": name})
            for name in EXPECTED
        ]


def decided_alone(found: FoundSubject, training: TrainingConfig) -> Verdict:
    """The reference: every subject has its own identity, and asks both registries for itself, twice."""
    if found.error:
        return Verdict(found.subject, "failed", found.error)
    config = training.model_copy(update={"photos": found.photos(training.photos)})
    try:
        identity, production = training_identity(config, found.data), promotion.production(found.subject)
        needed, reason = decide(identity, production)
        if needed and (against := promotion.objection_to(found.subject, identity, GATES.digest)):
            needed, reason = False, against
    except Exception as error:
        return Verdict(found.subject, "failed", retraining.gist(error), found.data)
    number = production.number if production else ""
    return Verdict(found.subject, "train" if needed else "skipped", reason, found.data, production=number)


def test_each_gets_what_it_would_get_alone(found: list[FoundSubject]) -> None:
    decided = decide_subjects(found, TrainingConfig(), GATES)
    shown = {verdict.subject: (verdict.action, verdict.reason) for verdict in decided}
    for subject, (action, reason) in EXPECTED.items():
        assert shown[subject][0] == action, shown[subject]
        assert shown[subject][1].startswith(reason.format(subject=subject)), shown[subject]
    assert decided == [decided_alone(one, TrainingConfig()) for one in found]
    # Of what was out of step, and is settled now, the same is decided once more.
    assert decide_subjects(found, TrainingConfig(), GATES) == decided
    assert rows.client().get_registered_model(model_name("hare")).aliases == {"production": 1}


def test_settings_of_a_training_count_alike(found: list[FoundSubject]) -> None:
    training = TrainingConfig(photos=PhotosConfig(min_side_px=65))
    decided = decide_subjects(found[:4], training, GATES)
    assert decided == [decided_alone(one, training) for one in found[:4]]
    reasons = [verdict.reason.removeprefix(CHANGED) for verdict in decided[1:3]]
    assert reasons == ["configuration", "photos, configuration"]


def test_requests_do_not_grow_with_the_subjects(found: list[FoundSubject], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is in step, no subject costs a request of its own; in groups of two the same is decided."""
    settled = [one for one in found if one.subject not in ("owl", "lion", "mole")]
    together, asked = decide_subjects(settled, TrainingConfig(), GATES), list[str]()
    counted = [(Client, "list_models"), (Client, "list_model_versions"), (Client, "list_pipeline_runs")]
    counted += [(MlflowClient, name) for name in ("search_model_versions", "search_registered_models", "get_run")]
    counted += [(MlflowClient, "get_registered_model")]

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: [asked.append(name), call(*args, **options)][1]

    for owner, name in counted:
        monkeypatch.setattr(owner, name, counting(name, getattr(owner, name)))
    assert decide_subjects(settled, TrainingConfig(), GATES) == together
    assert sorted(asked) == ["list_model_versions", "list_models", "search_model_versions", "search_registered_models"]
    monkeypatch.setattr(retraining, "SUBJECTS_PER_CALL", 2)
    monkeypatch.setattr(overview, "_PAGE", 1)
    assert decide_subjects(settled, TrainingConfig(), GATES) == together


def test_registry_that_takes_no_lists_of_names_is_asked_for_each(
    found: list[FoundSubject], monkeypatch: pytest.MonkeyPatch
) -> None:
    together, search = decide_subjects(found, TrainingConfig(), GATES), MlflowClient.search_model_versions

    def refusing(self: MlflowClient, filter_string: str, **options: object) -> object:
        if " IN " in filter_string:
            raise MlflowException("Invalid comparator for attribute: IN", error_code=INVALID_PARAMETER_VALUE)
        return search(self, filter_string, **options)

    monkeypatch.setattr(MlflowClient, "search_model_versions", refusing)
    assert decide_subjects(found, TrainingConfig(), GATES) == together


@pytest.mark.parametrize("batch", [1, 50])
def test_a_tracker_that_is_away_is_waited_for_once_and_decides_nothing(
    batch: int, found: list[FoundSubject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many subjects there are: one sentence, and nothing that would train them all."""
    server = FaultyServer(503)
    monkeypatch.setattr(rows, "client", lambda: MlflowClient(server.uri, registry_uri=server.uri))
    monkeypatch.setattr(patience, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(retraining, "SUBJECTS_PER_CALL", batch)
    for name, value in (("MAX_RETRIES", "1"), ("BACKOFF_FACTOR", "0"), ("BACKOFF_JITTER", "0")):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    with pytest.raises(TrackerAwayError, match="^MLflow does not answer .* Nothing was trained"):
        decide_subjects(found, TrainingConfig(), GATES)
    assert server.asked == 3 * (1 + 1)
    server.close()


def test_a_tracker_that_goes_away_between_two_reads_decides_nothing(
    found: list[FoundSubject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retraining, "read_together", lambda subjects: {})
    away = MlflowException("locked", error_code=TEMPORARILY_UNAVAILABLE)
    asked = list[str]()

    def fail(subject: str) -> None:
        asked.append(subject)
        raise away

    monkeypatch.setattr(promotion, "read", fail)
    with pytest.raises(TrackerAwayError, match="Nothing was trained"):
        decide_subjects(found, TrainingConfig(), GATES)
    assert asked == [found[0].subject]


def test_version_that_comes_or_goes_between_the_pages_is_not_missed(
    found: list[FoundSubject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read of the two registries does not fit together: it is read anew."""
    put_in_production("pig", of("pig"))
    aliases = overview._aliases

    def promoting_meanwhile(names: list[str]) -> dict[str, str]:
        add_version("pig", "pig_2", identity=of("pig", data="older photos"))
        promotion.promote(promotion.candidate("pig", "pig_2"), "meanwhile")
        return aliases(names)

    monkeypatch.setattr(overview, "_aliases", promoting_meanwhile)
    (verdict,) = decide_subjects([FoundSubject("pig", "photos of pig")], TrainingConfig(), GATES)
    assert (verdict.action, verdict.production) == ("train", "2")
    monkeypatch.setattr(overview, "_aliases", aliases)
    delete_version("pig", 2)
    (verdict,) = decide_subjects([FoundSubject("pig", "photos of pig")], TrainingConfig(), GATES)
    assert (verdict.action, verdict.production) == ("train", "")


def test_damaged_base_model_fails_those_that_would_be_trained_of_it(found: list[FoundSubject], tmp_path: Path) -> None:
    training = TrainingConfig(base_model=BaseModelConfig(path=str(tmp_path / "nowhere")))
    bear, mole = (one for one in found if one.subject in ("bear", "mole"))
    decided = decide_subjects([bear, mole], training, GATES)
    with pytest.raises(BaseModelError) as raised:
        training_identity(training, "")
    assert [(one.action, one.reason) for one in decided] == [("failed", str(raised.value)), ("failed", mole.error)]
    assert isinstance(raised.value, DreamBooth3DError) and decide_subjects([], training, GATES) == []
