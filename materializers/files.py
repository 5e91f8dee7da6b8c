"""What all materializers share: an artifact is a folder of plain files, brought from and to any artifact store."""

from __future__ import annotations

import json
import os
import struct
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np
import pandas as pd
import torch
from fsspec import AbstractFileSystem
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from zenml.enums import ArtifactType, VisualizationType
from zenml.io import fileio
from zenml.materializers.base_materializer import BaseMaterializer

from dreambooth3d.errors import ArtifactError, DreamBooth3DError, gist
from dreambooth3d.faults import in_one_sentence
from dreambooth3d.images import from_pil, save_image, to_pil
from dreambooth3d.naming import below, inner_name
from dreambooth3d.record import SERIES_COLUMNS, StepRecord
from dreambooth3d.runtime import work_root
from dreambooth3d.temporary import temporary_folder
from dreambooth3d.weights import WeightsRef, fetch_by_fsspec, sha256_file
from materializers.fitting import require_fitting
from materializers.hashing import content_hash
from materializers.healing import recomputed_if_damaged

RECORD = "record"
MANIFEST = "sha256.json"
STORE = "store:"
PART_BYTES, PARTS_AT_ONCE = 16 * 2**20, 8
MAX_PIXELS, MAX_PHOTO_PIXELS, MAX_CELLS = 64_000_000, 4_000_000, 10_000_000
"""Of a picture, a photo and a table in an artifact: all can be small as files, and without bounds in memory."""
# What JSON, Parquet, PNG, safetensors and the artifacts' own classes raise for content that does not fit.
_FOR_CONTENT = (
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, SyntaxError, RecursionError,
    NotImplementedError, SafetensorError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip


def is_remote(uri: str) -> bool:
    """Whether a URI is no path of the local file system."""
    return "://" in uri


def join(uri: str, *names: str) -> str:
    """A URI below another one."""
    return "/".join([uri.rstrip("/"), *names])


def copy_file(source: str, target: str) -> None:
    """Copy one file between any two places in chunks; a file of the work folder is linked where that is possible."""
    fileio.makedirs(os.path.dirname(target))
    # Only files in the making: a link to, say, a bundled model would share its fate.
    if not is_remote(source) and not is_remote(target) and Path(source).resolve().is_relative_to(work_root().resolve()):
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # other disk, or no links there
    _transfer(source, target)


def fetch_weights(source: str, target: str) -> None:
    """Bring remote weights by the active stack's artifact store, which has the credentials for them."""
    try:
        _transfer(source, target)
    except ValueError:  # it serves no such addresses
        fetch_by_fsspec(source, target)


def _transfer(source: str, target: str) -> None:
    """Copy one file; a large one from or to S3 several parts at once, which bounds the memory it takes."""
    options = {"chunksize": PART_BYTES, "max_concurrency": PARTS_AT_ONCE}
    if not is_remote(target) and (system := _s3_system(source)) is not None:
        system.get_file(source, target, **options)
    elif not is_remote(source) and Path(source).stat().st_size > PART_BYTES and (system := _s3_system(target)):
        system.put_file(source, target, **options)
    else:
        fileio.copy(source, target, overwrite=True)


def _s3_system(uri: str) -> AbstractFileSystem | None:
    """The file system of the active stack's artifact store, where that is in S3 and holds the URI."""
    if not uri.startswith("s3://"):
        return None
    from zenml.client import Client

    store = Client().active_stack.artifact_store
    return getattr(store, "filesystem", None) if uri.startswith(join(store.path, "")) else None


def upload(folder: Path, uri: str) -> None:
    """Copy all files below a local folder to a URI."""
    # The manifest at the end: what has one is complete.
    for path in sorted(folder.rglob("*"), key=lambda path: (path.name == MANIFEST, path)):
        if path.is_file():
            copy_file(str(path), join(uri, path.relative_to(folder).as_posix()))


def write_manifest(folder: Path) -> None:
    """Note the SHA-256 of each file below a local folder in one more, `MANIFEST`."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}
    write_json({"files": files, "sha256": content_hash(files)}, folder / MANIFEST)


def fetch(uri: str, folder: Path, within: str = "") -> None:
    """Bring an artifact's files, or those whose names begin with `within`, into a local folder, and verify them.

    Raises:
        ArtifactError: see `verify`.
    """
    with _named(uri):
        folder.mkdir(parents=True, exist_ok=True)
        fileio.copy(join(uri, MANIFEST), str(folder / MANIFEST), overwrite=True)
        for name in read_manifest(folder):
            if name.startswith(within):
                target = below(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                fileio.copy(join(uri, name), str(target), overwrite=True)
    verify(folder, uri, within)


def verify(folder: Path, uri: str, within: str = "") -> None:
    """Compare an artifact's files, or those whose names begin with `within`, with what was stored.

    Raises:
        ArtifactError: one is gone, is another than was stored, or has a name that leads out of the folder.
    """
    with _named(uri):
        for name, sha256 in read_manifest(folder).items():
            if name.startswith(within) and sha256_file(below(folder, name)) != sha256:
                raise ArtifactError(f"{name} is not what was stored (another SHA-256)")


def read_manifest(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file by its name.

    Raises:
        ArtifactError: it is no such list.
    """
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or content_hash(files) != manifest.get("sha256"):
        raise ArtifactError(f"{MANIFEST} is not what was stored (another SHA-256)")
    return {inner_name(name): str(value) for name, value in files.items()}


@contextmanager
def _named(uri: str, here: bool = False) -> Iterator[None]:
    """One sentence with the artifact's place for whatever goes wrong while it is read.

    Only what is wrong with the artifact itself names it as damaged, by its URI; a store that does not answer, or a full
    disk, does not.

    Args:
        uri: of the artifact.
        here: its files are local and verified, so that decoders read nothing else.
    """
    try:
        yield
    except ArtifactError as error:
        if error.uri is not None:
            raise
        raise _damaged(uri, f"cannot be read ({str(error).rstrip('.')})") from None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _damaged(uri, "is gone, not complete, or was stored by an earlier version") from None
    except _FOR_CONTENT as error:
        raise _damaged(uri, f"cannot be read ({gist(error).rstrip('.')})") from error
    # A remote store's client raises errors of its own.
    except Exception as error:
        # A decoder's own complaint has no number, and the system's has one.
        if here and isinstance(error, OSError) and error.errno is None:
            raise _damaged(uri, f"cannot be read ({gist(error).rstrip('.')})") from error
        if not (isinstance(error, OSError) or is_remote(uri)):
            raise
        raise ArtifactError(
            f"{uri}: this artifact could not be read now ({gist(error).rstrip('.')}). Check the artifact store and the "
            "disk, and start again."
        ) from error


def _damaged(uri: str, reason: str) -> ArtifactError:
    return ArtifactError(f"{uri}: this artifact {reason}. Run the step that made it again.", uri)


@contextmanager
def local_copy(uri: str, within: str = "") -> Iterator[Path]:
    """An artifact as a local folder, its files verified: itself where it is local, else a temporary download.

    Args:
        uri: of the artifact.
        within: only files whose names begin so are brought and verified.

    Raises:
        ArtifactError: see `verify`.
    """
    if not is_remote(uri):
        verify(Path(uri), uri, within)
        yield Path(uri)
        return
    with temporary_folder() as temporary:
        try:
            fetch(uri, temporary, within)
        except ArtifactError as error:
            if error.uri is None:
                raise
            # A connection can end early: what is damaged is so twice.
            fetch(uri, temporary, within)
        yield temporary


def write_json(value: object, path: Path) -> None:
    """Write plain values as readable JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False))


def read_json(path: Path) -> Any:
    """Inverse of `write_json`."""
    return json.loads(path.read_text())


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, in their own precision."""
    # Clones, since safetensors refuses tensors that share memory.
    save_file({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Inverse of `write_tensors`."""
    return load_file(path)


def write_record(record: StepRecord, folder: Path) -> None:
    """Write a step's record: JSON, a Parquet table for the series, a PNG per image."""
    images = {name: f"{quote(name, safe='')}.png" for name in record.images}
    params, metrics = dict(record.params), dict(record.metrics)
    write_json({"name": record.name, "params": params, "metrics": metrics, "images": images}, folder / "record.json")
    series = record.series.astype({"step": "int64", "name": "str", "value": "float64"})
    series.to_parquet(folder / "series.parquet", index=False)
    for name, file in images.items():
        save_image(record.images[name], folder / file)


def read_record(folder: Path) -> StepRecord | None:
    """Inverse of `write_record`; None where there is none."""
    if not (folder / "record.json").is_file():
        return None
    values = read_json(folder / "record.json")
    images = {
        name: torch.from_numpy(np.array(read_picture(below(folder, file)))) for name, file in values["images"].items()
    }
    series = read_table(folder / "series.parquet")[list(SERIES_COLUMNS)]
    return StepRecord(values["name"], values["params"], values["metrics"], series, images)


def load_record(artifact_uri: str, ours: bool = True) -> StepRecord | None:
    """The step record of an artifact, without loading the artifact itself; None where it has none.

    Args:
        artifact_uri: of the artifact.
        ours: whether a materializer of ours has stored it; those of ZenML's have no records.

    Raises:
        ArtifactError: it is gone or damaged.
    """
    if not ours:
        return None
    within = f"{RECORD}/"
    with recomputed_if_damaged(), local_copy(artifact_uri, within) as folder, _named(artifact_uri, here=True):
        record = read_record(folder / RECORD)
        if record is not None:
            require_fitting(record)
        return record


def write_images(images: Tensor | tuple[Tensor, ...], folder: Path) -> None:
    """Write 8-bit PNG files 000.png, 001.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        to_pil(image).save(folder / f"{index:03d}.png", compress_level=1)


def read_images(folder: Path) -> tuple[Tensor, ...]:
    """Inverse of `write_images`."""
    return tuple(from_pil(read_picture(path, MAX_PHOTO_PIXELS)) for path in sorted(folder.glob("*.png")))


def read_picture(path: Path, most: int = MAX_PIXELS) -> Image.Image:
    """A PNG file in RGB.

    Raises:
        ArtifactError: it has more than `most` pixels.
    """
    with Image.open(path, formats=("PNG",)) as image:
        if image.width * image.height > most:
            raise ArtifactError(f"{path.name} has {image.width} x {image.height} pixels, and at most {most} are read")
        return image.convert("RGB")


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet table.

    Raises:
        ArtifactError: it has more than `MAX_CELLS`.
    """
    from pyarrow import parquet

    said = parquet.read_metadata(path)
    if said.num_rows * max(1, said.num_columns) > MAX_CELLS:
        raise ArtifactError(f"{path.name} has {said.num_rows} rows, and at most {MAX_CELLS} values are read")
    return pd.read_parquet(path)


class FolderMaterializer(BaseMaterializer):
    """Base of the product's materializers: subclasses write to and read from a local folder, in open formats only.

    Remote stores are served through a temporary folder; a local store is read in place.
    """

    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA
    SKIP_REGISTRATION: ClassVar[bool] = True

    @abstractmethod
    def write(self, data: Any, folder: Path) -> None:
        """Write the artifact's files, its record aside."""

    @abstractmethod
    def read(self, folder: Path, record: StepRecord | None) -> Any:
        """Read what `write` wrote."""

    def figures(self, data: Any) -> dict[str, Any]:
        """Figures for ZenML's metadata."""
        return {}

    def picture(self, data: Any) -> Tensor | None:
        """A picture (3, height, width) of the artifact, if it has one."""
        return None

    def save(self, data: Any) -> None:
        """Write the artifact with its record to the store, whole or not at all.

        Raises:
            DiskError: a disk is full or cannot be written.
            ArtifactError: a remote store did not take it.
        """
        try:
            with in_one_sentence("", *([] if is_remote(self.uri) else [self.uri])):
                self._save(data)
        except Exception as error:
            with suppress(Exception):  # why it failed is what counts
                fileio.rmtree(self.uri)
            if isinstance(error, DreamBooth3DError) or not is_remote(self.uri):
                raise
            raise ArtifactError(
                f"{self.uri}: this artifact could not be stored now ({gist(error).rstrip('.')}). Check the artifact "
                "store, and give the same command again: the step goes on from its last state."
            ) from error

    def _save(self, data: Any) -> None:
        with temporary_folder() as folder:
            self.write(data, folder)
            if getattr(data, "record", None) is not None:
                (folder / RECORD).mkdir()
                write_record(data.record, folder / RECORD)
            write_manifest(folder)
            upload(folder, self.uri)

    def load(self, data_type: type[Any]) -> Any:
        """Read the artifact with its record from the store.

        Raises:
            ArtifactError: it is gone or damaged; the step that made it will run again instead of being taken from the
                cache.
        """
        with recomputed_if_damaged(), local_copy(self.uri) as folder:
            return self._read(folder)

    def _read(self, folder: Path) -> Any:
        with _named(self.uri, here=True):
            value = self.read(folder, read_record(folder / RECORD))
            require_fitting(value)
            return value

    def extract_metadata(self, data: Any) -> dict[str, Any]:
        """The artifact's figures and its step's final metrics."""
        record = getattr(data, "record", None)
        metrics = {f"metric {name}": float(value) for name, value in record.metrics.items()} if record else {}
        return {**self.figures(data), **metrics}

    def save_visualizations(self, data: Any) -> dict[str, VisualizationType]:
        """The artifact's picture, beside its files."""
        picture = self.picture(data)
        if picture is None:
            return {}
        with temporary_folder() as folder:
            save_image(picture, folder / "picture.png")
            upload(folder, join(self.uri, "visualization"))
        return {join(self.uri, "visualization", "picture.png"): VisualizationType.IMAGE}

    def compute_content_hash(self, data: Any) -> str:
        """Hash of the content alone: equal results of two runs are equal for the cache."""
        return content_hash(data)

    def write_text_page(self, name: str, text: str, kind: VisualizationType) -> dict[str, VisualizationType]:
        """Store a text visualization beside the artifact's files."""
        with temporary_folder() as folder:
            (folder / name).write_text(text)
            upload(folder, join(self.uri, "visualization"))
        return {join(self.uri, "visualization", name): kind}

    def store_weights(self, weights: WeightsRef, name: str) -> dict[str, object]:
        """Describe weights for a JSON file.

        Weights that already lie in the artifact store stay there and are referenced, relative to the store's root;
        others become a file of this artifact.
        """
        root = str(self.artifact_store.path).rstrip("/") + "/"
        if weights.uri.startswith(root):
            place = STORE + weights.uri.removeprefix(root)
        else:
            copy_file(weights.uri, join(self.uri, name))
            place = name
        return {"file": place, "sha256": weights.sha256, "size_bytes": weights.size_bytes}

    def restore_weights(self, entry: Mapping[str, Any]) -> WeightsRef:
        """Inverse of `store_weights`, with an absolute URI."""
        place = str(entry["file"])
        own = not place.startswith(STORE)
        inner = inner_name(place.removeprefix(STORE))
        uri = join(self.uri if own else str(self.artifact_store.path), inner)
        return WeightsRef(uri, str(entry["sha256"]), int(entry["size_bytes"]), None if own else self.uri)
