"""A step's pod as Kubeflow Pipelines writes it: ZenML's pod settings become the task's own and the platform's.

What the platform has no field for is refused by name; nothing is dropped.
"""

from __future__ import annotations

# Of the packages that this stack alone needs.
# pyright: reportMissingImports=false
from collections.abc import Mapping
from typing import Any

from kfp import kubernetes as platform
from kfp.dsl import PipelineTask
from zenml.config import ResourceSettings
from zenml.config.retry_config import StepRetryConfig
from zenml.integrations.kubernetes.pod_settings import KubernetesPodSettings

_UNKNOWN_TO_KUBEFLOW = ("env_from", "host_ipc", "scheduler_name", "additional_pod_spec_args")
_SECURITY = {"runAsUser": "run_as_user", "runAsGroup": "run_as_group", "runAsNonRoot": "run_as_non_root"}


def apply_pod_settings(task: PipelineTask, pod: KubernetesPodSettings) -> None:
    """Write pod settings into a task.

    Raises:
        ValueError: Kubeflow Pipelines has no field for one of them, or does not take its value.
    """
    for name in _UNKNOWN_TO_KUBEFLOW:
        if getattr(pod, name):
            raise ValueError(f"pod_settings.{name} has no counterpart in Kubeflow Pipelines")
    for key, value in pod.node_selectors.items():
        platform.add_node_selector(task, key, value)
    for toleration in pod.tolerations:
        seconds = {"toleration_seconds": toleration.get("tolerationSeconds")}
        platform.add_toleration_json(task, {**toleration, **seconds})
    for key, value in pod.labels.items():
        platform.add_pod_label(task, key, value)
    for key, value in pod.annotations.items():
        platform.add_pod_annotation(task, key, value)
    if pod.image_pull_secrets:
        platform.set_image_pull_secrets(task, pod.image_pull_secrets)
    for variable in pod.env:
        _add_variable(task, variable)
    _apply_affinity(task, pod.affinity)
    _apply_volumes(task, pod.volumes, pod.volume_mounts)
    _apply_security(task, pod.container_security_context)


def apply_resources(task: PipelineTask, pod: KubernetesPodSettings | None, step: ResourceSettings) -> None:
    """Write requests and limits into a task; those of the pod settings go before ZenML's own `resources`.

    Raises:
        ValueError: a resource, or a way to write it, that Kubeflow Pipelines does not take.
    """
    requests, limits = _requests_and_limits(pod.resources if pod else {})
    memory = step.memory.removesuffix("B") if step.memory else None  # ZenML's GB and GiB are Kubernetes' G and Gi
    own = {"cpu": step.cpu_count, "memory": memory}
    limits = {key: str(value) for key, value in own.items() if value is not None} | limits
    devices = {key: limits.pop(key) for key in [*limits] if "/" in key}
    if not devices and step.gpu_count:
        devices = {"nvidia.com/gpu": str(step.gpu_count)}
    if len(devices) > 1:
        raise ValueError(f"pod_settings.resources: Kubeflow Pipelines takes one kind of device, not {sorted(devices)}")
    for kind, count in devices.items():
        task.set_accelerator_type(kind).set_accelerator_limit(count)
    setters = {
        ("requests", "cpu"): task.set_cpu_request, ("limits", "cpu"): task.set_cpu_limit,
        ("requests", "memory"): task.set_memory_request, ("limits", "memory"): task.set_memory_limit,
    }  # fmt: skip
    for part, values in (("requests", requests), ("limits", limits)):
        for key, value in values.items():
            if (part, key) not in setters:
                raise ValueError(f"pod_settings.resources.{part}.{key} has no counterpart in Kubeflow Pipelines")
            setters[part, key](value)


def apply_retry(task: PipelineTask, retry: StepRetryConfig | None) -> None:
    """Let Kubeflow Pipelines try a failed pod again."""
    if retry is not None and retry.max_retries > 0:
        delay = f"{retry.delay or 0}s"
        task.set_retry(retry.max_retries, backoff_duration=delay, backoff_factor=float(retry.backoff or 1))


def _requests_and_limits(resources: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Both, devices in the limits only, where Kubernetes takes them from."""
    requests, limits = ({**(resources.get(part) or {})} for part in ("requests", "limits"))
    for key in [key for key in requests if "/" in key]:
        limits.setdefault(key, requests.pop(key))
        requests.pop(key, None)
    return requests, limits


def _add_variable(task: PipelineTask, variable: Mapping[str, Any]) -> None:
    name, source = variable["name"], variable.get("valueFrom") or {}
    if not source:
        task.set_env_variable(name, str(variable.get("value") or ""))
    elif reference := source.get("secretKeyRef"):
        optional = bool(reference.get("optional"))
        platform.use_secret_as_env(task, reference["name"], {reference["key"]: name}, optional)
    elif reference := source.get("configMapKeyRef"):
        optional = bool(reference.get("optional"))
        platform.use_config_map_as_env(task, reference["name"], {reference["key"]: name}, optional)
    elif reference := source.get("fieldRef"):
        platform.use_field_path_as_env(task, name, reference["fieldPath"])
    else:
        raise ValueError(f"pod_settings.env.{name}: {next(iter(source))} has no counterpart in Kubeflow Pipelines")


def _apply_affinity(task: PipelineTask, affinity: Mapping[str, Any]) -> None:
    if other := sorted(affinity.keys() - {"nodeAffinity"}):
        raise ValueError(f"pod_settings.affinity.{other[0]} has no counterpart in Kubeflow Pipelines")
    if affinity:
        platform.add_node_affinity_json(task, affinity["nodeAffinity"])


def _apply_volumes(task: PipelineTask, volumes: list[dict[str, Any]], mounts: list[dict[str, Any]]) -> None:
    """Kubeflow Pipelines mounts a volume where it declares it: once, as a whole."""
    paths: dict[str, str] = {}
    for mount in mounts:
        name, extra = mount["name"], sorted(key for key in mount.keys() - {"name", "mountPath"} if mount[key])
        if name in paths or extra:
            reason = f"{extra[0]} has no counterpart" if extra else "a volume can be mounted only once"
            raise ValueError(f"pod_settings.volume_mounts.{name}: {reason} in Kubeflow Pipelines")
        paths[name] = mount["mountPath"]
    for volume in volumes:
        name, (kind, source) = volume["name"], next((key, volume[key]) for key in volume if key != "name")
        if name not in paths:
            raise ValueError(f"pod_settings.volumes.{name} is mounted nowhere. Add it under volume_mounts.")
        if kind == "emptyDir":
            platform.empty_dir_mount(task, name, paths[name], (source or {}).get("medium"), _size(source))
        elif kind == "persistentVolumeClaim":
            platform.mount_pvc(task, source["claimName"], paths[name])
        elif kind == "secret":
            platform.use_secret_as_volume(task, source["secretName"], paths[name], bool(source.get("optional")))
        elif kind == "configMap":
            platform.use_config_map_as_volume(task, source["name"], paths[name], bool(source.get("optional")))
        else:
            raise ValueError(f"pod_settings.volumes.{name}: {kind} has no counterpart in Kubeflow Pipelines")


def _size(source: Mapping[str, Any] | None) -> str | None:
    size = (source or {}).get("sizeLimit")
    return None if size is None else str(size)


def _apply_security(task: PipelineTask, context: Mapping[str, Any]) -> None:
    if other := sorted(context.keys() - _SECURITY.keys()):
        raise ValueError(f"pod_settings.container_security_context.{other[0]} has no counterpart in Kubeflow Pipelines")
    if context:
        platform.set_security_context(task, **{_SECURITY[key]: value for key, value in context.items()})
