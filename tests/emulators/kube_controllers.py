"""The loops of an emulated cluster: CronJobs make Jobs, Jobs make pods, pods get nodes."""

from __future__ import annotations

from datetime import datetime, timedelta

from croniter import croniter

from tests.emulators.kube_objects import ApiError, Object, Store, has_condition, now, quantity, stamp


def tick(store: Store) -> None:
    """One turn of every loop."""
    for resource, loop in (("cronjobs", _fire), ("jobs", _advance), ("pods", _schedule)):
        for item in store.list(resource):
            try:
                loop(store, item)
            except ApiError as error:
                print(resource, item["metadata"]["name"], error, flush=True)


def _owned(store: Store, resource: str, owner: Object) -> list[Object]:
    return store.owned(owner["metadata"]["uid"], resource)


def _reference(owner: Object) -> list[Object]:
    metadata = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": metadata["name"]}
    return [reference | {"uid": metadata["uid"], "controller": True, "blockOwnerDeletion": True}]


def _fire(store: Store, cron_job: Object) -> None:
    spec, metadata, status = cron_job["spec"], cron_job["metadata"], cron_job["status"]
    last = datetime.fromisoformat(status.get("lastScheduleTime") or metadata["creationTimestamp"])
    due = croniter(spec["schedule"], now() + timedelta(seconds=1)).get_prev(datetime)
    active = [job for job in _owned(store, "jobs", cron_job) if "finished" not in job["status"]]
    if spec["suspend"] or due <= last or (active and spec["concurrencyPolicy"] == "Forbid"):
        return
    status["lastScheduleTime"] = stamp(due)
    template = spec["jobTemplate"]
    own = {key: value for key, value in (template.get("metadata") or {}).items() if key in ("labels", "annotations")}
    own |= {"name": f"{metadata['name']}-{int(due.timestamp() // 60)}", "ownerReferences": _reference(cron_job)}
    store.create("jobs", metadata["namespace"], {"metadata": own, "spec": template["spec"]})


def _advance(store: Store, job: Object) -> None:
    spec, metadata, status = job["spec"], job["metadata"], job["status"]
    if "finished" in status:
        return
    status.setdefault("startTime", stamp())
    pods = _owned(store, "pods", job)
    running = [pod for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]
    actions = [_on_failure(spec, pod) for pod in pods if pod["status"]["phase"] == "Failed"]
    succeeded = sum(pod["status"]["phase"] == "Succeeded" for pod in pods)
    status.update(active=len(running), failed=actions.count("Count"), succeeded=succeeded)
    age = now() - datetime.fromisoformat(status["startTime"])
    if (limit := spec.get("activeDeadlineSeconds")) and age.total_seconds() > limit:
        _finish(job, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    elif "FailJob" in actions:
        _finish(job, "Failed", "PodFailurePolicy", "Container main failed with an exit code of a FailJob rule")
    elif status["failed"] > spec["backoffLimit"]:
        _finish(job, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    elif succeeded >= spec["completions"]:
        _finish(job, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    elif not running:
        own = dict(spec["template"].get("metadata") or {})
        names = {"job-name": metadata["name"], "batch.kubernetes.io/job-name": metadata["name"]}
        own["labels"] = {**(own.get("labels") or {}), **names}
        own |= {"generateName": metadata["name"][:57] + "-", "ownerReferences": _reference(job)}
        store.create("pods", metadata["namespace"], {"metadata": own, "spec": spec["template"]["spec"]})
    if "finished" in status:
        for pod in running:
            store.remove("pods", metadata["namespace"], pod["metadata"]["name"])


def _on_failure(spec: Object, pod: Object) -> str:
    """What the first rule of the pod failure policy that fits says; without one, the failure counts."""
    states = [one["state"] for one in pod["status"].get("containerStatuses") or []]
    codes = [state["terminated"]["exitCode"] for state in states if "terminated" in state]
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or []:
        by_code = rule.get("onExitCodes")
        if by_code and any((code in by_code["values"]) == (by_code["operator"] == "In") for code in codes if code):
            return rule["action"]
        if any(has_condition(pod, pattern["type"]) for pattern in rule.get("onPodConditions") or []):
            return rule["action"]
    return "Count"


def _finish(job: Object, kind: str, reason: str, message: str) -> None:
    condition = {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": stamp()}
    job["status"].setdefault("conditions", []).append(condition)
    job["status"]["finished"] = stamp()  # the API server has no such field; clients ignore it


def _schedule(store: Store, pod: Object) -> None:
    if pod["spec"].get("nodeName") or "deletionTimestamp" in pod["metadata"]:
        return
    reasons = []
    for node in store.list("nodes"):
        reason = _misfit(store, pod, node)
        if reason is None:
            pod["spec"]["nodeName"] = node["metadata"]["name"]
            return
        reasons.append(reason)
    message = f"0/{len(reasons)} nodes are available: {', '.join(reasons)}"
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    pod["status"]["conditions"] = [condition | {"lastTransitionTime": stamp()}]


def _misfit(store: Store, pod: Object, node: Object) -> str | None:
    """Why a node cannot take a pod; None if it can."""
    name, labels = node["metadata"]["name"], node["metadata"]["labels"]
    if not (pod["spec"].get("nodeSelector") or {}).items() <= labels.items():
        return "node(s) didn't match Pod's node affinity/selector"
    tolerations = pod["spec"].get("tolerations") or []
    if not all(any(_tolerates(one, taint) for one in tolerations) for taint in node["spec"].get("taints") or []):
        return "node(s) had untolerated taint(s)"
    here = [one for one in store.list("pods") if one["spec"].get("nodeName") == name]
    busy = [_needs(one) for one in here if one["status"]["phase"] in ("Pending", "Running")]
    room = node["status"].get("allocatable") or {}
    for key, amount in _needs(pod).items():
        if amount + sum(one.get(key, 0) for one in busy) > quantity(room.get(key, 0)):
            return f"Insufficient {key}"
    return None


def _tolerates(toleration: Object, taint: Object) -> bool:
    same = all(toleration.get(part) in (None, taint[part]) for part in ("key", "effect"))
    return same and (toleration.get("operator") == "Exists" or toleration.get("value") == taint.get("value"))


def _needs(pod: Object) -> dict[str, float]:
    (container,) = pod["spec"]["containers"]
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {key: quantity(value) for key, value in asked.items()}
