"""Photo sets from a DVC repository elsewhere: found and fetched at run time, each file checked against its hash.

What is fetched becomes a small repository of its own, a folder with `data.dvc`, the list of files and `data/<subject>`,
so that all that reads tracked photos reads these as well.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dreambooth3d.config.photos import DatasetConfig
from dreambooth3d.errors import DatasetError, gist
from dreambooth3d.photos.tracking import (
    DATA,
    POINTER,
    Entries,
    by_folder,
    entries_digest,
    recorded_entries,
    sub_entries,
)
from dreambooth3d.runtime import work_root

if TYPE_CHECKING:
    from dvc.repo import Repo


@dataclass(frozen=True)
class RemoteDataset:
    """A version of a DVC-tracked folder.

    Attributes:
        root: local folder with `data.dvc` and, once fetched, `data/<subject>`.
        config: where it comes from, `rev` as the exact commit where the repository has commits.
        entries: MD5 by path below the tracked folder.
    """

    root: Path
    config: DatasetConfig
    entries: Entries

    @property
    def subjects(self) -> tuple[str, ...]:
        """The names of the photo sets, sorted."""
        return subject_names(self.entries)

    @cached_property
    def _by_subject(self) -> dict[str, Entries]:
        return by_folder(self.entries)

    def digest(self, subject: str) -> str:
        """DVC's hash of one subject.

        Raises:
            DatasetError: there is no such subject.
        """
        own = self._by_subject.get(subject)
        if not own:
            raise DatasetError(
                f"{shown(self.config)}: there is no subject {subject!r}. Choose among {', '.join(self.subjects)}."
            )
        return entries_digest(own)


def subject_names(entries: Entries) -> tuple[str, ...]:
    """The folders that entries lie in, sorted."""
    return tuple(sorted({path.split("/")[0] for path in entries if "/" in path}))


def shown(config: DatasetConfig) -> str:
    """A dataset's place as messages name it."""
    return f"{config.url or '.'}{'@' + config.rev if config.rev else ''} ({config.path})"


def open_dataset(config: DatasetConfig) -> RemoteDataset:
    """Find the current version of a dataset, and fetch its list of files.

    Args:
        config: a Git or DVC repository; `url` None is the current directory.

    Raises:
        DatasetError: no such repository, revision or tracked folder, or its remote is not reachable.
    """
    with _opened(config) as repo:
        tree = _tree(repo, config)
        # Files as they are in a folder have no commit; all else is pinned, so that what is decided on is trained on.
        folder = config.rev is None and Path(config.url or ".").joinpath(".dvc").is_dir()
        exact = config.model_copy(update={"rev": None if folder else str(repo.get_rev())})
        return _store(exact, tree.as_bytes(), tree.hash_info.value)


def fetch_subject(config: DatasetConfig, subject: str) -> Path:
    """The root of a local repository that holds one subject of a dataset; nothing is fetched twice.

    Raises:
        DatasetError: see `open_dataset`; also no such subject, or a file that differs from its recorded hash.
    """
    with _opened(config) as repo:
        tree = _tree(repo, config)
        dataset = _store(config, tree.as_bytes(), tree.hash_info.value)
        dataset.digest(subject)
        for path, md5 in sorted(sub_entries(dataset.entries, subject).items()):
            _fetch_file(repo, dataset, f"{subject}/{path}", md5)
    return dataset.root


def _fetch_file(repo: Repo, dataset: RemoteDataset, path: str, md5: str) -> None:
    target = dataset.root / DATA / path
    if target.is_file() and _md5(target.read_bytes()) == md5:
        return
    try:
        with repo.dvcfs.open(f"/{dataset.config.path}/{path}", "rb") as file:
            content = file.read()
    # Each kind of remote raises errors of its own (credentials, network, absence); the remedy is the same.
    except Exception as error:
        raise DatasetError(
            f"{shown(dataset.config)}: {path} could not be fetched ({gist(error)}). Check the DVC remote, or push to "
            "it with `dvc push`."
        ) from None
    if _md5(content) != md5:
        raise DatasetError(
            f"{shown(dataset.config)}: {path} in the DVC remote differs from its recorded hash. Restore it there with "
            "`dvc push`."
        )
    _write(target, content)


def forget_unused(older_than: timedelta, dry_run: bool = False) -> list[Path]:
    """Delete the local copies of dataset versions that no run has opened for some time.

    Returns:
        Their folders.
    """
    oldest = time.time() - older_than / timedelta(seconds=1)
    unused = [path.parent for path in sorted(_copies().glob(f"*/{POINTER}")) if path.stat().st_mtime < oldest]
    for folder in unused:
        if not dry_run:
            shutil.rmtree(folder)
    return unused


def _copies() -> Path:
    return work_root().absolute().parent / "datasets"


def _store(config: DatasetConfig, listing: bytes, oid: str) -> RemoteDataset:
    """Write the pointer and the list of files of a small repository."""
    key = hashlib.sha256(f"{config.url}\n{config.path}\n{oid}".encode()).hexdigest()[:16]
    root = _copies() / key
    _write(root / ".dvc" / "cache" / "files" / "md5" / oid[:2] / oid[2:], listing)
    _write(root / POINTER, yaml.safe_dump({"outs": [{"md5": oid, "hash": "md5", "path": DATA}]}).encode())
    (root / POINTER).touch()  # when it was last in use
    entries = recorded_entries(root)
    assert entries is not None
    return RemoteDataset(root, config, entries)


def _write(path: Path, content: bytes) -> None:
    """Write a file at once; others may write the same one at the same time."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@contextmanager
def _opened(config: DatasetConfig) -> Iterator[Repo]:
    """The DVC repository at its revision; an unpacked archive without `.git` will do where no revision is asked for."""
    try:
        from dvc.repo import Repo
    except ImportError:
        raise DatasetError(f"{shown(config)}: the package dvc is needed to fetch photos. Install it.") from None
    url, options = config.url or ".", {}
    if Path(url).is_dir():
        url = str(Path(url).resolve())
        if not (Path(url) / ".git").exists() and (Path(url) / ".dvc").exists():
            if config.rev:
                raise DatasetError(
                    f"{shown(config)}: has no .git, so that there is no revision. Leave dataset.rev out, or give the "
                    "URL of the Git repository."
                )
            options["config"] = {"core": {"no_scm": True}}
    logging.getLogger("dvc").setLevel(logging.ERROR)
    _remove_clones_at_exit()
    try:
        repo = Repo.open(url, rev=config.rev, **options)
    # DVC, scmrepo and Git each raise errors of their own.
    except Exception as error:
        raise DatasetError(
            f"{shown(config)}: cannot be opened ({gist(error)}). Check dataset.url and dataset.rev, and that a DVC "
            "repository is there."
        ) from None
    with repo:
        yield repo


@cache
def _remove_clones_at_exit() -> None:
    """DVC keeps clones of Git repositories in temporary folders while a process lives, and then forgets them."""
    from dvc.repo.open_repo import clean_repos

    atexit.register(clean_repos)


def _tree(repo: Repo, config: DatasetConfig) -> Any:
    """DVC's list of the tracked folder's files, fetched if need be."""
    try:
        place = repo.fs.join(repo.root_dir, *config.path.split("/"))
        tree = repo.find_outs_by_path(place)[0].get_dir_cache()
        if tree is None:  # DVC has only logged why
            raise FileNotFoundError("DVC cannot fetch it")
        json.loads(tree.as_bytes())
    except Exception as error:
        raise DatasetError(
            f"{shown(config)}: the list of photos could not be read ({gist(error)}). Check dataset.path, the DVC "
            "remote (`dvc push` there), and that its keys are in this process' environment."
        ) from None
    return tree
