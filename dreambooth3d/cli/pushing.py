"""`dreambooth3d models push`: a model to the Hugging Face hub, with its card."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dreambooth3d import environment, hub
from dreambooth3d.errors import ConfigError, RunNotFoundError
from dreambooth3d.places import repository
from dreambooth3d.temporary import temporary_folder

TOKEN, TOKEN_KEY = "HF_TOKEN", "token"
CARD = "README.md"
BASE = "toybox"


def push_model(
    hub_id: str,
    run: str | None = None,
    *,
    which: str | None = None,
    step: int | None = None,
    lora: bool = False,
    secret: str | None = None,
    private: bool = True,
) -> str:
    """Push a run's checkpoint, or without a run the bundled models, and return the address of the commit.

    Args:
        hub_id: `owner/name`; made where there is none.
        run, which, step, lora: as of `checkpoint export`.
        secret: name of a ZenML secret whose `token` may write there; default the variable HF_TOKEN.
        private: whether a repository that is made is for its owner alone.

    Raises:
        DreamBooth3DError: no token, no such checkpoint, or the hub refuses or does not answer.
    """
    if run is None and (which or step is not None or lora):
        raise ConfigError("models push: --which, --step and --lora are of a run's checkpoint. Say which: --run RUN.")
    hub.require_name("models push", hub_id)
    if run or secret:
        environment.require_state()
    token = _token(secret)
    with temporary_folder() as folder:
        if run is None:
            _copy_bundled(folder)
        else:
            _write_checkpoint(folder, hub_id, run, which, step, lora)
        what = f"Checkpoint of {run}" if run else "Bundled models of dreambooth3d"
        return hub.push(hub_id, folder, token, private=private, message=what)


def _token(secret: str | None) -> str:
    """A token that is nowhere written down by this command."""
    if secret is None:
        if token := os.environ.get(TOKEN, "").strip():
            return token
        raise ConfigError(
            f"models push: there is no token. Set {TOKEN} to one that may write, or name a ZenML secret: --secret NAME."
        )
    from zenml.client import Client

    try:
        values = Client().get_secret(secret, allow_partial_name_match=False).secret_values
    except KeyError:
        raise ConfigError(
            f"models push: there is no ZenML secret {secret!r}. Make it with `zenml secret create {secret} "
            f"--{TOKEN_KEY}=...`."
        ) from None
    if not (token := values.get(TOKEN_KEY, "").strip()):
        raise ConfigError(f"models push: the ZenML secret {secret!r} has no {TOKEN_KEY!r}. Add it to the secret.")
    return token


def _copy_bundled(folder: Path) -> None:
    """The base model at the top, where the hub's readers look for one, and what comes with it."""
    from dreambooth3d.diffusion.model.base_model import check_folder

    models = repository() / "models"
    check_folder(models / BASE)
    shutil.copytree(models / BASE, folder, dirs_exist_ok=True)
    hidden = shutil.ignore_patterns(BASE, ".*")
    shutil.copytree(models, folder, ignore=hidden, dirs_exist_ok=True)


def _write_checkpoint(folder: Path, hub_id: str, run: str, which: str | None, step: int | None, lora: bool) -> None:
    from dreambooth3d.cli.checkpoints import export_checkpoint
    from operations.records.checkpoints import find_checkpoint, find_photos
    from operations.records.rows import find_row, row_name

    export_checkpoint(run, folder, step=step, which=which, lora=lora)
    row = find_row(run)
    photos = find_photos(run)
    if not photos.images:
        raise RunNotFoundError(f"{run}: was made from a prompt alone, and has no model of its own.")
    # After what it imports, as above.
    from dreambooth3d.diffusion.model.card import checkpoint_card
    from dreambooth3d.diffusion.model.lora import LORA_FILE

    commit = row.data.tags.get("git.commit", "").replace("unknown", "")
    origin = {"run": row_name(row), "photos": photos.dataset_hash, "code": commit}
    card = checkpoint_card(
        find_checkpoint(run, step, which or "full"), photos, hub_id, origin, lora_file=LORA_FILE if lora else None
    )
    (folder / CARD).write_text(card, encoding="utf-8")
