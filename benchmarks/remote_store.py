"""Throughput and memory of a large checkpoint to and from S3, as the steps move it, beside boto3 and ZenML's own copy.

Usage: python -m benchmarks.remote_store [--gib 2] [--repeats 3] [--endpoint URL --bucket NAME]

Without an endpoint it starts s3rver 3.7.1 by npx (Node.js), which keeps objects as files; moto's server reads a whole
object into memory for each part that is asked for. With one, the keys are those of the environment, AWS_ACCESS_KEY_ID
and AWS_SECRET_ACCESS_KEY. ZenML's state is a temporary folder. Packages: `tests/emulators/requirements.txt`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

from benchmarks.machine import processor

_SERVER = ("npx", "--yes", "s3rver@3.7.1")
_SERVER_KEY = "S3RVER"
_FOLDER = "dreambooth3d-benchmark"


@contextmanager
def s3_server(folder: Path, bucket: str) -> Iterator[str]:
    """The URL of a server of our own, for as long as it is needed."""
    if shutil.which(_SERVER[0]) is None:
        raise SystemExit("npx is not installed: install Node.js, or give the --endpoint of an S3 server.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--directory", str(folder), "--address", "127.0.0.1", "--port", str(port), "--silent")
    # A group of its own, since npx starts the server as a child.
    server = subprocess.Popen(
        (*_SERVER, *options, "--configure-bucket", bucket), start_new_session=True, stdout=subprocess.DEVNULL
    )
    try:
        while server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        else:
            raise SystemExit(f"{' '.join(_SERVER)} ended with {server.returncode}: give --endpoint of an S3 server.")
        yield f"http://127.0.0.1:{port}"
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def activate_store(endpoint: str, path: str) -> None:
    """Make a stack with ZenML's artifact store there and activate it, in ZenML's state of the environment."""
    from zenml.client import Client
    from zenml.enums import StackComponentType

    client = Client()
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    configuration = {"path": path, "key": key, "secret": secret, "client_kwargs": {"endpoint_url": endpoint}}
    client.create_stack_component("benchmark", "s3", StackComponentType.ARTIFACT_STORE, configuration)
    parts = {StackComponentType.ORCHESTRATOR: "default", StackComponentType.ARTIFACT_STORE: "benchmark"}
    client.create_stack("benchmark", parts)
    client.activate_stack("benchmark")
    assert client.active_stack.artifact_store.path == path  # when it is first asked for, `fileio` learns of the store


class PeakMemory:
    """By how many bytes this process' memory grows: its own, and all that is resident, mapped files included."""

    def __init__(self) -> None:
        self._start = self._peak = _memory()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            now = _memory()
            self._peak = (max(self._peak[0], now[0]), max(self._peak[1], now[1]))

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def growth(self) -> tuple[int, int]:
        """Of its own memory, and of what is resident."""
        return self._peak[0] - self._start[0], self._peak[1] - self._start[1]


def _memory() -> tuple[int, int]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, resident = (1024 * int(lines[name].split()[0]) for name in ("RssAnon", "VmRSS"))
    return own, resident


def measure(rows: dict[str, Callable[[], object]], size: int, repeats: int) -> Iterator[str]:
    """A line per row: MiB per second as median [least, greatest], and the greatest growths of memory in MiB.

    The rows take turns, so that what else goes on on the machine meets all of them.
    """
    rates: dict[str, list[float]] = {name: [] for name in rows}
    growths: dict[str, list[tuple[int, int]]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, call in rows.items():
            with PeakMemory() as memory:
                started = time.perf_counter()
                call()
                rates[name].append(size / 2**20 / (time.perf_counter() - started))
            growths[name].append(memory.growth)
    for name, values in rates.items():
        own, resident = (max(growth[kind] for growth in growths[name]) / 2**20 for kind in (0, 1))
        spread = f"{statistics.median(values):.0f} [{min(values):.0f}, {max(values):.0f}]"
        yield f"| {name} | {spread} | {own:.0f} | {resident:.0f} |"


def compare(gib: float, repeats: int, endpoint: str, bucket: str, folder: Path) -> None:
    """Print the table.

    Args:
        gib: size of the checkpoint.
        repeats: of each row.
        endpoint: URL of the S3 server.
        bucket: exists there.
        folder: for the checkpoint and what is downloaded.
    """
    import torch
    from zenml.io import fileio

    import materializers  # noqa: F401  (weights come by the store)
    from dreambooth3d.weights import WeightsRef, save_weights
    from materializers.files import copy_file

    activate_store(endpoint, f"s3://{bucket}/{_FOLDER}")
    client = boto3.client("s3", endpoint_url=endpoint)
    tensors = {f"layer_{index}": torch.randn(2**25) for index in range(max(1, round(gib * 8)))}
    local = save_weights(tensors, folder / "weights.safetensors")
    del tensors
    place, again = f"s3://{bucket}/{_FOLDER}", str(folder / "again")
    remote = WeightsRef(f"{place}/ours", local.sha256, local.size_bytes)

    def load() -> None:
        for tensor in remote.load().values():
            tensor.sum()

    rows = {
        "store: ours (`copy_file`)": lambda: copy_file(local.uri, remote.uri),
        "store: ZenML's `fileio.copy`": lambda: fileio.copy(local.uri, f"{place}/zenml", overwrite=True),
        "store: boto3's `upload_file`": lambda: client.upload_file(local.uri, bucket, f"{_FOLDER}/boto3"),
        "fetch, verify SHA-256, load, read all values: ours (`WeightsRef.load`)": load,
        "fetch: ZenML's `fileio.copy`": lambda: fileio.copy(f"{place}/zenml", again, overwrite=True),
        "fetch: boto3's `download_file`": lambda: client.download_file(bucket, f"{_FOLDER}/boto3", again),
        "copy from disk to disk": lambda: shutil.copyfile(local.uri, again),
    }
    print(f"{processor()}; {local.size_bytes / 2**30:.2f} GiB, median of {repeats} [least, greatest]\n")
    print("| what | MiB per second | own memory grows by (MiB) | resident memory grows by (MiB) |")
    print("| --- | --- | --- | --- |")
    for line in measure(rows, local.size_bytes, repeats):
        print(line, flush=True)
    for name in ("ours", "zenml", "boto3"):
        client.delete_object(Bucket=bucket, Key=f"{_FOLDER}/{name}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote_store", description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0, help="size of the checkpoint")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--endpoint", help="URL of an S3 server; default one of its own")
    parser.add_argument("--bucket", default=_FOLDER, help="must exist at --endpoint")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # ZenML reads these when it is imported, hence the imports in the functions.
        state = {"ZENML_CONFIG_PATH": str(folder / "zenml"), "ZENML_REPOSITORY_PATH": str(folder)}
        quiet = {"ZENML_ANALYTICS_OPT_IN": "false", "ZENML_LOGGING_VERBOSITY": "ERROR"}
        os.environ |= state | quiet | {"AWS_DEFAULT_REGION": os.environ.get("AWS_DEFAULT_REGION", "us-east-1")}
        if given.endpoint is not None:
            compare(given.gib, given.repeats, given.endpoint, given.bucket, folder)
            return
        os.environ |= {"AWS_ACCESS_KEY_ID": _SERVER_KEY, "AWS_SECRET_ACCESS_KEY": _SERVER_KEY}
        with s3_server(folder / "s3", given.bucket) as endpoint:
            compare(given.gib, given.repeats, endpoint, given.bucket, folder)


if __name__ == "__main__":
    main()
