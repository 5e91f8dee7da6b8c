"""Runs with no local store: artifacts on S3, MLflow over HTTP behind a login, photos in a DVC remote on S3.

S3 is moto's server; it is asked by boto3 alone, and MLflow by its REST API, so that the product does not check itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from safetensors.numpy import load as load_safetensors

from dreambooth3d.config.photos import DatasetConfig
from dreambooth3d.errors import DatasetError
from dreambooth3d.photos.remote import fetch_subject, open_dataset
from dreambooth3d.photos.subjects import find_subjects
from operations.launch.stored_states import FOLDER
from tests.orchestrators.conftest import ZENML
from tests.product import SHORTEST, TINY, Product, make_product

for package in ("moto", "s3fs", "boto3", "dvc_s3", "flask_wtf"):
    pytest.importorskip(package, reason=f"needs {package}: run `make test-orchestrators`")

from tests.emulators.servers import PASSWORD, USER  # noqa: E402
from tests.emulators.stores import KEY, SECRET, Stores, remote_stores  # noqa: E402

pytestmark = pytest.mark.slow
SHORT = {name: SHORTEST[name] for name in ("recipe", "init_nerf")}
RUNS = """
import json
from zenml.client import Client
print("RUNS" + json.dumps({run.name: {"status": str(run.status), "steps": {
    name: {"status": str(step.status), "uris": [version.uri for found in step.outputs.values() for version in found]}
    for name, step in run.steps.items()}}
    for run in Client().list_pipeline_runs(sort_by="asc:created", size=50, hydrate=True).items}))
"""


@dataclass(frozen=True)
class Team(Product):
    """A checkout whose active stack has remote stores only.

    Attributes:
        stores: the servers.
    """

    stores: Stores

    @property
    def environment(self) -> dict[str, str]:
        """Without any credentials: what is needed stands in ZenML's secrets."""
        inherited = super().environment
        return {key: value for key, value in inherited.items() if not key.startswith(("AWS_", "MLFLOW_TRACKING"))}

    def ok(self, *command: str) -> str:
        """Run the console script, expect success, and give back what it printed."""
        result = self.dreambooth3d(*command)
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    def zenml(self, *command: str) -> None:
        """Run the real zenml command, expect success."""
        result = self.run(*ZENML, *command)
        assert result.returncode == 0, result.stdout + result.stderr

    def runs(self) -> dict[str, Any]:
        """ZenML's runs, oldest first: status, and each step's status and the places of its outputs."""
        result = self.run("-c", RUNS)
        lines = [line for line in result.stdout.splitlines() if line.startswith("RUNS")]
        assert lines, result.stderr
        return json.loads(lines[-1].removeprefix("RUNS"))

    def train_again(self, name: str, **parameters: object) -> str:
        """Run the main job; the name of the run."""
        self.ok("train", self.write_config(name, **SHORT | parameters))
        return list(self.runs())[-1]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """The servers."""
    with remote_stores(tmp_path_factory.mktemp("servers")) as started:
        yield started


@pytest.fixture(scope="module")
def team(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Team:
    """A checkout that was set up as docs/remote_stores.md says."""
    product = make_product(tmp_path_factory.mktemp("team"))
    made = Team(product.root, product.home, stores)
    assert made.dreambooth3d("setup").returncode == 0
    place = json.dumps({"endpoint_url": stores.s3})
    commands = [
        ["secret", "create", "s3_keys", f"--aws_access_key_id={KEY}", f"--aws_secret_access_key={SECRET}"],
        ["secret", "create", "mlflow_login", f"--username={USER}", f"--password={PASSWORD}"],
        [
            *("artifact-store", "register", "team_store", "--flavor=s3", "--path=s3://zenml"),
            *("--authentication_secret=s3_keys", f"--client_kwargs={place}"),
        ],
        [
            *("experiment-tracker", "register", "team_tracker", "--flavor=mlflow", f"--tracking_uri={stores.mlflow}"),
            *("--tracking_username={{mlflow_login.username}}", "--tracking_password={{mlflow_login.password}}"),
        ],
        ["model-registry", "register", "team_registry", "--flavor=mlflow"],
        [
            *("stack", "register", "team", "-o", "default", "-a", "team_store", "-e", "team_tracker"),
            *("-r", "team_registry", "--set"),
        ],
    ]
    for command in commands:
        made.zenml(*command)
    return made


@pytest.fixture(scope="module")
def first(team: Team) -> str:
    """A whole run: its name."""
    return team.train_again("tiny")


def _row(stores: Stores, name: str) -> dict[str, Any]:
    """A run's row as MLflow's REST API tells it."""
    experiments = stores.ask_mlflow("experiments/search", {"max_results": 100})["experiments"]
    identities = [found["experiment_id"] for found in experiments if found["name"] == "dreambooth3d"]
    body = {"experiment_ids": identities, "filter": f"tags.`zenml.pipeline_run` = '{name}'", "max_results": 10}
    (row,) = stores.ask_mlflow("runs/search", body).get("runs", [])
    return row


def test_a_run_leaves_everything_in_the_stores(team: Team, first: str) -> None:
    """Every output lies on S3, MLflow's files in the other bucket, and no artifact in the checkout's own store."""
    run = team.runs()[first]
    assert run["status"] == "completed"
    uris = [uri for step in run["steps"].values() for uri in step["uris"]]
    objects = team.stores.objects("zenml")
    assert len(uris) > 8 and all(uri.startswith("s3://zenml/") for uri in uris)
    assert all(any(key.startswith(uri.removeprefix("s3://zenml/")) for key in objects) for uri in uris)
    assert not [key for key in objects if key.startswith(f"{FOLDER}/")], "no state of a finished step"
    local = [path for path in (team.root / ".zenconfig").rglob("*") if path.suffix in (".safetensors", ".png")]
    assert local == []
    for database in team.root.rglob("mlflow.db"):  # setup makes the tables before a team's stack is chosen
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("select count(*) from runs").fetchone()[0] == 0
    files = {key.rpartition("/")[2] for key in team.stores.objects("mlflow")}
    assert {"asset.glb", "asset.html", "turntable.mp4", "run_index.json", "config.yaml"} <= files


def test_stored_weights_are_what_their_json_says(team: Team, first: str) -> None:
    """The SHA-256 of each checkpoint on S3, computed from the object itself."""
    (uri,) = team.runs()[first]["steps"]["finetune_dreambooth"]["uris"]
    folder, client = uri.removeprefix("s3://zenml/"), team.stores.client
    listing = json.load(client.get_object(Bucket="zenml", Key=f"{folder}/checkpoints.json")["Body"])
    for entry in listing["checkpoints"]:
        for part in ("unet", "text_encoder"):
            content = client.get_object(Bucket="zenml", Key=f"{folder}/{entry[part]['file']}")["Body"].read()
            assert hashlib.sha256(content).hexdigest() == entry[part]["sha256"]
            assert len(content) == entry[part]["size_bytes"] and load_safetensors(content)


BIG = """
import hashlib, torch
from materializers.files import copy_file
from dreambooth3d.weights import WeightsRef, save_weights
from pathlib import Path
from zenml.client import Client
import materializers
assert Client().active_stack.artifact_store.path == "s3://zenml"
local = save_weights({"layer": torch.arange(12 * 2**20, dtype=torch.float32)}, Path("outputs/big.safetensors"))
copy_file(local.uri, "s3://zenml/large/big.safetensors")
again = WeightsRef("s3://zenml/large/big.safetensors", local.sha256, local.size_bytes).load()
assert torch.equal(again["layer"], torch.arange(12 * 2**20, dtype=torch.float32))
"""


def test_large_weights_go_in_parts_and_come_back(team: Team) -> None:
    """48 MiB become four parts on S3 (an ETag's suffix), with the content of the local file."""
    result = team.run("-c", BIG)
    assert result.returncode == 0, result.stderr[-3000:]
    found = team.stores.client.get_object(Bucket="zenml", Key="large/big.safetensors")
    assert found["ETag"].endswith('-4"')
    assert found["Body"].read() == (team.root / "outputs" / "big.safetensors").read_bytes()


def test_mlflow_is_behind_a_login(team: Team, first: str) -> None:
    """The server refuses the anonymous; the commands sign in with what ZenML's secret holds."""
    url = f"{team.stores.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert requests.get(url, timeout=60).status_code == 401
    (listed,) = json.loads(team.ok("runs", "list", "--json"))
    row = _row(team.stores, first)
    metrics = {metric["key"]: metric["value"] for metric in row["data"]["metrics"]}
    assert (listed["run"], listed["status"]) == (first, "completed")
    assert listed["psnr"] == pytest.approx(metrics["evaluate/psnr"])
    shown = json.loads(team.ok("runs", "show", "latest", "--json"))
    assert shown["metrics"].keys() == metrics.keys()
    index = json.loads(_mlflow_file(team.stores, row, "run_index.json"))
    assert shown["artifacts"]["bundle"] == index["bundle"]
    assert Path(shown["artifacts"]["asset"]).read_bytes() == _mlflow_file(team.stores, row, "asset/asset.glb")


def _mlflow_file(stores: Stores, row: dict[str, Any], path: str) -> bytes:
    (key,) = [key for key in stores.objects("mlflow") if row["info"]["run_id"] in key and key.endswith(path)]
    return stores.client.get_object(Bucket="mlflow", Key=key)["Body"].read()


def _alias(stores: Stores) -> str:
    """The row to which MLflow's alias `production` leads."""
    found = stores.ask_mlflow("registered-models/alias?name=dreambooth3d-corgi&alias=production")
    return found["model_version"]["run_id"]


def test_a_run_that_was_killed_is_marked_in_both(team: Team, first: str) -> None:
    """`kill -9` in the training; `runs clean` ends the run in ZenML and its row on the MLflow server."""
    before = set(team.runs())
    finetune = TINY["finetune_dreambooth"] | {"steps": 4000, "checkpoint_every": 2000}
    config = team.write_config("long", **SHORT | {"finetune_dreambooth": finetune})
    command = [sys.executable, "-m", "dreambooth3d.cli", "train", config]
    with (team.root / "long.log").open("w") as log:
        process = subprocess.Popen(command, cwd=team.root, env=team.environment, stdout=log, stderr=log)
        try:
            name = _until_its_row_runs(team, before, process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert _row(team.stores, name)["info"]["status"] == "RUNNING"
    team.ok("runs", "clean")
    row = _row(team.stores, name)
    assert row["info"]["status"] == "KILLED" and "died" in {tag["key"] for tag in row["data"]["tags"]}
    assert team.runs()[name]["status"] == "failed"


def _until_its_row_runs(team: Team, before: set[str], process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + 240
    while time.monotonic() < end and process.poll() is None:
        for name in set(team.runs()) - before:
            try:
                if _row(team.stores, name)["info"]["status"] == "RUNNING":
                    return name
            except ValueError:
                pass  # no row yet
        time.sleep(1)
    raise AssertionError((team.root / "long.log").read_text()[-2000:])


def test_production_and_retention(team: Team, first: str) -> None:
    """Promotion and rollback through the login; then `prune` deletes on S3, and nothing that production needs.

    Production is a run whose steps came from the cache: its files lie in the artifacts of the first run, which goes.
    """
    stores = team.stores
    production = team.train_again("tiny")
    steps = team.runs()[production]["steps"]
    assert {name for name, step in steps.items() if step["status"] == "cached"} >= {"finetune_dreambooth", "evaluate"}
    better = team.train_again("larger", export_asset=TINY["export_asset"] | {"frame_size": 40})
    compared = json.loads(team.ok("runs", "compare", production, better, "--json"))
    assert compared["params"]["export_asset.frame_size"] == {production: "32", better: "40"}
    for run in (production, better):
        team.ok("production", "promote", run, "--reason", "the test says so")
        assert _alias(stores) == _row(stores, run)["info"]["run_id"]
    team.ok("production", "rollback", "corgi", "--reason", "it was better")
    assert _alias(stores) == _row(stores, production)["info"]["run_id"]
    assert json.loads(team.ok("production", "show", "corgi", "--json"))["run"] == production
    latest = team.train_again("largest", export_asset=TINY["export_asset"] | {"frame_size": 48})

    before, runs = stores.objects("zenml"), team.runs()
    # From a stack whose own store is another one, the same is found out.
    team.zenml("stack", "set", "local_mlflow")
    said = team.ok("prune", "--keep-runs", "0", "--older-than", "0", "--dry-run")
    assert f"{first}: would be deleted." in said and stores.objects("zenml") == before
    team.zenml("stack", "set", "team")
    team.ok("prune", "--keep-runs", "0", "--older-than", "0")
    assert set(team.runs()) == {production, better, latest}
    assert "pruned" in {tag["key"] for tag in _row(stores, first)["data"]["tags"]}
    after, index = stores.objects("zenml"), _keys(runs[first]["steps"]["publish"], before)
    assert index and not index & after.keys()
    for step in runs[production]["steps"].values():
        own = _keys(step, before)
        assert own and all(after.get(key) == before[key] for key in own)
    weights = _weights_of(stores, runs[production])
    assert weights and weights <= after.keys()
    team.ok("checkpoint", "export", production, "outputs/exported", "--which", "full")
    assert list((team.root / "outputs" / "exported").rglob("*.safetensors"))


def _keys(step: dict[str, Any], objects: dict[str, str]) -> set[str]:
    """The objects of a step's outputs."""
    folders = tuple(f"{uri.removeprefix('s3://zenml/')}/" for uri in step["uris"])
    return {key for key in objects if key.startswith(folders)}


def _weights_of(stores: Stores, run: dict[str, Any]) -> set[str]:
    """The keys of the weights that the JSON files of a run's checkpoints name, read by boto3."""
    keys = set()
    for uri in run["steps"]["select_checkpoints"]["uris"]:
        key = f"{uri.removeprefix('s3://zenml/')}/checkpoint.json"
        if key in stores.objects("zenml"):
            entry = json.load(stores.client.get_object(Bucket="zenml", Key=key)["Body"])
            keys |= {entry[part]["file"].removeprefix("store:") for part in ("unet", "text_encoder")}
    return keys


def _dvc(root: Path, *arguments: str) -> None:
    result = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def _git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


PHOTOS = {f"{subject}/{index}.jpg": f"{subject}{index}".encode() for subject in "ab" for index in range(3)}


@pytest.fixture
def photos(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Git repository whose photos were pushed to S3 as docs/remote_stores.md says; nothing of them is left here."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("DREAMBOOTH3D_WORK", str(tmp_path / "state" / "work"))
    root = tmp_path / "photos"
    for name, content in PHOTOS.items():
        (root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / name).write_bytes(content)
    for subject in "ab":
        (root / "data" / subject / "subject.yaml").write_text("class_noun: dog\n")
    _git(root, "init", "-q", "-b", "main")
    _dvc(root, "init", "-q")
    _dvc(root, "remote", "add", "--default", "photos", f"s3://dvc/{tmp_path.name}")
    _dvc(root, "remote", "modify", "photos", "endpointurl", stores.s3)
    _dvc(root, "remote", "modify", "photos", "verify", "true")
    _dvc(root, "remote", "modify", "--local", "photos", "access_key_id", KEY)
    _dvc(root, "remote", "modify", "--local", "photos", "secret_access_key", SECRET)
    _dvc(root, "add", "data")
    _dvc(root, "push")
    _git(root, "add", "data.dvc", ".gitignore", ".dvc/config")
    _git(root, "commit", "-q", "-m", "photos")
    shutil.rmtree(root / "data")
    shutil.rmtree(root / ".dvc" / "cache")
    return root


def test_pushed_photos_lie_on_s3_under_their_md5(stores: Stores, photos: Path, tmp_path: Path) -> None:
    """Every object's content has the MD5 that its key says, and every photo is among them."""
    md5s = {}
    for key in stores.objects("dvc", f"{tmp_path.name}/files/md5/"):
        content = stores.client.get_object(Bucket="dvc", Key=key)["Body"].read()
        name = "".join(key.split("/")[-2:]).removesuffix(".dir")
        assert hashlib.md5(content).hexdigest() == name
        md5s[name] = content
    assert set(PHOTOS.values()) <= set(md5s.values())


def test_photos_come_from_a_repository_at_a_url(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git does not carry `.dvc/config.local`, so the keys are in the environment there, as in a pod."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    config = DatasetConfig(url=f"file://{photos}", rev="main")
    found = {subject.subject: subject for subject in find_subjects(config, "all")}
    assert set(found) == {"a", "b"} and not found["a"].error
    pinned = DatasetConfig(**found["a"].dataset)
    folder = fetch_subject(pinned, "a") / "data"
    fetched = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}
    assert fetched == {name: content for name, content in PHOTOS.items() if name.startswith("a/")}


def test_photos_come_without_git(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an unpacked code archive: only `data.dvc` and `.dvc/config` are there."""
    archive = tmp_path / "archive"
    (archive / ".dvc").mkdir(parents=True)
    shutil.copyfile(photos / "data.dvc", archive / "data.dvc")
    shutil.copyfile(photos / ".dvc" / "config", archive / ".dvc" / "config")
    monkeypatch.chdir(archive)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    found = {subject.subject: subject for subject in find_subjects(DatasetConfig(), "all")}
    assert set(found) == {"a", "b"} and not found["b"].error
    folder = fetch_subject(DatasetConfig(**found["b"].dataset), "b") / "data" / "b"
    assert {path.name for path in folder.iterdir()} == {"0.jpg", "1.jpg", "2.jpg", "subject.yaml"}
    assert (folder / "1.jpg").read_bytes() == PHOTOS["b/1.jpg"]
    # DVC's hash of the subject, by its definition: the MD5 of the list of files, sorted.
    files = {**{name[2:]: content for name, content in PHOTOS.items() if name[0] == "b"}}
    files["subject.yaml"] = b"class_noun: dog\n"
    listing = [{"md5": hashlib.md5(files[name]).hexdigest(), "relpath": name} for name in sorted(files)]
    assert found["b"].data == hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def test_a_damaged_photo_and_missing_keys_are_one_sentence(
    stores: Stores, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object with other content than its key says is refused; so is a remote for which there are no keys."""
    monkeypatch.chdir(tmp_path)
    config = DatasetConfig(url=f"file://{photos}", rev="main")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(DatasetError, match="the list of photos could not be read") as caught:
        open_dataset(config)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    md5 = hashlib.md5(PHOTOS["a/0.jpg"]).hexdigest()
    place = f"{tmp_path.name}/files/md5/{md5[:2]}/{md5[2:]}"
    stores.client.put_object(Bucket="dvc", Key=place, Body=b"other bytes")
    with pytest.raises(DatasetError, match="a/0.jpg"):
        fetch_subject(open_dataset(config).config, "a")
