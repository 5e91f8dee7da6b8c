"""What a team's runs share, on loopback: an S3 server, and an MLflow server with a login whose files lie there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from tests.emulators.servers import KEYS, ask_mlflow, start_mlflow, start_s3

KEY, SECRET = KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"]
BUCKETS = ("zenml", "mlflow", "dvc")


@dataclass(frozen=True)
class Stores:
    """Where the servers are.

    Attributes:
        s3: the URL of the S3 server; it has the buckets `BUCKETS`.
        mlflow: the URL of the MLflow server.
    """

    s3: str
    mlflow: str

    @property
    def client(self) -> Any:
        """boto3's client of the S3 server."""
        keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.s3, **keys)

    def objects(self, bucket: str, prefix: str = "") -> dict[str, str]:
        """The ETag of each object, by its key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {entry["Key"]: entry["ETag"] for page in pages for entry in page.get("Contents", [])}

    def ask_mlflow(self, path: str, body: object = None) -> dict[str, Any]:
        """Ask MLflow's REST API: GET, or POST where there is a body."""
        return ask_mlflow(self.mlflow, path, body)


@contextmanager
def remote_stores(folder: Path) -> Iterator[Stores]:
    """Start both servers, wait until they answer, and kill them at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as servers:
        s3, wait_for_s3 = start_s3(servers, folder, BUCKETS)
        # As in docker/compose.yaml, only the server can resolve its name for the store; moto takes a proxy's requests.
        mlflow, wait_for_mlflow = start_mlflow(servers, folder, "s3://mlflow", "http://store:9000", proxy=s3)
        wait_for_s3()
        wait_for_mlflow()
        yield Stores(s3, mlflow)
