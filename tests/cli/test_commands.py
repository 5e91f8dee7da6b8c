"""The console script's other commands."""

from __future__ import annotations

import json
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import Result

from dreambooth3d.cli.server import free_port
from dreambooth3d.config.distillation import InitNerfConfig
from tests.product import ROOT, Product, make_product

Invoke = Callable[..., Result]


def test_help_is_fast(product: Product) -> None:
    command = ("-m", "dreambooth3d.cli", "--help")
    product.run(*command)
    start = time.monotonic()
    result = product.run(*command)
    assert time.monotonic() - start < 1.5
    for command in (
        "setup",
        "doctor",
        "train",
        "checkpoint",
        "config",
        "photos",
        "runs",
        "prune",
        "stack",
        "ui",
        "web",
        "toybox",
    ):
        assert command in result.stdout


def test_shipped_configs_are_valid(invoke: Invoke) -> None:
    files = [str(path) for path in sorted((ROOT / "configs").glob("*.yaml"))]
    assert {Path(file).stem for file in files} >= {"demo", "toybox_gpu", "naive", "paper", "seed"}
    result = invoke("config", "check", *files)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count(": OK") == len(files)


def test_config_check_lists_every_problem(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("parameters: {seed: -1, sed: 1}\nstepz: {}")
    result = invoke("config", "check", str(tmp_path / "bad.yaml"), "configs/tiny.yaml")
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 3
    assert "configs/tiny.yaml: OK" in result.stdout


def test_photos_check(invoke: Invoke) -> None:
    result = invoke("photos", "check", "data/corgi")
    assert result.exit_code == 0, result.stderr
    assert "00.jpg" in result.stdout
    assert invoke("photos", "check", "data").exit_code == 1


def test_photos_check_writes_the_page_and_names_it_last(invoke: Invoke, tmp_path: Path) -> None:
    """Of photos in which nothing is told, since the search for cameras takes half a minute."""
    (tmp_path / "noise").mkdir()
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise" / f"{seed}.png")
    command = ("photos", "check", str(tmp_path / "noise"), "--class-noun", "dog")
    plain, written = invoke(*command), invoke(*command, "--html", str(tmp_path / "page.html"))
    assert written.exit_code == 0, written.stderr
    assert written.stdout == f"{plain.stdout}{tmp_path / 'page.html'}\n"
    page = (tmp_path / "page.html").read_text()
    assert "These photos do not tell the subject’s shape yet" in page.replace("&#x27;", "’")
    assert "The cameras of 0 of 3 photos could be found" in page
    refused = invoke(*command, "--html", str(tmp_path / "none" / "page.html"))
    assert refused.exit_code == 1 and refused.stdout == "" and "no file can be written there" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise", "page.html"]


def test_photos_check_as_json_says_what_the_lines_say(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "boxes"
    folder.mkdir()
    for seed in range(3):
        pixels = np.full((96, 128, 3), 170, np.uint8)
        pixels[30:70, 20 + 10 * seed : 60 + 10 * seed] = (200, 40, 30 + 90 * seed)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    command = ("photos", "check", str(folder), "--class-noun", "toy")
    lines = invoke(*command).stdout.splitlines()
    sheet = tmp_path / "sheet.png"
    result = invoke(*command, "--json", "--sheet", str(sheet))
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert lines[0] == f"{folder}: {said['class_noun']}, {said['dataset_hash']}" and said["folder"] == str(folder)
    for line, photo in zip(lines[2:5], said["photos"], strict=True):
        name, size, *_ = line.split()
        assert name == photo["file"] and size == f"{photo['width']}x{photo['height']}"
        assert line.endswith(f"{photo['mask_source']} {photo['mask_confidence']:.2f}") and photo["mask_trusted"] is True
    assert f"usable as targets: {said['usable_as_targets']} of {said['targets_at_most']}" in lines
    assert [f"warning: {text}" for text in said["findings"]] == lines[7:] != []
    assert said["files"] == [str(sheet)] and sheet.is_file() and said["held_out"] == []


def test_a_file_as_json_is_the_file(invoke: Invoke) -> None:
    plain, as_json = (invoke("config", "show", "configs/tiny.yaml", *more) for more in ((), ("--json",)))
    assert as_json.exit_code == 0, as_json.stderr
    assert json.loads(as_json.stdout) == yaml.safe_load(plain.stdout)


def test_photos_add_asks_for_the_noun_on_a_terminal_only(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("photos", "add", "bello", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr.endswith("it is not known what the subject is. Say it by --noun, for example --noun dog.\n")
    result = invoke("photos", "add", "corgi", str(tmp_path), "--noun", "dog")
    assert result.exit_code == 1 and "data/corgi: there is such a subject already" in result.stderr


def test_unknown_run(product: Product) -> None:
    result = product.dreambooth3d("runs", "show", "nobody")
    assert result.returncode == 1
    assert result.stderr.startswith("Error: nobody: there is no such run")


def test_export_from_an_unknown_run(product: Product, tmp_path: Path) -> None:
    result = product.dreambooth3d("checkpoint", "export", "nobody", str(tmp_path / "new"))
    assert result.returncode == 1
    assert result.stderr.startswith("Error: nobody: there is no such run")
    assert not (tmp_path / "new").exists()


def test_no_runs_yet(product: Product) -> None:
    result = product.dreambooth3d("runs", "list", "--json")
    assert json.loads(result.stdout) == []


def test_setup_again_changes_nothing(product: Product) -> None:
    activate = product.root / "venv" / "bin" / "activate"
    before = activate.read_text()
    assert product.dreambooth3d("setup").returncode == 0
    assert activate.read_text() == before


def test_setup_keeps_others_out_and_makes_mlflows_tables(tmp_path: Path) -> None:
    """At once, in a folder that is new: two runs that begin together would each make the tables."""
    product = make_product(tmp_path)
    (product.root / ".dreambooth3d").mkdir(mode=0o777)
    assert product.dreambooth3d("setup").returncode == 0
    assert [(product.root / name).stat().st_mode & 0o777 for name in (".dreambooth3d", ".zenconfig")] == [0o700] * 2
    (database,) = product.root.joinpath(".zenconfig").rglob("mlflow.db")
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("select count(*) from experiments").fetchone()[0] >= 1


def test_the_user_interface_takes_the_next_free_port(product: Product) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        process = product.start("ui", "--port", str(port))
        try:
            line = process.stdout.readline()
            assert line.startswith(f"Port {port} is in use; the next free one is "), line
            free = int(re.search(r"(\d+)\.$", line.strip())[1])
            assert free > port
            line = process.stdout.readline()
            address = rf"Runs: http://127.0.0.1:{free}/#/experiments(/\d+/runs)?\?workflowType=machine_learning\n"
            assert re.fullmatch(address, line), line
        finally:
            process.terminate()
            process.wait(30)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", free), 1)


SERVE = """
import socket, time
with socket.create_server(("127.0.0.1", {port})):
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_server_ends_with_its_command(number: signal.Signals) -> None:
    """Also where nothing is left that could end it."""
    port = free_port("127.0.0.1", 47310)
    run = f"run_until_told([sys.executable, '-c', {SERVE.format(port=port)!r}])"
    code = f"import sys; from dreambooth3d.cli.server import run_until_told; sys.exit({run})"

    def answers() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    def within(seconds: float, is_so: Callable[[], bool]) -> bool:
        limit = time.monotonic() + seconds
        while not is_so() and time.monotonic() < limit:
            time.sleep(0.05)
        return is_so()

    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as command:
        assert within(20, answers)
        command.send_signal(number)
        assert within(10, lambda: not answers())
    assert command.returncode == (0 if number == signal.SIGHUP else -signal.SIGKILL)


def test_the_version(invoke: Invoke, product: Product) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert invoke("--version").stdout == f"dreambooth3d {known}\n"
    assert product.run("-m", "dreambooth3d", "--version").stdout == f"dreambooth3d {known}\n"


def test_a_list_of_runs_is_fast_and_imports_no_giants(product: Product) -> None:
    code = (
        "import sys\nfrom dreambooth3d.cli.main import app\napp(['runs', 'list', '--json'], standalone_mode=False)\n"
        "print({'zenml', 'mlflow', 'torch', 'pandas'} & {*sys.modules}, file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = product.run("-c", code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert json.loads(result.stdout) == [] and result.stderr == "set()\n"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_problems_of_configurations_as_json(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("parameters: {seed: -1, sed: 1}")
    result = invoke("config", "check", str(tmp_path / "bad.yaml"), "configs/tiny.yaml", "--json")
    bad, good = json.loads(result.stdout)
    assert result.exit_code == 1 and result.stderr == ""
    assert not bad["good"] and len(bad["problems"]) == 2 and all(str(tmp_path) in text for text in bad["problems"])
    assert good == {"file": "configs/tiny.yaml", "good": True, "problems": []}


def offered(product: Product, line: str) -> list[str]:
    """What bash is told at the tab key."""
    words = {"COMP_WORDS": line, "COMP_CWORD": f"{len(line.split(' ')) - 1}"}
    result = product.run("-m", "dreambooth3d", _DREAMBOOTH3D_COMPLETE="complete_bash", **words)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("dreambooth3d train configs/ti", ["configs/tiny.yaml"]),
        ("dreambooth3d train configs/tiny.yaml init_n", None),
        ("dreambooth3d train configs/tiny.yaml refine_nerf.rep", None),
        ("dreambooth3d train configs/no_such.yaml refine_nerf.", []),
        ("dreambooth3d runs show lat", ["latest"]),
    ],
)
def test_completion(product: Product, line: str, found: list[str] | None) -> None:
    """Of keys what the configuration has, each of which `train` takes."""
    shown = offered(product, line)
    if found is not None:
        assert shown == found
    elif line.endswith("init_n"):
        # In this stage there is nothing to reconstruct.
        takes = {*InitNerfConfig.model_fields} - {"reconstruction"}
        assert {"init_nerf.steps=", "init_nerf.field.", "init_nerf.guidance."} <= {*shown}
        assert {entry.removeprefix("init_nerf.").rstrip("=.") for entry in shown} == takes
    else:
        kinds = {f"refine_nerf.representation={kind}" for kind in ("field", "mesh", "gaussians", "painted")}
        assert {*shown} == {"refine_nerf.representation=", *kinds}


def test_doctor_names_what_is_broken(product: Product) -> None:
    result = product.dreambooth3d("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)}
    # The copied product has tiny models in other places than the bundled ones, and no lock file.
    assert not findings["models"]["good"]
    assert result.returncode == 1
    for name in ("python", "device", "activation", "stack", "data", "configs"):
        assert findings[name]["good"], findings[name]


def bash(script: str, **variables: str) -> dict[str, str]:
    """The environment after a script, by `env`."""
    command, known = ["bash", "-ec", f"{script}\nenv -0"], {"PATH": "/usr/bin:/bin"} | variables
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=known)
    return dict(line.split("=", 1) for line in result.stdout.split("\0") if "=" in line)


def test_activation_and_deactivation(product: Product) -> None:
    activate = product.root / "venv" / "bin" / "activate"
    text = activate.read_text()
    # As a real environment's script, which knows its own place.
    own = product.root / "venv" / "bin" / "activate_here"
    place = f'VIRTUAL_ENV="{product.root}/venv"'
    lines = [re.sub(r"^(\s*(?:export )?)VIRTUAL_ENV=.*", rf"\1{place}", line) for line in text.splitlines()]
    own.write_text("\n".join(lines) + "\n")
    try:
        active = bash(f"source {own}", ZENML_CONFIG_PATH="/mine")
        assert active["ZENML_CONFIG_PATH"] == f"{product.root}/.zenconfig"
        assert active["ZENML_ANALYTICS_OPT_IN"] == "false"
        assert active["DREAMBOOTH3D_ACTIVE"] == str(product.root)
        left = bash(f"source {own}; source {own}; deactivate", ZENML_CONFIG_PATH="/mine")
        assert left["ZENML_CONFIG_PATH"] == "/mine"
        assert "ZENML_ANALYTICS_OPT_IN" not in left
        assert "DREAMBOOTH3D_ACTIVE" not in left
    finally:
        own.unlink()


def test_activation_holds_no_path_inside_the_repository(product: Product) -> None:
    block = (product.root / "venv" / "bin" / "activate").read_text().split("# >>> dreambooth3d >>>")[-1]
    assert str(product.root) not in block


def test_home_is_never_touched(product: Product) -> None:
    """Not even without activation: the command sets its own surroundings."""
    mine = {".config/zenml/config.yaml": "mine: 1\n", ".mlflow/config": "mine\n"}
    for name, text in mine.items():
        (product.home / name).parent.mkdir(parents=True, exist_ok=True)
        (product.home / name).write_text(text)
    for name in ("ZENML_CONFIG_PATH", "DREAMBOOTH3D_ACTIVE"):
        assert name in product.environment
    bare = {"DREAMBOOTH3D_ACTIVE": "", "ZENML_CONFIG_PATH": str(product.home / ".config" / "zenml")}
    assert product.run("-m", "dreambooth3d.cli", "setup", **bare).returncode == 0
    assert product.run("-m", "dreambooth3d.cli", "runs", "list", **bare).returncode == 0
    left = {str(path.relative_to(product.home)): path for path in product.home.rglob("*") if path.is_file()}
    configuration = {name: path.read_text() for name, path in left.items() if "zenml" in name or "mlflow" in name}
    assert configuration == mine
