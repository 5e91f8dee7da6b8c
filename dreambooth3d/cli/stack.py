"""`dreambooth3d stack kubernetes`: a ZenML stack on a cluster, after a check of what it needs there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlparse

from dreambooth3d.cli.setup import exists
from dreambooth3d.errors import ConfigError, gist


@dataclass(frozen=True)
class KubernetesStack:
    """What a user says about a stack on Kubernetes.

    Attributes:
        name: of the stack; its components are `<name>_<kind>`.
        context: of the kubeconfig.
        namespace: in which all pods run.
        artifact_store: an s3:// URI.
        registry: from which the nodes pull images, such as registry.example.com/team.
        tracking_uri: of the MLflow server, http:// or https://.
        tracking_secret: the ZenML secret that holds MLflow's username and password.
        service_account: of all pods; it may make jobs and pods. The one that ZenML makes by itself would not do: it has
            not the right to make role bindings, which ZenML asks for anew whenever a pod starts a step of a retraining.
        endpoint_url: of an S3-compatible store that is not Amazon's.
        secret: the ZenML secret that holds aws_access_key_id and aws_secret_access_key.
    """

    name: str
    context: str
    namespace: str
    artifact_store: str
    registry: str
    tracking_uri: str
    tracking_secret: str
    service_account: str = "dreambooth3d"
    endpoint_url: str | None = None
    secret: str | None = None


@dataclass(frozen=True)
class Component:
    """One component of a stack.

    Attributes:
        kind: as the zenml command calls it.
        option: of `zenml stack register`.
        flavor: of the component.
        configuration: its values.
    """

    kind: str
    option: str
    flavor: str
    configuration: dict[str, Any] = field(default_factory=dict)


def components(stack: KubernetesStack) -> list[Component]:
    """The components of a stack; secrets go in by reference only."""
    store: dict[str, object] = {"path": stack.artifact_store}
    if stack.secret:
        store["authentication_secret"] = stack.secret
    if stack.endpoint_url:
        store["client_kwargs"] = {"endpoint_url": stack.endpoint_url}
    orchestrator: dict[str, object] = {
        "kubernetes_context": stack.context,
        # In a pod, its service account; ZenML falls back to the context where there is no pod around it.
        "incluster": True,
        "kubernetes_namespace": stack.namespace,
        "pass_zenml_token_as_secret": True,
        "service_account_name": stack.service_account,
        "step_pod_service_account_name": stack.service_account,
    }
    tracker: dict[str, object] = {
        "tracking_uri": stack.tracking_uri,
        "tracking_username": f"{{{{{stack.tracking_secret}.username}}}}",
        "tracking_password": f"{{{{{stack.tracking_secret}.password}}}}",
    }
    return [
        Component("artifact-store", "-a", "s3", store),
        Component("container-registry", "-c", "default", {"uri": stack.registry}),
        Component("image-builder", "-i", "local"),
        Component("experiment-tracker", "-e", "mlflow", tracker),
        Component("model-registry", "-r", "mlflow"),
        Component("orchestrator", "-o", "kubernetes", orchestrator),
    ]


def commands(stack: KubernetesStack) -> list[str]:
    """The zenml commands that make the stack, ready for a shell."""
    lines, parts = [], []
    for component in components(stack):
        name = _component_name(stack, component)
        values = [f"--{key}={_shell_value(value)}" for key, value in component.configuration.items()]
        lines.append(shlex.join(["zenml", component.kind, "register", name, f"--flavor={component.flavor}", *values]))
        parts += [component.option, name]
    return [*lines, shlex.join(["zenml", "stack", "register", stack.name, *parts])]


def register(stack: KubernetesStack, say: Callable[[str], None]) -> None:
    """Check what the stack needs, then make or update its components and the stack.

    Raises:
        ConfigError: one sentence for the first thing that is missing.
    """
    for check in (_check_addresses, _check_server, _check_secrets, _check_namespace):
        check(stack)
    from zenml.client import Client
    from zenml.enums import StackComponentType

    client, made = Client(), {}
    for component in components(stack):
        kind, name = StackComponentType(component.kind.replace("-", "_")), _component_name(stack, component)
        made[kind] = name
        if not exists(client.get_stack_component, kind, name):
            client.create_stack_component(name, component.flavor, kind, component.configuration)
            say(f"{kind.value} {name}: registered")
            continue
        found = client.get_stack_component(kind, name, allow_name_prefix_match=False)
        if found.flavor_name != component.flavor:
            raise ConfigError(
                f"--name: {kind.value} {name} exists with flavor {found.flavor_name}, not {component.flavor}. "
                "Choose another --name, or delete that component."
            )
        # A value of None removes what an earlier registration has set and this one does not.
        gone = dict.fromkeys({*found.configuration} - {*component.configuration})
        client.update_stack_component(name, kind, configuration={**component.configuration, **gone})
        say(f"{kind.value} {name}: up to date")
    if exists(client.get_stack, stack.name):
        client.update_stack(stack.name, component_updates={kind: [name] for kind, name in made.items()})
    else:
        client.create_stack(stack.name, made)
    say(f"Stack {stack.name} is ready: zenml pipeline run ... --stack {stack.name}")


def _component_name(stack: KubernetesStack, component: Component) -> str:
    return f"{stack.name}_{component.kind.replace('-', '_')}"


def _shell_value(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _check_addresses(stack: KubernetesStack) -> None:
    """Store, registry and tracker must be such that a pod can reach them."""
    if not stack.artifact_store.removeprefix("s3://").strip("/") or not stack.artifact_store.startswith("s3://"):
        raise ConfigError(
            f"--artifact-store: {stack.artifact_store!r} is not in S3, so that pods could not reach it. "
            "Give s3://BUCKET, with --endpoint-url where the store is not Amazon's."
        )
    host = stack.registry.partition("/")[0]
    if not host or host.partition(":")[0] in ("localhost", "127.0.0.1"):
        raise ConfigError(
            f"--registry: {stack.registry!r} is local, so that nodes could not pull from it. "
            "Give a registry that the nodes reach, such as registry.example.com/team."
        )
    if urlparse(stack.tracking_uri).scheme not in ("http", "https"):
        raise ConfigError(
            f"--tracking-uri: {stack.tracking_uri!r} is no MLflow server. Give its http:// or https:// address."
        )


def _check_server(stack: KubernetesStack) -> None:
    """Pods report to the ZenML server, which a database in a local file cannot be."""
    from zenml.client import Client

    if Client().zen_store.is_local_store():
        raise ConfigError(
            "ZenML keeps its state in a file of this machine, which pods cannot reach. "
            "Connect to a ZenML server with `zenml login https://SERVER`."
        )


def _check_secrets(stack: KubernetesStack) -> None:
    from zenml.client import Client

    wanted = (
        ("--secret", stack.secret, ("aws_access_key_id", "aws_secret_access_key")),
        ("--tracking-secret", stack.tracking_secret, ("username", "password")),
    )
    for option, name, keys in wanted:
        if name is None:
            continue
        remedy = f"Make it with `zenml secret create {name} {' '.join(f'--{key}=...' for key in keys)}`."
        try:
            found = Client().get_secret_by_name_and_private_status(name)
        except KeyError:
            raise ConfigError(f"{option}: the ZenML server has no secret {name!r}. {remedy}") from None
        lacking = [key for key in keys if key not in found.values]
        if lacking:
            raise ConfigError(f"{option}: the secret {name!r} has no {' and no '.join(lacking)}. {remedy}")


def _check_namespace(stack: KubernetesStack) -> None:
    """The cluster must answer, and have the namespace and the service account: ZenML makes neither of the two."""
    needed = {"namespace": (stack.namespace,), "service-account": (stack.namespace, stack.service_account)}
    for what, path in needed.items():
        try:
            _read(stack.context, path)
        except LookupError:
            name = path[-1]
            place = "" if what == "namespace" else f" -n {stack.namespace}"
            raise ConfigError(
                f"--{what}: the cluster of context {stack.context!r} has no {what.replace('-', ' ')} {name!r}. "
                f"Make it with `kubectl --context {stack.context} create {what.replace('-', '')} {name}{place}`, as "
                "docs/kubernetes.md shows."
            ) from None


def _read(context: str, path: tuple[str, ...]) -> None:
    """Read a namespace, or a service account in one.

    Raises:
        LookupError: the cluster has none.
        ConfigError: the cluster could not be asked.
    """
    try:
        from kubernetes import client, config  # pyright: ignore[reportMissingImports] - asked for below
    except ImportError:
        raise ConfigError(
            "The Kubernetes client is not installed. Install it with `pip install --no-deps -r "
            "docker/requirements-remote.txt`."
        ) from None
    from urllib3.exceptions import HTTPError

    try:
        api = client.CoreV1Api(config.new_client_from_config(context=context))
        if len(path) == 1:
            api.read_namespace(path[0])
        else:
            api.read_namespaced_service_account(path[1], path[0])
    except config.ConfigException as error:
        raise ConfigError(
            f"--context: {context!r} cannot be used ({gist(error)}). `kubectl config get-contexts` lists yours."
        ) from None
    except client.ApiException as error:
        if error.status == 404:
            raise LookupError(path[-1]) from None
        raise ConfigError(
            f"--context: the cluster of {context!r} refuses to answer ({error.status} {error.reason}). "
            "Check your credentials with `kubectl auth whoami`."
        ) from None
    except HTTPError as error:
        raise ConfigError(
            f"--context: the cluster of {context!r} does not answer ({gist(error)}). Check with `kubectl cluster-info`."
        ) from None
