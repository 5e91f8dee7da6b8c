"""Throughput of a large checkpoint to and from an S3 store, as the steps move it, beside boto3's own transfer.

Usage: python -m benchmarks.remote_store [--gib 2] [--repeats 3] [--endpoint URL]

Without an endpoint it starts moto's server on this machine; the packages are those of
`tests/emulators/requirements.txt`. Nothing but its own bucket is touched.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import torch
from zenml.enums import StackComponentType
from zenml.integrations.s3.artifact_stores import S3ArtifactStore
from zenml.integrations.s3.flavors.s3_artifact_store_flavor import S3ArtifactStoreConfig

import materializers  # noqa: F401  (weights come by the store)
from benchmarks.machine import processor
from dreambooth3d.weights import WeightsRef, save_weights
from materializers.files import copy_file

BUCKET = "dreambooth3d-benchmark"
CREDENTIALS = {"aws_access_key_id": "benchmark", "aws_secret_access_key": "benchmark"}


@contextmanager
def s3_server(endpoint: str | None) -> Iterator[str]:
    """The given endpoint, or moto's server for as long as it is needed."""
    if endpoint is not None:
        yield endpoint
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def make_store(endpoint: str) -> S3ArtifactStore:
    """ZenML's artifact store on the bucket, known to its file functions."""
    config = S3ArtifactStoreConfig(
        path=f"s3://{BUCKET}",
        key=CREDENTIALS["aws_access_key_id"],
        secret=CREDENTIALS["aws_secret_access_key"],
        client_kwargs={"endpoint_url": endpoint},
    )
    now = datetime.now(UTC)
    store = S3ArtifactStore(
        name="benchmark",
        id=uuid.uuid4(),
        config=config,
        flavor="s3",
        type=StackComponentType.ARTIFACT_STORE,
        user=None,
        created=now,
        updated=now,
    )
    store._register()
    return store


class PeakMemory:
    """Peak of this process' own memory in bytes while it runs; mapped files do not count."""

    def __init__(self) -> None:
        self.peak = self.start = _own_memory()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.peak = max(self.peak, _own_memory())

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def _own_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def measure(call: Callable[[], Any], size: int, repeats: int) -> str:
    """Cells of a row: median, least and greatest MiB per second, and the greatest growth of memory in MiB."""
    rates, growth = [], 0
    for _ in range(repeats):
        with PeakMemory() as memory:
            started = time.perf_counter()
            call()
            rates.append(size / 2**20 / (time.perf_counter() - started))
        growth = max(growth, memory.peak - memory.start)
    return f"{statistics.median(rates):.0f} [{min(rates):.0f}, {max(rates):.0f}] | {growth / 2**20:.0f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote_store", description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0, help="size of the checkpoint")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--endpoint", help="URL of an S3 server; default one of moto's own")
    given = parser.parse_args()
    os.environ |= {name.upper(): value for name, value in CREDENTIALS.items()} | {"AWS_DEFAULT_REGION": "us-east-1"}
    with tempfile.TemporaryDirectory() as folder, s3_server(given.endpoint) as endpoint:
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket=BUCKET)
        make_store(endpoint)
        tensors = {f"layer_{index}": torch.randn(2**25) for index in range(max(1, round(given.gib * 8)))}
        local = save_weights(tensors, Path(folder) / "weights.safetensors")
        del tensors
        remote = WeightsRef(f"s3://{BUCKET}/ours.safetensors", local.sha256, local.size_bytes)
        again = str(Path(folder) / "again")
        rows = {
            "ours: store (`copy_file`)": lambda: copy_file(local.uri, remote.uri),
            "boto3: upload_file": lambda: client.upload_file(local.uri, BUCKET, "theirs"),
            "ours: fetch, verify SHA-256, load (`WeightsRef.load`)": remote.load,
            "boto3: download_file": lambda: client.download_file(BUCKET, "theirs", again),
            "disk: copy the file": lambda: shutil.copyfile(local.uri, again),
        }
        print(f"{processor()}; {local.size_bytes / 2**30:.2f} GiB, median of {given.repeats} [least, greatest]\n")
        print("| what | MiB per second | memory grows by (MiB) |\n| --- | --- | --- |")
        for name, call in rows.items():
            print(f"| {name} | {measure(call, local.size_bytes, given.repeats)} |", flush=True)


if __name__ == "__main__":
    main()
