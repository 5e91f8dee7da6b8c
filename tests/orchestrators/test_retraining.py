"""A schedule that is made once, and three of its ticks: real training in pods, MLflow with a login, artifacts on S3."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.orchestrators.conftest import Checkout, until
from tests.photos.test_remote import dvc, git
from tests.product import SHORTEST, write_models

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PRESET = ROOT / "configs" / "retrain_kubernetes.yaml"
SCHEDULE, SUBJECTS, NEW_PHOTO = "nightly", ("corgi", "mallard"), "corgi/04.jpg"
# Of the shortest recipe, those that the preset sends to a GPU, and the others.
ON_GPU = {"finetune_dreambooth", "select_checkpoints", "init_nerf", "evaluate", "export_asset"}
ON_CPU = {"validate_photos", "load_ground_truth", "publish"}


class PhotoRepository:
    """A team's photos: a Git repository, a DVC remote, and the clone of somebody who pushes to both."""

    def __init__(self, folder: Path) -> None:
        self.url, self._clone = f"file://{folder / 'photos.git'}", folder / "clone"
        git(folder, "init", "-q", "--bare", "-b", "main", "photos.git")
        git(folder, "clone", "-q", "photos.git", "clone")
        dvc(self._clone, "init", "-q")
        dvc(self._clone, "remote", "add", "-q", "-d", "store", str(folder / "store"))

    def push(self, files: Mapping[str, bytes]) -> None:
        """Add files below data/ for everyone."""
        for name, content in files.items():
            path = self._clone / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        dvc(self._clone, "add", "-q", "data")
        dvc(self._clone, "push", "-q")
        git(self._clone, "add", "data.dvc", ".gitignore", ".dvc/config")
        git(self._clone, "commit", "-q", "-m", f"{len(files)} files")
        git(self._clone, "push", "-q", "origin", "HEAD:main")


def product_photos() -> dict[str, bytes]:
    """The files of the product's own photo sets, by their paths below data/."""

    def stored(md5: str) -> bytes:
        return (ROOT / "data_store" / "files" / "md5" / md5[:2] / md5[2:]).read_bytes()

    (out,) = yaml.safe_load((ROOT / "data.dvc").read_text())["outs"]
    return {entry["relpath"]: stored(entry["md5"]) for entry in json.loads(stored(out["md5"]))}


class Fleet:
    """The schedule as its team sees it.

    Attributes:
        checkout: from which it was made.
        photos: what it trains.
        cron_job: what the cluster holds of it.
    """

    def __init__(self, checkout: Checkout, photos: PhotoRepository) -> None:
        self.checkout, self.photos, self.cluster = checkout, photos, checkout.cluster
        (self.cron_job,) = self.cluster.items("cronjobs")

    def jobs(self) -> list[dict[str, Any]]:
        """The orchestrator's jobs, one per tick."""
        uid = self.cron_job["metadata"]["uid"]
        return [
            job
            for job in self.cluster.items("jobs")
            if uid in {owner["uid"] for owner in job["metadata"].get("ownerReferences", [])}
        ]

    def suspend(self) -> None:
        """Let no more ticks come by themselves, as `kubectl patch cronjob` does; ZenML knows nothing of it."""
        path = f"/apis/batch/v1/namespaces/zenml/cronjobs/{self.cron_job['metadata']['name']}"
        self.cluster.call("PATCH", path, {"spec": {"suspend": True}})

    def fire(self) -> None:
        """Make a job of the CronJob, as `kubectl create job --from=cronjob/...` does."""
        metadata = self.cron_job["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": metadata["name"], "uid": metadata["uid"]}
        job = {
            "metadata": {
                "name": f"{metadata['name']}-{len(self.jobs())}", "ownerReferences": [owner | {"controller": True}],
                "annotations": {"cronjob.kubernetes.io/instantiate": "manual"},
            },
            "spec": self.cron_job["spec"]["jobTemplate"]["spec"],
        }  # fmt: skip
        self.cluster.call("POST", "/apis/batch/v1/namespaces/zenml/jobs", job)

    def wait_for_tick(self, number: int) -> dict[str, tuple[str, str]]:
        """Wait for a tick's end; the action and the reason of each subject."""

        def ended() -> list[Any]:
            conditions = [job["status"].get("conditions", []) for job in self.jobs()]
            return [found for found in conditions if found] if all(conditions) and len(conditions) == number else []

        conditions = until(ended, 1200)
        assert [found[0]["type"] for found in conditions] == ["Complete"] * number, self._log()
        rows = self.rows("dreambooth3d-retrain")
        assert len(rows) == number
        told = rows[0]["params"]
        return {name.removesuffix(".action"): (value, told[f"{name.removesuffix('.action')}.reason"])
                for name, value in told.items() if name.endswith(".action")}  # fmt: skip

    def _log(self) -> str:
        pods = [pod for pod in self.cluster.items("pods") if "step_name" not in pod["metadata"]["labels"]]
        return self.cluster.log(pods[-1])[-5000:]

    def rows(self, experiment: str) -> list[dict[str, Any]]:
        """An experiment's rows, newest first: run, params, metrics, tags."""
        found = self.cluster.ask_mlflow(f"experiments/get-by-name?experiment_name={experiment}")["experiment"]
        query = {"experiment_ids": [found["experiment_id"]], "order_by": ["attributes.start_time DESC"]}
        return [
            {"run": row["info"]["run_name"], "status": row["info"]["status"]}
            | {what: {one["key"]: one["value"] for one in row["data"].get(what, [])} for what in ("params", "tags")}
            for row in self.cluster.ask_mlflow("runs/search", query).get("runs", [])
        ]

    def trainings(self) -> list[dict[str, Any]]:
        """The child runs as ZenML tells them, newest first."""
        return self.checkout.runs(pipeline="dreambooth3d_subject")

    def tell(self, *arguments: str) -> Any:
        """What a command answers with --json to a user who has no login of MLflow, only ZenML's."""
        result = self.checkout.dreambooth3d(*arguments, "--json")
        assert result.returncode == 0, result.stderr[-3000:]
        return json.loads(result.stdout)


@pytest.fixture(scope="module")
def fleet(on_cluster: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The schedule, made by the documented command; its first tick is due within a minute."""
    folder = tmp_path_factory.mktemp("retraining")
    write_models(folder / "models")  # in the place of those that the image carries
    photos, files = PhotoRepository(folder), product_photos()
    photos.push({name: files[name] for name in files if name.split("/")[0] in SUBJECTS and name != NEW_PHOTO})
    values = yaml.safe_load(PRESET.read_text())
    values["schedule"] = {"name": SCHEDULE, "cron_expression": "* * * * *"}
    values["parameters"] |= {
        "dataset": {"url": photos.url, "rev": "main"},
        "gates": {"bounds": {"evaluate/psnr": {"min": 1.0}}, "regression": {"evaluate/psnr": {"tolerance": 50.0}}},
        "training": SHORTEST | {
            "base_model": {"path": str(folder / "models" / "tiny")},
            "scorers": {name: str(folder / "models" / name) for name in ("selector", "judge")},
        },
    }  # fmt: skip
    (on_cluster.root / "configs" / "retrain.yaml").write_text(yaml.safe_dump(values))
    result = on_cluster.run_pipeline("configs/retrain.yaml", "pipelines.retraining.retrain")
    assert result.returncode == 0, result.stderr[-3000:]
    made = Fleet(on_cluster, photos)
    yield made
    on_cluster.dreambooth3d("schedules", "delete", SCHEDULE, "--force")


def test_ticks(fleet: Fleet) -> None:
    """One story, since each tick builds on the one before."""
    # The first comes by itself, trains both subjects, each in a run of its own, and promotes them.
    until(fleet.jobs, 70)
    fleet.suspend()
    until(lambda: fleet.checkout.runs(pipeline="retrain"))
    refused = fleet.checkout.dreambooth3d("schedules", "pause", SCHEDULE)
    assert refused.returncode == 1 and "is under way, and would lose its access to ZenML" in refused.stderr
    first = ("promoted", "there is no production version yet")
    assert fleet.wait_for_tick(1) == dict.fromkeys(SUBJECTS, first)
    assert [run["body"]["status"] for run in fleet.trainings()] == ["completed", "completed"]
    assert {row["tags"]["subject"] for row in fleet.rows("dreambooth3d")} == {*SUBJECTS}
    runs = {row["tags"]["subject"]: row["run"] for row in fleet.rows("dreambooth3d")}

    # The second finds nothing to do, and says so.
    fleet.fire()
    unchanged = {name: f"nothing changed since production version 1 (run {runs[name]})" for name in SUBJECTS}
    assert fleet.wait_for_tick(2) == {name: ("skipped", reason) for name, reason in unchanged.items()}
    assert len(fleet.trainings()) == len(fleet.rows("dreambooth3d")) == 2

    # The third finds one more photo of one subject, and trains that subject alone.
    fleet.photos.push({NEW_PHOTO: product_photos()[NEW_PHOTO]})
    fleet.fire()
    assert fleet.wait_for_tick(3) == {
        "corgi": ("promoted", "changed since production version 1: photos"),
        "mallard": ("skipped", unchanged["mallard"]),
    }
    trained = fleet.rows("dreambooth3d")
    assert [row["tags"]["subject"] for row in trained][0] == "corgi" and len(trained) == len(fleet.trainings()) == 3
    assert {row["status"] for row in [*trained, *fleet.rows("dreambooth3d-retrain")]} == {"FINISHED"}

    # All of them came from the one schedule.
    assert [job["metadata"]["uid"] for job in fleet.cluster.items("cronjobs")] == [fleet.cron_job["metadata"]["uid"]]
    (schedule,) = fleet.tell("schedules", "list")
    assert (schedule["name"], schedule["pipeline"]) == (SCHEDULE, "retrain")
    assert len(fleet.checkout.runs(schedule_id=schedule["id"], pipeline="retrain")) == 3


def test_each_training_step_had_a_pod_with_what_the_preset_gives_it(fleet: Fleet) -> None:
    """Also where a single subject was due: a GPU, the way to its node, shared memory; none for the other steps."""
    preset = yaml.safe_load(PRESET.read_text())["steps"]["finetune_dreambooth"]["settings"]["orchestrator.kubernetes"]
    wanted = preset["pod_settings"]
    assert wanted["resources"]["limits"]["nvidia.com/gpu"] == "1" and wanted["volumes"] and wanted["tolerations"]
    jobs = {job["metadata"]["name"]: job for job in fleet.cluster.items("jobs")}
    for run in fleet.trainings():
        pods = {
            pod["metadata"]["labels"]["step_name"]: pod
            for pod in fleet.cluster.items("pods")
            if pod["metadata"]["labels"].get("run_id") == run["id"]
        }
        assert pods.keys() == ON_GPU | ON_CPU
        for name, pod in pods.items():
            spec, (main,) = pod["spec"], pod["spec"]["containers"]
            if name in ON_CPU:
                assert "nvidia.com/gpu" not in main["resources"]["limits"] and spec["nodeName"] == "cpu-0"
                continue
            assert main["resources"] == wanted["resources"]
            assert spec["nodeSelector"] == wanted["node_selectors"] and spec["nodeName"] == "gpu-0"
            assert all(toleration in spec["tolerations"] for toleration in wanted["tolerations"])
            assert all(volume in spec["volumes"] for volume in wanted["volumes"])
            assert all(mount in main["volumeMounts"] for mount in wanted["volume_mounts"])
            job = jobs[pod["metadata"]["labels"]["job-name"]]
            assert job["spec"]["activeDeadlineSeconds"] == preset["active_deadline_seconds"]


def test_the_commands_work_over_http_and_both_registries_agree(fleet: Fleet) -> None:
    """MLflow refuses who has no login; the commands take it from the secret that the stack names."""
    experiments = f"{fleet.cluster.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert requests.get(experiments, timeout=60).status_code == 401
    rows = fleet.rows("dreambooth3d")
    latest, before = (row["run"] for row in rows if row["tags"]["subject"] == "corgi")
    listed = {row["run"]: row for row in fleet.tell("runs", "list")}
    assert {row["run"] for row in rows} < listed.keys() and len(listed) == 6
    assert listed[latest]["subject"] == "corgi" and {row["status"] for row in listed.values()} == {"completed"}
    shown = fleet.tell("runs", "show", latest)
    assert shown["metrics"]["evaluate/psnr"] > 1.0 and shown["artifacts"]["bundle"].startswith("s3://dreambooth3d/")
    compared = fleet.tell("runs", "compare", before, latest)
    assert compared["metrics"]["evaluate/psnr"].keys() == {before, latest}
    for subject, run, number in (("corgi", latest, "2"), ("mallard", _only(rows, "mallard"), "1")):
        version = fleet.tell("production", "show", subject)
        assert (version["run"], version["number"]) == (run, number)
        name = f"dreambooth3d-{subject}"
        alias = fleet.cluster.ask_mlflow(f"registered-models/alias?name={name}&alias=production")["model_version"]
        tags = {tag["key"]: tag["value"] for tag in alias["tags"]}
        assert tags["zenml.pipeline_run"] == run and alias["version"] == version["mlflow_version"]
        (staged,) = fleet.cluster.ask_zenml(f"model_versions?model={name}&stage=production&hydrate=true")["items"]
        assert (
            str(staged["body"]["number"]) == number and staged["metadata"]["run_metadata"]["zenml.pipeline_run"] == run
        )


def _only(rows: list[dict[str, Any]], subject: str) -> str:
    (run,) = [row["run"] for row in rows if row["tags"]["subject"] == subject]
    return run
