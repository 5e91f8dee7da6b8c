"""ZenML's token in the pods of a retraining: in a Kubernetes secret, as a static pipeline's pods have it.

ZenML 0.98 writes it in plain text into the manifest of every step that a dynamic pipeline starts, whatever
`pass_zenml_token_as_secret` says. Who may read pods could then act as the run.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zenml.client import Client

if TYPE_CHECKING:
    from zenml.integrations.kubernetes.orchestrators import KubernetesOrchestrator

CREDENTIALS = ("ZENML_STORE_API_TOKEN", "ZENML_STORE_API_KEY")
_CONFLICT = 409


@contextmanager
def tokens_in_secrets() -> Iterator[None]:
    """Let Kubernetes jobs that are made meanwhile refer to their credentials, where the orchestrator is to keep them.

    The secret `zenml-token-run-<run id>` of a run belongs to the job in which this runs, and goes with it.
    """
    if Client().active_stack.orchestrator.flavor != "kubernetes":
        yield
        return
    from zenml.integrations.kubernetes.orchestrators import KubernetesOrchestrator

    original = KubernetesOrchestrator._prepare_job_manifest
    KubernetesOrchestrator._prepare_job_manifest = _with_secret(original)
    try:
        yield
    finally:
        KubernetesOrchestrator._prepare_job_manifest = original


def _with_secret(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def prepare(orchestrator: KubernetesOrchestrator, **given: Any) -> Any:
        credentials = {name: given["environment"][name] for name in CREDENTIALS if name in given["environment"]}
        if not orchestrator.config.pass_zenml_token_as_secret or not credentials:
            return original(orchestrator, **given)
        secret = f"zenml-token-run-{given['labels']['run_id']}"
        _store(orchestrator, secret, credentials)
        environment = {name: value for name, value in given["environment"].items() if name not in credentials}
        pod_settings = _referring(given["pod_settings"], secret, credentials)
        return original(orchestrator, **{**given, "environment": environment, "pod_settings": pod_settings})

    return prepare


def _referring(pod_settings: Any, secret: str, names: dict[str, str]) -> Any:
    """A copy of a step's pod settings with the secret's values among its variables."""
    from zenml.integrations.kubernetes.pod_settings import KubernetesPodSettings

    given = pod_settings or KubernetesPodSettings()
    references = [{"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}} for name in names]
    return given.model_copy(update={"env": [*given.env, *references]})


def _store(orchestrator: KubernetesOrchestrator, name: str, values: dict[str, str | None]) -> None:
    """Make the secret, or bring its values up to date."""
    from kubernetes.client.exceptions import ApiException  # pyright: ignore[reportMissingImports] - in pods only
    from zenml.integrations.kubernetes import kube_utils
    from zenml.integrations.kubernetes.manifest_utils import build_secret_manifest

    core, namespace = orchestrator._k8s_core_api, orchestrator.config.kubernetes_namespace
    manifest = build_secret_manifest(name, values)
    manifest["metadata"]["ownerReferences"] = _own_job(core, namespace)
    try:
        core.create_namespaced_secret(namespace, manifest)
    except ApiException as error:
        if error.status != _CONFLICT:
            raise
        kube_utils.update_secret(core, namespace, name, values)


def _own_job(core: Any, namespace: str) -> list[dict[str, str]]:
    """The job whose pod this process is in, as its owner reference; a pod's name is its host's."""
    owners = core.read_namespaced_pod(socket.gethostname(), namespace).metadata.owner_references or []
    return [{"apiVersion": one.api_version, "kind": one.kind, "name": one.name, "uid": one.uid} for one in owners]
