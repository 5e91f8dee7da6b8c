"""`prune`: old runs go with their files, and nothing that anything else needs, the cache's sharing included."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from zenml.client import Client
from zenml.enums import MetadataResourceTypes
from zenml.models import PipelineRunResponse, RunMetadataResource
from zenml.utils.pagination_utils import depaginate

from dreambooth3d.artifacts import DreamBoothCheckpoint
from dreambooth3d.cli import prune
from dreambooth3d.cli.prune import run_prune
from dreambooth3d.cli.run_pages import write_report
from dreambooth3d.errors import ConfigError
from operations.records import rows
from operations.registry import retention
from operations.registry.retention import LEFTOVER, make_plan
from operations.registry.versions import CHANGE_KEY, PRUNED, Change, changes_of, trail
from tests.operations.toy import configured, run_toy, toy_from

SUBJECT = "dreambooth3d-frosty"


@pytest.fixture(autouse=True)
def clean_slate(home: Path) -> Iterator[None]:
    """No runs, versions and models of other tests."""
    empty()
    yield
    empty()


def empty() -> None:
    client = Client()
    for run in depaginate(client.list_pipeline_runs):
        client.delete_pipeline_run(run.id)
    for model in depaginate(client.list_models):
        client.delete_model(model.id)
    for version in depaginate(client.list_artifact_versions):
        client.zen_store.delete_artifact_version(version.id)


def run_frosty(**parameters: object) -> PipelineRunResponse:
    return run_toy(subject="frosty", **parameters)


def promote(run: PipelineRunResponse, stage: str = "production") -> None:
    links = Client().list_model_version_pipeline_run_links(pipeline_run_id=run.id).items
    Client().update_model_version(SUBJECT, links[0].model_version, stage=stage, force=True)


def folders(run: PipelineRunResponse) -> dict[str, Path]:
    """Where each output of a run lies."""
    return {name: Path(step.output.uri) for name, step in run.steps.items()}


def names() -> set[str]:
    return {run.name for run in depaginate(Client().list_pipeline_runs)}


def test_an_old_run_goes_and_its_row_stays(lines: list[str]) -> None:
    old, new = run_frosty(seed=1), run_frosty(seed=2)
    before = folders(old)
    plan = run_prune(lines.append, keep_runs=1, older_than_days=0, dry_run=True)
    assert [run.id for run in plan.runs] == [old.id]
    assert all(path.exists() for path in before.values())
    assert names() == {old.name, new.name}

    run_prune(lines.append, keep_runs=1, older_than_days=0)
    assert names() == {new.name}
    assert not any(path.exists() for path in before.values())
    assert all(path.exists() for path in folders(new).values())
    left = {version.uri for version in depaginate(Client().list_artifact_versions)}
    assert left == {str(path) for path in folders(new).values()}
    assert "pruned" in rows.find_row(old.name).data.tags
    assert "pruned" not in rows.find_row(new.name).data.tags
    assert [version.number for version in Client().list_model_versions(model_name_or_id=SUBJECT).items] == [2]

    lines.clear()
    run_prune(lines.append, keep_runs=1, older_than_days=0)
    assert lines[-1] == "Nothing to prune."


def test_the_report_of_a_run_that_is_gone_has_its_rows_figures(lines: list[str], tmp_path: Path) -> None:
    old, _ = run_frosty(seed=1), run_frosty(seed=2)
    row = rows.find_row(old.name).info.run_id
    figures = {"evaluate/psnr_fg": 21.25, "steps/seconds/evaluate": 12.0, "steps/seconds/init_nerf": 65.0}
    for key, value in figures.items():
        rows.client().log_metric(row, key, value)
    run_prune(lines.append, keep_runs=1, older_than_days=0)
    write_report(old.name, tmp_path / "report.html")
    said = re.sub(r"<style>.*?</style>|<[^>]*>", " ", (tmp_path / "report.html").read_text(), flags=re.DOTALL)
    assert "21.2" in said and "1 min" not in said and "65 s" in said
    assert "is gone: evaluate, init_nerf." in said


def test_production_stays_with_what_its_cached_steps_took_from_an_older_run(lines: list[str]) -> None:
    """Production's checkpoints were made by a run that goes, and the chosen one references the weights of the set."""
    maker, production = run_frosty(seed=1), run_frosty(seed=1)
    assert production.steps["train"].status == production.steps["pick"].status == "cached"
    assert folders(production)["train"] == folders(maker)["train"]
    promote(production)
    run_frosty(seed=2)
    latest = run_frosty(seed=3)
    own = folders(maker)["finish"]

    run_prune(lines.append, keep_runs=0, older_than_days=0)
    assert names() == {production.name, latest.name}
    assert not own.exists()
    chosen: DreamBoothCheckpoint = Client().get_pipeline_run(production.id).steps["pick"].output.load()
    assert float(chosen.unet.load()["weight"][0]) == 3.0
    assert any("frosty version 2 is in production" in line for line in lines)


def test_weights_in_an_artifact_that_no_step_of_the_run_knows(lines: list[str]) -> None:
    """A run that took a checkpoint by its id: only `checkpoint.json` tells where the weights lie."""
    maker = run_frosty(seed=1)
    production = configured(toy_from, "frosty")(version=maker.steps["pick"].output.id)
    picked, weights = maker.steps["pick"].output.id, folders(maker)["train"]
    assert [version.id for version in production.steps["finish"].inputs["checkpoint"]] == [picked]
    promote(production)
    run_frosty(seed=2)
    run_prune(lines.append, keep_runs=0, older_than_days=0)
    assert maker.name not in names()
    assert list(weights.rglob("unet.safetensors"))
    chosen = Client().get_artifact_version(picked).load()
    assert float(chosen.unet.load()["weight"][0]) == 3.0


@pytest.mark.parametrize("stage", ["staging", "archived"])
def test_a_staged_version_and_the_one_to_go_back_to_stay(stage: str, lines: list[str]) -> None:
    staged = run_frosty(seed=1)
    promote(staged, stage)
    gone, latest = run_frosty(seed=2), run_frosty(seed=3)
    run_prune(lines.append, keep_runs=0, older_than_days=0)
    assert names() == {staged.name, latest.name}
    assert all(path.exists() for path in folders(staged).values())
    assert gone.name not in names()


def test_the_way_back_is_that_of_the_records_which_outlive_their_files(lines: list[str]) -> None:
    """3 was rolled back to 2, and 4 came after: from 4 the way leads to 2, and never to 3."""
    made = [run_frosty(seed=seed) for seed in range(1, 5)]
    story = [("promote", 1), ("promote", 2), ("promote", 3), ("rollback", 2), ("promote", 4)]
    for sequence, (action, number) in enumerate(story):
        promote(made[number - 1])
        change = Change(f"{CHANGE_KEY}{sequence}", sequence, action, "", str(number), "", "", "", "done")
        version = Client().get_model_version(SUBJECT, number)
        resource = RunMetadataResource(id=version.id, type=MetadataResourceTypes.MODEL_VERSION)
        Client().create_run_metadata({change.key: change.record()}, resources=[resource])
    run_prune(lines.append, keep_runs=0, older_than_days=0)
    assert names() == {made[1].name, made[3].name}
    versions = {version.number: version for version in depaginate(Client().list_model_versions, hydrate=True)}
    assert {number for number, version in versions.items() if PRUNED in version.run_metadata} == {1, 3}
    assert trail(changes_of(versions.values())) == ["1", "2", "4"]
    run_prune(lines.append, keep_runs=0, older_than_days=0)
    assert lines[-1] == "Nothing to prune."


def test_local_copies_of_datasets_go_when_they_are_not_used(
    lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMBOOTH3D_WORK", str(tmp_path / "state" / "work"))
    old, new = (tmp_path / "state" / "datasets" / name for name in ("old", "new"))
    for folder, days in ((old, 31), (new, 1)):
        folder.mkdir(parents=True)
        (folder / "data.dvc").touch()
        used = (datetime.now(UTC) - timedelta(days=days)).timestamp()
        os.utime(folder / "data.dvc", (used, used))
    run_prune(lines.append, keep_runs=0, older_than_days=30, dry_run=True)
    assert old.is_dir() and lines[-2] == f"{old}: would be deleted."
    run_prune(lines.append, keep_runs=0, older_than_days=30)
    assert not old.exists() and new.is_dir()


def test_age_and_number_are_both_needed(lines: list[str]) -> None:
    made = [run_frosty(seed=seed) for seed in (1, 2, 3)]
    now = datetime.now(UTC).replace(tzinfo=None)
    assert make_plan(1, timedelta(days=1), now).runs == ()
    later = make_plan(1, timedelta(days=1), now + timedelta(days=2))
    assert [run.id for run in later.runs] == [run.id for run in made[:2]]
    assert make_plan(3, timedelta(days=1), now + timedelta(days=2)).runs == ()


def test_each_subject_keeps_its_own(lines: list[str]) -> None:
    first, other = run_frosty(seed=1), run_toy(subject="koi", seed=4)
    run_prune(lines.append, keep_runs=1, older_than_days=0)
    assert names() == {first.name, other.name}


def test_failed_runs_do_not_push_good_ones_out(lines: list[str]) -> None:
    good = run_frosty(seed=1)
    for _ in range(2):
        with pytest.raises(Exception):  # noqa: B017  (ZenML chooses the type)
            run_frosty(seed=1, fail=True)
    run_prune(lines.append, keep_runs=1, older_than_days=0)
    assert good.name in names()


def test_a_subjects_latest_version_is_not_that_of_a_failed_run(lines: list[str]) -> None:
    """ZenML makes a version when a run begins; the failed one's must not send away the last good one."""
    run_frosty(seed=1)
    good = run_frosty(seed=2)
    with pytest.raises(Exception):  # noqa: B017  (ZenML chooses the type)
        run_frosty(seed=2, fail=True)
    run_prune(lines.append, keep_runs=0, older_than_days=0)
    assert names() == {good.name}
    assert all(path.exists() for path in folders(good).values())


def test_a_foreign_run_is_not_touched(lines: list[str]) -> None:
    from tests.operations.toy import toy

    foreign = toy(seed=9)
    run_prune(lines.append, keep_runs=0, older_than_days=0)
    assert names() == {foreign.name}
    assert all(path.exists() for path in folders(foreign).values())


def test_interrupted_between_run_and_files(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    old = run_frosty(seed=1)
    run_frosty(seed=2)
    places = folders(old)

    def crash(version: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(prune, "_delete_version", crash)
        run_prune(lines.append, keep_runs=1, older_than_days=0)
    assert old.name not in names() and all(path.exists() for path in places.values())
    run_prune(lines.append, keep_runs=1, older_than_days=0)
    assert not any(path.exists() for path in places.values())


def test_a_run_that_starts_meanwhile_keeps_what_the_cache_gave_it(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the plan and the deletion a new run is served from the old one's artifacts."""
    old = run_frosty(seed=1)
    run_frosty(seed=2)
    started: list[PipelineRunResponse] = []
    plan_first = retention.make_plan

    def plan_then_start(*arguments: object) -> retention.Plan:
        plan = plan_first(*arguments)
        started.append(run_frosty(seed=1))
        return plan

    monkeypatch.setattr(prune, "make_plan", plan_then_start)
    run_prune(lines.append, keep_runs=1, older_than_days=0)
    assert old.name not in names()
    chosen = Client().get_pipeline_run(started[0].id).steps["pick"].output.load()
    assert float(chosen.unet.load()["weight"][0]) == 3.0
    left = Client().get_artifact_version(started[0].steps["pick"].output.id)
    assert LEFTOVER not in {tag.name for tag in left.tags}


def test_nonsense_is_refused(lines: list[str]) -> None:
    with pytest.raises(ConfigError, match="cannot be negative"):
        run_prune(lines.append, keep_runs=-1, older_than_days=0)
