"""What is installed, and from where: lock files, licences, images, and no code that unpickles."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from supply_chain import licences
from supply_chain.audit import accepted_ids
from supply_chain.hashes import with_hashes
from supply_chain.locks import LOCKS, ROOT, Locked, all_locked, locked
from supply_chain.vulnerabilities import read_records, vulnerable

PACKAGES = ("dreambooth3d", "materializers", "operations", "pipelines", "steps")
ANYWHERE = [
    {"sys_platform": system, "platform_system": name, "platform_machine": machine, "python_version": python,
     "python_full_version": f"{python}.9", "implementation_name": "cpython",
     "platform_python_implementation": "CPython"}
    for system, name, machine in (
        ("linux", "Linux", "x86_64"), ("linux", "Linux", "aarch64"), ("darwin", "Darwin", "arm64"),
    )
    for python in ("3.11", "3.12")
]  # fmt: skip


def pinned(lock: str, machine: dict[str, str]) -> dict[str, str]:
    """Name -> version of what a lock file installs on a machine."""
    return {pin.key: pin.version for pin in locked(lock) if pin.marker is None or pin.marker.evaluate(machine)}


def missing(requirements: list[str], versions: dict[str, str], machine: dict[str, str], extra: str = "") -> list[str]:
    """Those of a distribution's requirements that the pinned versions do not meet."""
    wanted = [Requirement(text) for text in requirements]
    return [
        str(each)
        for each in wanted
        if each.marker is None or each.marker.evaluate(machine | {"extra": extra})
        if not each.specifier.contains(versions.get(canonicalize_name(each.name), "0.dev0"), prereleases=True)
    ]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes(lock: str) -> None:
    packages = list(locked(lock))
    assert packages and [str(package) for package in packages if not package.hashes] == []
    assert len({(package.key, str(package.marker)) for package in packages}) == len(packages)
    assert "://" not in (ROOT / lock).read_text()


def test_all_lock_files_are_known() -> None:
    found = {*ROOT.glob("*.lock"), *ROOT.glob("*/requirements*.txt"), *ROOT.glob("tests/*/requirements*.txt")}
    assert {path.relative_to(ROOT).as_posix() for path in found} == set(LOCKS)


@pytest.mark.parametrize("machine", ANYWHERE, ids=lambda machine: "-".join([*machine.values()][1:4]))
def test_the_lock_meets_pyproject_and_every_package_in_it(machine: dict[str, str]) -> None:
    """Nothing resolves what is installed by the lock file: it must be whole by itself."""
    versions = pinned("requirements.lock", machine)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert missing(project["dependencies"], versions, machine) == []
    everything = pinned("requirements-cuda.lock", machine) | versions
    found = {}
    for name in versions:
        try:
            found[name] = missing(requires(name) or [], everything, machine)
        except PackageNotFoundError:  # of other machines
            continue
    assert {name: lacking for name, lacking in found.items() if lacking} == {} and len(found) > 200


def test_packages_of_the_images_are_those_of_the_lock() -> None:
    """The server and its clients speak the same version, and an image differs in nothing from what was tested."""
    product = {package.key: package.version for package in locked("requirements.lock")}
    remote = {package.key: package.version for package in locked("docker/requirements-remote.txt")}
    server = {package.key: package.version for package in locked("docker/requirements-mlflow.txt")}
    assert {"mlflow", "boto3", "psycopg2-binary", "gunicorn"} <= server.keys()
    both = product | remote
    assert {name: version for name, version in server.items() if both.get(name, version) != version} == {}
    assert product.keys().isdisjoint(remote)


def test_hashes_are_written_behind_the_versions_and_anew() -> None:
    text = "# why\none==1.0 \\\n    --hash=sha256:old\n\ntwo==2.0; sys_platform == 'linux'\n"
    once = with_hashes(text, [["b", "a"], ["c"]])
    assert once == (
        "# why\none==1.0 \\\n    --hash=sha256:a \\\n    --hash=sha256:b\n\n"
        "two==2.0; sys_platform == 'linux' \\\n    --hash=sha256:c\n"
    )
    assert with_hashes(once, [["b", "a"], ["c"]]) == once


def record(identifier: str = "PYSEC-1", **affected: object) -> dict[str, object]:
    """One of OSV's records."""
    entry = {"package": {"ecosystem": "PyPI", "name": "Some_Package"}} | affected
    return {"id": identifier, "summary": "bad", "affected": [entry]}


@pytest.mark.parametrize(
    ("version", "found"),
    [("0.9", False), ("1.0", True), ("1.5.post1", True), ("1.9", False), ("2.0", True), ("2.1", False), ("2.5", True)],
)
def test_a_vulnerable_version_is_found(version: str, found: bool) -> None:
    """Introduced in 1.0, fixed in 1.9; 2.0 the last affected of a second range; 2.5 by name."""
    events = [
        [{"introduced": "1.0"}, {"fixed": "1.9"}, {"introduced": "2.0a1"}, {"last_affected": "2.0"}],
        [{"introduced": "7"}],
    ]
    ranges = [{"type": "ECOSYSTEM", "events": each} for each in events]
    entry = record(ranges=[*ranges, {"type": "GIT", "events": [{"introduced": "0"}]}], versions=["2.5", "no-version"])
    package = Locked("x.lock", "some.package", version, None, ())
    other = Locked("x.lock", "some-other", version, None, ())
    assert [hit for hit, _ in vulnerable([package, other], [entry])] == ([package] if found else [])
    assert vulnerable([package], [entry | {"withdrawn": "2026-01-01T00:00:00Z"}]) == []


def test_a_planted_vulnerability_is_found_in_each_form(tmp_path: Path) -> None:
    """As a file, a folder, and the archive that OSV publishes."""
    (torch,) = [package for package in locked("requirements.lock") if package.name == "torch"]
    entry = record(ranges=[{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}])
    entry["affected"][0]["package"]["name"] = "Torch"  # pyright: ignore
    file = tmp_path / "folder" / "PYSEC-1.json"
    file.parent.mkdir()
    file.write_text(json.dumps(entry))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(file, "PYSEC-1.json")
    for path in (file, file.parent, tmp_path / "all.zip"):
        assert vulnerable(all_locked(), read_records(path)) == [(torch, entry)]


AUDIT = ROOT / ".venv-audit" / "bin"
_FIND = """
import sys
from pathlib import Path
from supply_chain.audit import secrets

print(*secrets(Path(sys.argv[1])))
"""


@pytest.mark.skipif(not AUDIT.joinpath("detect-secrets-hook").is_file(), reason="`make audit` installs what looks")
@pytest.mark.parametrize(
    "parts, kind",
    [
        (("AKIA", "Z7QK3XN5", "W2R8LT4M"), "AWS Access Key"),
        (("ghp_", "k3Vq9ZtX2mLw8RbY", "5nHs7JdC4pQf6GaUe1To"), "GitHub Token"),
        (("-----BEGIN RSA ", "PRIVATE KEY", "-----"), "Private Key"),
        ((), ""),
    ],
)
def test_a_planted_secret_is_found(parts: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    """In a tracked file, and said without the secret itself; put together here, or this file would be found as well."""
    secret = "".join(parts)
    (tmp_path / "settings.py").write_text(f'key = "{secret}"\n')
    shutil.copy(ROOT / ".secrets.baseline", tmp_path)
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    command = [AUDIT / "python", "-c", _FIND, tmp_path]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (kind in found and "settings.py:1" in found and secret not in found) if kind else not found.strip()


@pytest.mark.parametrize("content", ["{", "[1]", '{"affected": []}'])
def test_what_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"is no record of OSV"):
        list(read_records(tmp_path))


def test_nothing_to_look_in_does_not_pass(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json", tmp_path / "none.zip"):
        with pytest.raises(ValueError, match=re.escape(str(path))):
            list(read_records(path))


def test_nothing_is_accepted_without_a_reason(tmp_path: Path) -> None:
    (tmp_path / "accepted.txt").write_text("# why\nCVE-1 is of a server that we never start\n")
    assert accepted_ids(tmp_path / "accepted.txt") == {"CVE-1"}
    (tmp_path / "accepted.txt").write_text("CVE-1\n")
    with pytest.raises(ValueError, match="without a reason"):
        accepted_ids(tmp_path / "accepted.txt")
    accepted_ids()


def test_every_locked_package_is_on_the_page_of_licences() -> None:
    rows = licences.read_page((ROOT / licences.PAGE).read_text())
    wanted = {(package.key, package.version) for package in all_locked()}
    assert {(row.name, row.version) for row in rows} == wanted, "after new packages: make licences"
    assert licences.problems(rows) == []
    assert [row.name for row in rows if "GPL" in row.licence and not row.reason] == ["dulwich"]  # which has a choice


def test_the_page_of_licences_says_what_the_installed_packages_say() -> None:
    """A package that changes its licence with a version does not keep the row of before."""
    installed = {(canonicalize_name(found.name), found.version.partition("+")[0]): found for found in distributions()}
    rows = licences.read_page((ROOT / licences.PAGE).read_text())
    seen = {row: installed[row.name, row.version].metadata for row in rows if (row.name, row.version) in installed}
    said = {row.name: (row.licence, licences.licence_of(row.name, metadata)) for row, metadata in seen.items()}
    assert {name: both for name, both in said.items() if both[0] != both[1]} == {} and len(said) > 200


def test_what_is_stated_of_a_licence_is_what_metadata_leave_open() -> None:
    """A statement would hide the day on which the package says it itself, and otherwise.

    Packages for CUDA are stated for the many environments that do not have them.
    """
    for_cuda = re.findall(r"^([\w.-]+)==", (ROOT / "requirements-cuda.lock").read_text(), re.MULTILINE)
    stated = licences._settings()["stated"].keys() - {*map(canonicalize_name, for_cuda)}
    telling = [found.name for found in distributions() if found.metadata.get("License-Expression")]
    assert stated & {*map(canonicalize_name, telling)} == set()


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True), ("GPL-3.0-only", False), ("Apache-2.0 OR GPL-2.0-or-later", True),
        ("MIT AND GPL-2.0-only", False),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True), ("MIT AND (GPL-2.0-only OR AGPL-3.0-only)", False),
        ("GPL-2.0-only WITH GCC-exception-2.0", False), ("Apache-2.0 WITH LLVM-exception AND MIT", True),
    ],
)  # fmt: skip
def test_licences_that_need_no_reason(expression: str, allowed: bool) -> None:
    assert licences.is_allowed(expression) == allowed
    row = licences.Licence("x", "1", expression, "")
    assert bool(licences.problems([row])) != allowed


def test_ffmpegs_build_is_the_one_that_the_page_names() -> None:
    """Its own banner says under which licence it was built."""
    import subprocess

    import imageio_ffmpeg

    banner = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-version"], capture_output=True, text=True).stdout
    if "--enable-gpl" not in banner:
        pytest.skip("another ffmpeg is set")
    version = re.search(r"^ffmpeg version n?(\d+(\.\d+)+)", banner)
    text = (ROOT / licences.PAGE).read_text()
    assert version and f"ffmpeg {version[1]}," in text and "GPL-3.0-or-later" in text and "--enable-version3" in banner


def calls_and_imports(path: Path) -> Iterator[str]:
    """Dotted names of all that a file imports or takes from a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


UNPICKLES = re.compile(r"torch\.(load|jit\.load)|(_?c?[pP]ickle|dill|joblib|shelve|marshal)(\..*)?")


def test_nothing_unpickles() -> None:
    """Weights are safetensors, all else JSON, YAML, PNG and the like: no file can carry code."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {path.name: name for path in files for name in calls_and_imports(path) if UNPICKLES.fullmatch(name)}
    # What a process of a team gets from the one that has started it.
    assert len(files) > 200 and found == {"parallel.py": "pickle.loads"}


def test_what_unpickles_would_be_seen(tmp_path: Path) -> None:
    lines = ("import pickle", "from torch import load", "def f(x):\n    import torch as t, torch\n    torch.load(x)")
    for line in lines:
        (tmp_path / "x.py").write_text(line)
        assert any(UNPICKLES.fullmatch(name) for name in calls_and_imports(tmp_path / "x.py")), line
