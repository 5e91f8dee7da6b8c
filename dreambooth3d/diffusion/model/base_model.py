"""Finding and checking a base model in Stable Diffusion's layout, before anything is computed with it."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from dreambooth3d import hub
from dreambooth3d.artifacts import BaseModelRef
from dreambooth3d.cameras import VIEW_WORDS
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.model.nouns import common_nouns, nearest_nouns
from dreambooth3d.errors import BaseModelError
from dreambooth3d.places import repository
from dreambooth3d.prompts import view_prompt
from dreambooth3d.weights import require_as_shipped, sha256_once

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

REPOSITORY = repository()
NETWORKS = ("text_encoder", "unet", "vae")
_CONFIGS = ("model_index.json", "scheduler/scheduler_config.json", *(f"{name}/config.json" for name in NETWORKS))
# One file, or shards, whose variant stands before or behind their number; what diffusers and transformers write.
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<first>\w+))?(?:-\d{5}-of-\d{5})?(?:\.(?P<second>\w+))?\.safetensors"
)
_RESTORE = "Restore the folder (for a bundled model: `git checkout` it), or set base_model.path to a complete one."


def local_folder(path: str, setting: str = "base_model.path") -> Path | None:
    """The folder that a model's path means, seen from the working directory or the repository; None for a hub id.

    Args:
        path: the folder, or `owner/name`.
        setting: the configuration's key that names the model, for the error.

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
            f"{setting}: {path} is not a folder. Set {setting} to a complete model folder, or to a hub id such as "
            "owner/name."
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
        return BaseModelRef(config.path, "", snapshot.name, config.variant)
    check_folder(folder, config.variant)
    return BaseModelRef(_portable(folder), folder_digest(folder), None, config.variant)


def base_model_identity(config: BaseModelConfig) -> str:
    """`sha256:<digest>` of a local base model, `commit:<revision>` of a hub model.

    Raises:
        BaseModelError: missing or damaged.
    """
    base = resolve(config)
    return f"sha256:{base.digest}" if base.digest else f"commit:{base.revision}"


def identified(config: BaseModelConfig, identity: str) -> BaseModelRef:
    """The base model that `base_model_identity` has pinned, without looking at its files again."""
    kind, _, value = identity.partition(":")
    if kind == "sha256":
        return BaseModelRef(config.path, value, None, config.variant)
    return BaseModelRef(config.path, "", value, config.variant)


def model_folder(base: BaseModelRef) -> Path:
    """The local folder with the base model's files; a hub model is taken from the hub's cache or fetched."""
    return local_folder(base.path) or fetch_from_hub(base)


def _portable(folder: Path) -> str:
    """The folder relative to the repository where it lies inside, else absolute."""
    folder = folder.resolve()
    return str(folder.relative_to(REPOSITORY)) if folder.is_relative_to(REPOSITORY) else str(folder)


def fetch_from_hub(base: BaseModelRef) -> Path:
    """The hub's snapshot folder of a model: configs, tokenizer and the safetensors that are loaded, nothing else.

    Its name is the commit. A commit that is cached needs no network.

    Raises:
        BaseModelError: neither cached nor reachable, or not complete.
    """
    return hub.snapshot(
        "base_model.path",
        base.path,
        base.revision,
        lambda files: _wanted_files(files, base.variant),
        lambda folder: check_folder(folder, base.variant),
    )


def _wanted_files(files: Sequence[str], variant: str | None) -> list[str]:
    """Of a model repository's files, those that are loaded."""
    wanted = ["model_index.json"]
    for folder in ("scheduler", "tokenizer", *NETWORKS):
        names = [file.partition("/")[2] for file in files if file.startswith(f"{folder}/")]
        names = [name for name in names if "/" not in name]
        kept = [name for name in names if name.endswith((".json", ".txt"))]
        if folder in NETWORKS:
            kept += _require_weights(folder, names, variant)
        wanted += [f"{folder}/{name}" for name in kept]
    return wanted


def check_folder(folder: Path, variant: str | None = None) -> None:
    """Check that a model folder is complete and readable, without loading weights.

    Raises:
        BaseModelError: names the first file that is missing or damaged; of a bundled model also by its SHA-256.
    """
    require_as_shipped(folder)
    for name in _CONFIGS:
        _check_json(folder / name)
    if not any((folder / "tokenizer" / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise BaseModelError(f"{folder}/tokenizer: neither tokenizer.json nor vocab.json is there. {_RESTORE}")
    for file in sorted((folder / "tokenizer").glob("*.json")):
        _check_json(file)
    for network in NETWORKS:
        for file in weight_files(folder / network, variant):
            _check_weights(file)
    if variant and all(loaded_variant(folder / network, variant) is None for network in NETWORKS):
        raise BaseModelError(
            f"{folder}: no network has {variant} weights. Set base_model.variant to null, or to one that is there."
        )


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors of one network that are loaded: of the variant, or the plain ones where it has none of these.

    Raises:
        BaseModelError: there are none.
    """
    names = [path.name for path in folder.glob("*.*")]
    return [folder / name for name in _require_weights(str(folder), names, variant)]


def _require_weights(where: str, names: Sequence[str], variant: str | None) -> list[str]:
    """`select_weights`, or an error that says what there is instead."""
    if chosen := select_weights(names, variant):
        return chosen
    if others := sorted({found for found in map(_variant_of, names) if found}):
        raise BaseModelError(
            f"{where}: its weights are there only as the variant {' and '.join(others)}. Set base_model.variant to "
            f"{others[0]}."
        )
    if any(name.endswith(".bin") for name in names):
        raise BaseModelError(
            f"{where}: only .bin weights are there, which are not loaded for safety. Convert them to safetensors, "
            "or choose a model that has them."
        )
    raise BaseModelError(f"{where}: no safetensors file is there. {_RESTORE}")


def select_weights(names: Iterable[str], variant: str | None = None) -> list[str]:
    """Of one network's file names those of a variant, or the plain ones where it has no such variant; sorted."""
    by_variant: dict[str, list[str]] = {}
    for name in sorted(names):
        found = _variant_of(name)
        if found is not None:
            by_variant.setdefault(found, []).append(name)
    return by_variant.get(variant or "") or by_variant.get("", [])


def loaded_variant(folder: Path, variant: str | None) -> str | None:
    """The variant to ask diffusers for, of one network's folder: none where it has only plain weights."""
    return (_variant_of(weight_files(folder, variant)[0].name) or None) if variant else None


def _variant_of(name: str) -> str | None:
    """The variant in the name of a safetensors file, empty for plain weights; None for any other file."""
    match = _WEIGHTS.fullmatch(name)
    return None if match is None else match["first"] or match["second"] or ""


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
            digest.update(f"{name.as_posix()}\0{sha256_once(file)}\n".encode())
    return digest.hexdigest()


def unknown_word(tokenizer: CLIPTokenizer, noun: str) -> tuple[str, list[str]] | None:
    """The first word of a class noun that the base model hardly knows, and nouns in its place; None where it knows all.

    Of such a word the tokenizer makes pieces of under two letters on average, or unknown tokens.
    """
    for word in noun.lower().split():
        if not _is_known(tokenizer, word):
            return word, nearest_nouns(noun, partial(_is_known, tokenizer))
    return None


def _is_known(tokenizer: CLIPTokenizer, word: str) -> bool:
    pieces = tokenizer.tokenize(word)
    return bool(pieces) and tokenizer.unk_token not in pieces and len(pieces) <= max(1, len(word) // 2)


def require_known_words(tokenizer: CLIPTokenizer, noun: str, identifier: str | None = None) -> None:
    """Check that the base model can know a class noun, and warn when the identifier is not one token.

    Raises:
        BaseModelError: names the word, and nouns in its place.
    """
    if unknown := unknown_word(tokenizer, noun):
        word, near = unknown
        others = common_nouns(partial(_is_known, tokenizer))
        known = f"Nearest to it: {', '.join(near)}" if near else f"It knows {', '.join(others)}"
        raise BaseModelError(
            f"photos.class_noun: the base model does not know the word {word!r}. {known}. Set photos.class_noun to "
            "what is shaped most like your subject, or choose a base model with a larger vocabulary."
        )
    if identifier is not None and len(tokenizer.tokenize(identifier)) != 1:
        warnings.warn(
            f"photos.identifier: {identifier!r} is not one token of the base model, so it may be learned less well. "
            "sks is one in most models.",
            stacklevel=2,
        )


def require_read_whole(folder: Path, prompt: str, setting: str) -> None:
    """Check that the base model reads a prompt to its end, where the words for the view stand.

    Args:
        folder: of the base model.
        prompt: without words for the view.
        setting: where it is from.

    Raises:
        BaseModelError: it would be cut, so that all views would be drawn by the same prompt.
    """
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"))
    positions = json.loads((folder / "text_encoder" / "config.json").read_text())["max_position_embeddings"]
    room = min(tokenizer.model_max_length, positions) - tokenizer.num_special_tokens_to_add()
    needed = max(len(tokenizer.tokenize(view_prompt(prompt, word))) for word in VIEW_WORDS)
    if needed > room:
        raise BaseModelError(
            f"{setting}: with the words for its view the prompt has {needed} tokens, and the base model reads {room}, "
            "so that it would not know which side to draw. Shorten it; words that the model hardly knows count more "
            "than once."
        )
