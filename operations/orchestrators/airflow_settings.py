"""What can be wrong with settings for Airflow; ZenML accepts all of it, and the DAG is broken, or does less."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

DOCKER = "airflow.providers.docker.operators.docker.DockerOperator"
POD = "airflow.providers.cncf.kubernetes.operators.pod.KubernetesPodOperator"
REMOVED_POD = "airflow.providers.cncf.kubernetes.operators.kubernetes_pod.KubernetesPodOperator"
GENERATOR = "operations.orchestrators.airflow_dag"

# Of every operator; only what JSON can carry, which execution_timeout and callbacks are not.
_ANY = """do_xcom_push email email_on_failure email_on_retry executor executor_config max_active_tis_per_dag owner pool
    pool_slots priority_weight queue retries retry_delay retry_exponential_backoff skip_on_exit_code trigger_rule
    weight_rule""".split()
_ARGUMENTS = {
    DOCKER: [
        *_ANY,
        *"""api_version auto_remove cap_add container_name cpus device_requests dns dns_search docker_conn_id docker_url
        entrypoint env_file extra_hosts force_pull host_tmp_dir hostname ipc_mode labels log_opts_max_file
        log_opts_max_size mem_limit mount_tmp_dir mounts network_mode port_bindings private_environment privileged
        retrieve_output retrieve_output_path shm_size timeout tls_ca_cert tls_client_cert tls_client_key tls_hostname
        tls_ssl_version tls_verify tmp_dir tty ulimits user working_dir xcom_all""".split(),
    ],
    POD: [
        *_ANY,
        *"""active_deadline_seconds affinity annotations automount_service_account_token base_container_name
        cluster_context config_file configmaps container_logs container_resources container_security_context
        deferrable dns_config dnspolicy env_from get_logs host_aliases hostname hostnetwork image_pull_policy
        image_pull_secrets in_cluster init_containers kubernetes_conn_id labels log_events_on_failure
        logging_interval name namespace node_selector on_finish_action pod_template_dict pod_template_file poll_interval
        priority_class_name random_name_suffix reattach_on_restart runtime_class_name schedulername secrets
        security_context service_account_name startup_timeout_seconds subdomain termination_grace_period
        tolerations volume_mounts volumes""".split(),
    ],
}
_ARGUMENTS[REMOVED_POD] = _ARGUMENTS[POD]
_SHORT = {"docker": DOCKER, "kubernetes_pod": POD}
_GPU = {
    DOCKER: "device_requests: [{count: 1, capabilities: [[gpu]]}]",
    POD: 'container_resources: {limits: {nvidia.com/gpu: "1"}}',
}
_SET_BY_ZENML = {
    "environment": "that would take away what the step needs to find ZenML. Use private_environment.",
    "env_vars": "that would take away what the step needs to find ZenML. Use env_from, or ZenML's environment.",
    **dict.fromkeys(("image", "command", "cmds", "arguments", "task_id"), "ZenML sets it. Remove it."),
}


def airflow_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """One sentence per problem of a pipeline's YAML for Airflow; none if it has no such section.

    Args:
        values: the YAML, without unknown keys or wrong types.
    """
    run = _sections(values)
    if run is None and not any(_sections(step) is not None for step in (values.get("steps") or {}).values()):
        return
    operator = (run or {}).get("operator")
    yield from _dag_problems("settings.orchestrator.airflow", run or {}, values.get("schedule"))
    yield from _task_problems("settings", values, operator)
    for name, step in (values.get("steps") or {}).items():
        yield from _task_problems(f"steps.{name}.settings", step, operator)


def _sections(holder: object) -> Mapping[str, Any] | None:
    settings = (holder.get("settings") if isinstance(holder, Mapping) else None) or {}
    return settings["orchestrator.airflow"] or {} if "orchestrator.airflow" in settings else None


def _task_problems(where: str, holder: Mapping[str, Any] | None, operator: str | None) -> Iterator[str]:
    """The problems of one task, or of what all have in common."""
    section = _sections(holder) or {}
    named: str = section.get("operator") or operator or DOCKER
    operator = _SHORT.get(named, named)
    place, arguments = f"{where}.orchestrator.airflow.operator_args", section.get("operator_args") or {}
    for name in arguments:
        known = _ARGUMENTS.get(operator, [*arguments])
        if name in _SET_BY_ZENML:
            yield f"{place}.{name}: {_SET_BY_ZENML[name]}"
        elif name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            remedy = f", did you mean {close[0]}?" if close else ". Remove it."
            yield f"{place}.{name}: the {operator.rpartition('.')[2]} has no such argument{remedy}"
    if "pod_template_dict" in arguments and {"volumes", "volume_mounts"} & arguments.keys():
        yield f"{place}.pod_template_dict: volumes would replace it. Write them into its spec instead."
    if where == "settings" and operator in (POD, REMOVED_POD) and "env_from" not in arguments:
        yield (
            f"{place}.env_from: is missing, so that the pods could not log in to ZenML. Name the secret that holds "
            "ZENML_STORE_API_KEY: [{secretRef: {name: zenml-api-key}}]"
        )
    resources = ((holder or {}).get("settings") or {}).get("resources") or {}
    if resources.get("gpu_count"):
        remedy = _GPU.get(operator, "the operator's own argument for devices")
        yield f"{where}.resources.gpu_count: Airflow ignores it. Under {place} set {remedy}"


def _dag_problems(place: str, airflow: Mapping[str, Any], schedule: object) -> Iterator[str]:
    if airflow.get("custom_dag_generator") != GENERATOR:
        yield (
            f"{place}.custom_dag_generator: without {GENERATOR} the DAG's file would hold a key to the ZenML server in "
            f"plain text. Set it to {GENERATOR}."
        )
    if schedule and not airflow.get("dag_id"):
        yield (
            f"{place}.dag_id: is missing, so that each registration would add one more DAG and the older ones would go "
            "on firing. Set it, for example to dreambooth3d_retrain."
        )
