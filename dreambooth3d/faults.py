"""What a machine can refuse, in one sentence that names the remedy: a full or read-only disk, too little memory."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dreambooth3d.errors import DiskError, DreamBooth3DError, MemoryShortageError

FULL, READ_ONLY = "is full", "is read-only"
_BY_NUMBER = {errno.ENOSPC: FULL, errno.EDQUOT: FULL, errno.EROFS: READ_ONLY}
_OF_A_FILE = {errno.EACCES: "may not be used by this user", errno.EIO: "does not answer (input/output error)"}
# Of libraries that hide the system's error: safetensors, SQLite, and what MLflow and ZenML make of that.
_BY_WORDS = (
    (re.compile("no space left on device|database or disk is full|disk quota exceeded", re.IGNORECASE), FULL),
    (re.compile("read-only file system|attempt to write a readonly database", re.IGNORECASE), READ_ONLY),
)
_LOCKED = re.compile("database (table )?is locked", re.IGNORECASE)
_NO_TEMPORARY = "No usable temporary directory"
_NO_MEMORY = re.compile("not enough memory|can't allocate memory|CUDA out of memory", re.IGNORECASE)
_ASKED_FOR = re.compile(r"[Tt]ried to allocate (?:about )?([\d.]+ [KMGT]?i?B|\d+ bytes)")
_AGAIN = "give the same command again: finished steps are kept."
SMALLER = {
    "finetune_dreambooth": ("batch_size", "sample_batch_size"),
    "select_checkpoints": ("batch_size",),
    "init_nerf": ("views_per_step", "render.size", "render.samples_per_ray"),
    "generate_pseudo_views": ("batch_size", "render.size"),
    "finetune_multiview": ("batch_size", "sample_batch_size"),
    "refine_nerf": ("views_per_step", "render.size", "render.samples_per_ray"),
    "edit_nerf": ("views_per_step", "render.size", "render.samples_per_ray"),
    "evaluate": ("size", "samples_per_ray"),
    "export_asset": ("mesh_resolution", "frame_rays", "samples_per_ray"),
}
"""The settings of each stage's section that say how much memory it takes, the most effective first."""
_SECTIONS = {"evaluate_context": "evaluate", "evaluate_prompt": "evaluate", "export_context": "export_asset"}


@contextmanager
def in_one_sentence(step: str = "", *places: Path | str) -> Iterator[None]:
    """Turn what the machine refuses into an error that a user can act on; every other error stays what it is.

    Args:
        step: the name under which a pipeline runs a stage.
        places: what is written, where the error does not say it.

    Raises:
        DiskError: a disk is full or cannot be written.
        MemoryShortageError: memory or a GPU's memory does not suffice.
    """
    try:
        yield
    except DreamBooth3DError:
        raise
    except Exception as error:
        told = explained(error, step, places)
        if told is None:
            raise
        raise told from error


@contextmanager
def gone_if_failed(partial: Path) -> Iterator[None]:
    """Remove a file or folder in the making where an error ends its making; its disk may have too little space."""
    try:
        yield
    except Exception:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        raise


def explained(error: BaseException, step: str = "", places: Sequence[Path | str] = ()) -> DreamBooth3DError | None:
    """What the machine refuses, if that is behind an error; see `in_one_sentence`."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, DreamBooth3DError):
            return None
        if (told := _disk_error(cause, places) or _memory_error(cause, step)) is not None:
            return told
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def _disk_error(error: BaseException, places: Sequence[Path | str]) -> DiskError | None:
    if _NO_TEMPORARY in str(error):
        return DiskError(
            "There is no folder for temporary files that can be written: free space on its disk, or set TMPDIR to "
            f"another one, and {_AGAIN}"
        )
    if _LOCKED.search(str(error)):
        return DiskError(
            "A database, ZenML's or MLflow's, was locked by another process for too long. Wait until that one has "
            f"ended, or end it, and {_AGAIN}"
        )
    if isinstance(error, OSError) and error.errno in _OF_A_FILE and error.filename is not None:
        return DiskError(
            f"{next(_named_files(error))}: {_OF_A_FILE[error.errno]}. See to that, or choose another place, and "
            f"{_AGAIN}"
        )
    if (trouble := _trouble(error)) is None:
        return None
    files = list(_named_files(error)) or [os.path.abspath(place) for place in places]
    place = _emptiest(files or [Path.cwd(), _work(), tempfile.gettempdir()])
    disk, free = _disk_of(place), _free_mib(place)
    what = f" (writing {files[0]})" if files else ""
    remedy = "Free space there (`dreambooth3d prune` does)" if trouble == FULL else "Make it writable again"
    return DiskError(
        f"The disk at {disk}, with {free:.0f} MiB free, {trouble}{what}. {remedy}, or have another one used "
        f"(DREAMBOOTH3D_WORK for unfinished steps, TMPDIR for temporary files), and {_AGAIN}"
    )


def _trouble(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno is not None:
        return _BY_NUMBER.get(error.errno)
    return next((trouble for words, trouble in _BY_WORDS if words.search(str(error))), None)


def _named_files(error: BaseException) -> Iterator[str]:
    """The files of an error of the system; of a copy, the target before the source."""
    for name in (getattr(error, "filename2", None), getattr(error, "filename", None)):
        if isinstance(name, str | bytes | os.PathLike):
            yield os.path.abspath(os.fsdecode(name))


def _memory_error(error: BaseException, step: str) -> MemoryShortageError | None:
    # By its name, since PyTorch is not loaded for this.
    on_gpu = type(error).__name__ == "OutOfMemoryError" and "torch" in type(error).__module__
    on_cpu = isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)))
    if not (on_gpu or on_cpu):
        return None
    stage = re.sub(r"_\d+$", "", step)
    section = _SECTIONS.get(stage, stage)
    settings = [f"{section}.{name}" for name in SMALLER.get(section, ())]
    lower = f"Lower {' or '.join(settings)}" if settings else "Lower sizes and batch sizes of this stage"
    asked = _ASKED_FOR.search(str(error))
    how_much = f" ({asked[1]} more were asked for)" if asked else ""
    memory = "the GPU's memory" if on_gpu else "the machine's memory"
    return MemoryShortageError(
        f"{f'{step}: ' if step else ''}{memory} does not suffice{how_much}. {lower}, or free memory that other "
        f"processes hold, and give the command again: finished steps are kept."
    )


def _work() -> Path:
    return Path(os.environ.get("DREAMBOOTH3D_WORK", ".dreambooth3d/work"))


def _existing(path: Path | str) -> Path:
    """The path, or the nearest folder above it that there is."""
    found = Path(path).absolute()
    while not found.exists() and found != found.parent:
        found = found.parent
    return found


def _free_mib(path: Path | str) -> float:
    try:
        return shutil.disk_usage(_existing(path)).free / 2**20
    except OSError:
        return 0.0


def _emptiest(paths: Sequence[Path | str]) -> Path:
    """That of the paths whose disk has the least space."""
    return Path(min(paths, key=_free_mib))


def _disk_of(path: Path) -> Path:
    """Where the disk of a path is mounted."""
    found = _existing(path)
    while not os.path.ismount(found) and found != found.parent:
        found = found.parent
    return found
