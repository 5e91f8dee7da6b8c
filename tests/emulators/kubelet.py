"""An emulated node: runs the pods that are bound to it as host processes in namespaces of their own (needs root).

An image is a PATH on the host. It talks the public Kubernetes API only, so that it serves a real API server as well.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import shlex
import signal
import ssl
from pathlib import Path

import aiohttp

from tests.emulators.kube_objects import Object, stamp

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_MERGE = "application/merge-patch+json"


class Kubelet:
    """One node with its processes."""

    def __init__(self, options: argparse.Namespace, session: aiohttp.ClientSession) -> None:
        self._options, self._session, self._images = options, session, json.loads(options.images)
        self._free_gpus = {str(index) for index in range(options.gpus)}
        self._processes: dict[str, asyncio.subprocess.Process | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def _call(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Object:
        data = None if body is None else json.dumps(body)
        url = self._options.server + path
        async with self._session.request(method, url, data=data, headers={"Content-Type": kind}) as response:
            answer = await response.json()
            if response.status >= 400 and response.status not in (404, 409):
                raise RuntimeError(f"{method} {path}: {response.status} {answer.get('message')}")
            return answer

    async def register(self) -> None:
        """Tell the API of this node, its room, its label and its taint."""
        options, room = self._options, {"cpu": "64", "memory": "256Gi", "pods": "50"}
        labels, spec = {"kubernetes.io/hostname": options.name}, {}
        if options.gpus:
            room["nvidia.com/gpu"] = str(options.gpus)
            labels["nvidia.com/gpu.present"] = "true"
            spec["taints"] = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": options.name, "labels": labels}, "spec": spec}
        await self._call("POST", "/api/v1/nodes", node)
        status = {"status": {"capacity": room, "allocatable": room}}
        await self._call("PATCH", f"/api/v1/nodes/{options.name}/status", status, _MERGE)

    async def run(self) -> None:
        """Start and stop processes as the API says, until killed; then none of them is left."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
        await self.register()
        try:
            await self._follow()
        finally:
            for process in filter(None, self._processes.values()):
                process.kill()

    async def _follow(self) -> None:
        while True:
            selector = f"fieldSelector=spec.nodeName%3D{self._options.name}"
            for pod in (await self._call("GET", f"/api/v1/pods?{selector}"))["items"]:
                uid, path = pod["metadata"]["uid"], _path(pod)
                if "deletionTimestamp" in pod["metadata"]:
                    if process := self._processes.get(uid):
                        process.terminate()
                    await self._call("DELETE", path, {"gracePeriodSeconds": 0})
                elif uid not in self._processes and pod["status"]["phase"] == "Pending":
                    self._processes[uid] = None
                    task = asyncio.create_task(self._start(pod))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(0.5)

    async def _start(self, pod: Object) -> None:
        """Run a pod to its end."""
        container, gpus, started = pod["spec"]["containers"][0], set(), stamp()
        if container["image"] not in self._images:
            await self._report(pod, "Pending", {"waiting": {"reason": "ErrImagePull", "message": "image not found"}})
            return
        try:
            limits = (container.get("resources") or {}).get("limits") or {}
            gpus = {self._free_gpus.pop() for _ in range(int(limits.get("nvidia.com/gpu", 0)))}
            code = await self._execute(pod, container, gpus)
            reason = "Completed" if code == 0 else "Error"
        except (RuntimeError, OSError, KeyError) as error:
            code, reason = 128, f"ContainerCannotRun: {error!r}"
        finally:
            self._free_gpus |= gpus
        ended = {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": stamp()}
        await self._report(pod, "Succeeded" if code == 0 else "Failed", {"terminated": ended})

    async def _execute(self, pod: Object, container: Object, gpus: set[str]) -> int:
        """Run the container's command; the exit code, 128 + n for signal n."""
        metadata, folder = pod["metadata"], self._options.root / pod["metadata"]["uid"]
        for name in ("account", "app"):
            (folder / name).mkdir(parents=True)
        await self._write_account(pod, folder / "account")
        host, port = self._options.server.removeprefix("https://").split(":")
        environment = {
            "PATH": self._images[container["image"]], "HOME": str(self._options.root), "LANG": "C.UTF-8",
            "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port,
            "NVIDIA_VISIBLE_DEVICES": ",".join(sorted(gpus)) or "void",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        if not gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""  # as a container without that limit sees none
        environment |= await self._environment(metadata["namespace"], container)
        environment |= _fields(pod, container)
        command = [*(container.get("command") or []), *(container.get("args") or [])]
        lines = [f"hostname {metadata['name']}", *_mounts(pod, container, folder), "cd /app"]
        script = " && ".join([*lines, f"exec {shlex.join(command)}"])
        isolated = [*"unshare --mount --uts --pid --fork --kill-child --mount-proc sh -c".split(), script]
        log = self._options.logs / f"{metadata['namespace']}_{metadata['name']}.log"
        with log.open("ab") as output:
            streams = {"stdin": asyncio.subprocess.DEVNULL, "stdout": output, "stderr": output}
            process = await asyncio.create_subprocess_exec(*isolated, env=environment, **streams)
        self._processes[metadata["uid"]] = process
        await self._report(pod, "Running", {"running": {"startedAt": stamp()}})
        code = await process.wait()
        self._processes[metadata["uid"]] = None
        return code if code >= 0 else 128 - code

    async def _write_account(self, pod: Object, folder: Path) -> None:
        account = pod["spec"].get("serviceAccountName", "default")
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/serviceaccounts/{account}/token"
        token = (await self._call("POST", path, {}))["status"]["token"]
        (folder / "token").write_text(token)
        (folder / "namespace").write_text(pod["metadata"]["namespace"])
        (folder / "ca.crt").write_text(self._options.certificate.read_text())

    async def _environment(self, namespace: str, container: Object) -> dict[str, str]:
        """The container's variables, those from secrets included."""

        async def secret(name: str) -> dict[str, str]:
            data = (await self._call("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}"))["data"]
            return {key: base64.b64decode(value).decode() for key, value in data.items()}

        result = {}
        for variable in container.get("env") or []:
            reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
            value = (await secret(reference["name"]))[reference["key"]] if reference else variable.get("value") or ""
            result[variable["name"]] = value
        for source in container.get("envFrom") or []:
            result |= await secret(source["secretRef"]["name"])
        return result

    async def _report(self, pod: Object, phase: str, state: Object) -> None:
        container = pod["spec"]["containers"][0]
        own = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
        status = {"phase": phase, "containerStatuses": [own | {"ready": phase == "Running", "state": state}]}
        await self._call("PATCH", _path(pod) + "/status", {"status": status}, _MERGE)


def _path(pod: Object) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _fields(pod: Object, container: Object) -> dict[str, str]:
    """The container's variables that are labels of its pod."""
    references = {one["name"]: (one.get("valueFrom") or {}).get("fieldRef") for one in container.get("env") or []}
    labels = {f"metadata.labels['{key}']": value for key, value in (pod["metadata"].get("labels") or {}).items()}
    return {name: labels[reference["fieldPath"]] for name, reference in references.items() if reference}


def _mounts(pod: Object, container: Object, folder: Path) -> list[str]:
    """Shell lines that mount the account's token, a folder for the code, and every emptyDir as a tmpfs of its size."""
    # ZenML unpacks the code into /app/code, which pods would otherwise share with all others on this machine.
    places = {"account": _ACCOUNT, "app": "/app"}
    lines = [f"mkdir -p {place} && mount --bind {folder / name} {place}" for name, place in places.items()]
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    for mount in container.get("volumeMounts") or []:
        size = volumes[mount["name"]]["emptyDir"].get("sizeLimit", "50%").rstrip("i")
        place = shlex.quote(mount["mountPath"])
        lines += [f"mkdir -p {place}", f"mount -t tmpfs -o size={size} tmpfs {place}"]
    return lines


async def main(options: argparse.Namespace) -> None:
    """Be a node until killed."""
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=options.certificate))
    headers = {"Authorization": f"Bearer {options.token}"}
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        await Kubelet(options, session).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("server", "token", "name", "images"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--gpus", type=int, required=True)
    for option in ("certificate", "root", "logs"):
        parser.add_argument(f"--{option}", type=Path, required=True)
    asyncio.run(main(parser.parse_args()))
