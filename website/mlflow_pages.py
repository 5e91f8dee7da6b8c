"""Screenshots of MLflow's pages for the documentation, taken of the active state in a browser without a window.

`make demo` and a second run of the same subject first, then `python -m website.mlflow_pages`: the list of runs, a run,
two runs beside each other, the checkpoints and the registry, as docs/images/mlflow/<page>.webp.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from dreambooth3d.cli.interface import server_variables
from dreambooth3d.cli.server import free_port
from dreambooth3d.environment import enter, quiet
from dreambooth3d.errors import ConfigError
from dreambooth3d.naming import model_name
from operations.records import rows
from operations.records.row import SUBJECT_TAG, VIEW
from operations.records.status import TAG
from website.browser import browser

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images" / "mlflow"
WINDOW = (1400, 1150)
STORED = {"mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true", "mlflow.assistant.panelOpen_v1": "false"}
"""What keeps a panel for questions to a language model out of the pictures."""
SHOWN_WIDTH, QUALITY = 1120, 80
STARTS_WITHIN_S = 120.0


def pages(subject: str | None = None) -> dict[str, tuple[str, str]]:
    """Addresses of the pages, behind the server's, and a text that each shows, by name.

    Args:
        subject: whose runs are shown; default that of the newest run that completed.

    Raises:
        ConfigError: fewer than two runs of it have completed.
    """
    done = [row for row in rows.list_rows(limit=None) if row.data.tags.get(TAG) == "completed"]
    subject = subject or (done[0].data.tags.get(SUBJECT_TAG) if done else None)
    chosen = [row for row in done if row.data.tags.get(SUBJECT_TAG) == subject]
    if len(chosen) < 2:
        raise ConfigError("Two completed runs of one subject are needed: `make demo`, then the same with another seed.")
    row, other = chosen[0].info, chosen[1].info
    experiment = f"#/experiments/{row.experiment_id}"
    ids, places = (quote(json.dumps(names)) for names in ([row.run_id, other.run_id], [row.experiment_id]))
    name = quote(model_name(str(subject)))
    version = rows.client().search_model_versions(f"run_id='{row.run_id}'")[0].version
    shown = str(row.run_name)
    return {
        "list": (f"{experiment}/runs?{VIEW}", shown),
        "charts": (f"{experiment}/runs?{VIEW}&compareRunsMode=CHART", shown),
        "checkpoints": (f"{experiment}/models?{VIEW}", "checkpoint_"),
        "run": (f"{experiment}/runs/{row.run_id}?{VIEW}", "psnr_fg"),
        "run_charts": (f"{experiment}/runs/{row.run_id}/model-metrics?{VIEW}", "evaluate"),
        "comparison": (f"#/compare-runs?runs={ids}&experiments={places}", "psnr_fg"),
        "registry": (f"#/models/{name}", "production"),
        "version": (f"#/models/{name}/versions/{version}", str(model_name(str(subject)))),
    }


@contextmanager
def served(uri: str) -> Iterator[str]:
    """MLflow's pages of a store; gives their address.

    Raises:
        ConfigError: the server does not start.
    """
    port = free_port("127.0.0.1", 5000)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--port", str(port), "--workers=1"]
    server = subprocess.Popen(command, env=server_variables(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        base, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + STARTS_WITHIN_S
        while not _answers(base):
            if server.poll() is not None or time.monotonic() > deadline:
                raise ConfigError(f"MLflow's server of {uri} did not start.")
            time.sleep(0.5)
        yield base
    finally:
        server.terminate()
        server.wait(10)


def _answers(base: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base}health", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def shoot(base: str, wanted: Mapping[str, tuple[str, str]], folder: Path) -> Iterator[Path]:
    """Write a picture of each page into a folder; gives each file once it is written.

    Args:
        base: address of the server.
        wanted: of `pages`.
        folder: made where it is not there.

    Raises:
        ConfigError: there is no browser, or a page does not show what it should.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with browser(*WINDOW) as page:
        page.open(base, "MLflow")
        for key, value in STORED.items():
            page.ask(f"localStorage.setItem({key!r}, {value!r})")
        for name, (address, shows) in wanted.items():
            page.open(base + address, shows)
            shown = page.picture()
            shown.thumbnail((SHOWN_WIDTH, SHOWN_WIDTH), Image.Resampling.LANCZOS)
            shown.save(folder / f"{name}.webp", quality=QUALITY, method=6)
            yield folder / f"{name}.webp"


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="pages; default all")
    parser.add_argument("--subject", help="whose runs; default that of the newest")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    enter()
    quiet()
    try:
        wanted = pages(arguments.subject)
        if unknown := [name for name in arguments.names if name not in wanted]:
            raise ConfigError(f"{', '.join(unknown)}: no such page. Choose from {', '.join(wanted)}.")
        chosen = {name: page for name, page in wanted.items() if name in arguments.names or not arguments.names}
        with served(rows.tracking_uri()) as base:
            for file in shoot(base, chosen, arguments.folder):
                print(file)
    except ConfigError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
