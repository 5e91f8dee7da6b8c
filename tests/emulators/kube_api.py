"""An emulated Kubernetes API server with its controllers: what ZenML's orchestrator asks of a cluster, no more.

There are no watches, no admission plug-ins and no network. The only role is `edit`, with what it allows of our kinds.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import ssl
import uuid
from collections.abc import Mapping
from functools import reduce
from pathlib import Path

from aiohttp import web

from tests.emulators.kube_controllers import tick
from tests.emulators.kube_objects import KINDS, ApiError, Object, Store

ADMIN = "admin"
EDITABLE = ("pods", "secrets", "serviceaccounts", "jobs", "cronjobs")
_PATH = re.compile(r"/(?:api/v1|apis/[\w.]+/v1)(?:/namespaces/([^/]+)(?=/))?/([a-z]+)(?:/([^/]+))?(?:/(\w+))?")


class Server:
    """The API: one handler for every path.

    Args:
        admin_token: of the user who may do everything.
        logs: the folder in which the kubelets write their pods' output.
    """

    def __init__(self, admin_token: str, logs: Path) -> None:
        self.store = Store()
        self._users, self._logs = {admin_token: ADMIN}, logs

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a request as the real server would."""
        try:
            body = await request.json() if request.can_read_body and request.content_length else {}
            return self._answer(request, body)
        except ApiError as error:
            print(request.method, request.path, error.code, error, flush=True)
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": str(error)}
            return web.json_response(status | {"reason": error.reason, "code": error.code}, status=error.code)

    def _answer(self, request: web.Request, body: Object) -> web.Response:
        if found := _discovery(request.path):
            return web.json_response(found)
        path, store, method = _PATH.fullmatch(request.path), self.store, request.method
        if path is None or path[2] not in KINDS:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        namespace, resource, name, part = path.groups()
        self._authorize(request, namespace, resource)
        if part == "token":
            token = str(uuid.uuid4())
            self._users[token] = f"{namespace}:{name}"
            return web.json_response({"kind": "TokenRequest", "status": {"token": token}}, status=201)
        if method == "POST":
            return web.json_response(store.create(resource, namespace, body), status=201)
        if name is None:
            chosen = [one for one in store.list(resource, namespace) if _selected(one, request.query)]
            version, kind = KINDS[resource]
            return web.json_response({"kind": f"{kind}List", "apiVersion": version, "metadata": {}, "items": chosen})
        item = store.get(resource, namespace, name)
        if part == "log":
            log = self._logs / f"{namespace}_{name}.log"
            return web.Response(body=log.read_bytes() if log.exists() else b"", content_type="text/plain")
        if method == "PATCH":
            return web.json_response(store.patch(resource, namespace, name, body, part == "status"))
        if method == "DELETE":
            store.remove(resource, namespace, name, now_gone=body.get("gracePeriodSeconds") == 0)
            return web.json_response({"kind": "Status", "status": "Success"})
        return web.json_response(item)

    def _authorize(self, request: web.Request, namespace: str | None, resource: str) -> None:
        user = self._users.get(request.headers.get("Authorization", "").partition(" ")[2])
        if user is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        if user == ADMIN:
            return
        for binding in self.store.list("rolebindings", namespace) if namespace else []:
            subjects = {f"{one.get('namespace')}:{one['name']}" for one in binding["subjects"]}
            if binding["roleRef"]["name"] == "edit" and user in subjects and resource in EDITABLE:
                return
        raise ApiError(403, "Forbidden", f'{resource} is forbidden: User "{user}" cannot {request.method} it')


def _discovery(path: str) -> Object | None:
    """What kubectl asks before all else: which groups there are, and which kinds a group has."""
    groups = {version.rpartition("/")[0]: version for version, _ in KINDS.values()}
    if path == "/api":
        return {"kind": "APIVersions", "versions": [groups[""]]}
    if path == "/apis":
        versions = {name: {"groupVersion": version, "version": "v1"} for name, version in groups.items() if name}
        found = [{"name": name, "versions": [one], "preferredVersion": one} for name, one in versions.items()]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}
    version, verbs = re.sub("^/apis?/", "", path), ["create", "delete", "get", "list", "patch"]
    resources = [
        {"name": name, "kind": kind, "namespaced": kind not in ("Namespace", "Node"), "verbs": verbs}
        for name, (own, kind) in KINDS.items()
        if own == version
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources} if resources else None


def _selected(item: Object, query: Mapping[str, str]) -> bool:
    """Whether the label and field selectors of a query, `a=b,c=d`, choose an object."""
    labels = item["metadata"].get("labels") or {}
    places = {"labelSelector": labels.get, "fieldSelector": lambda key: reduce(_part, key.split("."), item)}
    terms = [(place, *re.split("==?", term)) for name, place in places.items() for term in _terms(query.get(name, ""))]
    return all(place(key) == wanted for place, key, wanted in terms)


def _terms(selector: str) -> list[str]:
    return selector.split(",") if selector else []


def _part(value: Object | None, key: str) -> object:
    return (value or {}).get(key)


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until killed."""
    server = Server(arguments.token, arguments.logs)
    application = web.Application(client_max_size=10**8)
    application.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.certificate, arguments.key)
    await web.TCPSite(runner, "127.0.0.1", arguments.port, ssl_context=context).start()
    while True:
        tick(server.store)
        await asyncio.sleep(0.3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for option, kind in (("port", int), ("token", str), ("logs", Path), ("certificate", Path), ("key", Path)):
        parser.add_argument(f"--{option}", type=kind, required=True)
    asyncio.run(serve(parser.parse_args()))
