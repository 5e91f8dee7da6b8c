"""The real pipeline with a tracking server that is down when it starts, fails in the middle and hangs at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.emulators.servers import start_mlflow
from tests.product import ZENML
from tests.resilience.kills import LONGEST_S, Untouched, Workshop
from tests.tracking_server import DOWN, HANGS, FaultyServer

pytestmark = pytest.mark.slow
MIDDLE, END = "Step init_nerf has started", "Step publish has started"
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""A user's own; the waiting at the end of a run takes a minute all the same."""


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FaultyServer, Path]]:
    """MLflow's own server behind one with faults, and the database of its rows."""
    folder = tmp_path_factory.mktemp("server")
    with ExitStack() as servers:
        url, wait = start_mlflow(servers, folder, str(folder / "files"), login=False)
        server = FaultyServer(upstream=url)
        servers.callback(server.close)
        wait()
        yield server, folder / "mlflow.db"


def register(workshop: Workshop, uri: str) -> None:
    """Make a stack active whose rows are on a server."""
    for command in (
        f"experiment-tracker register served --flavor=mlflow --tracking_uri={uri} --tracking_token=none",
        "model-registry register served --flavor=mlflow",
        "stack register served -o default -a default -e served -r served --set",
    ):
        done = workshop.product.run(ZENML, *command.split())
        assert done.returncode == 0, done.stderr[-2000:]


def train(workshop: Workshop, server: FaultyServer, last: tuple[int, ...]) -> int:
    """The main job under a server that fails ever differently; its exit code."""
    server.answer_with(DOWN)
    faults = {MIDDLE: (500, 429, 503), END: last}
    with workshop.command(**PATIENCE) as process:
        end = time.monotonic() + LONGEST_S
        while process.poll() is None and time.monotonic() < end:
            for moment in [moment for moment in faults if moment in workshop.said()]:
                server.answer_with(*faults.pop(moment))
            time.sleep(0.05)
        assert process.poll() is not None, f"hangs: {workshop.said()[-1000:]}"
    assert not faults
    return process.returncode


@pytest.mark.parametrize("last", [(HANGS,), ()], ids=["hangs at the end", "answers at the end"])
def test_a_run_without_its_server_ends_well_and_its_row_is_completed(
    last: tuple[int, ...], untouched: Untouched, mlflow: tuple[FaultyServer, Path]
) -> None:
    workshop, (server, database) = untouched.workshop, mlflow
    workshop.reset()
    server.answer_with()
    register(workshop, server.uri)
    code, said = train(workshop, server, last), workshop.said()
    name = workshop.run_name()
    assert "Traceback" not in said, said[-3000:]
    assert said.count("MLflow did not open the run's row") == 1
    assert said.count("MLflow did not take figures") == said.count("MLflow did not take the end") == 0, "one warning"
    assert (workshop.product.root / "outputs" / name / "asset.glb").is_file()
    if last:
        assert code == 1 and said.count("MLflow does not answer") == 1
        assert said.strip().splitlines()[-1].startswith(f"Error: {name}: MLflow did not take all of the run's row (")
        server.answer_with()
        completed = workshop.product.dreambooth3d("runs", "complete", name)
        assert completed.returncode == 0, completed.stderr
    else:
        assert code == 0, said[-2000:]
    result = workshop.result(name, database)
    assert untouched.result.differences(result) == [] and result.left == ()
