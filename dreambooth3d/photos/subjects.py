"""Which subjects there are at this moment, and the hash of each: looked up in the run, never when it is scheduled."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dreambooth3d.config.base import text_problem
from dreambooth3d.config.fleet import Subjects
from dreambooth3d.config.photos import DatasetConfig, PhotosConfig
from dreambooth3d.errors import DatasetError, DreamBooth3DError
from dreambooth3d.naming import subject_named
from dreambooth3d.photos.dataset import dataset_hash
from dreambooth3d.photos.remote import RemoteDataset, open_dataset
from dreambooth3d.photos.subject import SUBJECT_FILE
from dreambooth3d.photos.tracking import DATA, Entries, by_folder, recorded_entries, repository_root


@dataclass(frozen=True)
class FoundSubject:
    """One subject of a dataset.

    Attributes:
        subject: its name.
        data: hash of its photos, empty where it could not be told.
        dataset: from where a training fetches them, `rev` as the exact commit; None for the checkout's data/.
        error: why the hash could not be told, else empty.
    """

    subject: str
    data: str = ""
    dataset: dict[str, Any] | None = None
    error: str = ""

    def row(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def photos(self, base: PhotosConfig) -> PhotosConfig:
        """The photo settings of this subject's training."""
        dataset = None if self.dataset is None else DatasetConfig(**self.dataset)
        return base.model_copy(update={"subject": self.subject, "dataset": dataset})


def find_subjects(dataset: DatasetConfig, subjects: Subjects) -> list[FoundSubject]:
    """The subjects of a dataset with their hashes; one that cannot be used says why, and does not stop the others.

    Raises:
        DatasetError: the dataset itself is not to be had, or `subjects: all` finds none.
    """
    if dataset == DatasetConfig():
        return _in_checkout(subjects)
    remote = open_dataset(dataset)
    return [_in_remote(remote, name) for name in _names(subjects, remote.subjects)]


def _misnamed(folder: str) -> FoundSubject | None:
    """A subject that no training could be told to take, with the reason; None for a name that can be a setting."""
    subject = subject_named(folder)
    if folder == subject and folder.strip() and text_problem(folder) is None:
        return None
    reason = "is blank, too long, or holds ${...}, a backslash, or what does not print: rename the folder"
    return FoundSubject(subject.replace("${", "$ {"), error=f"its name {reason}")


def _names(subjects: Subjects, known: tuple[str, ...]) -> tuple[str, ...]:
    if subjects != "all":
        return tuple(dict.fromkeys(subjects))
    if not known:
        raise DatasetError("subjects: all finds no subject in the dataset. Add photos, or name the subjects.")
    return known


def _in_checkout(subjects: Subjects) -> list[FoundSubject]:
    """From data/ where the photos are there, else from the checkout's DVC remote."""
    root = repository_root()
    tracked = by_folder(recorded_entries(root) or {})
    here = {path.parent.name for path in root.joinpath(DATA).glob(f"*/{SUBJECT_FILE}")}
    names = _names(subjects, tuple(sorted({*tracked, *here})))
    missing = {name for name in names if name in tracked and not root.joinpath(DATA, name).is_dir()}
    remote = open_dataset(DatasetConfig(url=str(root))) if missing else None
    return [
        _in_remote(remote, name) if remote and name in missing else _in_data(name, tracked.get(name, {}))
        for name in names
    ]


def _in_data(name: str, recorded: Entries) -> FoundSubject:
    if misnamed := _misnamed(name):
        return misnamed
    try:
        return FoundSubject(name, dataset_hash(PhotosConfig(subject=name), recorded=recorded))
    except DreamBooth3DError as error:
        return FoundSubject(name, error=str(error))


def _in_remote(remote: RemoteDataset, name: str) -> FoundSubject:
    if misnamed := _misnamed(name):
        return misnamed
    try:
        return FoundSubject(name, remote.digest(name), remote.config.model_dump())
    except DatasetError as error:
        return FoundSubject(name, error=str(error))
