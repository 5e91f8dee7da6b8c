"""The objects of an emulated Kubernetes cluster, and the rules by which its API accepts them."""

from __future__ import annotations

import copy
import datetime
import random
import re
import uuid
from typing import Any

import kubernetes_validate
from croniter import croniter

Object = dict[str, Any]
KINDS = {
    "namespaces": ("v1", "Namespace"), "nodes": ("v1", "Node"), "pods": ("v1", "Pod"), "secrets": ("v1", "Secret"),
    "serviceaccounts": ("v1", "ServiceAccount"), "jobs": ("batch/v1", "Job"), "cronjobs": ("batch/v1", "CronJob"),
    "rolebindings": ("rbac.authorization.k8s.io/v1", "RoleBinding"),
}  # fmt: skip
SCHEMAS = ("1.30.0", "1.36.0")
_UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_WITHOUT_STATUS = ("secrets", "serviceaccounts", "rolebindings")
_LONGEST = {"cronjobs": 52, "jobs": 63}
_DEFAULTS = {
    "jobs": {"backoffLimit": 6, "completions": 1}, "pods": {"serviceAccountName": "default"},
    "cronjobs": {"concurrencyPolicy": "Allow", "suspend": False},
}  # fmt: skip


class ApiError(Exception):
    """A refusal, with the HTTP status and the reason that the real API server gives."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


def now() -> datetime.datetime:
    """The time in whole seconds."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def stamp(time: datetime.datetime | None = None) -> str:
    """A time as the API writes it."""
    return (time or now()).strftime("%Y-%m-%dT%H:%M:%SZ")


def quantity(text: str | int) -> float:
    """A resource quantity such as 500m or 2Gi as a number."""
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text))
    if match is None or match[2] not in _UNITS:
        raise ApiError(400, "BadRequest", f"quantities must match the regular expression, not {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def has_condition(item: Object, kind: str) -> bool:
    """Whether a condition holds."""
    conditions = item["status"].get("conditions") or []
    return any(one["type"] == kind and one.get("status", "True") == "True" for one in conditions)


class Store:
    """All objects, by resource, namespace and name."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str | None, str], Object] = {}
        self._version = 0

    def list(self, resource: str, namespace: str | None = None) -> list[Object]:
        """The objects of one resource, in one namespace or in all."""
        found = [(place, item) for (kind, place, _), item in self._items.items() if kind == resource]
        return [item for place, item in found if namespace in (None, place)]

    def owned(self, uid: str, resource: str) -> list[Object]:
        """The objects of one resource that have an owner."""
        return [one for one in self.list(resource) if uid in _owners(one)]

    def get(self, resource: str, namespace: str | None, name: str) -> Object:
        """One object.

        Raises:
            ApiError: there is none (404).
        """
        if (resource, namespace, name) not in self._items:
            raise ApiError(404, "NotFound", f'{resource} "{name}" not found')
        return self._items[resource, namespace, name]

    def create(self, resource: str, namespace: str | None, body: Object) -> Object:
        """Accept a new object.

        Raises:
            ApiError: it does not fit the schemas of all versions, or breaks a rule.
        """
        version, kind = KINDS[resource]
        item = {**copy.deepcopy(body), "apiVersion": version, "kind": kind}
        metadata = item.setdefault("metadata", {})
        if namespace is not None:
            self.get("namespaces", None, namespace)
        if metadata.get("generateName") and not metadata.get("name"):
            metadata["name"] = metadata["generateName"] + "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
        for pattern in _pod_condition_patterns(item.get("spec") or {}):
            pattern.setdefault("status", "True")  # as the server fills it in before it validates
        check(resource, item)
        if (resource, namespace, metadata["name"]) in self._items:
            raise ApiError(409, "AlreadyExists", f'{resource} "{metadata["name"]}" already exists')
        self._version += 1
        metadata.update(uid=str(uuid.uuid4()), creationTimestamp=stamp(), resourceVersion=str(self._version))
        if namespace is not None:
            metadata["namespace"] = namespace
        if resource not in _WITHOUT_STATUS:
            item["status"] = {"phase": "Pending"} if resource == "pods" else {}
        for key, value in _DEFAULTS.get(resource, {}).items():
            item["spec"].setdefault(key, value)
        if resource == "pods":
            self.get("serviceaccounts", namespace, item["spec"]["serviceAccountName"])
        self._items[resource, namespace, metadata["name"]] = item
        if resource == "namespaces":
            self.create("serviceaccounts", metadata["name"], {"metadata": {"name": "default"}})
        return item

    def patch(self, resource: str, namespace: str | None, name: str, change: Object, status: bool) -> Object:
        """Merge a change into an object, or into its status only."""
        old = self.get(resource, namespace, name)
        new = _merged(old, change)
        if status:
            new = {**old, "status": new["status"]}
        else:
            if "status" in old:
                new["status"] = old["status"]
            check(resource, new)
        self._version += 1
        new["metadata"]["resourceVersion"] = str(self._version)
        self._items[resource, namespace, name] = new
        return new

    def remove(self, resource: str, namespace: str | None, name: str, now_gone: bool = False) -> None:
        """Delete an object and what it owns; a pod that a kubelet has is only marked, until the kubelet is done."""
        item = self._items.get((resource, namespace, name))
        if item is None:
            return
        alive = item.get("status", {}).get("phase") in ("Pending", "Running") and item["spec"].get("nodeName")
        if resource == "pods" and alive and not now_gone:
            item["metadata"].setdefault("deletionTimestamp", stamp())
            return
        del self._items[resource, namespace, name]
        for (kind, place, other), owned in list(self._items.items()):
            if _owners(owned) == {item["metadata"]["uid"]}:
                self.remove(kind, place, other)


def check(resource: str, item: Object) -> None:
    """Refuse what the API server would refuse, as far as ZenML's objects come across it.

    Raises:
        ApiError: 400 for a misfit with a schema, 422 for a broken rule.
    """
    for version in SCHEMAS:
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(map(str, error.path))
            raise ApiError(400, "BadRequest", f"strict decoding error ({version}): {place}: {error.message}") from None
    name, longest = item["metadata"]["name"], _LONGEST.get(resource, 253)
    _require(
        re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name) and len(name) <= longest,
        f"metadata.name: Invalid value: {name!r}: must be a DNS-1123 name of no more than {longest} characters",
    )
    for value in (item["metadata"].get("labels") or {}).values():
        _require(re.fullmatch(r"(\w([\w.-]{0,61}\w)?)?", value), f"metadata.labels: Invalid value: {value!r}")
    spec = item.get("spec") or {}
    if resource == "cronjobs":
        cron = spec["schedule"]
        valid = len(cron.split()) == 5 and croniter.is_valid(cron)
        _require(valid, f"spec.schedule: Invalid value: {cron!r}: expected exactly 5 fields of cron")
        spec = spec["jobTemplate"]["spec"]
    if resource in ("cronjobs", "jobs"):
        spec = spec["template"]["spec"]
        _require(spec.get("restartPolicy") in ("Never", "OnFailure"), "restartPolicy: Unsupported value")
    if "containers" in spec:
        _check_pod(spec)


def _check_pod(spec: Object) -> None:
    volumes = {volume["name"] for volume in spec.get("volumes") or []}
    (container,) = spec["containers"]
    resources = container.get("resources") or {}
    limits = resources.get("limits") or {}
    for key, value in (resources.get("requests") or {}).items():
        whole = "/" not in key or limits.get(key) == value
        _require(whole, f"{key}: Limit must be set for non overcommitable resources")
        fits = key not in limits or quantity(value) <= quantity(limits[key])
        _require(fits, f"requests.{key}: must be less than or equal to {key} limit")
    for mount in container.get("volumeMounts") or []:
        _require(mount["name"] in volumes, f"volumeMounts.name: Not found: {mount['name']!r}")


def _pod_condition_patterns(spec: Object) -> list[Object]:
    spec = spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec
    rules = (spec.get("podFailurePolicy") or {}).get("rules") or []
    return [pattern for rule in rules for pattern in rule.get("onPodConditions") or []]


def _owners(item: Object) -> set[str]:
    return {owner["uid"] for owner in item["metadata"].get("ownerReferences") or []}


def _require(fine: object, message: str) -> None:
    if not fine:
        raise ApiError(422, "Invalid", message)


def _merged(old: Object, change: Object) -> Object:
    result = copy.deepcopy(old)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result
