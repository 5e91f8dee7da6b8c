"""What the user's shell has set: it counts, is ignored, or is refused with one sentence; never a traceback."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import Result

from dreambooth3d import environment
from dreambooth3d.environment import ACTIVE, IGNORED, SETTINGS, SPINNING, VARIABLES
from dreambooth3d.errors import ConfigError
from tests.product import ZENML, Product

Invoke = Callable[..., Result]
NOWHERE = "http://127.0.0.1:9"
# What ZenML and MLflow take for theirs, in a process of its own as any script in an activated shell.
PROBE = """
import json
from zenml.client import Client
client = Client()
tracker = client.active_stack.experiment_tracker
tracker.configure_mlflow()
import mlflow
print(json.dumps([
    client.active_stack_model.name, client.active_project.name, client.active_user.name, client.zen_store.url,
    mlflow.get_tracking_uri(), mlflow.get_registry_uri(), mlflow.tracking.fluent._get_experiment_id(),
]))
"""
BAD_VALUES = {
    "MLFLOW_REGISTRY_URI": NOWHERE,
    "MLFLOW_EXPERIMENT_ID": "77",
    "ZENML_LOCAL_STORES_PATH": "/proc/nowhere",
    "ZENML_REPOSITORY_DIRECTORY_NAME": ".elsewhere",
    "ZENML_ACTIVE_STACK_ID": "mine",
    "ZENML_ACTIVE_PROJECT_ID": "mine",
    "ZENML_STORE_TYPE": "mine",
    "ZENML_SECRETS_STORE_TYPE": "mine",
}


def probe(product: Product, **variables: str) -> list[str]:
    """What `PROBE` prints, with these variables exported after the activation."""
    result = product.run("-c", PROBE, **variables)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def undisturbed(product: Product) -> list[str]:
    """What is in force in an activated shell that has set nothing."""
    return probe(product)


def test_what_is_in_force_is_the_products(product: Product, undisturbed: list[str]) -> None:
    """ZenML calls our hook only where `make setup` has installed its entry point."""
    stack, _, _, store, tracking, registry, _ = undisturbed
    assert stack == "local_mlflow" and registry == tracking
    assert str(product.root) in store and str(product.root) in tracking


def test_bad_values_change_nothing(product: Product, undisturbed: list[str]) -> None:
    """All at once: each is another setting, and none hides what another does."""
    assert probe(product, **BAD_VALUES) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_bad_value_changes_nothing(product: Product, undisturbed: list[str], name: str) -> None:
    assert probe(product, **{name: BAD_VALUES[name]}) == undisturbed


@pytest.fixture
def server() -> Iterator[str]:
    """The address of something that answers as a ZenML server's health check does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The variables of this process, without those of the table, which come back after the test."""
    for name in [*(variable.name for variable in VARIABLES), ACTIVE, IGNORED, *SPINNING, environment.STORE_URL]:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv(environment.HOME, str(tmp_path))
    return monkeypatch


@pytest.mark.parametrize("command", [(ZENML, "stack", "list"), ("-m", "dreambooth3d.cli", "runs", "list")])
@pytest.mark.parametrize("address", [NOWHERE, "nonsense", "sqlite:////nowhere/zenml.db"])
def test_a_store_that_is_none_is_one_sentence(product: Product, command: tuple[str, ...], address: str) -> None:
    started = time.monotonic()
    result = product.run(*command, ZENML_STORE_URL=address)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ZENML_STORE_URL: ") and "Unset ZENML_STORE_URL" in line
    assert time.monotonic() - started < 30


def test_a_server_that_answers_is_used_with_what_belongs_to_it(shell: pytest.MonkeyPatch, server: str) -> None:
    """As on a cluster, and as docs/kubernetes.md tells a machine that runs commands by itself."""
    kept = {
        "ZENML_STORE_URL": server, "ZENML_STORE_API_KEY": "key", "ZENML_ACTIVE_STACK_ID": "a stack of the server",
        "ZENML_ACTIVE_PROJECT_ID": "a project of the server",
    }  # fmt: skip
    for name, value in (kept | {"MLFLOW_REGISTRY_URI": NOWHERE}).items():
        shell.setenv(name, value)
    environment.enter()
    assert {name: environment.os.environ.get(name) for name in kept} == kept
    assert environment.ignored() == ["MLFLOW_REGISTRY_URI"]
    assert "key" not in str(environment.users_own()["ZENML_STORE_API_KEY"])


def test_without_a_server_its_credentials_are_ignored(shell: pytest.MonkeyPatch) -> None:
    shell.setenv("ZENML_STORE_API_KEY", "key")
    environment.enter()
    assert environment.ignored() == ["ZENML_STORE_API_KEY"]


def test_credentials_count_where_the_state_is_signed_in(shell: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".zenconfig").mkdir()
    (tmp_path / ".zenconfig" / "config.yaml").write_text("store:\n  type: rest\n  url: https://zenml\n")
    shell.setenv("ZENML_STORE_API_KEY", "key")
    environment.enter()
    assert environment.ignored() == []


def test_no_password_in_the_sentence(shell: pytest.MonkeyPatch) -> None:
    shell.setenv("ZENML_STORE_URL", "postgresql://me:secret@host/zenml")
    with pytest.raises(ConfigError) as error:
        environment.enter()
    assert "secret" not in str(error.value) and "host/zenml" in str(error.value)


def test_the_users_work_folder_counts(shell: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shell.setenv("DREAMBOOTH3D_WORK", "/mine")
    environment.enter()
    assert environment.os.environ["DREAMBOOTH3D_WORK"] == "/mine"
    assert environment.users_own()["DREAMBOOTH3D_WORK"] == "/mine"


def test_the_work_folder_of_another_activation_does_not(shell: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shell.setenv(ACTIVE, "/other")
    shell.setenv("DREAMBOOTH3D_WORK", "/other/.dreambooth3d/work")
    environment.enter()
    assert environment.os.environ["DREAMBOOTH3D_WORK"] == f"{tmp_path}/.dreambooth3d/work"


@pytest.mark.parametrize("name", SPINNING)
def test_the_users_waiting_threads_count(shell: pytest.MonkeyPatch, name: str) -> None:
    shell.setenv(name, "7")
    environment.enter()
    assert {each: environment.os.environ.get(each) for each in SPINNING} == dict.fromkeys(SPINNING) | {name: "7"}


def test_the_openmp_of_pytorch_has_taken_the_setting(product: Product) -> None:
    """As its own runtime tells when it is loaded."""
    result = product.run("-c", "import torch", OMP_DISPLAY_ENV="VERBOSE")
    if "GOMP_SPINCOUNT" not in result.stderr:
        pytest.skip("PyTorch's OpenMP is not GNU's here")
    assert f"GOMP_SPINCOUNT = '{SETTINGS['GOMP_SPINCOUNT']}'" in result.stderr


@pytest.fixture
def script(product: Product) -> Iterator[Path]:
    """The product's `activate` as of a real environment, which knows its own place."""
    text = (product.root / "venv" / "bin" / "activate").read_text()
    place = f'VIRTUAL_ENV="{product.root}/venv"'
    own = product.root / "venv" / "bin" / "activate_here"
    own.write_text(re.sub(r"(?m)^(\s*(?:export )?)VIRTUAL_ENV=.*", rf"\1{place}", text))
    yield own
    own.unlink()


def bash(text: str, **variables: str) -> dict[str, str]:
    """The environment after some lines of shell, by `env`."""
    command, known = ["bash", "-euc", f"{text}\nenv -0"], {"PATH": "/usr/bin:/bin", "PS1": "$ "} | variables
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=known)
    return dict(line.split("=", 1) for line in result.stdout.split("\0") if "=" in line)


def test_activation_follows_the_table_and_deactivation_gives_back(product: Product, script: Path) -> None:
    mine = {
        "DREAMBOOTH3D_WORK": "/mine", "ZENML_CONFIG_PATH": "/mine/zenml", "MLFLOW_REGISTRY_URI": NOWHERE,
        "ZENML_ACTIVE_STACK_ID": "mine", "OMP_WAIT_POLICY": "ACTIVE",
    }  # fmt: skip
    active = bash(f"source {script}", **mine)
    assert active["DREAMBOOTH3D_WORK"] == "/mine" and "GOMP_SPINCOUNT" not in active
    assert active["ZENML_CONFIG_PATH"] == f"{product.root}/.zenconfig"
    assert active[IGNORED].split() == ["MLFLOW_REGISTRY_URI", "ZENML_ACTIVE_STACK_ID"]
    assert not {"MLFLOW_REGISTRY_URI", "ZENML_ACTIVE_STACK_ID"} & active.keys()
    left = bash(f"source {script}; source {script}; deactivate", **mine)
    assert {name: value for name, value in left.items() if name in mine} == mine
    assert not [name for name in left if "DREAMBOOTH3D" in name and name not in mine]


def test_activation_in_a_bare_shell(product: Product, script: Path) -> None:
    active = bash(f"source {script}")
    expected = {name: value.format(root=product.root) for name, value in SETTINGS.items()}
    assert {name: active.get(name) for name in expected} == expected and IGNORED not in active
    assert not bash(f"source {script}; deactivate").keys() & expected.keys()


def test_activation_keeps_what_belongs_to_a_server(script: Path) -> None:
    active = bash(f"source {script}", ZENML_STORE_URL="https://zenml", ZENML_ACTIVE_STACK_ID="its")
    assert active["ZENML_ACTIVE_STACK_ID"] == "its"


def test_doctor_tells_whose_variables_count(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMBOOTH3D_WORK", "/mine")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", NOWHERE)
    monkeypatch.setenv("ZENML_STORE_URL", NOWHERE)
    result = invoke("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)}
    assert result.exit_code == 1 and not findings["settings"]["good"]
    assert "ZENML_STORE_URL" in findings["settings"]["text"]
    assert "ZENML_CONFIG_PATH=" in findings["ours"]["text"]
    assert "DREAMBOOTH3D_WORK=/mine" in findings["yours"]["text"]
    assert "MLFLOW_REGISTRY_URI (the stack's tracker" in findings["ignored"]["text"]
    # The other checks go on, of the state here.
    assert findings["stack"]["good"], findings["stack"]
