"""The retraining through its front door: what a tick trains, promotes, keeps, skips and survives."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient
from zenml.enums import ExecutionStatus

from dreambooth3d.config.fleet import PromotionConfig
from dreambooth3d.errors import DreamBooth3DError
from operations.launch import outcome
from operations.registry.decisions import Verdict
from tests.product import SHORTEST, ZENML, Product, make_product

SUBJECTS = ["corgi", "mallard"]
PASSES = {"bounds": {"evaluate/psnr": {"min": 1.0}}}


class Fleet:
    """A product whose retraining is run."""

    def __init__(self, product: Product) -> None:
        self.product = product

    def tick(
        self, pipeline: str = "retraining.retrain", steps: object = None, **parameters: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a pipeline over the subjects."""
        usual: dict[str, object] = {"subjects": SUBJECTS, "training": SHORTEST}
        if pipeline == "retraining.retrain":
            usual["gates"] = PASSES
        path = self.product.root / "configs" / "tick.yaml"
        path.write_text(yaml.safe_dump({"parameters": usual | parameters, "steps": steps or {}}))
        return self.product.run(ZENML, "pipeline", "run", f"pipelines.{pipeline}", "--config", "configs/tick.yaml")

    @property
    def tracker(self) -> MlflowClient:
        """The product's MLflow."""
        (database,) = (self.product.root / ".zenconfig").rglob("mlflow.db")
        return MlflowClient(f"sqlite:///{database}")

    def rows(self, experiment: str) -> list:
        """The rows of an experiment, the newest first."""
        found = self.tracker.get_experiment_by_name(experiment)
        return self.tracker.search_runs([found.experiment_id], order_by=["start_time DESC"]) if found else []

    def summary(self, experiment: str = "dreambooth3d-retrain") -> pd.DataFrame:
        """The table of the newest run, by subject."""
        run = self.rows(experiment)[0]
        path = self.tracker.download_artifacts(run.info.run_id, "summary.csv")
        return pd.read_csv(io.StringIO(Path(path).read_text())).set_index("subject")

    def production(self, subject: str) -> int:
        """The MLflow version that readers get."""
        return int(self.tracker.get_model_version_by_alias(f"dreambooth3d-{subject}", "production").version)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    made = make_product(tmp_path_factory.mktemp("fleet"))
    assert made.dreambooth3d("setup").returncode == 0
    return Fleet(made)


@pytest.mark.slow
def test_ticks(fleet: Fleet) -> None:
    """One story, since each tick builds on the one before."""
    # The first trains and promotes all, each subject with a row of its own.
    result = fleet.tick()
    assert result.returncode == 0, result.stderr[-3000:]
    table = fleet.summary()
    assert dict(table["action"]) == {"corgi": "promoted", "mallard": "promoted"}
    rows = {row.data.tags["subject"]: row for row in fleet.rows("dreambooth3d")}
    assert rows.keys() == {*SUBJECTS}
    assert [rows[name].data.tags["zenml.pipeline_run"] for name in SUBJECTS] == [
        table["run"][name] for name in SUBJECTS
    ]
    assert [rows[name].data.tags["data.dvc_md5"] for name in SUBJECTS] == [table["data"][name] for name in SUBJECTS]
    assert fleet.production("corgi") == fleet.production("mallard") == 1

    # The second finds nothing to do, and says so.
    result = fleet.tick()
    assert result.returncode == 0, result.stderr[-3000:]
    table = fleet.summary()
    assert {*table["action"]} == {"skipped"}
    assert table["reason"].str.startswith("nothing changed since production version 1").all()
    assert len(fleet.rows("dreambooth3d")) == 2
    assert "corgi: skipped: nothing changed" in result.stdout + result.stderr

    # New photos of one subject: that one alone is trained; a gate keeps it from promotion.
    data = fleet.product.root / "data"
    sorted((data / "corgi").glob("*.jpg"))[0].unlink()
    assert fleet.product.run("-m", "dvc", "add", "--quiet", "data").returncode == 0
    strict = {"bounds": {"evaluate/psnr": {"min": 99.0}}}
    result = fleet.tick(gates=strict)
    assert result.returncode == 0, result.stderr[-3000:]
    table = fleet.summary()
    assert dict(table["action"]) == {"corgi": "kept", "mallard": "skipped"}
    assert table["reason"]["corgi"].startswith("production 1 was kept: evaluate/psnr")
    assert len(fleet.rows("dreambooth3d")) == 3
    assert fleet.production("corgi") == 1

    # The same again would come to the same.
    assert fleet.tick(gates=strict).returncode == 0
    table = fleet.summary()
    assert dict(table["action"]) == {"corgi": "skipped", "mallard": "skipped"}
    assert "made of the same, was kept out: evaluate/psnr" in table["reason"]["corgi"]
    assert len(fleet.rows("dreambooth3d")) == 3

    # A subject that fails does not stop the other, and the exit code tells.
    (data / "corgi" / "untracked.jpg").write_bytes(b"")
    result = fleet.tick(training=SHORTEST | {"seed": 7})
    assert result.returncode == 1
    table = fleet.summary()
    assert dict(table["action"]) == {"corgi": "failed", "mallard": "promoted"}
    assert "untracked.jpg: is not tracked by DVC" in table["reason"]["corgi"]
    assert table["reason"]["mallard"] == "changed since production version 1: configuration"
    assert result.stderr.strip().splitlines()[-1].startswith("Error: 1 of the subjects failed (corgi)")
    assert fleet.production("mallard") == 2


@pytest.mark.slow
def test_portfolio(fleet: Fleet) -> None:
    """Every subject has a child run and a row, and what was trained before comes from the cache."""
    training, never = SHORTEST | {"seed": 11}, {"evaluate": {"enable_cache": False}}
    for cached in (0.0, 1.0):
        names = ["mallard", "teapot"]
        result = fleet.tick("portfolio.portfolio", steps=never, subjects=names, training=training)
        assert result.returncode == 0, result.stderr[-3000:]
        assert dict(fleet.summary("dreambooth3d-portfolio")["action"]) == {"mallard": "trained", "teapot": "trained"}
        newest = fleet.rows("dreambooth3d")[:2]
        assert {row.data.tags["subject"] for row in newest} == {"mallard", "teapot"}
        assert {row.data.metrics["steps/cached/init_nerf"] for row in newest} == {cached}
        # Settings of the YAML reach the steps of the children.
        assert {row.data.metrics["steps/cached/evaluate"] for row in newest} == {0.0}


def _run(status: ExecutionStatus, name: str = "some-run") -> SimpleNamespace:
    return SimpleNamespace(id=name, name=name, status=status, snapshot=None, steps={})


@pytest.fixture
def orchestrator(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An orchestrator that returns before the run's state is known; `later` is what ZenML answers then."""
    state = SimpleNamespace(later=[], marked=[])

    class Client:
        active_stack = SimpleNamespace(
            orchestrator=SimpleNamespace(config=SimpleNamespace(is_synchronous=True), settings_class=None)
        )

        def get_pipeline_run(self, name: str) -> SimpleNamespace:
            return _run(state.later.pop(0) if len(state.later) > 1 else state.later[0])

    monkeypatch.setattr(outcome, "Client", Client)
    monkeypatch.setattr(outcome, "publish_failed_pipeline_run", state.marked.append)
    monkeypatch.setattr(outcome, "POLL_S", 0.0)
    monkeypatch.setattr(outcome, "SETTLE_S", 0.05)
    return state


def test_failed_run_object_fails_the_command(orchestrator: SimpleNamespace) -> None:
    for status, verb in ((ExecutionStatus.FAILED, "failed"), (ExecutionStatus.STOPPED, "was stopped")):
        orchestrator.later = [status]
        with pytest.raises(DreamBooth3DError, match=f"Run some-run {verb}"):
            outcome.require_success(_run(status), None)
    orchestrator.later = [ExecutionStatus.COMPLETED]
    assert outcome.require_success(_run(ExecutionStatus.RUNNING), None).status == ExecutionStatus.COMPLETED
    assert outcome.require_success(None, None) is None and orchestrator.marked == []


def test_run_that_ends_late_is_waited_for(orchestrator: SimpleNamespace) -> None:
    orchestrator.later = [ExecutionStatus.RUNNING, ExecutionStatus.COMPLETED]
    assert outcome.require_success(_run(ExecutionStatus.RUNNING), None).status == ExecutionStatus.COMPLETED
    orchestrator.later = [ExecutionStatus.RUNNING, ExecutionStatus.FAILED]
    with pytest.raises(DreamBooth3DError, match="Run some-run failed"):
        outcome.require_success(_run(ExecutionStatus.RUNNING), None)


def test_run_that_never_ends_fails_the_command(orchestrator: SimpleNamespace) -> None:
    orchestrator.later = [ExecutionStatus.RUNNING]
    with pytest.raises(DreamBooth3DError, match="is lost: its orchestrator ended before it did"):
        outcome.require_success(_run(ExecutionStatus.RUNNING), None)
    assert orchestrator.marked == ["some-run"]


@dataclass(frozen=True)
class Version:
    """A registered version as the retraining sees it."""

    number: str
    run: str
    metrics: dict[str, float]
    identity: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


class Registry:
    """One subject's versions; the lock is checked."""

    def __init__(self, candidate: Version, production: Version | None) -> None:
        self.held, self.now, self.new = False, production, candidate
        self.refused: tuple[Version, str, str] | None = None

    @contextmanager
    def exclusive(self, subject: str) -> Iterator[None]:
        self.held = True
        yield
        self.held = False

    def candidate(self, subject: str, run_name: str) -> Version:
        assert self.held and run_name == self.new.run
        return self.new

    def production(self, subject: str) -> Version | None:
        return self.now

    def refuse(self, version: Version, reason: str, production: str, gates: str) -> None:
        assert self.held and gates
        self.refused = (version, reason, production)

    def promote(self, version: Version, reason: str) -> None:
        assert self.held
        if version.metrics.get("break"):
            raise RuntimeError("the registry is away\nTraceback")
        self.now = version


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Verdict, Registry]]:
    """Judge a child's version against a production version."""
    from operations.launch import retraining
    from operations.launch.children import Child

    def judge(
        new: Version, old: Version | None, error: str = "", decided: Version | None = None
    ) -> tuple[Verdict, Registry]:
        registry = Registry(new, old)
        monkeypatch.setattr(retraining, "promotion", registry)
        gates = PromotionConfig.model_validate({"regression": {"evaluate/psnr": {"tolerance": 0.5}}})
        before = decided or old
        decision = Verdict("corgi", "train", "changed", "abc.dir", production=before.number if before else "")
        return retraining.judge_child(decision, Child(new.run, error), gates), registry

    return judge


def test_better_version_becomes_production(judged: Callable[..., tuple[Verdict, Registry]]) -> None:
    old, new = Version("1", "old", {"evaluate/psnr": 12.0}), Version("2", "new", {"evaluate/psnr": 13.0})
    verdict, registry = judged(new, old)
    assert (verdict.action, verdict.version, registry.now) == ("promoted", "2", new)
    assert judged(new, None)[1].now == new


def test_worse_version_is_kept_out(judged: Callable[..., tuple[Verdict, Registry]]) -> None:
    old, new = Version("1", "old", {"evaluate/psnr": 12.0}), Version("2", "new", {"evaluate/psnr": 11.0})
    verdict, registry = judged(new, old)
    assert (verdict.action, registry.now) == ("kept", old)
    assert verdict.reason.startswith("production 1 was kept: evaluate/psnr = 11 is worse")
    assert registry.refused == (new, verdict.reason.partition(": ")[2], "1")
    verdict, registry = judged(Version("2", "new", {}, interrupted=True), None)
    assert (verdict.action, registry.now, registry.refused) == ("kept", None, None)
    assert verdict.reason == "nothing was promoted: the run was interrupted"


def test_promotion_that_came_between_decision_and_comparison_stays(
    judged: Callable[..., tuple[Verdict, Registry]],
) -> None:
    """It may be of newer photos; the next tick compares with it."""
    seen, now, new = (Version(number, number, {"evaluate/psnr": 12.0}) for number in "132")
    verdict, registry = judged(new, now, decided=seen)
    assert (verdict.action, registry.now, registry.refused) == ("kept", now, None)
    assert verdict.reason == "production 3 was kept: production has changed to version 3 since this run decided"


def test_restarted_run_promotes_nothing_twice(judged: Callable[..., tuple[Verdict, Registry]]) -> None:
    version, old = Version("2", "new", {"break": 1.0}), Version("1", "old", {})
    assert judged(version, version, decided=old)[0].action == "promoted"


def test_subjects_train_side_by_side_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one starts when the oldest ends; each is told as soon as it is known to have ended."""
    from operations.launch import children

    story: list[str] = []

    class Future:
        def __init__(self, name: str) -> None:
            self.name = name
            story.append(f"start {name}")

        def result(self) -> None:
            story.append(f"end {self.name}")
            if self.name == "b":
                raise RuntimeError("out of memory")

    refused = children.Child(error="no photos")
    monkeypatch.setattr(children, "_can_run_apart", lambda: True)
    monkeypatch.setattr(children, "_submit", lambda training, name, config: refused if name == "d" else Future(name))
    monkeypatch.setattr(children, "_run", lambda name: SimpleNamespace(name=f"run of {name}", steps={}))
    ended = dict(children.train_children(None, dict.fromkeys("abcde"), parallel=2))
    assert story == ["start a", "start b", "end a", "start c", "end b", "end c", "start e", "end e"]
    assert ended["b"] == children.Child("run of b", "out of memory") and ended["d"] == refused
    assert list(ended) == [*"abcde"] and ended["e"] == children.Child("run of e")


def test_failures_are_verdicts(judged: Callable[..., tuple[Verdict, Registry]]) -> None:
    verdict, _ = judged(Version("2", "new", {}), None, error="no photos")
    assert (verdict.action, verdict.reason, verdict.run) == ("failed", "no photos", "new")
    verdict, registry = judged(Version("2", "new", {"break": 1.0}), None)
    assert (verdict.action, registry.now) == ("failed", None)
    assert verdict.reason == "not promoted: the registry is away"
