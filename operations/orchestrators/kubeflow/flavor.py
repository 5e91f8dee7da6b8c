"""The flavor `kubeflow_pods`: ZenML's Kubeflow flavor with its pod settings kept.

zenml orchestrator flavor register operations.orchestrators.kubeflow.flavor.KubeflowPodsFlavor
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import click
from pydantic import Field, model_validator
from zenml.integrations.kubeflow.flavors.kubeflow_orchestrator_flavor import (
    KubeflowOrchestratorConfig,
    KubeflowOrchestratorFlavor,
    KubeflowOrchestratorSettings,
)

from dreambooth3d.errors import ConfigError

if TYPE_CHECKING:
    from operations.orchestrators.kubeflow.orchestrator import KubeflowPodsOrchestrator

FLAVOR = "kubeflow_pods"
TESTED = "2.16"
"""The release of Kubeflow Pipelines' SDK whose packages the tests have checked."""
_REMEDY = 'Run `pip install "kfp[kubernetes]==2.16.1"`.'


class SdkError(click.ClickException, ConfigError):
    """Raised while ZenML makes a stack, where only click turns an error into one sentence and exit code 1."""


class KubeflowPodsSettings(KubeflowOrchestratorSettings):
    """Settings of runs and steps on Kubeflow Pipelines."""

    service_account_name: str | None = Field(
        None, description="Kubernetes service account of the pods; the one of the installation where there is none."
    )
    active_deadline_seconds: int | None = Field(None, gt=0, description="After which a step's pod is ended.")

    @model_validator(mode="before")
    @classmethod
    def _validate_and_migrate_pod_settings(cls, data: Any) -> Any:
        """Keep `pod_settings`, which ZenML's validator of this name replaces by empty ones."""
        return data

    @model_validator(mode="after")
    def _has_both_credentials(self) -> KubeflowPodsSettings:
        if (self.client_username is None) != (self.client_password is None):
            raise ValueError("client_username and client_password need each other")
        return self


class KubeflowPodsConfig(KubeflowPodsSettings, KubeflowOrchestratorConfig):
    """Configuration of the orchestrator: where Kubeflow Pipelines is, and how its pods log in to ZenML."""

    zenml_secret: str | None = Field(
        None,
        description="Kubernetes secret with a ZenML API key under ZENML_STORE_API_KEY. Without one, each run and each "
        "schedule gets a secret of its own with a token of ZenML's, for which the orchestrator needs a "
        "kubernetes_context or a service connector.",
    )

    @property
    def handles_step_retries(self) -> bool:
        """Kubeflow tries a failed pod again; ZenML's own retries in the pod would multiply them."""
        return True

    @property
    def pass_zenml_token_as_secret(self) -> bool:
        """Whether there are secrets of single runs and schedules."""
        return self.zenml_secret is None

    @property
    def kubernetes_namespace(self) -> str:
        """In which the pods and their secrets are."""
        return self.user_namespace or self.kubeflow_namespace


class KubeflowPodsFlavor(KubeflowOrchestratorFlavor):
    """ZenML's Kubeflow flavor with its pod settings kept."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return FLAVOR

    @property
    def config_class(self) -> type[KubeflowPodsConfig]:
        """Class of the configuration."""
        return KubeflowPodsConfig

    @property
    def implementation_class(self) -> type[KubeflowPodsOrchestrator]:
        """Class of the orchestrator.

        Raises:
            SdkError: Kubeflow Pipelines' SDK is missing, or not the release that compiles.
        """
        require_tested_sdk()
        from operations.orchestrators.kubeflow.orchestrator import KubeflowPodsOrchestrator

        return KubeflowPodsOrchestrator


def require_tested_sdk() -> None:
    """Check the installed release of Kubeflow Pipelines' SDK.

    Raises:
        SdkError: it is missing, or another one than was tested.
    """
    for package in ("kfp", "kfp-kubernetes"):
        try:
            found = version(package)
        except PackageNotFoundError:
            raise SdkError(f"The orchestrator {FLAVOR} needs the package {package}. {_REMEDY}") from None
        if not found.startswith(f"{TESTED}."):
            raise SdkError(
                f"The orchestrator {FLAVOR} needs {package} {TESTED}, and {found} is installed, of which nobody knows "
                f"whether it compiles the same package. {_REMEDY}"
            )
