"""The product's configurations for Airflow: the DAG that they become, and real ticks of a real Airflow in containers.

`DREAMBOOTH3D_AIRFLOW` names a virtual environment with apache-airflow and its providers for Docker and Kubernetes.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient

from operations.launch.presets import read_preset
from tests.emulators.services import PhotoRepository
from tests.orchestrators.conftest import ROOT, Checkout
from tests.orchestrators.containers import (
    IMAGE,
    SHORTEST,
    SUBJECT,
    checkout_on_loopback,
    register,
    require_docker,
    rows,
)

pytestmark = pytest.mark.slow
AIRFLOW = os.environ.get("DREAMBOOTH3D_AIRFLOW", "")
PIPELINES = {
    "airflow": "training.dreambooth3d",
    "retrain_airflow": "retraining_static.retrain_static",
    "retrain_airflow_kubernetes": "retraining_static.retrain_static",
}
# Prints the pod of each task of a DAG file, as Kubernetes would get it.
PODS = """
import json, sys, zipimport
from unittest import mock
from kubernetes.client import ApiClient
dag = zipimport.zipimporter(sys.argv[1]).load_module("dag").dag
for task in dag.tasks:
    task.__dict__["hook"] = mock.Mock(is_in_cluster=True)  # which would ask a cluster
    pod = task.build_pod_request_obj(None)
    print("POD" + json.dumps([task.task_id, ApiClient().sanitize_for_serialization(pod)]))
"""


@pytest.fixture(scope="module")
def on_airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout with the documented stacks, whose DAGs go into the folder `dags` beside it."""
    folder = tmp_path_factory.mktemp("airflow")
    with checkout_on_loopback(folder) as checkout:
        register(
            checkout,
            "orchestrator register airflow --flavor=airflow --local=False "
            f"--custom_dag_generator=operations.orchestrators.airflow_dag --dag_output_dir={folder / 'dags'}",
            "stack register airflow -o airflow -a store -c images -i builder -e tracker -r registry",
            "stack register inside_one_step -o default -a store -e tracker -r registry",
        )
        yield checkout


@pytest.fixture(scope="module")
def photos(on_airflow: Checkout) -> PhotoRepository:
    """A repository with one subject, for all tests."""
    return PhotoRepository(on_airflow.cluster, (SUBJECT,))


def _dags(checkout: Checkout) -> Path:
    return checkout.root.parent / "dags"


def _submit(
    checkout: Checkout, preset: str, change: Callable[[dict[str, Any]], None] | None = None, stack: str = "airflow"
) -> subprocess.CompletedProcess[str]:
    """The documented command, on a preset with the tiny training."""
    values = read_preset(ROOT / "configs" / f"{preset}.yaml").values
    values["settings"]["docker"]["parent_image"] = IMAGE
    if preset != "airflow":
        values["parameters"] |= {"training": SHORTEST, "gates": {"bounds": {"evaluate/psnr": {"min": 1.0}}}}
    if change is not None:
        change(values)
    (checkout.root / "configs" / f"{preset}.yaml").write_text(yaml.safe_dump(values))
    command = ("pipeline", "run", f"pipelines.{PIPELINES[preset]}", "--config", f"configs/{preset}.yaml")
    return checkout.zenml(*command, "--stack", stack)


def _tasks(checkout: Checkout, dag: str) -> dict[str, Any]:
    """What the file of a DAG says, the tasks by their name."""
    with zipfile.ZipFile(_dags(checkout) / f"{dag}.zip") as archive:
        found = json.loads(archive.read("config.json"))
    return found | {"tasks": {task["id"]: task for task in found["tasks"]}}


def test_the_dag_for_docker(on_airflow: Checkout) -> None:
    """Schedule, GPU and shared memory arrive, the key to the server does not; registering again replaces the DAG."""
    for cron in ("0 3 * * *", "0 4 * * *"):
        result = _submit(on_airflow, "retrain_airflow", lambda values, cron=cron: _every(values, cron))
        assert result.returncode == 0, result.stderr[-3000:]
    assert [path.name for path in _dags(on_airflow).iterdir()] == ["dreambooth3d_retrain.zip"]
    dag = _tasks(on_airflow, "dreambooth3d_retrain")
    assert (dag["schedule"], dag["catchup"], dag["dag_args"]) == ("0 4 * * *", False, {"max_active_runs": 1})
    resolve, retrain = dag["tasks"]["resolve_dataset"], dag["tasks"]["retrain_apart"]
    assert retrain["upstream_steps"] == ["resolve_dataset"] and retrain["docker_image"] == IMAGE
    usual = {"auto_remove": "force", "mount_tmp_dir": False, "mem_limit": "8g"}
    assert resolve["operator_args"] == usual
    gpu = {"device_requests": [{"count": 1, "capabilities": [["gpu"]]}], "shm_size": "8g", "mem_limit": "32g"}
    assert retrain["operator_args"] == usual | gpu
    environment = resolve["environment"]
    assert environment["ZENML_STORE_URL"] == on_airflow.cluster.zenml
    assert environment["ZENML_STORE_API_KEY"] == "{{ var.value.zenml_api_key }}"
    assert "ZENML_STORE_API_TOKEN" not in environment
    assert on_airflow.cluster.zenml_key not in (_dags(on_airflow) / "dreambooth3d_retrain.zip").read_bytes().decode(
        errors="replace"
    )


def test_the_pods_for_kubernetes(on_airflow: Checkout) -> None:
    """What Airflow's own operator makes of it is valid for Kubernetes, and has GPU, toleration and shared memory."""
    result = _submit(on_airflow, "retrain_airflow_kubernetes", _every)
    assert result.returncode == 0, result.stderr[-3000:]
    tasks = _tasks(on_airflow, "dreambooth3d_retrain")["tasks"]
    assert {task["operator_source"] for task in tasks.values()} == {
        "airflow.providers.cncf.kubernetes.operators.pod.KubernetesPodOperator"
    }
    assert not [name for task in tasks.values() for name in task["environment"] if "KEY" in name or "TOKEN" in name]
    pods = _pods(_dags(on_airflow) / "dreambooth3d_retrain.zip")
    from kubernetes_validate import validate

    for pod in pods.values():
        validate(pod, "1.30", strict=True)
        validate(pod, "1.36", strict=True)
        (container,) = pod["spec"]["containers"]
        assert {"secretRef": {"name": "zenml-api-key"}} in container["envFrom"]
        assert {"name": "ZENML_STORE_URL", "value": on_airflow.cluster.zenml} in container["env"]
        assert pod["metadata"]["namespace"] == "zenml"
    spec = pods["retrain_apart"]["spec"]
    (container,) = spec["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1", "memory": "32Gi"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}} in spec["volumes"]
    assert {"name": "dshm", "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert (spec["nodeSelector"], spec["activeDeadlineSeconds"]) == ({"nvidia.com/gpu.present": "true"}, 43200)
    assert "nvidia.com/gpu" not in pods["resolve_dataset"]["spec"]["containers"][0]["resources"]["limits"]


def test_a_training_is_one_container_per_step(on_airflow: Checkout, photos: PhotoRepository) -> None:
    """The training pipeline, unscheduled: a DAG that runs once, of which the command says that it does not wait."""

    def tiny(values: dict[str, Any]) -> None:
        del values["schedule"]
        values["parameters"] = SHORTEST | {
            "photos": {"subject": SUBJECT, "dataset": {"url": photos.url, "rev": "main"}}
        }

    result = _submit(on_airflow, "airflow", tiny)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "was handed over, and is not waited for" in result.stdout + result.stderr
    dag = _tasks(on_airflow, "dreambooth3d_train")
    assert dag["schedule"] == "@once"
    on_gpu = {name for name, task in dag["tasks"].items() if "device_requests" in task["operator_args"]}
    assert on_gpu == {"finetune_dreambooth", "select_checkpoints", "init_nerf", "evaluate", "export_asset"}
    assert {"validate_photos", "publish"} < dag["tasks"].keys() - on_gpu


@pytest.mark.parametrize(
    ("change", "stack", "message"),
    [
        (lambda values: None, "inside_one_step", "schedule: the stack 'inside_one_step' has the orchestrator flavor"),
        (lambda values: values.pop("schedule"), "inside_one_step", "settings.orchestrator.airflow: the stack"),
        (
            lambda values: _gpus(values),
            "airflow",
            "steps.retrain_apart.settings.resources.gpu_count: Airflow ignores it.",
        ),
        (lambda values: _airflow(values).pop("dag_id"), "airflow", "settings.orchestrator.airflow.dag_id: is missing"),
    ],
    ids=["schedule", "no_airflow", "gpu_count", "no_dag_id"],
)  # fmt: skip
def test_what_airflow_would_not_do_ends_in_one_sentence(
    on_airflow: Checkout, change: Callable[[dict[str, Any]], None], stack: str, message: str
) -> None:
    """Exit code 1, no traceback, and no file for Airflow."""
    before = {path: path.stat().st_mtime_ns for path in _dags(on_airflow).glob("*")}
    result = _submit(on_airflow, "retrain_airflow", change, stack)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert message in result.stderr.splitlines()[-1], result.stderr[-2000:]
    assert {path: path.stat().st_mtime_ns for path in _dags(on_airflow).glob("*")} == before


def test_ticks_train_skip_and_see_new_photos(on_airflow: Checkout, photos: PhotoRepository, tmp_path: Path) -> None:
    """Airflow's own scheduler starts Docker containers: the first tick trains and promotes, the second finds nothing
    to do, and the third, after a push of new photos and without registering anything again, trains once more."""
    require_docker()
    _require_airflow()

    def every_minute(values: dict[str, Any]) -> None:
        _every(values, "* * * * *")
        values["parameters"]["dataset"] = {"url": photos.url, "rev": "main"}
        _airflow(values)["operator_args"]["network_mode"] = "host"
        # There is no GPU here.
        del values["steps"]["retrain_apart"]["settings"]["orchestrator.airflow"]["operator_args"]["device_requests"]

    for path in _dags(on_airflow).glob("*"):
        path.unlink()
    home, before = tmp_path / "airflow", len(rows(on_airflow, "dreambooth3d"))
    with _airflow_running(home, _dags(on_airflow), on_airflow.cluster.zenml_key) as airflow:
        result = _submit(on_airflow, "retrain_airflow", every_minute)
        assert result.returncode == 0, result.stderr[-3000:]
        first = _summary(on_airflow, 0, home)
        assert list(first["action"]) == ["promoted"], first["reason"]
        second = _summary(on_airflow, 1, home)
        assert list(second["action"]) == ["skipped"], second["reason"]
        (number,) = {
            re.match(r"nothing changed since production version (\d+) ", reason)[1] for reason in second["reason"]
        }
        sorted((photos.root / "data" / SUBJECT).glob("*.jpg"))[0].unlink()
        photos.push()
        later = next(
            found for tick in range(2, 6) if list((found := _summary(on_airflow, tick, home))["action"]) != ["skipped"]
        )
        assert later["reason"].iloc[0] == f"changed since production version {number}: photos"
        assert airflow("dags", "pause", "dreambooth3d_retrain", "--yes").returncode == 0
        finished = [name for name, state in _dag_runs(home) if state == "success"]
        assert len(finished) >= 2 and all(name.startswith("scheduled__") for name in finished)
    assert len(rows(on_airflow, "dreambooth3d")) == before + 2
    # Neither Airflow's database nor its logs hold the key in plain text, where it is not encrypted.
    key = on_airflow.cluster.zenml_key.encode()
    held = [path for path in home.rglob("*") if path.is_file() and key in path.read_bytes()]
    assert held == []


def _every(values: dict[str, Any], cron: str = "0 3 * * *") -> None:
    values["schedule"] = {"cron_expression": cron}


def _airflow(values: dict[str, Any]) -> dict[str, Any]:
    return values["settings"]["orchestrator.airflow"]


def _gpus(values: dict[str, Any]) -> None:
    values["steps"]["retrain_apart"]["settings"]["resources"] = {"gpu_count": 1}


def _require_airflow() -> None:
    if not (Path(AIRFLOW) / "bin" / "airflow").is_file():
        pytest.skip("needs DREAMBOOTH3D_AIRFLOW, a virtual environment with Airflow: see docs/airflow.md")


def _pods(dag: Path) -> dict[str, dict[str, Any]]:
    """The pods that Airflow's operator would ask Kubernetes for, by task."""
    pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: run `make test-orchestrators`")
    _require_airflow()
    command = [f"{AIRFLOW}/bin/python", "-c", PODS, str(dag)]
    environment = os.environ | {"AIRFLOW_HOME": str(dag.parent.parent / "no_airflow")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [line.removeprefix("POD") for line in result.stdout.splitlines() if line.startswith("POD")]
    return dict(map(json.loads, lines))


@contextmanager
def _airflow_running(home: Path, dags: Path, api_key: str) -> Iterator[Callable[..., subprocess.CompletedProcess]]:
    """All of Airflow, on loopback with an SQLite database; what is yielded runs its command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "CORE__DAGS_FOLDER": str(dags), "CORE__LOAD_EXAMPLES": "False", "CORE__PARALLELISM": "2",
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/", "API__PORT": str(port),
        "API__HOST": "127.0.0.1", "API__WORKERS": "1", "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "CORE__DAGBAG_IMPORT_TIMEOUT": "120", "DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "180",
        "CORE__FERNET_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    }  # fmt: skip
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "ZENML", "PYTHON"))
    }
    environment |= {f"AIRFLOW__{key}": value for key, value in variables.items()}
    environment |= {"AIRFLOW_HOME": str(home), "PATH": f"{AIRFLOW}/bin:{os.environ['PATH']}"}

    def airflow(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([f"{AIRFLOW}/bin/airflow", *arguments], env=environment, capture_output=True, text=True)

    assert airflow("db", "migrate").returncode == 0
    assert airflow("variables", "set", "zenml_api_key", api_key).returncode == 0
    with (home / "standalone.log").open("w") as log:
        process = subprocess.Popen(
            [f"{AIRFLOW}/bin/airflow", "standalone"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield airflow
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _summary(checkout: Checkout, tick: int, airflow: Path) -> pd.DataFrame:
    """The table of a tick's retraining, by MLflow, as soon as it has finished."""
    end = time.monotonic() + 600
    while True:
        finished = [row for row in rows(checkout, "dreambooth3d-retrain") if row.info.status == "FINISHED"]
        if len(finished) > tick:
            tracker = MlflowClient(checkout.cluster.mlflow)
            path = tracker.download_artifacts(finished[tick].info.run_id, "summary.csv")
            return pd.read_csv(io.StringIO(Path(path).read_text()))
        states = [state for _, state in _dag_runs(airflow)]
        assert time.monotonic() < end and "failed" not in states, _last_log(airflow)
        time.sleep(3)


def _dag_runs(airflow: Path) -> list[tuple[str, str]]:
    """Id and state of each run, from Airflow's database."""
    with sqlite3.connect(f"file:{airflow / 'airflow.db'}?mode=ro", uri=True) as database:
        return database.execute("select run_id, state from dag_run order by start_date").fetchall()


def _last_log(airflow: Path) -> str:
    logs = sorted((airflow / "logs").glob("dag_id=*/**/*.log"), key=lambda path: path.stat().st_mtime)
    return logs[-1].read_text()[-4000:] if logs else "Airflow has started no task"
