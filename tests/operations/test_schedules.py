"""Schedules over ZenML's own entries, with the Kubernetes orchestrator's real client against a small API server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from zenml.client import Client
from zenml.enums import MetadataResourceTypes, StackComponentType
from zenml.models import PipelineSnapshotRequest, RunMetadataResource, ScheduleRequest
from zenml.utils.pagination_utils import depaginate

from dreambooth3d.cli.schedules import delete_schedule, schedules, set_active, show_schedules
from dreambooth3d.errors import ConfigError, DreamBooth3DError
from tests.operations.toy import run_toy

NAMESPACE = "research"
CRON_JOB = "toy-cron"


@pytest.fixture(scope="module")
def make_schedule(home: Path) -> Callable[..., UUID]:
    """Make a schedule as ZenML does, with a snapshot that it fires."""
    run = run_toy(seed=31)
    snapshot = run.snapshot
    client = Client()

    def make(name: str, orchestrator: UUID | None) -> tuple[UUID, UUID]:
        request = ScheduleRequest(
            project=client.active_project.id, name=name, active=True, cron_expression="0 3 * * *",
            orchestrator_id=orchestrator, pipeline_id=run.pipeline.id,
        )  # fmt: skip
        schedule = client.zen_store.create_schedule(request)
        fired = PipelineSnapshotRequest(
            project=client.active_project.id, stack=run.stack.id, pipeline=run.pipeline.id, schedule=schedule.id,
            run_name_template="toy-{date}", pipeline_configuration=snapshot.pipeline_configuration,
            step_configurations=snapshot.step_configurations, client_environment={},
        )  # fmt: skip
        return schedule.id, client.zen_store.create_snapshot(fired).id

    return make


@pytest.fixture
def local(make_schedule: Callable[..., UUID]) -> Iterator[str]:
    """A schedule of an orchestrator that ZenML cannot steer."""
    orchestrator = Client().active_stack_model.components[StackComponentType.ORCHESTRATOR][0]
    identity, _ = make_schedule("nightly", orchestrator.id)
    yield "nightly"
    if any(schedule.id == identity for schedule in depaginate(Client().list_schedules)):
        Client().zen_store.delete_schedule(identity)


def test_list(local: str, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = schedules()
    assert (row["name"], row["pipeline"], row["cron"], row["active"]) == ("nightly", "toy", "0 3 * * *", True)
    assert row["orchestrator"] == "default"
    capsys.readouterr()
    show_schedules(as_json=True)
    assert json.loads(capsys.readouterr().out) == [row]
    show_schedules(as_json=False)
    assert "nightly" in capsys.readouterr().out


def test_what_cannot_be_paused_says_so(local: str) -> None:
    with pytest.raises(ConfigError, match="nightly: ZenML cannot pause or resume schedules of the local orchestrator"):
        set_active(local, active=False)
    assert schedules()[0]["active"]
    assert set_active(local, active=True) == "nightly is resumed already."


def test_unknown_schedule(local: str) -> None:
    for command in (delete_schedule, lambda name: set_active(name, active=False)):
        with pytest.raises(ConfigError, match="weekly: there is no such schedule. Known are: nightly."):
            command("weekly")


def test_delete_says_what_stays_elsewhere(local: str) -> None:
    said = delete_schedule(local)
    assert said[0] == "nightly was deleted."
    assert "remove it there as well" in said[1]
    assert schedules() == []


class Cluster(HTTPServer):
    """The parts of a Kubernetes API server that a schedule touches."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ClusterHandler)
        self.cron_jobs: dict[str, dict] = {CRON_JOB: {"suspend": False}}
        self.secrets: set[str] = set()
        self.forbidden = False


class ClusterHandler(BaseHTTPRequestHandler):
    """Cron jobs and secrets of one namespace."""

    def answer(self, code: int, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_change(self, change: Callable[[str, dict], None]) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        path, cluster = self.path.partition("?")[0], self.server
        jobs, secrets = f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs/", f"/api/v1/namespaces/{NAMESPACE}/secrets/"
        name = path.rpartition("/")[2]
        if cluster.forbidden:
            return self.answer(403, {"kind": "Status", "status": "Failure", "code": 403})
        if path == jobs + name and name in cluster.cron_jobs:
            change(name, body)
            return self.answer(200, {"kind": "CronJob", "apiVersion": "batch/v1", "metadata": {"name": name}})
        if path == secrets + name and name in cluster.secrets and self.command == "DELETE":
            cluster.secrets.remove(name)
            return self.answer(200, {"kind": "Status", "status": "Success"})
        return self.answer(404, {"kind": "Status", "status": "Failure", "code": 404})

    def do_PATCH(self) -> None:
        self.handle_change(lambda name, body: self.server.cron_jobs[name].update(body["spec"]))

    def do_DELETE(self) -> None:
        self.handle_change(lambda name, body: self.server.cron_jobs.pop(name))

    def log_message(self, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def cluster(
    make_schedule: Callable[..., UUID], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Cluster, str]]:
    """A cluster with one schedule's cron job and two token secrets, one of them of another pipeline."""
    pytest.importorskip("kubernetes", reason="needs the kubernetes client (zenml integration install kubernetes)")
    server = Cluster()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "small", "users": [{"name": "me", "user": {}}],
        "clusters": [{"name": "small", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "small", "context": {"cluster": "small", "user": "me"}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    import kubernetes.config.kube_config as kube_config

    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    orchestrator = Client().create_stack_component(
        name="cluster", flavor="kubernetes", component_type=StackComponentType.ORCHESTRATOR,
        configuration={
            "kubernetes_context": "small", "kubernetes_namespace": NAMESPACE, "pass_zenml_token_as_secret": True,
            "skip_local_validations": True,
        },
    )  # fmt: skip
    schedule, snapshot = make_schedule("retrain", orchestrator.id)
    Client().create_run_metadata(
        {"cron_job_name": CRON_JOB}, [RunMetadataResource(id=schedule, type=MetadataResourceTypes.SCHEDULE)]
    )
    server.secrets = {f"zenml-token-{snapshot}", "zenml-token-other"}
    yield server, "retrain"
    for left in depaginate(Client().list_schedules):
        Client().zen_store.delete_schedule(left.id)
    Client().delete_stack_component("cluster", StackComponentType.ORCHESTRATOR)
    server.shutdown()
    server.server_close()


def test_pause_and_resume_reach_the_cluster(cluster: tuple[Cluster, str]) -> None:
    server, name = cluster
    assert set_active(name, active=False) == "retrain was paused."
    assert server.cron_jobs[CRON_JOB]["suspend"] is True
    assert not schedules()[0]["active"]
    assert set_active(name, active=True) == "retrain was resumed."
    assert server.cron_jobs[CRON_JOB]["suspend"] is False


def test_delete_removes_cron_job_and_its_token(cluster: tuple[Cluster, str]) -> None:
    server, name = cluster
    said = delete_schedule(name)
    assert server.cron_jobs == {}
    assert server.secrets == {"zenml-token-other"}
    assert said[0] == "retrain was deleted."
    assert "The secret zenml-token-" in said[1] and "research" in said[1]
    assert schedules() == []


def test_a_cluster_that_refuses_leaves_the_schedule(cluster: tuple[Cluster, str]) -> None:
    server, name = cluster
    server.forbidden = True
    with pytest.raises(DreamBooth3DError, match="retrain: it was not deleted completely .*403"):
        delete_schedule(name)
    assert [row["name"] for row in schedules()] == ["retrain"]
    server.forbidden = False
    # The token alone is left, as after a crash in between.
    server.cron_jobs.clear()
    assert delete_schedule(name)[0] == "retrain was deleted."
    assert server.secrets == {"zenml-token-other"}
