"""A schedule that is made once, and three of its ticks: real training in pods, MLflow with a login, artifacts on S3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from operations.launch.presets import read_preset
from tests.orchestrators.conftest import Checkout, until
from tests.orchestrators.fleet import NEW_PHOTO, PRESET, SCHEDULE, SUBJECTS, Fleet, product_photos, scheduled
from tests.product import SHORTEST, write_models

pytestmark = pytest.mark.slow
# Of the shortest recipe, those that the preset sends to a GPU, and the others.
ON_GPU = {"finetune_dreambooth", "select_checkpoints", "init_nerf", "evaluate", "export_asset"}
ON_CPU = {"validate_photos", "load_ground_truth", "publish"}


@pytest.fixture(scope="module")
def fleet(on_cluster: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The schedule, with a few steps of training and tiny models in the place of those that the image carries."""
    folder = tmp_path_factory.mktemp("retraining")
    write_models(folder / "models")

    def shortest(parameters: dict[str, Any]) -> None:
        parameters["gates"] = {
            "bounds": {"evaluate/psnr": {"min": 1.0}}, "regression": {"evaluate/psnr": {"tolerance": 50.0}},
        }  # fmt: skip
        parameters["training"] = SHORTEST | {
            "base_model": {"path": str(folder / "models" / "tiny")},
            "scorers": {name: str(folder / "models" / name) for name in ("selector", "judge")},
        }

    with scheduled(on_cluster, folder, shortest) as made:
        yield made


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
    assert trained[0]["tags"]["subject"] == "corgi" and len(trained) == len(fleet.trainings()) == 3
    assert {row["status"] for row in [*trained, *fleet.rows("dreambooth3d-retrain")]} == {"FINISHED"}

    # All of them came from the one schedule.
    assert [job["metadata"]["uid"] for job in fleet.cluster.items("cronjobs")] == [fleet.cron_job["metadata"]["uid"]]
    (schedule,) = fleet.tell("schedules", "list")
    assert (schedule["name"], schedule["pipeline"]) == (SCHEDULE, "retrain")
    assert len(fleet.checkout.runs(schedule_id=schedule["id"], pipeline="retrain")) == 3


def test_each_training_step_had_a_pod_with_what_the_preset_gives_it(fleet: Fleet) -> None:
    """Also where a single subject was due: a GPU, the way to its node, shared memory; none for the other steps."""
    preset = read_preset(PRESET).values["steps"]["finetune_dreambooth"]["settings"]["orchestrator.kubernetes"]
    wanted = preset["pod_settings"]
    assert wanted["resources"]["limits"]["nvidia.com/gpu"] == "1" and wanted["volumes"] and wanted["tolerations"]
    jobs = {job["metadata"]["name"]: job for job in fleet.cluster.items("jobs")}
    (keys,) = fleet.cluster.ask_zenml("secrets?name=photo_keys")["items"]
    for run in fleet.trainings():
        pods = {
            pod["metadata"]["labels"]["step_name"]: pod
            for pod in fleet.cluster.items("pods")
            if pod["metadata"]["labels"].get("run_id") == run["id"]
        }
        assert pods.keys() == ON_GPU | ON_CPU
        assert keys["id"] in run["metadata"]["config"]["secrets"]  # without which no pod could fetch photos
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


def test_no_pod_holds_the_token_in_plain_text(fleet: Fleet) -> None:
    """ZenML writes it into the pods of a dynamic pipeline's steps; here a secret of their run has it."""
    secrets = {one["metadata"]["name"]: one for one in fleet.cluster.items("secrets")}
    jobs = {job["metadata"]["uid"] for job in fleet.jobs()}
    for run in fleet.trainings():
        name = f"zenml-token-run-{run['id']}"
        (owner,) = secrets[name]["metadata"]["ownerReferences"]
        assert owner["uid"] in jobs
        pods = [pod for pod in fleet.cluster.items("pods") if pod["metadata"]["labels"].get("run_id") == run["id"]]
        assert len(pods) == len(ON_GPU | ON_CPU)
        for pod in pods:
            variables = {one["name"]: one for one in pod["spec"]["containers"][0]["env"]}
            token = variables["ZENML_STORE_API_TOKEN"]
            assert token["valueFrom"]["secretKeyRef"]["name"] == name and "value" not in token
            assert "ZENML_STORE_API_KEY" not in variables


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
