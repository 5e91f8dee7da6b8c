"""The lock files as they stand, without any network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {
    "requirements.lock": "the product, with its tests and linters",
    "requirements-cuda.lock": "the product, with a build of torch for NVIDIA GPUs",
    "docker/requirements-remote.txt": "the image of the steps",
    "docker/requirements-mlflow.txt": "the image of MLflow's server",
    "tests/emulators/requirements.txt": "tests on emulated clusters",
    "examples/requirements.txt": "the notebook",
    "tests/extras/requirements.txt": "tests of the live view and the web page",
    "supply_chain/requirements.txt": "audit, SBOM and lock files",
    "website/requirements.txt": "the documentation site",
}
"""Every lock file, and for what its packages are installed."""
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Locked:
    """One package of a lock file.

    Attributes:
        lock: the file, relative to the checkout.
        name: as the file has it.
        version: the exact one.
        marker: where it is installed; None for everywhere.
        hashes: SHA-256 of each of its files that may be installed, in hex digits.
    """

    lock: str
    name: str
    version: str
    marker: Marker | None
    hashes: tuple[str, ...]

    @property
    def key(self) -> str:
        """The name as indexes compare it."""
        return canonicalize_name(self.name)

    def __str__(self) -> str:
        """The requirement, without its hashes."""
        return f"{self.name}=={self.version}" + (f"; {self.marker}" if self.marker else "")


def locked(lock: str, root: Path = ROOT) -> Iterator[Locked]:
    """The packages of a lock file, in its order.

    Raises:
        ValueError: a line is no requirement of one exact version.
    """
    text = root.joinpath(lock).read_text().replace("\\\n", " ")
    for line in (line.partition("#")[0].strip() for line in text.splitlines()):
        if not line:
            continue
        requirement = Requirement(line.partition(" --hash=")[0].strip())
        specifiers = list(requirement.specifier)
        if [specifier.operator for specifier in specifiers] != ["=="] or "*" in specifiers[0].version:
            raise ValueError(f"{lock}: {requirement} is not one exact version")
        yield Locked(lock, requirement.name, specifiers[0].version, requirement.marker, tuple(_HASH.findall(line)))


def all_locked(root: Path = ROOT) -> list[Locked]:
    """The packages of every lock file."""
    return [package for lock in LOCKS for package in locked(lock, root)]
