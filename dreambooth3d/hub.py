"""Models on the Hugging Face hub: pinned to a commit, read from the hub's cache wherever that is enough; and pushed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from dreambooth3d.errors import BaseModelError, HubError, gist

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
        f"({type(error).__name__}). {_remedy(setting, hub_id, revision, error)}"
    )


def _remedy(setting: str, hub_id: str, revision: str | None, error: Exception) -> str:
    """What to do about a model that could not be fetched."""
    from huggingface_hub import errors

    # Of a gated model's kinds of error, that of a repository that is not there is one.
    if isinstance(error, errors.GatedRepoError):
        return f"Its owner grants access: ask for it on the hub's page of {hub_id}, and set HF_TOKEN to your token."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"Check name and spelling; for a private model set HF_TOKEN, or set {setting} to a folder."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"It has no revision {revision}: choose a commit, branch or tag that the hub's page of {hub_id} lists."
    return (
        f"Check the connection and try again, which goes on with what has arrived, or run `hf download {hub_id} "
        f"--local-dir FOLDER` where there is a network, bring FOLDER here, and set {setting} to it."
    )


def require_name(command: str, hub_id: str) -> None:
    """Check that a text can be the name of a model on the hub.

    Raises:
        HubError: it cannot.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(hub_id)
        if hub_id.count("/") == 1:
            return
    except HFValidationError:
        pass
    raise HubError(f"{command}: {hub_id} is no name of a model. Write owner/name in letters, digits, '-', '_' and '.'.")


def push(hub_id: str, folder: Path, token: str, *, private: bool, message: str) -> str:
    """Push a folder's files as one commit of a model, which is made where there is none.

    Args:
        hub_id: `owner/name`.
        folder: all its files but hidden ones.
        token: may write there; it is sent, and kept nowhere.
        private: whether a model that is made is for its owner alone.
        message: of the commit.

    Returns:
        The commit's address.

    Raises:
        HubError: the hub refuses, or does not answer.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    adding = [CommitOperationAdd(path.relative_to(folder).as_posix(), str(path)) for path in files]
    api = HfApi(token=token)
    try:
        api.create_repo(hub_id, private=private, exist_ok=True)
        return api.create_commit(hub_id, adding, commit_message=message).commit_url
    except Exception as error:  # the hub's client raises many kinds
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            reason, remedy = "the token may not write there", "Give a token with the right to write to it"
        elif status is not None:
            reason, remedy = f"the hub refused it with {status}: {gist(error)}", "Try again later, or another name"
        else:
            reason, remedy = f"{type(error).__name__}: {gist(error)}", "Check the connection, and try again"
        raise HubError(f"{hub_id}: could not be pushed ({reason}). {remedy}.") from error
