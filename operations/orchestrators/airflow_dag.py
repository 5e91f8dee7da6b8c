"""The Airflow DAG as ZenML writes it, less the credentials of the ZenML server.

ZenML puts a token that never expires into the DAG's file, in plain text. Where settings say
`custom_dag_generator: operations.orchestrators.airflow_dag`, it takes the class of the tasks from here. The
code in the DAG's file stays ZenML's own, so that Airflow needs no package of ours.
"""

from __future__ import annotations

from typing import Any

from pydantic import model_validator
from zenml.integrations.airflow.orchestrators import dag_generator
from zenml.integrations.airflow.orchestrators.dag_generator import (
    CONFIG_FILENAME,
    ENV_ZENML_AIRFLOW_RUN_ID,
    DagConfiguration,
)

from operations.orchestrators.airflow_settings import DOCKER, POD, REMOVED_POD

__all__ = ["CONFIG_FILENAME", "ENV_ZENML_AIRFLOW_RUN_ID", "DagConfiguration", "TaskConfiguration"]
# The file that ZenML puts into the zip.
__file__ = dag_generator.__file__

API_KEY_VARIABLE = "zenml_api_key"
"""Airflow's variable with an API key for the ZenML server; `api_key` in its name makes Airflow mask the value."""
_API_KEY = "ZENML_STORE_API_KEY"
_CREDENTIALS = ("ZENML_STORE_API_TOKEN", _API_KEY, "ZENML_STORE_PASSWORD")


class TaskConfiguration(dag_generator.TaskConfiguration):
    """A task that gets its credentials when it starts, and whose pod can have volumes.

    A container takes the credentials from Airflow's variable `zenml_api_key`; a pod from the Kubernetes secret that
    `operator_args.env_from` names.
    """

    @model_validator(mode="before")
    @classmethod
    def _adapt(cls, values: dict[str, Any]) -> dict[str, Any]:
        environment, operator = dict(values["environment"]), values["operator_source"]
        if [name for name in _CREDENTIALS if environment.pop(name, None)] and operator == DOCKER:
            environment[_API_KEY] = f"{{{{ var.value.{API_KEY_VARIABLE} }}}}"
        # What ZenML calls `kubernetes_pod` is no longer where it was: providers since 10.0 do not have it.
        operator = POD if operator == REMOVED_POD else operator
        arguments = _with_volumes(values["operator_args"]) if operator == POD else values["operator_args"]
        return {**values, "environment": environment, "operator_source": operator, "operator_args": arguments}


def _with_volumes(arguments: dict[str, Any]) -> dict[str, Any]:
    """Volumes as part of a pod's template: as arguments they would have to be objects, which no DAG's file can hold."""
    rest = {name: value for name, value in arguments.items() if name not in ("volumes", "volume_mounts")}
    if len(rest) == len(arguments):
        return rest
    container = {"name": "base", "volumeMounts": arguments.get("volume_mounts") or []}
    spec = {"volumes": arguments.get("volumes") or [], "containers": [container]}
    return rest | {"pod_template_dict": {"apiVersion": "v1", "kind": "Pod", "spec": spec}}
