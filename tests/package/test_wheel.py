"""The wheel: what is in it, and that its commands work without a clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path, PurePosixPath

import pytest
import yaml
from packaging.metadata import Metadata

from dreambooth3d import __version__
from tests.product import CODE, ROOT, TINY

BESIDE = (*(name for name in CODE if name != "dreambooth3d"), "configs", "models")
BUILT_FROM = (*CODE, "configs", "models", "pyproject.toml", "setup.py", "README.md", "LICENSE")
INSIDE = "dreambooth3d/_product"
MIB = 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what it is made of, with what an earlier build may have left."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, source / name)
    stale = source / "build" / "lib" / "steps" / "gone.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(target), str(source)], check=True, capture_output=True)
    (found,) = target.glob("*.whl")
    return found


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files(folder: str) -> set[str]:
    """What a clone has below a folder, byte code aside."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_every_file_of_the_product_is_in_its_place_and_no_other(wheel: Path) -> None:
    information = f"dreambooth3d-{__version__}.dist-info"
    beside = {f"{INSIDE}/{name}" for folder in BESIDE for name in files(folder)}
    found = {name for name in names(wheel) if PurePosixPath(name).parts[0] != information}
    assert found == files("dreambooth3d") | beside
    assert "dreambooth3d/py.typed" in found and f"{INSIDE}/models/toybox/unet/config.json" in found
    assert wheel.stat().st_size < 24 * MIB


def test_it_says_what_it_is(wheel: Path) -> None:
    information = f"dreambooth3d-{__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"{information}/METADATA")
        assert archive.read(f"{information}/top_level.txt").split() == [b"dreambooth3d"]
        points = archive.read(f"{information}/entry_points.txt").decode()
    metadata = Metadata.from_email(text, validate=True)
    assert (metadata.name, str(metadata.version), metadata.license_expression) == (
        "dreambooth3d", __version__, "Apache-2.0",
    )  # fmt: skip
    assert metadata.author and metadata.project_urls and metadata.keywords
    assert {"masks", "live", "web", "cuda", "gaussians"} <= {*(metadata.provides_extra or ())}
    assert "Typing :: Typed" in (metadata.classifiers or ())
    assert message_from_bytes(text)["Description-Content-Type"] == "text/markdown"
    assert "dreambooth3d = dreambooth3d.cli.main:main" in points
    assert "dreambooth3d = dreambooth3d.cli.zenml_hook:prepare" in points


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files, to be put before all others on the path."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def environment(*path: Path, **variables: str) -> dict[str, str]:
    """A shell's variables, of which none is ours."""
    ours = ("ZENML_", "MLFLOW_", "DREAMBOOTH3D_", "DVC_", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | ({"PYTHONPATH": os.pathsep.join(map(str, path))} if path else {}) | variables


def python(code: str, folder: Path, unpacked: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment(unpacked), capture_output=True, text=True)


def test_where_things_are(unpacked: Path, tmp_path: Path) -> None:
    """Others' `steps` keep their name until a process is ours; presets and models are the wheel's, state is here."""
    (tmp_path / "steps.py").write_text("OTHER = True")
    (tmp_path / "photos" / "below").mkdir(parents=True)
    for name in (".zen", ".zenconfig"):
        (tmp_path / "photos" / name).mkdir()
    code = (
        "import os, sys; from dreambooth3d import places; import steps; print(steps.OTHER)\n"
        "print(places.home()); os.chdir('photos/below'); print(places.home()); del sys.modules['steps']\n"
        "places.make_importable(); import importlib.util; print(importlib.util.find_spec('steps').origin)\n"
        "from operations.launch.presets import read_preset; print(read_preset('demo').path)\n"
        "from dreambooth3d.diffusion.model.base_model import local_folder; print(local_folder('models/toybox'))\n"
        "from operations.launch.identity import git_commit; print(git_commit())\n"
    )
    result = python(code, tmp_path, unpacked)
    assert result.returncode == 0, result.stderr
    other, home, below, steps, preset, model, commit = result.stdout.split()
    assert other == "True" and (home, below) == (str(tmp_path), str(tmp_path / "photos"))
    inside = unpacked / INSIDE
    assert steps == str(inside / "steps" / "__init__.py")
    assert (preset, model) == (str(inside / "configs" / "demo.yaml"), str(inside / "models" / "toybox"))
    assert commit == "unknown"


def test_commands_about_runs_make_no_state_where_there_is_none(unpacked: Path, tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['dreambooth3d', 'runs', 'list']; from dreambooth3d.cli.main import main; main()"
    result = python(code, tmp_path, unpacked)
    assert result.returncode == 1 and not [*tmp_path.iterdir()]
    assert result.stderr.startswith(f"Error: {tmp_path}: neither this folder nor one above it is set up.")
    assert len(result.stderr.splitlines()) == 1


def test_another_zenml_project_is_left_alone(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / ".zen").mkdir()
    code = "import sys; sys.argv = ['dreambooth3d', 'setup']; from dreambooth3d.cli.main import main; main()"
    result = python(code, tmp_path, unpacked)
    assert result.returncode == 1 and "is a ZenML project of its own" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".zen"]


@pytest.mark.slow
def test_the_commands_work_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """In an environment that has the product's packages, but neither the product nor its clone."""
    home, folder = tmp_path / "venv", tmp_path / "folder"
    venv.create(home, with_pip=False, symlinks=True)
    site = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "packages.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", "--force-reinstall", str(wheel)], check=True)
    folder.mkdir()
    tiny = {name: section for name, section in TINY.items() if name not in ("photos", "base_model", "scorers")}
    (folder / "tiny.yaml").write_text(yaml.safe_dump({"base": "demo", "parameters": tiny}))

    def run(*command: str) -> str:
        program, *arguments = command
        result = subprocess.run(
            [str(home / "bin" / program), *arguments],
            cwd=folder, env=environment(OMP_NUM_THREADS="1", HOME=str(tmp_path)), capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
        return result.stdout

    missing = "import importlib.util as u; print([n for n in ('operations', 'steps', 'tests') if u.find_spec(n)])"
    assert run("python", "-c", missing) == "[]\n"
    assert "WARN" in run("dreambooth3d", "doctor") and not (folder / ".zenconfig").exists()
    first = run("dreambooth3d", "train", "tiny.yaml")
    assert f"{folder} is set up" in first and "Asset       outputs/" in first
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {"tiny.yaml", "data", "outputs"}
    second = run("dreambooth3d", "train", "tiny.yaml")
    assert second.count("from the cache") > 5
    assert run("dreambooth3d", "runs", "list").count("corgi") == 2
    assert "teapot" in run("dreambooth3d", "setup")
    assert "teapot" in run("dreambooth3d", "photos", "check", "data/teapot")
    activated = f". {home}/bin/activate && zenml pipeline run pipelines.training.dreambooth3d --config tiny.yaml"
    (home / "bin" / "zenml").write_text(
        f"#!{home}/bin/python\nimport sys\nfrom zenml_cli import cli\nsys.exit(cli())\n"
    )
    (home / "bin" / "zenml").chmod(0o755)
    subprocess.run(["sh", "-c", activated], cwd=folder, env=environment(HOME=str(tmp_path)), check=True)
    assert run("dreambooth3d", "runs", "list").count("corgi") == 3
