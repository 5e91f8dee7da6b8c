"""Finding and checking a base model in Stable Diffusion's layout, before anything is computed with it."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import CLIPTokenizer

from dreambooth3d.artifacts import BaseModelRef
from dreambooth3d.config import BaseModelConfig
from dreambooth3d.errors import BaseModelError
from dreambooth3d.weights import sha256_file

REPOSITORY = Path(__file__).resolve().parents[2]
NETWORKS = ("text_encoder", "unet", "vae")
_CONFIGS = ("model_index.json", "scheduler/scheduler_config.json", *(f"{name}/config.json" for name in NETWORKS))
_WHAT_TO_DO = "Set base_model.path to a complete folder in Stable Diffusion's layout"
_RESTORE = "Restore the folder (for a bundled model: `git checkout` it), or set base_model.path to a complete one."


def local_folder(path: str) -> Path | None:
    """The folder that a base model's path means, seen from the working directory or the repository; None for a hub id.

    Raises:
        BaseModelError: the path can only be a folder, and there is none.
    """
    given = Path(path).expanduser()
    for folder in (given, REPOSITORY / given):
        if folder.is_dir():
            return folder
    looks_local = given.is_absolute() or path.startswith(".") or path.count("/") != 1
    if looks_local or given.parent.is_dir() or (REPOSITORY / given.parent).is_dir():
        raise BaseModelError(
            f"base_model.path: {path} is not a folder. {_WHAT_TO_DO}, or to a hub id such as owner/name."
        )
    return None


def resolve(config: BaseModelConfig) -> BaseModelRef:
    """Find and check the base model, and pin it: a folder by its digest, a hub model by its commit.

    Raises:
        BaseModelError: missing, incomplete, damaged, without safetensors, or not reachable.
    """
    folder = local_folder(config.path)
    if folder is None:
        snapshot = fetch_from_hub(BaseModelRef(config.path, "", config.revision, config.variant))
        check_folder(snapshot, config.variant)
        return BaseModelRef(config.path, "", snapshot.name, config.variant)
    check_folder(folder, config.variant)
    return BaseModelRef(_portable(folder), folder_digest(folder), None, config.variant)


def model_folder(base: BaseModelRef) -> Path:
    """The local folder with the base model's files; a hub model is taken from the hub's cache or fetched."""
    return local_folder(base.path) or fetch_from_hub(base)


def _portable(folder: Path) -> str:
    """The folder relative to the repository where it lies inside, else absolute."""
    folder = folder.resolve()
    return str(folder.relative_to(REPOSITORY)) if folder.is_relative_to(REPOSITORY) else str(folder)


def fetch_from_hub(base: BaseModelRef) -> Path:
    """The hub's snapshot folder of a model: its configs and safetensors only, from the local cache where possible.

    Raises:
        BaseModelError: neither cached nor reachable.
    """
    from huggingface_hub import snapshot_download

    weights = f"*/*.{base.variant}.safetensors" if base.variant else "*/*.safetensors"
    ignored = ["safety_checker/*"] + ([] if base.variant else ["*/*.fp16.safetensors", "*/*.non_ema.safetensors"])
    try:
        return Path(
            snapshot_download(
                base.path,
                revision=base.revision,
                allow_patterns=["*.json", "*/*.json", "*/*.txt", weights],
                ignore_patterns=ignored,
            )
        )
    except Exception as error:  # the hub's client raises many kinds: offline, unknown name, gated, timeout
        raise BaseModelError(
            f"base_model.path: {base.path} is no local folder and could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}). Check name and connection, or download the model elsewhere and set "
            "base_model.path to its folder."
        ) from error


def check_folder(folder: Path, variant: str | None = None) -> None:
    """Check that a model folder is complete and readable, without loading weights.

    Raises:
        BaseModelError: names the first file that is missing or damaged.
    """
    for name in _CONFIGS:
        _check_json(folder / name)
    if not any((folder / "tokenizer" / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise BaseModelError(f"{folder}/tokenizer: neither tokenizer.json nor vocab.json is there. {_RESTORE}")
    for file in sorted((folder / "tokenizer").glob("*.json")):
        _check_json(file)
    for network in NETWORKS:
        for file in weight_files(folder / network, variant):
            _check_weights(file)


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors of one network.

    Raises:
        BaseModelError: there are none.
    """
    files = sorted(folder.glob(f"*.{variant}*.safetensors" if variant else "*.safetensors"))
    if files:
        return files
    kind = f"{variant} safetensors" if variant else "safetensors"
    if any(folder.glob("*.bin")):
        raise BaseModelError(
            f"{folder}: only .bin weights are there, which are not loaded for safety. Convert them to safetensors, "
            "or choose a model that has them."
        )
    raise BaseModelError(f"{folder}: no {kind} file is there. {_RESTORE}")


def _check_json(file: Path) -> None:
    if not file.is_file():
        raise BaseModelError(f"{file}: this file of the base model is missing. {_RESTORE}")
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BaseModelError(f"{file}: not readable as JSON, so the base model is damaged. {_RESTORE}") from error


def _check_weights(file: Path) -> None:
    """Opening compares the header with the file's length, which finds truncation without reading the weights."""
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise BaseModelError(f"{file}: damaged or truncated ({error}). {_RESTORE}") from error


def folder_digest(path: Path | str) -> str:
    """SHA-256 over the sorted files' relative names and contents; hidden files do not count."""
    folder, digest = Path(path), hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            digest.update(f"{name.as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def require_known_words(tokenizer: CLIPTokenizer, noun: str, identifier: str | None = None) -> None:
    """Check that the base model can know a class noun, and warn when the identifier is not one token.

    A word that falls into pieces of under two letters on average, or into unknown tokens, was hardly ever trained on.

    Raises:
        BaseModelError: names the word.
    """
    for word in noun.lower().split():
        pieces = tokenizer.tokenize(word)
        if not pieces or tokenizer.unk_token in pieces or len(pieces) > max(1, len(word) // 2):
            raise BaseModelError(
                f"photos.class_noun: the base model does not know the word {word!r}. Choose another noun for the "
                "subject's class, or a base model with a larger vocabulary."
            )
    if identifier is not None and len(tokenizer.tokenize(identifier)) != 1:
        warnings.warn(
            f"photos.identifier: {identifier!r} is not one token of the base model, so it may be learned less well. "
            "sks is one in most models.",
            stacklevel=2,
        )
