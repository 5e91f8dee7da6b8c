"""The flavor `kubeflow_pods` on an emulated Kubeflow: the real commands of docs/kubeflow.md, compiler and client.

The emulation reads packages by Kubeflow's own protocol buffers and runs their tasks as pods of the emulated cluster.
"""

from __future__ import annotations

import base64
import importlib.metadata
import json
import re
import shlex
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreambooth3d.errors import ConfigError
from operations.launch import checking
from operations.launch.presets import read_preset
from tests.orchestrators.conftest import Checkout, until

ROOT = Path(__file__).resolve().parents[2]
FAILS, FAILS_ONCE = 1, 3  # what tiny_pipeline.py makes of these seeds
GIB = 2**30
PRESET = ROOT / "configs" / "retrain_kubeflow.yaml"
TOKEN = re.compile(r"ey[\w-]{10,}\.[\w-]+\.[\w-]+|ZENKEY_\w+")
"""A JSON Web token, as ZenML's are, or an API key of ZenML's."""


@dataclass(frozen=True)
class Kubeflow:
    """A checkout whose stack `kubeflow` is registered by the commands of docs/kubeflow.md.

    Attributes:
        checkout: of a user.
        url: of the emulated Kubeflow Pipelines.
    """

    checkout: Checkout
    url: str

    def call(self, method: str, path: str) -> Any:
        """Ask the emulation itself."""
        with urllib.request.urlopen(urllib.request.Request(self.url + path, method=method)) as answer:
            return json.load(answer)

    def recorded(self, method: str, path: str) -> list[dict[str, Any]]:
        """The bodies that were sent to a path of Kubeflow's API, in their order."""
        calls = self.call("GET", "/emulator/recorded")
        return [one["body"] for one in calls if (one["method"], one["path"]) == (method, f"/apis/v2beta1{path}")]

    def run(self, pipeline: str, config: str) -> Any:
        """Run the documented command to the end."""
        return self.checkout.zenml("pipeline", "run", pipeline, "--config", config, "--stack", "kubeflow")

    def run_tiny(self, name: str, seed: int = 0, change: Callable[[dict[str, Any]], None] | None = None) -> Any:
        """Run the tiny pipeline with the preset's settings, those of the GPU step included, changed as asked for."""
        values = read_preset(PRESET).values
        del values["schedule"]
        values["parameters"] = {"seed": seed}
        values["steps"] = {"finetune_dreambooth": values["steps"]["retrain_apart"]}
        if change is not None:
            change(values)
        (self.checkout.root / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(values))
        return self.run("pipelines.tiny.dreambooth3d", f"configs/{name}.yaml")

    def pods(self, step: str) -> list[dict[str, Any]]:
        """The pods of a step, over all runs, oldest first."""
        return [pod for pod in self.checkout.cluster.items("pods") if pod["metadata"]["labels"].get("task") == step]

    def schedules(self) -> list[dict[str, Any]]:
        """Those that ZenML knows."""
        return json.loads(self.checkout.dreambooth3d("schedules", "list", "--json").stdout)


@pytest.fixture(scope="module")
def kubeflow(checkout: Checkout) -> Iterator[Kubeflow]:
    """The commands of the page, with the emulation's addresses in place of the examples."""
    for package in ("kfp", "kfp.kubernetes"):
        pytest.importorskip(package, reason="needs kfp: run `make test-orchestrators`")
    from tests.emulators.kfp_api import emulated_pipelines

    shutil.copytree(ROOT / "models", checkout.root / "models", dirs_exist_ok=True)
    with emulated_pipelines(checkout.cluster) as url:
        made = Kubeflow(checkout, url)
        page = (ROOT / "docs" / "kubeflow.md").read_text()
        for line in re.findall(r"^zenml (?:[a-z-]+ )+register .*$", page, re.MULTILINE):
            for example, real in (
                ("https://kubeflow.example.com/pipeline", url), ("https://mlflow.example.com", checkout.cluster.mlflow),
                ("--kubeflow_namespace=kubeflow", "--kubeflow_namespace=zenml"), ("my-cluster", "emulated"),
            ):  # fmt: skip
                line = line.replace(example, real)
            if "artifact-store" in line:
                line += f""" '--client_kwargs={{"endpoint_url": "{checkout.cluster.s3}"}}'"""
            result = checkout.zenml(*shlex.split(line)[1:])
            assert result.returncode == 0, f"{line}: {result.stderr}{result.stdout}"
        yield made


def _tasks(package: dict[str, Any]) -> dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Task, container and Kubernetes part of each step, after Kubeflow's protocol buffers have accepted the package."""
    from tests.emulators.kfp_api import read_package

    read_package(package)
    spec, found = package["pipeline_spec"], {}
    platforms = package["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name, task in spec["root"]["dag"]["tasks"].items():
        label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
        found[name] = (task, spec["deploymentSpec"]["executors"][label]["container"], platforms[label])
    return found


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    return values["steps"]["finetune_dreambooth"]["settings"]["orchestrator.kubeflow_pods"]


@pytest.mark.slow
def test_a_run_is_waited_for_and_its_pods_have_what_the_yaml_says(kubeflow: Kubeflow) -> None:
    """The step itself tells which GPU and how much shared memory it found, the package and the pod tell the rest."""
    result = kubeflow.run_tiny("once")
    assert result.returncode == 0, result.stderr[-3000:]
    run = kubeflow.checkout.runs()[0]
    assert run["body"]["status"] == "completed" and run["resources"]["schedule"] is None
    (pod,), (first,) = kubeflow.pods("finetune-dreambooth"), kubeflow.pods("validate-photos")
    (line,) = re.findall(r"FOUND (\{.*\})", kubeflow.checkout.cluster.log(pod))
    found = json.loads(line)
    assert found.pop("photos") == {"host": first["metadata"]["name"], "gpus": "void"}
    assert found.pop("gpus") in ("0", "1")
    assert found == {"host": pod["metadata"]["name"], "shared_memory": 8 * GIB}
    assert (first["spec"]["nodeName"], pod["spec"]["nodeName"]) == ("cpu-0", "gpu-0")

    body = kubeflow.recorded("POST", "/runs")[-1]
    task, container, platform = _tasks(body["pipeline_spec"])["finetune-dreambooth"]
    assert task["dependentTasks"] == ["validate-photos"] and "enableCache" not in task["cachingOptions"]
    assert (task["retryPolicy"]["maxRetryCount"], task["retryPolicy"]["backoffDuration"]) == (1, "60s")
    resources = container["resources"]
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert resources["accelerator"]["resourceCount"] == "1"
    written = {key: value for key, value in resources.items() if key.startswith("resource")}
    assert written == {
        "resourceCpuRequest": "2", "resourceMemoryRequest": "8Gi", "resourceMemoryLimit": "32Gi",
    }  # fmt: skip
    assert platform["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert platform["nodeSelector"] == {"labels": {"nvidia.com/gpu.present": "true"}}
    assert platform["emptyDirMounts"] == [
        {"volumeName": "dshm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "8Gi"}
    ]
    assert int(platform["activeDeadlineSeconds"]) == 43200
    _, other, _ = _tasks(body["pipeline_spec"])["validate-photos"]
    assert "accelerator" not in other["resources"] and other["resources"]["resourceMemoryLimit"] == "8Gi"


@pytest.mark.slow
def test_the_token_is_in_a_secret_and_nowhere_else(kubeflow: Kubeflow) -> None:
    """Neither what was sent nor what lies on the disk holds one; the secret that the package names does for a while."""
    cluster = kubeflow.checkout.cluster
    before = [secret["metadata"]["name"] for secret in cluster.items("secrets")]

    def new_secrets() -> dict[str, dict[str, str]]:
        every = {secret["metadata"]["name"]: secret["data"] for secret in cluster.items("secrets")}
        return {name: data for name, data in every.items() if name not in before}

    with ThreadPoolExecutor(1) as beside:
        run = beside.submit(kubeflow.run_tiny, "again", seed=12)
        secrets = until(new_secrets)
        assert run.result().returncode == 0 and not new_secrets()
    bodies = kubeflow.call("GET", "/emulator/recorded")
    files = [path.read_text() for path in kubeflow.checkout.root.rglob(".zenconfig/kubeflow/**/*.yaml")]
    assert files and not TOKEN.search(json.dumps(bodies)) and not any(TOKEN.search(text) for text in files)
    _, container, platform = _tasks(kubeflow.recorded("POST", "/runs")[-1]["pipeline_spec"])["validate-photos"]
    assert "ZENML_STORE_URL" in {one["name"] for one in container["env"]}
    (reference,) = platform["secretAsEnv"]
    ((key, variable),) = [(one["secretKey"], one["envVar"]) for one in reference["keyToEnv"]]
    assert variable == "ZENML_STORE_API_TOKEN"
    assert TOKEN.fullmatch(base64.b64decode(secrets[reference["secretName"]][key]).decode())


@pytest.mark.slow
def test_a_secret_of_the_user_s_own_takes_the_token_s_place(kubeflow: Kubeflow) -> None:
    """The pods log in with the API key in it; no other secret is made."""
    cluster = kubeflow.checkout.cluster
    key = base64.b64encode(cluster.zenml_key.encode()).decode()
    secret = {"metadata": {"name": "zenml-api-key"}, "type": "Opaque", "data": {"ZENML_STORE_API_KEY": key}}
    cluster.call("POST", "/api/v1/namespaces/zenml/secrets", secret)
    update = ("orchestrator", "update", "kubeflow")
    try:
        assert kubeflow.checkout.zenml(*update, "--zenml_secret=zenml-api-key").returncode == 0
        before = len(cluster.items("secrets"))
        result = kubeflow.run_tiny("own", seed=4)
        assert result.returncode == 0, result.stderr[-3000:]
        assert len(cluster.items("secrets")) == before
        package = kubeflow.recorded("POST", "/runs")[-1]["pipeline_spec"]
        assert "zenml-token" not in json.dumps(package) and not TOKEN.search(json.dumps(package))
    finally:
        assert kubeflow.checkout.zenml("orchestrator", "remove-attribute", "kubeflow", "zenml_secret").returncode == 0


@pytest.mark.slow
def test_a_failing_step_gets_a_second_pod_and_ends_the_command_with_1(kubeflow: Kubeflow) -> None:
    result = kubeflow.run_tiny("failing", seed=FAILS)
    assert result.returncode == 1 and "failed in finetune_dreambooth" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr.splitlines()[-1]
    run = kubeflow.checkout.runs()[0]
    assert run["body"]["status"] == "failed" and run["name"] in result.stderr.splitlines()[-1]
    kubeflow_run = kubeflow.recorded("POST", "/runs")[-1]["display_name"]
    phases = [pod["status"]["phase"] for pod in kubeflow.pods("finetune-dreambooth")]
    assert phases[-2:] == ["Failed", "Failed"] and kubeflow_run.startswith("dreambooth3d-")


@pytest.mark.slow
def test_a_step_that_succeeds_in_its_second_pod_is_a_success(kubeflow: Kubeflow) -> None:
    result = kubeflow.run_tiny("second_chance", seed=FAILS_ONCE)
    assert result.returncode == 0, result.stderr[-3000:]
    assert kubeflow.checkout.runs()[0]["body"]["status"] == "completed"
    phases = [pod["status"]["phase"] for pod in kubeflow.pods("finetune-dreambooth")]
    assert phases[-2:] == ["Failed", "Succeeded"]


@pytest.mark.slow
def test_the_preset_makes_a_recurring_run_of_both_steps(kubeflow: Kubeflow) -> None:
    """The documented command; then the schedule is paused, resumed and deleted by the product's own commands."""
    result = kubeflow.run("pipelines.retraining_static.retrain_static", "configs/retrain_kubeflow.yaml")
    assert result.returncode == 0, result.stderr[-3000:]
    body = kubeflow.recorded("POST", "/recurringruns")[-1]
    assert body["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}} and body["no_catchup"] is True
    assert (body["mode"], str(body["max_concurrency"])) == ("ENABLE", "1")
    experiments = [one["display_name"] for one in kubeflow.recorded("POST", "/experiments")]
    assert experiments.count("retrain_static") == 1
    tasks = _tasks(body["pipeline_spec"])
    assert tasks["retrain-apart"][0]["dependentTasks"] == ["resolve-dataset"]
    assert tasks["retrain-apart"][1]["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert "accelerator" not in tasks["resolve-dataset"][1]["resources"]
    assert not TOKEN.search(json.dumps(body))
    (schedule,) = kubeflow.schedules()
    secret = tasks["retrain-apart"][2]["secretAsEnv"][0]["secretName"]
    for verb, active in (("pause", False), ("resume", True), ("delete", None)):
        said = kubeflow.checkout.dreambooth3d("schedules", verb, schedule["name"])
        assert said.returncode == 0, said.stderr
        if active is not None:
            assert kubeflow.schedules()[0]["active"] is active
    assert f"The secret {secret} with its API token was removed" in said.stdout
    assert secret not in {one["metadata"]["name"] for one in kubeflow.checkout.cluster.items("secrets")}
    calls = [(one["method"], one["path"].rpartition("/")[2]) for one in kubeflow.call("GET", "/emulator/recorded")]
    verbs = [path.partition(":")[2] or method for method, path in calls if method == "DELETE" or ":" in path]
    assert verbs[-3:] == ["disable", "enable", "DELETE"]


@pytest.mark.slow
def test_every_tick_is_a_run_of_its_own(kubeflow: Kubeflow) -> None:
    """Two ticks of one recurring run; with a placeholder as its id the second would be taken for the first."""

    def nightly(values: dict[str, Any]) -> None:
        values["schedule"] = {"name": "ticks", "cron_expression": "30 2 * * 1-5"}

    before = {run["id"] for run in kubeflow.checkout.runs()}
    result = kubeflow.run_tiny("ticks", seed=8, change=nightly)
    assert result.returncode == 0, result.stderr[-3000:]
    assert kubeflow.recorded("POST", "/recurringruns")[-1]["trigger"] == {"cron_schedule": {"cron": "0 30 2 * * 1-5"}}
    recurring = _recurring_run(kubeflow, "ticks")
    for _ in range(2):
        run = kubeflow.call("POST", f"/emulator/fire/{recurring}")
        assert _ended(kubeflow, run["run_id"]) == "SUCCEEDED"
    runs = [run for run in kubeflow.checkout.runs() if run["id"] not in before]
    assert [run["body"]["status"] for run in runs] == ["completed", "completed"]
    assert all(run["resources"]["schedule"]["name"] == "ticks" for run in runs)
    assert kubeflow.checkout.dreambooth3d("schedules", "delete", "ticks").returncode == 0


def _recurring_run(kubeflow: Kubeflow, name: str) -> str:
    """The id that ZenML keeps with a schedule."""
    code = (
        "from zenml.client import Client\n"
        f"print('ID' + Client().get_schedule({name!r}).run_metadata['kubeflow_recurring_run'])"
    )
    lines = kubeflow.checkout.run("-c", code).stdout.splitlines()
    return next(line.removeprefix("ID") for line in lines if line.startswith("ID"))


def _ended(kubeflow: Kubeflow, run: str) -> str:
    end = time.monotonic() + 240
    while (state := kubeflow.call("GET", f"/apis/v2beta1/runs/{run}")["state"]) == "RUNNING":
        assert time.monotonic() < end, "the run did not end in time"
        time.sleep(0.5)
    return state


def _short_cron(values: dict[str, Any]) -> None:
    values["schedule"] = {"cron_expression": "0 3 * *"}


def _impossible_cron(values: dict[str, Any]) -> None:
    values["schedule"] = {"cron_expression": "61 3 * * 0"}


def _sunday_is_seven(values: dict[str, Any]) -> None:
    values["schedule"] = {"cron_expression": "0 3 * * 7"}


def _whole_secret(values: dict[str, Any]) -> None:
    _settings(values)["pod_settings"]["env_from"] = [{"secretRef": {"name": "dvc"}}]


def _two_devices(values: dict[str, Any]) -> None:
    _settings(values)["pod_settings"]["resources"]["limits"]["example.com/nic"] = "1"


def _fractional_memory(values: dict[str, Any]) -> None:
    _settings(values)["pod_settings"]["resources"]["limits"]["memory"] = "1.5Gi"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_short_cron, "schedule.cron_expression: '0 3 * *' has not five fields"),
        (_impossible_cron, "Kubeflow Pipelines did not take the package: 400 "),
        (_sunday_is_seven, "Kubeflow's weekdays are 0 to 6, Sunday is 0"),
        (_whole_secret, "steps.finetune_dreambooth: pod_settings.env_from has no counterpart in Kubeflow Pipelines"),
        (_two_devices, "Kubeflow Pipelines takes one kind of device"),
        (_fractional_memory, "steps.finetune_dreambooth: Invalid memory string"),
    ],
)
def test_what_kubeflow_would_lose_or_refuse_ends_in_one_sentence(
    kubeflow: Kubeflow, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    """Exit code 1, nothing runs, and neither a schedule nor a secret is left."""
    secrets = len(kubeflow.checkout.cluster.items("secrets"))
    before = len(kubeflow.recorded("POST", "/runs"))
    result = kubeflow.run_tiny("refused", seed=9, change=change)
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and message in last and "Traceback" not in result.stderr, result.stderr[-2000:]
    assert kubeflow.schedules() == [] and len(kubeflow.checkout.cluster.items("secrets")) == secrets
    assert len(kubeflow.recorded("POST", "/runs")) == before


@pytest.mark.slow
def test_a_kubeflow_that_does_not_answer_ends_the_command_with_1(kubeflow: Kubeflow) -> None:
    """ZenML's flavor warns, leaves a schedule that never fires, and the command exits 0."""

    def nightly(values: dict[str, Any]) -> None:
        values["schedule"] = {"cron_expression": "0 3 * * *"}

    update = ("orchestrator", "update", "kubeflow")
    try:
        assert kubeflow.checkout.zenml(*update, "--kubeflow_hostname=http://127.0.0.1:9").returncode == 0
        result = kubeflow.run_tiny("away", seed=10, change=nightly)
    finally:
        assert kubeflow.checkout.zenml(*update, f"--kubeflow_hostname={kubeflow.url}").returncode == 0
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and "the server does not answer" in last, result.stderr[-2000:]
    assert kubeflow.schedules() == []


def test_another_release_of_kfp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is missing; with the tested one the class is found."""
    pytest.importorskip("kfp", reason="needs kfp: run `make test-orchestrators`")
    from operations.orchestrators.kubeflow import flavor

    assert flavor.KubeflowPodsFlavor().implementation_class.__name__ == "KubeflowPodsOrchestrator"
    real = importlib.metadata.version
    monkeypatch.setattr(flavor, "version", lambda name: "2.17.0" if name == "kfp" else real(name))
    with pytest.raises(ConfigError, match=r"needs kfp 2\.16, and 2\.17\.0 is installed.*pip install"):
        flavor.KubeflowPodsFlavor().implementation_class  # noqa: B018

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(flavor, "version", missing)
    with pytest.raises(ConfigError, match="needs the package kfp"):
        flavor.KubeflowPodsFlavor().implementation_class  # noqa: B018


@pytest.mark.slow
def test_another_release_of_kfp_ends_the_command_in_one_sentence(kubeflow: Kubeflow) -> None:
    """The real command, in an environment that says it holds kfp 2.17."""
    newer = kubeflow.checkout.root / "kfp-2.17.0.dist-info"
    newer.mkdir()
    (newer / "METADATA").write_text("Metadata-Version: 2.1\nName: kfp\nVersion: 2.17.0\n")
    try:
        result = kubeflow.run_tiny("newer")
    finally:
        shutil.rmtree(newer)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr[-3000:]
    assert "needs kfp 2.16, and 2.17.0 is installed" in result.stderr


def test_the_checker_knows_the_settings() -> None:
    """Typos below the flavor's name are found like those below ZenML's own."""
    pytest.importorskip("kubernetes", reason="needs kubernetes: run `make test-orchestrators`")
    values = read_preset(PRESET).values
    assert checking.list_problems(values) == []
    settings = values["steps"]["retrain_apart"]["settings"]["orchestrator.kubeflow_pods"]
    settings["pod_settings"]["tolerationz"] = []
    (problem,) = checking.list_problems(values)
    assert problem.endswith("pod_settings.tolerationz: unknown key, did you mean tolerations?")
