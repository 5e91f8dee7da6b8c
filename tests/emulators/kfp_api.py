"""An emulated Kubeflow Pipelines: what its client asks of the API, and a backend that runs packages as pods.

Packages are read by Kubeflow's own protocol buffers, strictly. The pods go to the emulated Kubernetes API, which
validates them. There are no experiments' archives, users, artifacts or caches. A recurring run fires when a test asks
for it (`POST /emulator/fire/<id>`), as its controller would at the next tick; `GET /emulator/recorded` returns what was
asked so far.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from aiohttp import web
from croniter import croniter
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineDeploymentConfig, PipelineSpec

from tests.emulators.cluster import NAMESPACE, TOKEN, Cluster
from tests.emulators.kube_objects import Object
from tests.emulators.servers import ask, free_port, running, when_up

_API = "/apis/v2beta1"


class Refusal(Exception):
    """What the API answers with 400."""


class Pipelines:
    """The API, and the backend behind it.

    Args:
        server: the URL of the Kubernetes API.
        namespace: of the pods.
        session: with the rights of the backend.
    """

    def __init__(self, server: str, namespace: str, session: aiohttp.ClientSession) -> None:
        self._pods, self._session = f"{server}/api/v1/namespaces/{namespace}/pods", session
        self._recorded: list[Object] = []
        self._experiments: dict[str, Object] = {}
        self._runs: dict[str, Object] = {}
        self._recurring: dict[str, Object] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def routes(self) -> list[web.RouteDef]:
        """The paths that are answered; the real API has more."""
        return [
            web.get("/emulator/recorded", self._show_recorded),
            web.post("/emulator/fire/{id}", self._fire),
            web.get(f"{_API}/healthz", self._healthz),
            web.get(f"{_API}/experiments", self._list_experiments),
            web.post(f"{_API}/experiments", self._create_experiment),
            web.post(f"{_API}/runs", self._create_run),
            web.get(f"{_API}/runs/{{id}}", self._get_run),
            web.post(f"{_API}/recurringruns", self._create_recurring_run),
            web.post(f"{_API}/recurringruns/{{id}}:{{verb}}", self._switch_recurring_run),
            web.delete(f"{_API}/recurringruns/{{id}}", self._delete_recurring_run),
        ]

    @web.middleware
    async def guard(self, request: web.Request, handler: object) -> web.StreamResponse:
        """Record each request, and answer refusals as the real API does."""
        body = await request.json() if request.can_read_body and request.content_length else None
        if not request.path.startswith("/emulator"):
            self._recorded.append({"method": request.method, "path": request.path, "body": body})
        try:
            return await handler(request)
        except (Refusal, json_format.ParseError) as error:
            text = f"Invalid input error: {error}"
            return web.json_response({"error": text, "code": 3, "message": text, "details": []}, status=400)
        except KeyError as error:
            return web.json_response({"error": f"{error} not found", "code": 5, "details": []}, status=404)

    async def _show_recorded(self, request: web.Request) -> web.Response:
        return web.json_response(self._recorded)

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"multi_user": False})

    async def _list_experiments(self, request: web.Request) -> web.Response:
        (predicate,) = json.loads(request.query["filter"])["predicates"]
        found = [one for one in self._experiments.values() if one["display_name"] == predicate["stringValue"]]
        return web.json_response({"experiments": found, "total_size": len(found)})

    async def _create_experiment(self, request: web.Request) -> web.Response:
        made = {**await request.json(), "experiment_id": str(uuid.uuid4())}
        return web.json_response(self._experiments.setdefault(made["experiment_id"], made))

    async def _create_run(self, request: web.Request) -> web.Response:
        return web.json_response(self._start(await request.json()))

    async def _get_run(self, request: web.Request) -> web.Response:
        return web.json_response(self._runs[request.match_info["id"]])

    async def _create_recurring_run(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._check(body)
        if cron := (body["trigger"].get("cron_schedule") or {}).get("cron"):
            _check_cron(cron)
        made = {**body, "recurring_run_id": str(uuid.uuid4())}
        return web.json_response(self._recurring.setdefault(made["recurring_run_id"], made))

    async def _switch_recurring_run(self, request: web.Request) -> web.Response:
        modes = {"enable": "ENABLE", "disable": "DISABLE"}
        self._recurring[request.match_info["id"]]["mode"] = modes[request.match_info["verb"]]
        return web.json_response({})

    async def _delete_recurring_run(self, request: web.Request) -> web.Response:
        del self._recurring[request.match_info["id"]]
        return web.json_response({})

    async def _fire(self, request: web.Request) -> web.Response:
        recurring = self._recurring[request.match_info["id"]]
        if recurring["mode"] != "ENABLE":
            raise Refusal("the recurring run is disabled")
        return web.json_response(self._start(recurring))

    def _check(self, body: Object) -> None:
        """Refuse a run of no known experiment, or one whose package is not one."""
        self._experiments[body["experiment_id"]]
        read_package(body["pipeline_spec"])

    def _start(self, body: Object) -> Object:
        self._check(body)
        made = {**body, "run_id": str(uuid.uuid4()), "state": "RUNNING"}
        self._runs[made["run_id"]] = made
        task = asyncio.create_task(self._execute(made))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return made

    async def _execute(self, run: Object) -> None:
        """Run the tasks one after the other, each after those that it depends on."""
        pipeline, executors, platforms = read_package(run["pipeline_spec"])
        tasks, done = dict(pipeline.root.dag.tasks), set()
        while tasks:
            name = next(name for name, task in tasks.items() if done.issuperset(task.dependent_tasks))
            task = tasks.pop(name)
            label = pipeline.components[task.component_ref.name].executor_label
            pod = make_pod(name, run["run_id"], executors[label], platforms.get(label, KubernetesExecutorConfig()))
            pod["spec"]["serviceAccountName"] = run.get("service_account") or "default"
            for attempt in range(task.retry_policy.max_retry_count + 1):
                pod["metadata"]["name"] = f"{name}-{attempt}-{run['run_id'][:8]}"
                if message := await self._failure(pod):
                    continue
                break
            else:
                run.update(state="FAILED", error={"code": 13, "message": f"task {name}: {message}"})
                return
            done.add(name)
        run["state"] = "SUCCEEDED"

    async def _failure(self, pod: Object) -> str:
        """Run a pod to its end; why it failed, empty if it did not."""
        async with self._session.post(self._pods, json=pod) as response:
            if response.status >= 400:
                return (await response.json())["message"]
        while True:
            await asyncio.sleep(0.5)
            async with self._session.get(f"{self._pods}/{pod['metadata']['name']}") as response:
                phase = (await response.json())["status"]["phase"]
            if phase in ("Succeeded", "Failed"):
                return "" if phase == "Succeeded" else f"pod {pod['metadata']['name']} failed"


def read_package(
    package: Object,
) -> tuple[PipelineSpec, dict[str, PipelineDeploymentConfig.ExecutorSpec], dict[str, KubernetesExecutorConfig]]:
    """The pipeline of a package, and its executors and their Kubernetes part by label.

    Raises:
        json_format.ParseError: something in it is unknown to Kubeflow Pipelines.
    """
    pipeline = json_format.ParseDict(package["pipeline_spec"], PipelineSpec())
    deployment = json_format.ParseDict(json_format.MessageToDict(pipeline.deployment_spec), PipelineDeploymentConfig())
    written = package["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    platforms = {label: json_format.ParseDict(value, KubernetesExecutorConfig()) for label, value in written.items()}
    return pipeline, dict(deployment.executors), platforms


def make_pod(
    name: str, run_id: str, executor: PipelineDeploymentConfig.ExecutorSpec, platform: KubernetesExecutorConfig
) -> Object:
    """The pod of a task, as Kubeflow Pipelines' driver would patch it; without its launcher."""
    container, resources = executor.container, executor.container.resources
    limits = {"cpu": resources.resource_cpu_limit, "memory": resources.resource_memory_limit}
    requests = {"cpu": resources.resource_cpu_request, "memory": resources.resource_memory_request}
    if resources.accelerator.resource_type:
        limits[resources.accelerator.resource_type] = resources.accelerator.resource_count
    variables = [{"name": one.name, "value": one.value} for one in container.env]
    for secret in platform.secret_as_env:
        source = secret.secret_name_parameter.runtime_value.constant.string_value
        variables += [
            {"name": one.env_var, "valueFrom": {"secretKeyRef": {"name": source, "key": one.secret_key}}}
            for one in secret.key_to_env
        ]
    variables += [
        {"name": one.name, "valueFrom": {"fieldRef": {"fieldPath": one.field_path}}}
        for one in platform.field_path_as_env
    ]
    mounts = platform.empty_dir_mounts
    spec: Object = {
        "restartPolicy": "Never",
        "containers": [{
            "name": "main", "image": container.image, "command": [*container.command], "args": [*container.args],
            "env": variables, "resources": {"limits": _given(limits), "requests": _given(requests)},
            "volumeMounts": [{"name": one.volume_name, "mountPath": one.mount_path} for one in mounts],
        }],
        "volumes": [
            {"name": one.volume_name, "emptyDir": _given({"medium": one.medium, "sizeLimit": one.size_limit})}
            for one in mounts
        ],
        "nodeSelector": dict(platform.node_selector.labels),
        "tolerations": [
            _given({"key": one.key, "operator": one.operator, "value": one.value, "effect": one.effect})
            for one in platform.tolerations
        ],
    }  # fmt: skip
    if platform.active_deadline_seconds:
        spec["activeDeadlineSeconds"] = platform.active_deadline_seconds
    labels = {"pipeline/runid": run_id, "task": name, **platform.pod_metadata.labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": labels}, "spec": spec}


def _given(values: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in values.items() if value}


def _check_cron(expression: str) -> None:
    """Kubeflow's parser: second, minute, hour, day, month and, if given, weekday from 0 to 6."""
    fields = expression.split()
    full = " ".join(fields if len(fields) == 6 else [*fields, "*"])
    if len(fields) not in (5, 6) or not croniter.is_valid(full, second_at_beginning=True) or "7" in full.split()[5]:
        raise Refusal(f"Schedule cron is not a supported format: {expression}")


@contextmanager
def emulated_pipelines(cluster: Cluster) -> Iterator[str]:
    """Start Kubeflow Pipelines on an emulated cluster, and stop it at the end; its URL."""
    port = free_port()
    arguments = (
        *("-m", "tests.emulators.kfp_api", "--port", str(port), "--server", cluster.api, "--token", TOKEN),
        *("--certificate", str(cluster.folder / "certificate.pem"), "--namespace", NAMESPACE),
    )
    with running(cluster.folder / "kubeflow.log", arguments, {}):
        url = f"http://127.0.0.1:{port}"
        when_up(lambda: ask("GET", f"{url}{_API}/healthz"), "Kubeflow Pipelines")
        yield url


async def serve(options: argparse.Namespace) -> None:
    """Serve until killed."""
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=options.certificate))
    headers = {"Authorization": f"Bearer {options.token}"}
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        pipelines = Pipelines(options.server, options.namespace, session)
        application = web.Application(middlewares=[pipelines.guard], client_max_size=10**8)
        application.add_routes(pipelines.routes())
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", options.port).start()
        while True:
            await asyncio.sleep(3600)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for option, kind in (
        ("port", int), ("server", str), ("token", str), ("certificate", Path), ("namespace", str),
    ):  # fmt: skip
        parser.add_argument(f"--{option}", type=kind, required=True)
    asyncio.run(serve(parser.parse_args()))
