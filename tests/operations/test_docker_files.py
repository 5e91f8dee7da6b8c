"""What can be known of the images and of the shared services without building them."""

from __future__ import annotations

import fnmatch
import hashlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from zenml.config import DockerSettings

from dreambooth3d.environment import SETTINGS
from tests.product import ROOT

DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
DOCKERFILES = sorted([DOCKER / "Dockerfile", *DOCKER.glob("*.Dockerfile")])
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(:\?[^}]*)?\}")


def instructions(path: Path) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, comments and continued lines resolved."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.strip().split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def copied(path: Path) -> list[str]:
    """The sources of all COPY instructions."""
    sources = []
    for name, rest in instructions(path):
        if name == "COPY":
            sources += [word for word in shlex.split(rest) if not word.startswith("--")][:-1]
    return sources


def in_context(name: str) -> bool:
    """Whether `.dockerignore` lets a file through: the last pattern that matches it, or a folder above it, decides."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            bare = pattern.removeprefix("!").removeprefix("**/")
            above = [name, *(str(parent) for parent in Path(name).parents if str(parent) != ".")]
            names = [Path(part).name for part in above] if "**/" in pattern else above
            if any(fnmatch.fnmatch(part, bare) for part in names):
                kept = pattern.startswith("!")
    return kept


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_exists_and_reaches_the_build(path: Path) -> None:
    sources = copied(path)
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        if source != ".":
            inside = [source] if (ROOT / source).is_file() else [f"{source}/card.json"]
            assert all(in_context(name) for name in inside), source


def test_the_context_holds_the_code_and_nothing_private() -> None:
    for name in ("pipelines/training.py", "configs/demo.yaml", "models/toybox/unet/config.json", ".dvc/config"):
        assert in_context(name), name
    private = (
        "data/rex/00.jpg", "docker/.env", ".git/config", ".zenconfig/config.yaml", "data_store/files/md5/00/1",
        ".dvc/config.local", "outputs/run/asset.glb", "pipelines/__pycache__/x.pyc", ".venv/bin/python",
    )  # fmt: skip
    assert [name for name in private if in_context(name)] == []


def test_every_dockerfile_is_known() -> None:
    found = [path for path in DOCKER.rglob("*") if "dockerfile" in path.name.lower()]
    assert sorted(path for path in found if not path.name.endswith(".dockerignore")) == DOCKERFILES


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_image_ends_as_a_user_that_is_not_root(path: Path) -> None:
    """Of its last stage, whose base is another's image and runs as root."""
    users: list[str] = []
    for name, rest in instructions(path):
        if name in ("FROM", "USER"):
            users = [*users, rest.split(":")[0]] if name == "USER" else []
    assert users and users[-1] not in ("root", "0") and "$" not in users[-1]


def test_the_image_ends_as_a_user_and_checks_its_models() -> None:
    found = instructions(DOCKER / "Dockerfile")
    assert [rest for name, rest in found if name == "USER"] == ["dreambooth"]
    assert [rest for name, rest in found if name == "FROM"] == ["${BASE}"]
    (health,) = [rest for name, rest in found if name == "HEALTHCHECK"]
    assert "--check" in health
    order = [rest for name, rest in found if name in ("COPY", "RUN")]
    copy = next(index for index, rest in enumerate(order) if " models " in f" {rest}")
    check = next(index for index, rest in enumerate(order) if "sha256sum" in rest)
    assert copy < check
    used = set(re.findall(r"\$\{(\w+)\}", (DOCKER / "Dockerfile").read_text()))
    declared = {re.match(r"\w+", rest)[0] for name, rest in found if name == "ARG"}
    assert used <= declared == {"BASE", "TORCH_INDEX", "TORCH_CUDA_ARCH_LIST", "TINYCUDANN", "TCNN_CUDA_ARCHITECTURES"}


def test_models_are_those_of_the_recorded_digests() -> None:
    recorded = dict(reversed(line.split("  ", 1)) for line in (ROOT / "models" / "SHA256SUMS").read_text().splitlines())
    models = ROOT / "models"
    there = {
        path.relative_to(models).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in models.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    }
    assert recorded == there, "after new models: make models/SHA256SUMS"


@pytest.mark.parametrize("script", sorted(DOCKER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_shell(script: Path) -> None:
    assert subprocess.run(["sh", "-n", str(script)], capture_output=True).returncode == 0


def test_without_a_cuda_compiler_nothing_is_compiled() -> None:
    plain = "/usr/bin:/bin"
    if shutil.which("nvcc", path=plain):
        pytest.skip("there is a CUDA compiler in /usr/bin")
    command = ["sh", str(DOCKER / "compile.sh"), "nerfacc"]
    result = subprocess.run(command, capture_output=True, text=True, env={"PATH": plain})
    assert result.returncode == 0 and "no nvcc" in result.stdout


def test_compose_is_whole() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"zenml", "zenml-db", "mlflow", "mlflow-db", "s3", "buckets"}
    for name, service in services.items():
        assert "image" in service or (ROOT / service["build"]["dockerfile"]).is_file(), name
        assert not str(service.get("image", "x:1")).endswith((":latest", "/")), name
        assert ":" in service.get("image", "x:1"), name
        for other, condition in service.get("depends_on", {}).items():
            wanted = condition["condition"]
            assert wanted != "service_healthy" or "healthcheck" in services[other], (name, other)
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in COMPOSE["volumes"], volume
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port
    assert services["zenml-db"]["image"].startswith("mysql:")
    assert services["mlflow-db"]["image"].startswith("postgres:")
    version = re.search(r"^zenml==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)[1]
    assert services["zenml"]["image"].endswith(f":{version}")


def test_every_secret_comes_from_the_environment_and_has_no_default() -> None:
    example = dict(
        line.split("=", 1) for line in (DOCKER / ".env.example").read_text().splitlines() if not line.startswith("#")
    )
    assert set(example.values()) == {""}
    text = (DOCKER / "compose.yaml").read_text()
    found = VARIABLE.findall(text)
    assert {name for name, _ in found} == set(example)
    assert all(required for _, required in found)
    for service in COMPOSE["services"].values():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|ACCESS_KEY", key):
                assert VARIABLE.fullmatch(str(value)), key
    assert "docker/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_documented_docker_settings_are_zenmls() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "docker.md").read_text(), re.DOTALL)
    (found,) = [settings for block in blocks if (settings := yaml.safe_load(block).get("settings", {}).get("docker"))]
    assert set(found) <= set(DockerSettings.model_fields)
    settings = DockerSettings(**found)
    assert (ROOT / settings.dockerfile).is_file()
    assert (ROOT / settings.build_context_root).resolve() == ROOT
    given = settings.parent_image_build_config.build_options.build_args
    declared = {rest.partition("=")[0] for name, rest in instructions(DOCKER / "Dockerfile") if name == "ARG"}
    assert given and set(given) <= declared


def test_the_image_sets_what_the_table_of_variables_has() -> None:
    """What a command sets in a shell, a step in a container finds in its image: all that names no folder."""
    words = [word for name, rest in instructions(DOCKER / "Dockerfile") if name == "ENV" for word in shlex.split(rest)]
    image = dict(word.split("=", 1) for word in words)
    shared = {name for name in image.keys() & SETTINGS.keys() if "{root}" not in SETTINGS[name]}
    assert "GOMP_SPINCOUNT" in shared
    assert {name: image[name] for name in shared} == {name: SETTINGS[name] for name in shared}
