"""Models on the Hugging Face hub: pinned to a commit, read from the hub's cache wherever that is enough."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from dreambooth3d.errors import BaseModelError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")


def snapshot(
    setting: str,
    hub_id: str,
    revision: str | None,
    choose: Callable[[Sequence[str]], list[str]],
    check: Callable[[Path], None],
) -> Path:
    """The folder of one commit of a hub model; its name is the commit.

    A commit whose files are cached is never asked for over the network. A branch is: the network tells its newest
    commit, and only without a network does the cached one count.

    Args:
        setting: the configuration's key that names the model, for errors.
        hub_id: `owner/name`.
        revision: commit, branch or tag; None is the main branch.
        choose: the files to fetch, of all that the commit has.
        check: raises BaseModelError where a folder is not complete.

    Raises:
        BaseModelError: neither cached nor reachable, or not complete.
    """
    cached = cached_snapshot(hub_id, revision)
    if cached is not None and _COMMIT.fullmatch(revision or "") and _passes(check, cached):
        return cached
    try:
        folder = _download(hub_id, revision, choose)
    except BaseModelError:
        raise
    except Exception as error:  # the hub's client raises many kinds: offline, unknown name, gated, timeout
        if cached is None or not _passes(check, cached):
            raise _unreachable(setting, hub_id, revision, cached, error) from error
        return cached
    check(folder)
    return folder


def cache_folder(hub_id: str) -> Path:
    """Where the hub's client keeps a model: `HF_HUB_CACHE`, or `HF_HOME` with `hub` behind it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}"


def cached_snapshot(hub_id: str, revision: str | None) -> Path | None:
    """The cached folder of a revision, complete or not, without the network; None where there is none."""
    cache, revision = cache_folder(hub_id), revision or "main"
    reference = cache / "refs" / revision
    commits = [reference.read_text().strip()] if reference.is_file() else [revision]
    if _SHORT_COMMIT.fullmatch(revision):
        commits += sorted(path.name for path in cache.glob(f"snapshots/{revision}*"))
    folders = [cache / "snapshots" / commit for commit in commits]
    return next((folder for folder in folders if folder.is_dir()), None)


def split_revision(path: str) -> tuple[str, str | None]:
    """Id and revision of `owner/name@revision`; the revision is None where none is given."""
    hub_id, _, revision = path.partition("@")
    return hub_id, revision or None


def _download(hub_id: str, revision: str | None, choose: Callable[[Sequence[str]], list[str]]) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    files = [entry.rfilename for entry in HfApi().model_info(hub_id, revision=revision).siblings or []]
    return Path(snapshot_download(hub_id, revision=revision, allow_patterns=choose(files)))


def _passes(check: Callable[[Path], None], folder: Path) -> bool:
    try:
        check(folder)
    except BaseModelError:
        return False
    return True


def _unreachable(
    setting: str, hub_id: str, revision: str | None, cached: Path | None, error: Exception
) -> BaseModelError:
    wanted = f"{hub_id} at revision {revision}" if revision else hub_id
    found = (
        f"its copy in {cached} is not complete" if cached else f"it is not in the hub's cache {cache_folder(hub_id)}"
    )
    return BaseModelError(
        f"{setting}: {wanted} is no local folder, {found}, and it could not be fetched from the Hugging Face hub "
        f"({type(error).__name__}). Check name and connection, or run `hf download {hub_id} --local-dir FOLDER` where "
        f"there is a network, bring FOLDER here, and set {setting} to it."
    )
