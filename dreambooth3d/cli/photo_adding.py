"""`dreambooth3d photos add`: asks what the subject is, makes it, and says what to type next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.naming import printable
from dreambooth3d.photos.adding import AddedSubject, add_subject
from dreambooth3d.photos.dataset import dataset_hash
from dreambooth3d.photos.subject import shown_path
from dreambooth3d.places import repository
from operations.launch.sentences import checked_section


def add_photos(subject: str, files: Sequence[Path], noun: str | None) -> list[str]:
    """Make a subject under data/ and record it; what was done, and what to type next, one line each.

    Raises:
        DreamBooth3DError: as for `add_subject`; also where nobody can be asked for the class noun.
    """
    try:
        checked_section("photos", PhotosConfig, subject=subject)
    except ConfigError as error:
        raise ConfigError(f"photos add: {printable(subject)!r}: {error}") from None
    noun = _asked() if noun is None else noun
    config = checked_section("photos", PhotosConfig, subject=subject, class_noun=noun)
    added = add_subject(subject, files, noun)
    identity = dataset_hash(config)
    said = f"{shown_path(added.folder)}: {len(added.photos)} photos of a {noun}, {identity}"
    return [said, *_lines(added, subject, _known_instead(noun))]


def _asked() -> str:
    if not sys.stdin.isatty():
        raise ConfigError("photos add: it is not known what the subject is. Say it by --noun, for example --noun dog.")
    return typer.prompt("What is the subject, in one word such as dog?").strip()


def _known_instead(noun: str) -> str | None:
    """The nearest noun that the bundled base model knows in place of one that it does not; None where it knows it."""
    from transformers import CLIPTokenizer

    from dreambooth3d.diffusion.model.base_model import unknown_word

    folder = repository() / BaseModelConfig().path / "tokenizer"
    unknown = unknown_word(CLIPTokenizer.from_pretrained(str(folder)), noun) if folder.is_dir() else None
    return unknown and next(iter(unknown[1]), "object")


def _lines(added: AddedSubject, subject: str, known: str | None) -> Iterator[str]:
    for photo in added.photos:
        yield f"  {photo.name} from {printable(str(photo.source))}{', converted' if photo.converted else ''}"
    yield "Next:"
    yield f"  {shlex.join(['dreambooth3d', 'photos', 'check', shown_path(added.folder), '--html'])}"
    settings = [f"photos.subject={subject}", *([f"photos.class_noun={known}"] if known else [])]
    yield f"  {shlex.join(['dreambooth3d', 'train', 'configs/demo.yaml', *settings])}"
    if known:
        yield f"There it is told {known!r}: the bundled base model knows few nouns. Stable Diffusion takes yours."
    yield "To keep and share this version: dvc push, then commit data.dvc (and data_store/, where that is the remote)."
