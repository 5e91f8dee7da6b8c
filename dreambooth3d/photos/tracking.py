"""What DVC has recorded for `data/`, read without importing DVC.

`data.dvc` names an object, a JSON list of `{"md5", "relpath"}`, that lies in DVC's cache and in the embedded remote.
DVC hashes a sub-directory as the MD5 of the same list restricted to it (a test compares both with DVC's own API).
Reading it by hand takes about a millisecond instead of half a second, needs neither a `.git` folder nor the `dvc`
package (GPU images lack it), and leaves DVC for the one case that needs it: fetching the object from a remote such
as S3.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from dreambooth3d.errors import ConfigError, DatasetError
from dreambooth3d.places import STATE, home, installed
from dreambooth3d.strict_yaml import read_yaml

DATA = "data"
POINTER = f"{DATA}.dvc"
OBJECT_STORES = (".dvc/cache", "data_store")

Entries = Mapping[str, str]
"""MD5 by path; the path is relative, with forward slashes."""


def repository_root(start: Path = Path(".")) -> Path:
    """The nearest folder at or above `start` with `data.dvc`, `.dvc`, `.git` or this product's state; else `start`.

    Of a wheel's installation, the folder that holds all state stands for the working directory.
    """
    if installed() and start == Path("."):
        return home()
    start = start.absolute()
    for folder in (start, *start.parents):
        if any((folder / name).exists() for name in (POINTER, ".dvc", ".git", STATE)):
            return folder
    return start


def recorded_entries(root: Path) -> Entries | None:
    """All files under `data/` as `data.dvc` records them, or None where there is no `data.dvc`.

    Raises:
        DatasetError: `data.dvc` cannot be read, or its list of files is neither here nor in the default remote.
    """
    if not (root / POINTER).is_file():
        return None
    oid = _recorded_oid(root)
    content = _local_object(root, oid) or _object_from_remote(root, oid)
    if content is None:
        raise DatasetError(
            f"{POINTER}: the list of files {oid} is not in DVC's cache or remote: run `dvc pull`. In a container or "
            "pod, the default remote must be one that it reaches, and its keys in the environment."
        )
    return {entry["relpath"]: entry["md5"] for entry in json.loads(content)}


def _recorded_oid(root: Path) -> str:
    """Name of the object that lists the files, such as `ced5....dir`."""
    try:
        outs = read_yaml(root / POINTER).plain()["outs"]
        return next(str(out["md5"]) for out in outs if out["path"] == DATA)
    except (ConfigError, KeyError, TypeError, StopIteration):
        raise DatasetError(
            f"{POINTER}: holds no MD5 of {DATA}/: restore it with `git checkout {POINTER}`, or run `dvc add {DATA}`."
        ) from None


def _local_object(root: Path, oid: str) -> bytes | None:
    """Content of an object from DVC's cache or the embedded remote; a damaged copy counts as absent."""
    for store in OBJECT_STORES:
        path = root / store / "files" / "md5" / oid[:2] / oid[2:]
        if path.is_file():
            content = path.read_bytes()
            if hashlib.md5(content, usedforsecurity=False).hexdigest() == oid.removesuffix(".dir"):
                return content
    return None


def _object_from_remote(root: Path, oid: str) -> bytes | None:
    """Content of an object from another cache or the default remote, through DVC; None where that fails."""
    try:
        from dvc.repo import Repo
    except ImportError:
        return None
    try:
        # no_scm: also in an unpacked code archive, which has no .git.
        with Repo(str(root), config={"core": {"no_scm": True}}) as repo:
            tree = repo.find_outs_by_path(str(root / DATA))[0].get_dir_cache()
    # Each kind of remote raises errors of its own (credentials, network, damage); the remedy is the same.
    except Exception:
        return None
    return None if tree is None or tree.hash_info.value != oid else tree.as_bytes()


def sub_entries(entries: Entries, folder: str) -> Entries:
    """The entries below `folder`, relative to it."""
    prefix = f"{folder}/"
    return {path.removeprefix(prefix): md5 for path, md5 in entries.items() if path.startswith(prefix)}


def by_folder(entries: Entries) -> dict[str, Entries]:
    """The entries below each folder at the top, relative to it, by its name: `sub_entries` of all of them."""
    found: dict[str, dict[str, str]] = {}
    for path, md5 in entries.items():
        folder, slash, name = path.partition("/")
        if slash:
            found.setdefault(folder, {})[name] = md5
    return dict(found)


def entries_digest(entries: Entries) -> str:
    """DVC's hash of a directory with these entries: 32 hex digits and `.dir`."""
    listing = sorted(
        ({"md5": md5, "relpath": path} for path, md5 in entries.items()), key=lambda entry: entry["relpath"]
    )
    content = json.dumps(listing, sort_keys=True).encode()
    return hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"


def present_entries(folder: Path, root: Path) -> Entries:
    """MD5 of every file below `folder` by relative path, without those that `.dvcignore` names."""
    ignored = _ignored_names(root)
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in files
        if not any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored)
    }


def _ignored_names(root: Path) -> list[str]:
    """File name patterns of `.dvcignore`; ours holds plain names only."""
    path = root / ".dvcignore"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
