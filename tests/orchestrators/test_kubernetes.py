"""The product's configuration for Kubernetes on an emulated cluster: real ZenML, real pods as processes, real commands.

The cluster validates every manifest against the schemas of two Kubernetes versions and refuses unknown fields.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.orchestrators.conftest import Checkout, until

pytestmark = pytest.mark.slow
FAILS, TAKES_LONG = 1, 2  # what tiny_pipeline.py makes of these seeds; importing it here would change the product
GIB = 2**30


def _main(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["spec"]["containers"]
    return container


def _step_pods(checkout: Checkout, run: str, step: str) -> list[dict[str, Any]]:
    pods = checkout.cluster.items("pods")
    labels = {"run_id": run, "step_name": step}
    return [pod for pod in pods if labels.items() <= pod["metadata"]["labels"].items()]


def _kubernetes(values: dict[str, Any], step: bool = True) -> dict[str, Any]:
    holder = values["steps"]["finetune_dreambooth"] if step else values
    return holder["settings"]["orchestrator.kubernetes"]


def test_a_run_is_waited_for_and_its_training_pod_has_what_the_yaml_says(on_cluster: Checkout) -> None:
    """The step itself tells which node, which GPU and how much shared memory it found; the pod tells the rest."""
    result = on_cluster.run_pipeline(on_cluster.write_config("once"))
    assert result.returncode == 0, result.stderr[-3000:]
    run = on_cluster.runs()[0]
    assert run["body"]["status"] == "completed" and run["resources"]["schedule"] is None
    (pod,) = _step_pods(on_cluster, run["id"], "finetune_dreambooth")
    (first,) = _step_pods(on_cluster, run["id"], "validate_photos")
    (line,) = re.findall(r"FOUND (\{.*\})", on_cluster.cluster.log(pod))
    found = json.loads(line)
    assert found.pop("photos") == {"host": first["metadata"]["name"], "gpus": "void"}
    assert found.pop("gpus") in ("0", "1")
    assert found == {"host": pod["metadata"]["name"], "shared_memory": 8 * GIB}
    assert (first["spec"]["nodeName"], pod["spec"]["nodeName"]) == ("cpu-0", "gpu-0")
    assert _main(pod)["resources"] == {
        "requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"nvidia.com/gpu": "1", "memory": "32Gi"},
    }  # fmt: skip
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["spec"]["tolerations"]
    assert pod["spec"]["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert {"name": "dshm", "mountPath": "/dev/shm"} in _main(pod)["volumeMounts"]
    jobs = {job["metadata"]["name"]: job for job in on_cluster.cluster.items("jobs")}
    job = jobs[pod["metadata"]["labels"]["job-name"]]
    assert (job["spec"]["activeDeadlineSeconds"], job["spec"]["backoffLimit"]) == (14400, 1)


def test_no_pod_holds_the_token_or_a_key_in_plain_text(on_cluster: Checkout) -> None:
    """Every variable that carries a secret refers to one."""
    pods = on_cluster.cluster.items("pods")
    variables = [variable for pod in pods for variable in _main(pod).get("env") or []]
    tokens = [variable for variable in variables if variable["name"] == "ZENML_STORE_API_TOKEN"]
    assert tokens and all("secretKeyRef" in variable["valueFrom"] and "value" not in variable for variable in tokens)
    assert "aws_secret_access_key" not in str(pods).lower() and on_cluster.cluster.zenml_key not in str(pods)


def test_a_schedule_fires_by_itself_until_it_is_deleted(on_cluster: Checkout) -> None:
    """One command registers the CronJob with the YAML's policy; the next tick runs all steps; it can be paused."""

    def every_minute(values: dict[str, Any]) -> None:
        values["schedule"] = {"name": "every_minute", "cron_expression": "* * * * *"}

    cluster = on_cluster.cluster
    result = on_cluster.run_pipeline(on_cluster.write_config("cron", seed=5, change=every_minute))
    assert result.returncode == 0, result.stderr[-3000:]
    (cron_job,) = cluster.items("cronjobs")
    assert (cron_job["spec"]["schedule"], cron_job["spec"]["concurrencyPolicy"]) == ("* * * * *", "Forbid")
    assert (cron_job["spec"]["startingDeadlineSeconds"], cron_job["spec"]["successfulJobsHistoryLimit"]) == (3600, 3)
    template = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (secret,) = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for variable in template["containers"][0]["env"]
        if variable["name"] == "ZENML_STORE_API_TOKEN"
    }
    path = f"/apis/batch/v1/namespaces/zenml/cronjobs/{cron_job['metadata']['name']}"
    try:
        until(lambda: cluster.items("cronjobs")[0]["status"].get("lastScheduleTime"), 70)
        cluster.call("PATCH", path, {"spec": {"suspend": True}})  # one tick is enough
        (listed,) = json.loads(_schedules(on_cluster, "list", "--json"))
        described = {"name": "every_minute", "pipeline": "dreambooth3d", "cron": "* * * * *", "active": True}
        assert described.items() <= listed.items() and listed["orchestrator"] == "gpu_orchestrator"
        until(lambda: _statuses(on_cluster, listed["id"]) == ["completed"])
        cluster.call("PATCH", path, {"spec": {"suspend": False}})
        assert "every_minute was paused." in _schedules(on_cluster, "pause", "every_minute", "--force")
        assert cluster.items("cronjobs")[0]["spec"]["suspend"] is True
        assert cluster.ask_zenml(f"schedules/{listed['id']}")["body"]["active"] is False
        assert "every_minute was resumed." in _schedules(on_cluster, "resume", "every_minute")
        assert cluster.items("cronjobs")[0]["spec"]["suspend"] is False
        assert secret in _names(on_cluster, "secrets")
        assert secret in _schedules(on_cluster, "delete", "every_minute", "--force")
        assert secret not in _names(on_cluster, "secrets") and cluster.items("cronjobs") == []
    finally:
        if cluster.items("cronjobs"):
            cluster.call("DELETE", path)


def _statuses(checkout: Checkout, schedule: str) -> list[str]:
    return [run["body"]["status"] for run in checkout.runs(schedule_id=schedule)]


def _names(checkout: Checkout, resource: str) -> set[str]:
    return {found["metadata"]["name"] for found in checkout.cluster.items(resource)}


def _schedules(checkout: Checkout, *arguments: str) -> str:
    result = checkout.dreambooth3d("schedules", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def _bad_cron(values: dict[str, Any]) -> None:
    values["schedule"] = {"cron_expression": "0 3 * *"}


def _impossible_cron(values: dict[str, Any]) -> None:
    values["schedule"] = {"cron_expression": "61 3 * * 0"}


def _long_name(values: dict[str, Any]) -> None:
    values["schedule"] = {"cron_expression": "0 3 * * 0"}
    _kubernetes(values, step=False)["job_name_prefix"] = "a-prefix-that-leaves-no-room-for-the-name"


def _gpu_without_limit(values: dict[str, Any]) -> None:
    _kubernetes(values)["pod_settings"]["resources"] = {"requests": {"nvidia.com/gpu": "1"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_bad_cron, "schedule.cron_expression: '0 3 * *' has not five fields"),
        (_impossible_cron, "Nothing was started: Orchestrator failed to submit"),
        (_long_name, "no more than 52 characters"),
        (_gpu_without_limit, "resources.requests.nvidia.com/gpu: '1' needs the same under limits"),
    ],
)
def test_what_the_cluster_would_refuse_ends_in_one_sentence(
    on_cluster: Checkout, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    """Exit code 1, no traceback, and no CronJob is left behind."""
    result = on_cluster.run_pipeline(on_cluster.write_config("refused", change=change))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert message in result.stderr.splitlines()[-1], result.stderr[-2000:]
    assert on_cluster.cluster.items("cronjobs") == []


def _missing_image(values: dict[str, Any]) -> None:
    values["settings"]["docker"]["parent_image"] = "registry.example.com/nowhere:1"


def _unschedulable(values: dict[str, Any]) -> None:
    _kubernetes(values)["pod_settings"]["tolerations"] = []
    _kubernetes(values)["active_deadline_seconds"] = 8


@pytest.mark.parametrize(
    ("seed", "change", "message"),
    [
        (FAILS, None, "failed in finetune_dreambooth"),
        (6, _missing_image, "is lost"),
        (7, _unschedulable, " failed. "),  # the step never began; the orchestrator's log, which is shown, says why
    ],
    ids=["failing_step", "missing_image", "unschedulable"],
)
def test_a_run_that_fails_ends_the_command_with_1(
    on_cluster: Checkout, seed: int, change: Callable[[dict[str, Any]], None] | None, message: str
) -> None:
    """ZenML's own command exits 0 here; ours says what happened, and the server says failed."""
    result = on_cluster.run_pipeline(on_cluster.write_config("failing", seed, change))
    assert result.returncode == 1 and message in result.stderr.splitlines()[-1], result.stderr[-2000:]
    run = on_cluster.runs()[0]
    assert run["body"]["status"] == "failed" and run["name"] in result.stderr.splitlines()[-1]
    if seed == FAILS:
        # ZenML has deleted the job with its pods; their logs tell of one retry.
        logs = [path.read_text() for path in (on_cluster.cluster.folder / "logs").glob("*-finetune-dreambooth-*")]
        assert sum("RuntimeError: out of memory, says the test" in log for log in logs) == 2
    if change is _unschedulable:
        assert "node(s) had untolerated taint(s)" in result.stderr + result.stdout


def test_a_killed_orchestrator_pod_ends_in_a_failed_run(on_cluster: Checkout) -> None:
    """The process of the orchestrator pod is killed while the training step runs."""

    def no_second_chance(values: dict[str, Any]) -> None:
        _kubernetes(values, step=False)["orchestrator_job_backoff_limit"] = 0

    before = {run["id"] for run in on_cluster.runs()}
    process = on_cluster.start_pipeline(on_cluster.write_config("killed", TAKES_LONG, no_second_chance))
    try:
        pod = until(lambda: _running_training_pod(on_cluster, before))
        for number in _processes_with(pod["metadata"]["labels"]["run_id"], "kubernetes_orchestrator_entrypoint"):
            os.kill(number, signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1 and "is lost" in errors.splitlines()[-1], errors[-2000:]
    assert on_cluster.runs()[0]["body"]["status"] == "failed"
    path = f"/apis/batch/v1/namespaces/zenml/jobs/{pod['metadata']['labels']['job-name']}"
    on_cluster.cluster.call("DELETE", path)


def _running_training_pod(checkout: Checkout, before: set[str]) -> dict[str, Any] | None:
    for pod in checkout.cluster.items("pods"):
        labels = pod["metadata"]["labels"]
        new = labels.get("step_name") == "finetune_dreambooth" and labels["run_id"] not in before
        if new and pod["status"]["phase"] == "Running":
            return pod
    return None


def _processes_with(*words: str) -> list[int]:
    """The ids of the Python processes whose command line holds all words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "python" in Path(command[0]).name and all(any(word in part for part in command) for word in words):
            found.append(int(entry.name))
    return found
