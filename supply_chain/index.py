"""What the package index says of releases: their files with hashes, and which of them were yanked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import requests
from packaging.utils import InvalidWheelFilename, canonicalize_version, parse_wheel_filename
from pypi_simple import DistributionPackage, PyPISimple

from supply_chain.locks import Locked

PYTHONS = ("cp311", "cp312")
LINUX = ("x86_64", "aarch64")
_THREADS = 8


class IndexUnreachableError(Exception):
    """The package index does not answer."""


def releases(packages: Iterable[Locked]) -> Mapping[Locked, list[DistributionPackage]]:
    """The files of each locked release.

    Raises:
        IndexUnreachableError: the index does not answer.
        LookupError: the index does not have a release.
    """
    packages = list(packages)
    try:
        with PyPISimple() as client, ThreadPoolExecutor(_THREADS) as pool:
            found = dict(zip(packages, pool.map(partial(_files, client), packages), strict=True))
    except requests.RequestException as error:
        raise IndexUnreachableError(
            f"The package index cannot be reached ({type(error).__name__}): connect this machine to it, and try again."
        ) from error
    missing = [str(package) for package, files in found.items() if not files]
    if missing:
        raise LookupError(f"The package index does not have {', '.join(missing)}.")
    return found


def _files(client: PyPISimple, package: Locked) -> list[DistributionPackage]:
    wanted = canonicalize_version(package.version)
    page = client.get_project_page(package.key)
    return [file for file in page.packages if file.version and canonicalize_version(file.version) == wanted]


def yanked(files: Iterable[DistributionPackage]) -> str | None:
    """Why a release was yanked; None where it was not."""
    reasons = [file.yanked_reason or "no reason given" for file in files if file.is_yanked]
    return reasons[0] if reasons else None


def installable(files: Iterable[DistributionPackage]) -> list[DistributionPackage]:
    """Of a release's files those that may be installed: wheels for our Pythons on Linux and macOS.

    The source archive only where some of `PYTHONS` on some of `LINUX` has no wheel: building it runs code that no hash
    vouches for.
    """
    files = list(files)
    fitting = {file.filename: _targets(file.filename) for file in files if file.package_type == "wheel"}
    kept = [file for file in files if fitting.get(file.filename)]
    covered = set[tuple[str, str]]().union(*fitting.values())
    if {(python, machine) for python in PYTHONS for machine in LINUX} <= covered:
        return kept
    return kept + [file for file in files if file.package_type == "sdist"]


def _targets(filename: str) -> set[tuple[str, str]]:
    """The pairs of a Python and a machine (or `macos`) that a wheel fits."""
    try:
        tags = parse_wheel_filename(filename)[3]
    except InvalidWheelFilename:
        return set()
    targets = set[tuple[str, str]]()
    for tag in tags:
        if tag.platform == "any":
            machines = {*LINUX, "macos"}
        elif tag.platform.startswith("macosx"):
            machines = {"macos"}
        else:
            # musl is another C library, for which torch has no build.
            machines = {name for name in LINUX if tag.platform in (f"linux_{name}",) or _is_glibc(tag.platform, name)}
        targets |= {(python, machine) for python in PYTHONS for machine in machines if _fits(tag, python)}
    return targets


def _is_glibc(platform: str, machine: str) -> bool:
    return platform.startswith("manylinux") and platform.endswith(f"_{machine}")


def _fits(tag: object, python: str) -> bool:
    interpreter, abi = str(getattr(tag, "interpreter", "")), str(getattr(tag, "abi", ""))
    if interpreter.startswith("py"):
        return abi == "none" and interpreter.removeprefix("py") in ("3", python.removeprefix("cp"))
    if abi == "abi3":
        return int(interpreter.removeprefix("cp")) <= int(python.removeprefix("cp"))
    return interpreter == python and abi in (python, "none")
