"""Debian packages with models and pictures, fetched by apt and unpacked without being installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from dreambooth3d.errors import DatasetError
from dreambooth3d.toybox.pretraining.meshes import backgrounds, cutouts, sources

VERSION_FILE = "VERSION"


def packages() -> list[str]:
    """All packages that are used, once each."""
    return list(dict.fromkeys(source.package for source in (*sources.SOURCES, *backgrounds.SOURCES, cutouts.SOURCE)))


def fetch(folder: Path, on_package: Callable[[str], None] = lambda package: None) -> None:
    """Download and unpack every package that is not in `folder` yet, each into a folder of its name.

    Args:
        folder: where they go, 12 GiB in all.
        on_package: told each package before it is fetched.

    Raises:
        DatasetError: this is no Debian, or apt does not find a package.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise DatasetError(
                f"{tool} is not here. Fetch the packages on a Debian or Ubuntu machine, or in its image."
            )
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages():
        if not (folder / package).is_dir():
            on_package(package)
            _fetch_package(package, folder)


def _fetch_package(package: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        _run(["apt-get", "download", package], work, package)
        archive = next(work.glob("*.deb"))
        root = work / "unpacked"
        _run(["dpkg-deb", "-x", str(archive), str(root)], work, package)
        unpack_archives(package, root)
        (root / VERSION_FILE).write_text(archive.name.split("_")[1].replace("%3a", ":") + "\n")
        root.rename(folder / package)


def _run(command: list[str], folder: Path, package: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        told = next((line for line in done.stderr.splitlines() if line.startswith("E:")), done.stderr.strip()[-200:])
        raise DatasetError(f"{package}: {' '.join(command[:2])} failed: {told}. Run `apt-get update` and try again.")


def unpack_archives(package: str, root: Path) -> None:
    """Unpack the ZIP archives that hold what is used of a package, each into a folder NAME.d beside it."""
    for source in (*sources.SOURCES, *backgrounds.SOURCES):
        if source.package == package and source.archives:
            for path in sorted(root.rglob(source.archives)):
                with zipfile.ZipFile(path) as archive:
                    wanted = [name for name in archive.namelist() if _is_wanted(name, source.members)]
                    archive.extractall(path.with_name(f"{path.name}.d"), wanted)


def _is_wanted(name: str, members: tuple[str, ...]) -> bool:
    return not members or any(fnmatch(name, pattern) for pattern in members)
