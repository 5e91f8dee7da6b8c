"""The image and the pipeline in real Docker containers, by the commands and the settings that docs/docker.md shows.

The first time, the build takes many minutes; from then on Docker's cache has all but the code.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient
from packaging.utils import canonicalize_name

from supply_chain.locks import locked
from tests.product import ROOT, TINY, ZENML, Product, make_product

pytestmark = pytest.mark.slow
BASE_VARIABLE = "DREAMBOOTH3D_TEST_BASE"
BASE, IMAGE = "dreambooth3d-base:bookworm", "dreambooth3d:test"
# As ZenML names what it builds for the training without a container registry.
BUILT = "zenml:dreambooth3d-orchestrator"
CERTIFICATES = "usr/local/share/ca-certificates"
DOCS = (ROOT / "docs" / "docker.md").read_text()
FREEZE = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()), sep=chr(10))"
ELSEWHERE = """
import getpass, os, pathlib
print(os.getuid(), getpass.getuser())
for folder in (pathlib.Path.home(), pathlib.Path("/app"), pathlib.Path("/app/code")):
    (folder / "probe").write_text("written")
import zenml.client, mlflow, diffusers
zenml.client.Client()
"""


def docker(*arguments: str, timeout: float = 120, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the Docker client."""
    command = ["docker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)


def documented(language: str, heading: str) -> list[str]:
    """The blocks of a language below a heading of docs/docker.md."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", DOCS, re.MULTILINE | re.DOTALL)
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base image without CUDA that is on this machine: the one that a variable names, or Debian made here."""
    if shutil.which("docker") is None:
        pytest.skip("needs Docker")
    if (answer := docker("info")).returncode != 0:
        pytest.skip(f"no Docker daemon answers ({answer.stderr.strip().splitlines()[-1]})")
    name = os.environ.get(BASE_VARIABLE) or BASE
    if docker("image", "inspect", name).returncode == 0:
        return name
    if name != BASE:
        pytest.skip(f"{BASE_VARIABLE}: there is no image {name} here; pull it first")
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip(f"needs a base image: {BASE_VARIABLE}=python:3.11-slim, or root and debootstrap")
    _make_base(tmp_path_factory.mktemp("base") / "root")
    return BASE


def _make_base(root: Path) -> None:
    """Debian 12, with this machine's own certificates, and with torch as its pip finds it."""
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", "bookworm", str(root)], capture_output=True, text=True, timeout=900
    )
    if made.returncode != 0:
        pytest.skip(f"debootstrap could not make a base image ({(made.stdout.splitlines() or ['no output'])[-1]})")
    if (own := Path("/") / CERTIFICATES).is_dir():
        shutil.copytree(own, root / CERTIFICATES, dirs_exist_ok=True)
    (torch,) = re.findall(r"^torch==[^\s;]+", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    wheels = root / "opt" / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--python-version", "3.11", "--dest", str(wheels), torch], check=True, timeout=900)
    variables = "PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_FIND_LINKS=/opt/wheels"
    left_out = ("./dev", "./proc", "./sys", "./var/cache/apt/archives")
    with subprocess.Popen(
        ["tar", "-C", str(root), *(f"--exclude={name}/*" for name in left_out), "-c", "."], stdout=subprocess.PIPE
    ) as tar:
        docker("import", "--change", f"ENV {variables}", "-", BASE, stdin=tar.stdout, timeout=600).check_returncode()


def build(context: Path, base: str, name: str) -> subprocess.CompletedProcess[str]:
    """Build the image by the documented command, on another base."""
    arguments = ("--network=host", "-f", "docker/Dockerfile", "-t", name, "--build-arg", f"BASE={base}", ".")
    # ZenML builds without BuildKit: so both share one cache.
    return docker("build", *arguments, cwd=context, timeout=3000, env=os.environ | {"DOCKER_BUILDKIT": "0"})


def test_compose_takes_its_file() -> None:
    """Compose itself reads the file with the example's variables filled in, and refuses it with any of them empty."""
    if shutil.which("docker") is None or docker("compose", "version").returncode != 0:
        pytest.skip("needs docker compose")
    names = re.findall(r"^(\w+)=$", (ROOT / "docker" / ".env.example").read_text(), re.MULTILINE)
    variables = dict.fromkeys(names, "0" * 48)
    command = ("compose", "--file", str(ROOT / "docker" / "compose.yaml"), "config", "--format", "json")
    read = docker(*command, env=os.environ | variables)
    assert read.returncode == 0, read.stderr
    services = json.loads(read.stdout)["services"]
    assert services["mlflow"]["build"]["context"] == str(ROOT)
    for name in names:
        assert docker(*command, env=os.environ | variables | {name: ""}).returncode != 0, name


@pytest.fixture(scope="session")
def image(base: str) -> str:
    """The CPU image of this checkout."""
    result = build(ROOT, base, IMAGE)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    return IMAGE


@pytest.fixture(scope="module")
def product(base: str, tmp_path_factory: pytest.TempPathFactory) -> Product:
    """A checkout with all that an image is built of, set up, and the stack registered as documented."""
    made = make_product(tmp_path_factory.mktemp("docker"))
    shutil.rmtree(made.root / "models")
    for name in ("models", "docker"):
        shutil.copytree(ROOT / name, made.root / name)
    locks = ("requirements.lock", "requirements-cuda.lock")
    for name in ("pyproject.toml", "README.md", "LICENSE", *locks, ".dockerignore"):
        shutil.copyfile(ROOT / name, made.root / name)
    assert made.dreambooth3d("setup").returncode == 0
    commands, _ = documented("bash", "The pipeline in containers on this machine")
    for line in commands.splitlines():
        if line.startswith("zenml "):
            result = made.run(ZENML, *shlex.split(line)[1:])
            assert result.returncode == 0, (line, result.stderr[-2000:])
    return made


def write_config(product: Product, name: str, base: str, mounted: bool = True, **parameters: object) -> None:
    """Write `configs/<name>.yaml`: the documented settings on this base, with the bundled models at tiny sizes.

    Args:
        mounted: False leaves out the documented mount of the photos.
    """
    (block,) = documented("yaml", "The pipeline in containers on this machine")
    values = yaml.safe_load(block)
    options = values["settings"]["docker"]["parent_image_build_config"]["build_options"]
    options |= {"build_args": options["build_args"] | {"BASE": base}, "network_mode": "host"}
    if not mounted:
        del values["settings"]["orchestrator.local_docker"]["run_args"]["mounts"]
    bundled = {key: value for key, value in TINY.items() if key not in ("base_model", "scorers")}
    values["parameters"] = bundled | parameters
    (product.root / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(values))


def run(product: Product, name: str) -> subprocess.CompletedProcess[str]:
    """Run the documented command."""
    _, commands = documented("bash", "The pipeline in containers on this machine")
    (line,) = [line for line in commands.splitlines() if line.startswith("zenml pipeline run")]
    return product.run(ZENML, *shlex.split(line.replace("my_docker", name))[1:])


def test_the_image_has_the_locked_packages_and_no_others(image: str) -> None:
    """What pip would install by the two lists, next to what is there."""
    result = docker("run", "--rm", image, "python", "-c", FREEZE)
    lines = (line.split("==") for line in result.stdout.splitlines())
    found = {canonicalize_name(name): version for name, version in lines}
    pinned = [pin for name in ("requirements.lock", "docker/requirements-remote.txt") for pin in locked(name)]
    wanted = {
        pin.key: pin.version
        for pin in pinned
        if pin.marker is None or pin.marker.evaluate({"python_version": "3.11", "python_full_version": "3.11.2"})
    }
    wrong = {name: (version, found.get(name)) for name, version in wanted.items()
             if found.get(name, "").partition("+")[0] != version.partition("+")[0]}  # fmt: skip
    assert wrong == {}
    assert set(found) - set(wanted) <= {"pip", "setuptools", "dreambooth3d"}


@pytest.mark.parametrize(("user", "number"), [(None, 10001), ("54321:54321", 54321)])
def test_it_runs_as_a_user_and_under_any_other_number(image: str, user: str | None, number: int) -> None:
    """Home, ZenML's settings and the code are where this user may write; the command answers."""
    options = ["--user", user] if user else []
    result = docker("run", "--rm", *options, image, "python", "-c", ELSEWHERE)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split()[:2] == [str(number), "dreambooth"]
    assert "photos" in docker("run", "--rm", *options, image).stdout


@pytest.fixture
def container(image: str) -> Iterator[str]:
    """A container that waits, its health asked for each second."""
    options = ("--health-interval=1s", "--health-retries=1", "--health-start-period=0s")
    name = docker("run", "--detach", *options, image, "sleep", "600").stdout.strip()
    assert name
    yield name
    docker("rm", "--force", name)


def _health(container: str, wanted: str) -> str:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        state = docker("inspect", "--format", "{{.State.Health.Status}}", container).stdout.strip()
        if state == wanted:
            break
        time.sleep(1)
    return state


def test_a_damaged_model_is_bad_health(container: str) -> None:
    assert _health(container, "healthy") == "healthy"
    damage = "echo >> /app/code/models/judge/config.json"
    assert docker("exec", container, "sh", "-c", damage).returncode == 0
    assert _health(container, "unhealthy") == "unhealthy"


def test_other_models_than_the_recorded_ones_end_the_build(image: str, base: str, product: Product) -> None:
    card = product.root / "models" / "card.json"
    content = card.read_bytes()
    card.write_bytes(content + b" ")
    try:
        result = build(product.root, base, "dreambooth3d:never")
    finally:
        card.write_bytes(content)
    assert result.returncode != 0 and "card.json: FAILED" in result.stdout + result.stderr


@pytest.fixture
def new_containers() -> Iterator[Callable[[], set[str]]]:
    """Tells the steps' containers since the test began; they are removed at its end."""
    before = _step_containers()

    def new() -> set[str]:
        return _step_containers() - before

    yield new
    docker("rm", "--force", *new())


def _step_containers() -> set[str]:
    """Those of ZenML's own image only: other tests have containers of their own at the same time."""
    return set(docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"ancestor={BUILT}").stdout.split())


def test_a_run_in_containers_ends_with_a_row(
    image: str, base: str, product: Product, new_containers: Callable[[], set[str]]
) -> None:
    """ZenML builds from the Dockerfile; each step has a container; the row is in this checkout's MLflow."""
    write_config(product, "tiny_docker", base)
    result = run(product, "tiny_docker")
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    states = docker("inspect", "--format", "{{json .Config.Cmd}} {{.State.ExitCode}}", *new_containers())
    told = states.stdout.splitlines()
    ended = {name for line in told if line.endswith(" 0") for name in re.findall(r'"--step_name","(\w+)"', line)}
    assert ended == set(_steps(product))
    (database,) = (product.root / ".zenconfig").rglob("mlflow.db")
    client = MlflowClient(f"sqlite:///{database}")
    (row,) = client.search_runs([client.get_experiment_by_name("dreambooth3d").experiment_id])
    assert row.info.status == "FINISHED" and row.data.tags["preset"] == "tiny_docker"
    assert 0 <= row.data.metrics["evaluate/mask_iou"] <= 1
    assert list((product.root / "outputs").rglob("*.glb"))


def _steps(product: Product) -> list[str]:
    """The steps of the newest run, as ZenML knows them."""
    program = "from zenml.client import Client; run, = Client().list_pipeline_runs(hydrate=True, size=1).items"
    result = product.run("-c", f"{program}; print('STEPS', *run.steps)")
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("STEPS")]
    return line.split()[1:]


def test_an_error_in_a_container_is_told_in_one_sentence(
    image: str, base: str, product: Product, new_containers: Callable[[], set[str]]
) -> None:
    """Only the container knows that the photos are not mounted."""
    write_config(product, "no_photos", base, mounted=False, photos={"subject": "mallard"})
    result = run(product, "no_photos")
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr[-3000:]
    assert "failed in validate_photos (data" in last
    assert new_containers()
