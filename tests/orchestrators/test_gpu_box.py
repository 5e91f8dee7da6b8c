"""The GPU steps on another machine by SSH: a real sshd on loopback, the product's image, and real trainings.

There is no GPU here, so that `--gpus` is taken out of the command on the box, after it has been written down.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from operations.launch.presets import read_preset
from tests.emulators.services import PhotoRepository
from tests.orchestrators.conftest import ROOT, Checkout
from tests.orchestrators.containers import (
    IMAGE,
    SHORTEST,
    SUBJECT,
    checkout_on_loopback,
    register,
    require_docker,
    rows,
)

pytestmark = pytest.mark.slow
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
# The recipe has neither pseudo views nor a second stage.
ON_BOX = {"finetune_dreambooth", "select_checkpoints", "init_nerf", "evaluate", "export_asset"}
# Writes down what it is asked for, one word a line, and goes on without the GPUs.
DOCKER = """#!/bin/sh
{{ printf '%s\\n' "$@"; echo; }} >> {log}
if [ "$1" = run ]; then
    for word do
        shift
        if [ "$word" = --gpus ]; then skip=1; elif [ -n "$skip" ]; then skip=; else set -- "$@" "$word"; fi
    done
fi
exec {docker} "$@"
"""


@dataclass(frozen=True)
class Box:
    """A machine with sshd.

    Attributes:
        folder: with its keys, `known_hosts`, and the log of its docker.
        port: of its sshd.
        photos: a repository with one subject.
        checkout: a user's, with the stack `gpu_box`.
    """

    folder: Path
    port: int
    photos: PhotoRepository
    checkout: Checkout

    def commands(self) -> list[list[str]]:
        """The words of each docker command so far."""
        log = self.folder / "docker.log"
        return [entry.splitlines() for entry in log.read_text().split("\n\n") if entry] if log.exists() else []

    def train(self, preset: str, pipeline: str, change: Callable[[dict[str, Any]], None]) -> Any:
        """The documented command, on a preset with the tiny training."""
        values = read_preset(ROOT / "configs" / f"{preset}.yaml").values
        values["settings"]["docker"]["parent_image"] = IMAGE
        for step in values["steps"].values():
            own = step["settings"]["step_operator.ssh"]  # one object for all steps, by the YAML's anchor
            own["docker_run_args"] = [*dict.fromkeys([*own["docker_run_args"], "--network=host"])]
        change(values)
        (self.checkout.root / "configs" / f"{preset}.yaml").write_text(yaml.safe_dump(values))
        command = ("pipeline", "run", f"pipelines.{pipeline}", "--config", f"configs/{preset}.yaml")
        return self.checkout.zenml(*command, "--stack", "gpu_box")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box, reached with a key and known by its own, whose containers are removed at the end."""
    require_docker()
    pytest.importorskip("paramiko", reason="needs paramiko: run `make test-orchestrators`")
    if SSHD is None:
        pytest.skip("needs sshd (openssh-server)")
    folder = tmp_path_factory.mktemp("box")
    docker = folder / "docker"
    docker.write_text(DOCKER.format(log=folder / "docker.log", docker=ROOT / "docker" / "docker-on-box.sh"))
    docker.chmod(0o755)
    process, port = _start_sshd(folder)
    try:
        with checkout_on_loopback(folder) as checkout:
            register(
                checkout,
                f"step-operator register box --flavor=ssh --hostname=127.0.0.1 --port={port} "
                f"--username={getpass.getuser()} --ssh_key_path={folder / 'user'} "
                f"--known_hosts_path={folder / 'known_hosts'} --docker_binary={docker} "
                f"--remote_workdir={folder / 'work'} --minimum_free_disk_gb=0",
                "stack register gpu_box -o default -s box -a store -c images -i builder -e tracker -r registry",
            )
            yield Box(folder, port, PhotoRepository(checkout.cluster, (SUBJECT,)), checkout)
    finally:
        process.terminate()
        process.wait()
        log = folder / "docker.log"
        names = (
            [line for line in log.read_text().splitlines() if line.startswith("zenml-step-")] if log.exists() else []
        )
        subprocess.run(["docker", "rm", "--force", *set(names)], capture_output=True)


def _start_sshd(folder: Path) -> tuple[subprocess.Popen, int]:
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    shutil.copyfile(folder / "user.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    public = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile {folder / 'pid'}\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # which sshd wants, and its service makes
    process = subprocess.Popen(
        [SSHD, "-D", "-f", str(folder / "sshd_config")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(100):
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return process, port
        time.sleep(0.1)
    raise TimeoutError("sshd does not answer")


def _tiny(photos: PhotoRepository) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        values["parameters"] = SHORTEST | {
            "photos": {"subject": SUBJECT, "dataset": {"url": photos.url, "rev": "main"}}
        }

    return change


def test_gpu_steps_run_on_the_box(box: Box) -> None:
    """One training: exit code 0, one MLflow row, one container per GPU step, each with GPU and shared memory."""
    result = box.train("gpu_box", "training.dreambooth3d", _tiny(box.photos))
    assert result.returncode == 0, result.stderr[-3000:]
    (row,) = rows(box.checkout, "dreambooth3d")
    assert row.info.status == "FINISHED" and "evaluate/psnr" in row.data.metrics
    runs = [words for words in box.commands() if words[0] == "run"]
    assert {words[words.index("--step_name") + 1] for words in runs} == ON_BOX and len(runs) == len(ON_BOX)
    for words in runs:
        assert words[words.index("--gpus") + 1] == "device=0"
        before = words[: words.index(IMAGE)]
        assert {"--shm-size=8g", "--memory=32g"} <= {*before}
        name, template = words[words.index("--name") + 1], "{{.State.ExitCode}} {{.HostConfig.ShmSize}}"
        state = subprocess.run(["docker", "inspect", "--format", template, name], capture_output=True, text=True)
        assert state.stdout.split() == ["0", str(8 * 2**30)]
    # Variables with keys went by a file that is gone.
    assert not list((box.folder / "work").glob("env-*"))
    assert box.checkout.cluster.zenml_key not in (box.folder / "docker.log").read_text()


def test_retraining_from_cron(box: Box) -> None:
    """What the cron line runs: the first tick trains on the box and promotes, the second starts no container."""

    def tiny(values: dict[str, Any]) -> None:
        values["parameters"] |= {
            "training": SHORTEST | {"seed": 5},
            "dataset": {"url": box.photos.url, "rev": "main"},
            "gates": {"bounds": {"evaluate/psnr": {"min": 1.0}}},
        }

    before = len(box.commands())
    result = box.train("retrain_gpu_box", "retraining.retrain", tiny)
    assert result.returncode == 0, result.stderr[-3000:]
    first, second = (f"{SUBJECT}: promoted", f"{SUBJECT}: skipped: nothing changed since production version")
    assert first in result.stdout + result.stderr
    runs = [words for words in box.commands()[before:] if words[0] == "run"]
    assert {words[words.index("--gpus") + 1] for words in runs} == {"device=0"}
    before = len(box.commands())
    result = box.train("retrain_gpu_box", "retraining.retrain", tiny)
    assert result.returncode == 0, result.stderr[-3000:]
    assert second in result.stdout + result.stderr
    assert len(box.commands()) == before


def test_a_step_that_fails_on_the_box_ends_the_command_with_1(box: Box) -> None:
    """An image that nobody has, and a box whose key is another one: one sentence each."""

    def no_image(values: dict[str, Any]) -> None:
        _tiny(box.photos)(values)
        values["parameters"]["seed"] = 9
        values["settings"]["docker"]["parent_image"] = "registry.example.invalid/nowhere:1"
        del values["steps"]["finetune_dreambooth"]["retry"]

    result = box.train("gpu_box", "training.dreambooth3d", no_image)
    assert result.returncode == 1, result.stderr[-3000:]
    last = result.stderr.splitlines()[-1]
    assert (
        "failed in finetune_dreambooth" in last and "Failed to pull image 'registry.example.invalid/nowhere:1'" in last
    )
    known = box.folder / "known_hosts"
    right = known.read_text()
    known.write_text(right.replace(right.split()[2], (box.folder / "user.pub").read_text().split()[1]))
    try:
        result = box.train("gpu_box", "training.dreambooth3d", no_image)
    finally:
        known.write_text(right)
    assert result.returncode == 1, result.stderr[-3000:]
    assert "Host key for server" in result.stderr.splitlines()[-1], result.stderr[-3000:]
