"""`dreambooth3d stack kubernetes` against an emulated cluster and a real ZenML server."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from dreambooth3d.cli.stack import KubernetesStack, commands
from tests.orchestrators.conftest import Checkout

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = KubernetesStack(
    "gpu", "my-cluster", "zenml", "s3://dreambooth3d", "registry.example.com", "https://mlflow.example.com",
    "mlflow_login", secret="s3_keys",
)  # fmt: skip
DESCRIBE = """
import json
from zenml.client import Client
client = Client()
print("STACK" + json.dumps({
    kind.value: [parts[0].flavor_name, parts[0].configuration]
    for kind, parts in client.get_stack("NAME", allow_name_prefix_match=False).components.items()}))
"""

INVOKE = """
import json, sys
from typer.testing import CliRunner
from dreambooth3d.cli.main import app
for command in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, command)
    print("RESULT" + json.dumps([result.exit_code, result.stdout, result.stderr]))
"""
MISSING = {
    ("--namespace", "nowhere"): "--namespace: the cluster of context 'emulated' has no namespace 'nowhere'",
    ("--context", "other"): "--context: 'other' cannot be used",
    ("--secret", "lost"): "--secret: the ZenML server has no secret 'lost'",
    ("--tracking-secret", "s3_keys"): "--tracking-secret: the secret 's3_keys' has no username and no password",
    ("--service-account", "nobody"): "has no service account 'nobody'",
    ("--artifact-store", "/tmp/store"): "--artifact-store: '/tmp/store' is not in S3",
    ("--registry", "localhost:5000"): "--registry: 'localhost:5000' is local",
    ("--tracking-uri", "mlruns"): "--tracking-uri: 'mlruns' is no MLflow server",
}


def _describe(checkout: Checkout, name: str) -> dict[str, list[object]]:
    result = checkout.run("-c", DESCRIBE.replace("NAME", name))
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("STACK")]
    return json.loads(line.removeprefix("STACK"))


def test_the_page_shows_what_the_command_would_run() -> None:
    """The commands of configs/stacks/kubernetes.md are those of --dry-run for its values."""
    page = (ROOT / "configs" / "stacks" / "kubernetes.md").read_text()
    shown = [line for line in page.splitlines() if line.startswith("zenml ") and "secret create" not in line]
    assert [shlex.split(line) for line in shown] == [shlex.split(line) for line in commands(EXAMPLE)]


def test_the_commands_name_secrets_and_hold_none() -> None:
    text = "\n".join(commands(EXAMPLE))
    assert "--authentication_secret=s3_keys" in text and "{{mlflow_login.password}}" in text
    assert not re.search(r"aws_secret_access_key|--tracking_password=(?!\{\{)", text)


@pytest.mark.slow
def test_registering_twice_changes_nothing_and_another_value_is_taken_over(on_cluster: Checkout) -> None:
    first = _describe(on_cluster, "gpu")
    command = ("stack", "kubernetes", *on_cluster.stack_options)
    again = on_cluster.dreambooth3d(*command)
    assert again.returncode == 0 and again.stdout.count("up to date") == 6, again.stderr
    assert _describe(on_cluster, "gpu") == first
    account = ("--service-account", "default")
    assert on_cluster.dreambooth3d(*command, *account).returncode == 0
    changed = _describe(on_cluster, "gpu")["orchestrator"][1]
    assert changed == first["orchestrator"][1] | {
        "service_account_name": "default", "step_pod_service_account_name": "default",
    }  # fmt: skip
    assert on_cluster.dreambooth3d(*command).returncode == 0
    assert _describe(on_cluster, "gpu") == first


@pytest.mark.slow
def test_the_printed_commands_make_the_same_stack(on_cluster: Checkout) -> None:
    """The zenml command itself runs what --dry-run prints, under another name."""
    named = ["by_hand" if value == "gpu" else value for value in on_cluster.stack_options]
    printed = on_cluster.dreambooth3d("stack", "kubernetes", *named, "--dry-run")
    assert printed.returncode == 0, printed.stderr
    for line in printed.stdout.splitlines():
        program, *arguments = shlex.split(line)
        result = on_cluster.zenml(*arguments)
        assert program == "zenml" and result.returncode == 0, result.stderr + result.stdout
    assert _describe(on_cluster, "by_hand") == _describe(on_cluster, "gpu")


@pytest.mark.slow
def test_what_is_missing_is_said_before_anything_is_registered(checkout: Checkout) -> None:
    """One sentence, exit code 1. All in one process, whose start takes longer than the rest."""
    named = ["unfinished" if value == "gpu" else value for value in checkout.stack_options]
    commands_to_try = [
        ["stack", "kubernetes", *named, *changed] for changed in MISSING
    ]  # the later of two options holds
    told = checkout.run("-c", INVOKE, json.dumps(commands_to_try))
    results = [
        json.loads(line.removeprefix("RESULT")) for line in told.stdout.splitlines() if line.startswith("RESULT")
    ]
    assert len(results) == len(MISSING), told.stderr
    for message, (code, output, errors) in zip(MISSING.values(), results, strict=True):
        assert (code, output) == (1, "")
        assert errors.startswith("Error: ") and message in errors and "Traceback" not in errors


@pytest.mark.slow
def test_a_local_zenml_is_refused(checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the server's address, and with no settings that remember it, the client falls back to a file."""
    own = {"KUBECONFIG": str(checkout.cluster.folder / "kubeconfig"), "ZENML_CONFIG_PATH": str(tmp_path)}
    monkeypatch.setattr(type(checkout.cluster), "environment", own)
    result = checkout.dreambooth3d("stack", "kubernetes", *checkout.stack_options)
    assert result.returncode == 1 and "which pods cannot reach. Connect to a ZenML server" in result.stderr
