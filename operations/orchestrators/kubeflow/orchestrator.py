"""ZenML's Kubeflow orchestrator with the pods that the YAML asks for, and no token in what it submits."""

from __future__ import annotations

# Of the packages that this stack alone needs.
# pyright: reportMissingImports=false
import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import kfp
from kfp import dsl
from kfp import kubernetes as platform
from kfp.compiler import Compiler
from kfp_server_api.exceptions import ApiException as KubeflowError
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config
from kubernetes.client.exceptions import ApiException as KubernetesError
from urllib3.exceptions import HTTPError
from zenml.config.step_configurations import Step
from zenml.entrypoints import StepEntrypointConfiguration
from zenml.integrations.kubeflow.flavors.kubeflow_orchestrator_flavor import KubeflowOrchestratorSettings
from zenml.integrations.kubeflow.orchestrators.kubeflow_orchestrator import ENV_KFP_RUN_ID, KubeflowOrchestrator
from zenml.integrations.kubernetes.kube_utils import create_or_update_secret
from zenml.models import PipelineRunResponse, PipelineSnapshotResponse, ScheduleResponse, ScheduleUpdate
from zenml.orchestrators import SubmissionResult
from zenml.orchestrators.exceptions import PipelineSubmissionError
from zenml.orchestrators.utils import get_orchestrator_run_name
from zenml.stack import Stack

from dreambooth3d.errors import gist
from operations.orchestrators.kubeflow.flavor import KubeflowPodsConfig, KubeflowPodsSettings
from operations.orchestrators.kubeflow.pods import apply_pod_settings, apply_resources, apply_retry

TOKEN, API_KEY = "ZENML_STORE_API_TOKEN", "ZENML_STORE_API_KEY"
RECURRING_RUN = "kubeflow_recurring_run"
"""Under which a schedule's metadata in ZenML names its recurring run."""
_RUN_ID_LABEL = "metadata.labels['pipeline/runid']"
_TOKEN_KEY = "zenml_api_token"
_ENDED = {"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED", "CANCELLED", "ERROR"}
_POLL_S, _PATIENCE = 5.0, 60
"""Seconds between two questions about a run, and how many in a row may stay unanswered."""


class KubeflowPodsOrchestrator(KubeflowOrchestrator):
    """Compiles one task per step, with its pod settings, and submits it as a run or as a recurring run."""

    @property
    def config(self) -> KubeflowPodsConfig:
        """The orchestrator's configuration."""
        return cast(KubeflowPodsConfig, self._config)

    @property
    def settings_class(self) -> type[KubeflowPodsSettings]:
        """Class of a run's and of a step's settings."""
        return KubeflowPodsSettings

    def get_token_secret_name(self, snapshot_id: object) -> str:
        """Name of the Kubernetes secret with the token of a snapshot's runs."""
        return f"zenml-token-{snapshot_id}"

    def submit_pipeline(
        self,
        snapshot: PipelineSnapshotResponse,
        stack: Stack,
        base_environment: dict[str, str],
        step_environments: dict[str, dict[str, str]],
        placeholder_run: PipelineRunResponse | None = None,
    ) -> SubmissionResult | None:
        """Compile, store the token, submit.

        Raises:
            PipelineSubmissionError: the package cannot be compiled, or the cluster refuses it or does not answer.
        """
        with _submission("The steps cannot be written as a Kubeflow pipeline"):
            # A schedule's expression is checked before anything is written to the cluster.
            trigger = kubeflow_trigger(snapshot.schedule) if snapshot.schedule else {}
            name = get_orchestrator_run_name(snapshot.pipeline_configuration.name).replace("_", "-")
            package = self._compile(snapshot, name, step_environments)
        token = base_environment.get(TOKEN) if self.config.pass_zenml_token_as_secret else None
        if token is not None:
            with _submission("The secret with ZenML's token cannot be written"):
                self._write_token(snapshot, token)
        try:
            with _submission("Kubeflow Pipelines did not take the package"):
                result = self._submit(snapshot, package, name, trigger)
        except PipelineSubmissionError:
            if token is not None:
                self._remove_token(snapshot)
            raise
        if token is None or result is None or (wait := result.wait_for_completion) is None:
            return result

        def wait_and_remove() -> None:
            try:
                wait()
            finally:
                self._remove_token(snapshot)

        return SubmissionResult(wait_for_completion=wait_and_remove)

    def _compile(
        self, snapshot: PipelineSnapshotResponse, name: str, environments: Mapping[str, Mapping[str, str]]
    ) -> Path:
        """Write the package: a file with Kubeflow's pipeline spec and its platform spec."""

        # kfp would take the text of a postponed `-> None` for an output.
        @dsl.pipeline(name=name, display_name=name)
        def pipeline():
            tasks: dict[str, dsl.PipelineTask] = {}
            for step_name, step in snapshot.step_configurations.items():
                arguments = StepEntrypointConfiguration.get_entrypoint_arguments(
                    step_name=step_name, snapshot_id=snapshot.id
                )
                component = self._create_dynamic_component(
                    self.get_image(snapshot=snapshot, step_name=step_name),
                    StepEntrypointConfiguration.get_entrypoint_command(),
                    arguments,
                    step_name,
                )
                task = component().set_display_name(step_name).set_caching_options(enable_caching=False)
                task.after(*[tasks[upstream] for upstream in step.spec.upstream_steps if upstream in tasks])
                try:
                    self._write_pod(task, snapshot, step, environments[step_name])
                except (ValueError, TypeError, KeyError) as error:
                    raise PipelineSubmissionError(f"steps.{step_name}: {gist(error)}.") from error
                tasks[step_name] = task

        folder = Path(self.pipeline_directory)
        folder.mkdir(parents=True, exist_ok=True)
        package = folder / f"{name}.yaml"
        Compiler().compile(pipeline_func=pipeline, package_path=str(package), pipeline_name=name)
        return package

    def _write_pod(
        self, task: dsl.PipelineTask, snapshot: PipelineSnapshotResponse, step: Step, environment: Mapping[str, str]
    ) -> None:
        settings = cast(KubeflowPodsSettings, self.get_settings(step))
        for key, value in environment.items():
            if key not in (TOKEN, API_KEY):
                task.set_env_variable(key, value)
        if secret := self.config.zenml_secret:
            platform.use_secret_as_env(task, secret, {API_KEY: API_KEY})
        elif TOKEN in environment:
            platform.use_secret_as_env(task, self.get_token_secret_name(snapshot.id), {_TOKEN_KEY: TOKEN})
        # Kubeflow replaces no placeholders in variables: ZenML's would have one id for all ticks of a schedule.
        platform.use_field_path_as_env(task, ENV_KFP_RUN_ID, _RUN_ID_LABEL)
        if settings.pod_settings is not None:
            apply_pod_settings(task, settings.pod_settings)
        apply_resources(task, settings.pod_settings, step.config.resource_settings)
        apply_retry(task, step.config.retry)
        if settings.active_deadline_seconds is not None:
            platform.set_timeout(task, settings.active_deadline_seconds)

    def _submit(
        self, snapshot: PipelineSnapshotResponse, package: Path, name: str, trigger: Mapping[str, Any]
    ) -> SubmissionResult | None:
        settings = cast(KubeflowPodsSettings, self.get_settings(snapshot))
        client = self._get_kfp_client(settings)
        experiment = client.create_experiment(
            snapshot.pipeline_configuration.name, namespace=settings.user_namespace
        ).experiment_id
        common = {"service_account": settings.service_account_name, "enable_caching": False}
        if snapshot.schedule:
            made = client.create_recurring_run(
                experiment, name, pipeline_package_path=str(package), **trigger, **common
            )
            return SubmissionResult(metadata={RECURRING_RUN: made.recurring_run_id})
        run = client.run_pipeline(experiment, name, pipeline_package_path=str(package), **common)
        if not settings.synchronous:
            return None
        return SubmissionResult(wait_for_completion=lambda: _wait(client, run.run_id))

    def update_schedule(self, schedule: ScheduleResponse, update: ScheduleUpdate) -> None:
        """Pause or resume the recurring run of a schedule.

        Raises:
            RuntimeError: the schedule has none, or another change was asked for.
        """
        if update.cron_expression:
            raise RuntimeError(
                "Kubeflow Pipelines cannot change when a recurring run fires: delete it and make another"
            )
        if update.active is not None:
            client, recurring = self._recurring_run(schedule)
            (client.enable_recurring_run if update.active else client.disable_recurring_run)(recurring)

    def delete_schedule(self, schedule: ScheduleResponse) -> None:
        """Delete the recurring run of a schedule; one that is gone already is no error.

        Raises:
            RuntimeError: the schedule has none.
        """
        client, recurring = self._recurring_run(schedule)
        try:
            client.delete_recurring_run(recurring)
        except KubeflowError as error:
            if error.status != 404:
                raise

    def _recurring_run(self, schedule: ScheduleResponse) -> tuple[kfp.Client, str]:
        recurring = schedule.run_metadata.get(RECURRING_RUN)
        if recurring is None:
            raise RuntimeError("ZenML does not know which recurring run of Kubeflow Pipelines belongs to the schedule")
        return self._get_kfp_client(self.config), str(recurring)

    def _get_kfp_client(self, settings: KubeflowOrchestratorSettings) -> kfp.Client:
        """A client of `kubeflow_hostname` where there is one, else of the cluster's proxy."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it says that servers before 2.0 are not supported
            if not self.config.kubeflow_hostname or self.connector:
                return super()._get_kfp_client(settings)
            arguments = {**settings.client_args, "namespace": self.config.kubeflow_namespace}
            if settings.client_username and settings.client_password and "cookies" not in arguments:
                arguments["cookies"] = self._get_session_cookie(settings.client_username, settings.client_password)
            return kfp.Client(host=self.config.kubeflow_hostname, **arguments)

    @property
    def _k8s_core_api(self) -> kubernetes_client.CoreV1Api:
        """The cluster in which the pods' secrets are.

        Raises:
            ValueError: the configuration does not say which it is.
        """
        if connector := self.get_connector():
            return kubernetes_client.CoreV1Api(connector.connect())
        if not self.config.kubernetes_context:
            raise ValueError(
                f"the orchestrator {self.name!r} has no kubernetes_context, no service connector and no zenml_secret"
            )
        return kubernetes_client.CoreV1Api(
            kubernetes_config.new_client_from_config(context=self.config.kubernetes_context)
        )

    def _write_token(self, snapshot: PipelineSnapshotResponse, token: str) -> None:
        name = self.get_token_secret_name(snapshot.id)
        create_or_update_secret(self._k8s_core_api, self.token_namespace(snapshot), name, {_TOKEN_KEY: token})

    def _remove_token(self, snapshot: PipelineSnapshotResponse) -> None:
        name = self.get_token_secret_name(snapshot.id)
        with _submission("The secret with ZenML's token cannot be removed"):
            self._k8s_core_api.delete_namespaced_secret(name, self.token_namespace(snapshot))

    def token_namespace(self, snapshot: PipelineSnapshotResponse) -> str:
        """Namespace of the pods of a snapshot's runs, and so of the secret with their token."""
        return cast(KubeflowPodsSettings, self.get_settings(snapshot)).user_namespace or self.config.kubeflow_namespace


def kubeflow_trigger(schedule: ScheduleResponse) -> dict[str, Any]:
    """When a recurring run fires, in the words of Kubeflow Pipelines' client.

    Raises:
        ValueError: a schedule that Kubeflow Pipelines does not have.
    """
    times: dict[str, Any] = {"start_time": schedule.utc_start_time, "end_time": schedule.utc_end_time}
    times["no_catchup"] = not schedule.catchup
    if schedule.cron_expression:
        return {"cron_expression": kubeflow_cron(schedule.cron_expression), **times}
    if schedule.interval_second is None:
        raise ValueError("schedule: Kubeflow Pipelines fires by cron_expression or interval_second. Give one of them")
    return {"interval_second": int(schedule.interval_second.total_seconds()), **times}


def kubeflow_cron(expression: str) -> str:
    """Kubeflow's cron begins with the second; it takes five fields as well, but for second, minute, hour, day, month.

    Raises:
        ValueError: no five fields, or a weekday that Kubeflow does not know.
    """
    fields = expression.split()
    if len(fields) != 5:
        raise ValueError(f"schedule.cron_expression: {expression!r} has not five fields")
    if "7" in fields[4].partition("/")[0]:
        raise ValueError(f"schedule.cron_expression: {expression!r}: Kubeflow's weekdays are 0 to 6, Sunday is 0")
    return " ".join(["0", *fields])


@contextmanager
def _submission(failure: str) -> Iterator[None]:
    """Turn what clients raise into the error after which ZenML cleans up."""
    try:
        yield
    except PipelineSubmissionError:
        raise
    except (KubeflowError, KubernetesError) as error:
        raise PipelineSubmissionError(f"{failure}: {error.status} {_message(error).rstrip('.')}.") from error
    except (HTTPError, OSError) as error:
        raise PipelineSubmissionError(f"{failure}: the server does not answer ({gist(error)}).") from error
    except (ValueError, TypeError, RuntimeError, kubernetes_config.ConfigException) as error:
        raise PipelineSubmissionError(f"{failure}: {gist(error)}.") from error


def _message(error: KubeflowError | KubernetesError) -> str:
    """What the server says, on one line."""
    try:
        said = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        said = error.body or error.reason
    return " ".join(str(said).split())[:400]


def _wait(client: kfp.Client, run_id: str) -> None:
    """Wait for the end of a run, however long it takes.

    Raises:
        RuntimeError: it did not succeed.
    """
    failures = 0
    while True:
        try:
            run, failures = client.get_run(run_id), 0
            if run.state in _ENDED:
                break
        except (HTTPError, KubeflowError) as error:
            failures += 1
            if failures > _PATIENCE:
                raise RuntimeError(f"Kubeflow Pipelines does not answer any more: {gist(error)}") from error
        time.sleep(_POLL_S)
    if run.state not in ("SUCCEEDED", "SKIPPED"):
        reason = f": {run.error.message}" if run.error and run.error.message else ""
        raise RuntimeError(f"Kubeflow Pipelines says {run.state}{reason}")
