"""Real servers on loopback: ZenML, MLflow with or without a login, and moto's S3; processes until a stack closes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[2]
USER, PASSWORD = "admin", "password-of-the-emulator"  # of MLflow; the password also of ZenML's user `default`
KEYS = {"AWS_ACCESS_KEY_ID": "key-of-the-store", "AWS_SECRET_ACCESS_KEY": "secret-of-the-store"}
# One file of users per server; by default it lies in the current folder.
_LOGIN = """[mlflow]
default_permission = NO_PERMISSIONS
admin_username = {user}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
database_uri = sqlite:///{folder}/mlflow_users.db
auth_cache_ttl_seconds = 300
"""


@contextmanager
def running(log: Path, arguments: Sequence[str], variables: dict[str, str]) -> Iterator[None]:
    """Python with these arguments, in the background until the end of the block."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ZENML_", "MLFLOW_"))}
    command, environment = [sys.executable, *arguments], inherited | {"PYTHONPATH": str(ROOT)} | variables
    # Not in the checkout: ZenML's server would take the project from there that a user has initialised.
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=log.parent, env=environment, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def when_up(attempt: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    """What an attempt returns as soon as it succeeds."""
    end = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except OSError as error:  # also requests' own
            if time.monotonic() > end:
                raise TimeoutError(f"{what} does not answer: {error}") from error
            time.sleep(0.5)


def ask(method: str, url: str, **options: Any) -> Any:
    """What a REST API answers; any status but a good one raises."""
    answer = requests.request(method, url, timeout=60, **options)
    answer.raise_for_status()
    return answer.json()


def bearer(token: str) -> dict[str, str]:
    """The header of a request with a token."""
    return {"Authorization": f"Bearer {token}"}


def ask_mlflow(server: str, path: str, body: object = None) -> dict[str, Any]:
    """Ask MLflow's REST API with the login: GET, or POST where there is a body."""
    method, url = "GET" if body is None else "POST", f"{server}/api/2.0/mlflow/{path}"
    return ask(method, url, json=body, auth=(USER, PASSWORD))


def start_s3(servers: ExitStack, folder: Path, buckets: Sequence[str]) -> tuple[str, Callable[[], Any]]:
    """Start moto's server; its URL, and a function that waits for it and makes the buckets."""
    url, where = _address()
    servers.enter_context(running(folder / "s3.log", ("-c", "from moto.server import main; main()", *where), {}))

    def wait() -> None:
        for bucket in buckets:
            when_up(lambda bucket=bucket: requests.put(f"{url}/{bucket}", timeout=60).raise_for_status(), "S3")

    return url, wait


def start_mlflow(
    servers: ExitStack, folder: Path, artifacts: str, s3: str | None = None, login: bool = True, proxy: str = ""
) -> tuple[str, Callable[[], Any]]:
    """Start MLflow's server; its URL, and a function that waits for it.

    Args:
        servers: that end it.
        folder: of its database and its log.
        artifacts: a folder, or a place on S3.
        s3: the URL of that S3 server.
        login: whether it wants `USER` and `PASSWORD`.
        proxy: the URL by which the server reaches `s3`, where nobody else can; empty: directly.
    """
    url, where = _address()
    arguments = ["-m", "mlflow", "server", *where, "--workers", "1", "--serve-artifacts"]
    arguments += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", artifacts]
    variables = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if s3 is not None:
        variables |= KEYS | {"MLFLOW_S3_ENDPOINT_URL": s3}
    if proxy:
        variables |= {"http_proxy": proxy, "no_proxy": ""}
    if login:
        arguments += ["--app-name", "basic-auth"]
        (folder / "mlflow.ini").write_text(_LOGIN.format(user=USER, password=PASSWORD, folder=folder))
        variables["MLFLOW_AUTH_CONFIG_PATH"] = str(folder / "mlflow.ini")
        variables["MLFLOW_FLASK_SERVER_SECRET_KEY"] = "of-the-emulator"
    servers.enter_context(running(folder / "mlflow.log", arguments, variables))
    return url, lambda: when_up(lambda: ask_mlflow(url, "experiments/search?max_results=1"), "the MLflow server")


def start_zenml(servers: ExitStack, folder: Path) -> tuple[str, Callable[[], str]]:
    """Start ZenML's server; its URL, and a function that waits for it and makes an API key of a service account."""
    url, where = _address()
    variables = {
        "ZENML_CONFIG_PATH": str(folder / "zenml_server"), "ZENML_SERVER": "true", "ZENML_SERVER_AUTO_ACTIVATE": "true",
        "ZENML_DEFAULT_USER_NAME": "default", "ZENML_DEFAULT_USER_PASSWORD": PASSWORD,
        "ZENML_SERVER_DEPLOYMENT_TYPE": "other", "ZENML_ANALYTICS_OPT_IN": "false",
    }  # fmt: skip
    command = ("-m", "uvicorn", "zenml.zen_server.zen_server_api:app", *where)
    servers.enter_context(running(folder / "zenml.log", command, variables))
    return url, lambda: when_up(lambda: _make_api_key(url), "the ZenML server")


def _address() -> tuple[str, tuple[str, ...]]:
    port = free_port()
    return f"http://127.0.0.1:{port}", ("--host", "127.0.0.1", "--port", str(port))


def _make_api_key(url: str) -> str:
    login = {"username": "default", "password": PASSWORD}
    headers = bearer(ask("POST", f"{url}/api/v1/login", data=login)["access_token"])
    accounts = f"{url}/api/v1/service_accounts"
    account = ask("POST", accounts, json={"name": "ci", "active": True}, headers=headers)
    made = ask("POST", f"{accounts}/{account['id']}/api_keys", json={"name": "key"}, headers=headers)
    return made["body"]["key"]
