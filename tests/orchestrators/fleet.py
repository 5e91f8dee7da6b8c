"""A team's scheduled retraining on the emulated cluster: its photos, its schedule, and what comes of each tick."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from operations.launch.presets import read_preset
from tests.orchestrators.conftest import Checkout, until
from tests.photos.test_remote import dvc, git

ROOT = Path(__file__).resolve().parents[2]
PRESET = ROOT / "configs" / "retrain_kubernetes.yaml"
SCHEDULE, SUBJECTS, NEW_PHOTO = "nightly", ("corgi", "mallard"), "corgi/04.jpg"


class PhotoRepository:
    """A team's photos: a Git repository, a DVC remote on S3, and the clone of somebody who pushes to both."""

    def __init__(self, folder: Path, s3: str) -> None:
        self.url, self._clone = f"file://{folder / 'photos.git'}", folder / "clone"
        git(folder, "init", "-q", "--bare", "-b", "main", "photos.git")
        git(folder, "clone", "-q", "photos.git", "clone")
        dvc(self._clone, "init", "-q")
        dvc(self._clone, "remote", "add", "-q", "-d", "store", "s3://dreambooth3d/photos")
        dvc(self._clone, "remote", "modify", "-q", "store", "endpointurl", s3)
        # This clone has keys of its own; the pods have none but those of the secret that the YAML names.
        for name in ("access_key_id", "secret_access_key"):
            dvc(self._clone, "remote", "modify", "-q", "--local", "store", name, "of-the-clone")

    def push(self, files: Mapping[str, bytes]) -> None:
        """Add files below data/ for everyone."""
        for name, content in files.items():
            path = self._clone / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        dvc(self._clone, "add", "-q", "data")
        dvc(self._clone, "push", "-q")
        git(self._clone, "add", "data.dvc", ".gitignore", ".dvc/config")
        git(self._clone, "commit", "-q", "-m", f"{len(files)} files")
        git(self._clone, "push", "-q", "origin", "HEAD:main")


def product_photos() -> dict[str, bytes]:
    """The files of the product's own photo sets, by their paths below data/."""

    def stored(md5: str) -> bytes:
        return (ROOT / "data_store" / "files" / "md5" / md5[:2] / md5[2:]).read_bytes()

    (out,) = yaml.safe_load((ROOT / "data.dvc").read_text())["outs"]
    return {entry["relpath"]: stored(entry["md5"]) for entry in json.loads(stored(out["md5"]))}


class Fleet:
    """The schedule as its team sees it.

    Attributes:
        checkout: from which it was made.
        photos: what it trains.
        cron_job: what the cluster holds of it.
    """

    def __init__(self, checkout: Checkout, photos: PhotoRepository) -> None:
        self.checkout, self.photos, self.cluster = checkout, photos, checkout.cluster
        (self.cron_job,) = self.cluster.items("cronjobs")

    def jobs(self) -> list[dict[str, Any]]:
        """The orchestrator's jobs, one per tick."""
        uid = self.cron_job["metadata"]["uid"]
        return [
            job
            for job in self.cluster.items("jobs")
            if uid in {owner["uid"] for owner in job["metadata"].get("ownerReferences", [])}
        ]

    def suspend(self) -> None:
        """Let no more ticks come by themselves, as `kubectl patch cronjob` does; ZenML knows nothing of it."""
        path = f"/apis/batch/v1/namespaces/zenml/cronjobs/{self.cron_job['metadata']['name']}"
        self.cluster.call("PATCH", path, {"spec": {"suspend": True}})

    def fire(self) -> None:
        """Make a job of the CronJob, as `kubectl create job --from=cronjob/...` does."""
        metadata = self.cron_job["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": metadata["name"], "uid": metadata["uid"]}
        job = {
            "metadata": {
                "name": f"{metadata['name']}-{len(self.jobs())}", "ownerReferences": [owner | {"controller": True}],
                "annotations": {"cronjob.kubernetes.io/instantiate": "manual"},
            },
            "spec": self.cron_job["spec"]["jobTemplate"]["spec"],
        }  # fmt: skip
        self.cluster.call("POST", "/apis/batch/v1/namespaces/zenml/jobs", job)

    def wait_for_tick(self, number: int) -> dict[str, tuple[str, str]]:
        """Wait for a tick's end; the action and the reason of each subject."""

        def ended() -> list[Any]:
            conditions = [job["status"].get("conditions", []) for job in self.jobs()]
            return [found for found in conditions if found] if all(conditions) and len(conditions) == number else []

        conditions = until(ended, 1200)
        assert [found[0]["type"] for found in conditions] == ["Complete"] * number, self._log()
        rows = self.rows("dreambooth3d-retrain")
        assert len(rows) == number
        told = rows[0]["params"]
        return {name.removesuffix(".action"): (value, told[f"{name.removesuffix('.action')}.reason"])
                for name, value in told.items() if name.endswith(".action")}  # fmt: skip

    def _log(self) -> str:
        pods = [pod for pod in self.cluster.items("pods") if "step_name" not in pod["metadata"]["labels"]]
        return self.cluster.log(pods[-1])[-5000:]

    def rows(self, experiment: str) -> list[dict[str, Any]]:
        """An experiment's rows, newest first: run, params, metrics, tags."""
        found = self.cluster.ask_mlflow(f"experiments/get-by-name?experiment_name={experiment}")["experiment"]
        query = {"experiment_ids": [found["experiment_id"]], "order_by": ["attributes.start_time DESC"]}
        found = [
            {"status": row["info"]["status"]}
            | {
                what: {one["key"]: one["value"] for one in row["data"].get(what, [])}
                for what in ("params", "tags", "metrics")
            }
            for row in self.cluster.ask_mlflow("runs/search", query).get("runs", [])
        ]
        return [row | {"run": row["tags"]["zenml.pipeline_run"]} for row in found]

    def trainings(self) -> list[dict[str, Any]]:
        """The child runs as ZenML tells them, newest first."""
        return self.checkout.runs(pipeline="dreambooth3d_subject")

    def tell(self, *arguments: str) -> Any:
        """What a command answers with --json to a user who has no login of MLflow, only ZenML's."""
        result = self.checkout.dreambooth3d(*arguments, "--json")
        assert result.returncode == 0, result.stderr[-3000:]
        return json.loads(result.stdout)


@contextmanager
def scheduled(checkout: Checkout, folder: Path, change: Callable[[dict[str, Any]], None]) -> Iterator[Fleet]:
    """Make the schedule by the documented command, from the shipped preset; its first tick is due within a minute.

    Args:
        checkout: with the stack `gpu`.
        folder: for the photos, which the preset is pointed at.
        change: the preset's parameters further, in place.
    """
    photos, files = PhotoRepository(folder, checkout.cluster.s3), product_photos()
    photos.push({name: files[name] for name in files if name.split("/")[0] in SUBJECTS and name != NEW_PHOTO})
    values = read_preset(PRESET).values
    values["schedule"] = {"name": SCHEDULE, "cron_expression": "* * * * *"}
    values["parameters"]["dataset"] = {"url": photos.url, "rev": "main"}
    values["secrets"] = ["photo_keys"]
    change(values["parameters"])
    (checkout.root / "configs" / "retrain.yaml").write_text(yaml.safe_dump(values))
    result = checkout.run_pipeline("configs/retrain.yaml", "pipelines.retraining.retrain")
    assert result.returncode == 0, result.stderr[-3000:]
    yield Fleet(checkout, photos)
    checkout.dreambooth3d("schedules", "delete", SCHEDULE, "--force")
