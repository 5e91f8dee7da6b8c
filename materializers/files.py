"""What all materializers share: an artifact is a folder of plain files, brought from and to any artifact store."""

from __future__ import annotations

import json
import os
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import pandas as pd
from fsspec import AbstractFileSystem
from safetensors.torch import load_file, save_file
from torch import Tensor
from zenml.enums import ArtifactType, VisualizationType
from zenml.io import fileio
from zenml.materializers.base_materializer import BaseMaterializer

from dreambooth3d.images import from_pil, save_image, to_pil
from dreambooth3d.record import SERIES_COLUMNS, StepRecord
from dreambooth3d.runtime import work_root
from dreambooth3d.weights import WeightsRef, fetch_by_fsspec
from materializers.hashing import content_hash

RECORD = "record"
STORE = "store:"
PART_BYTES, PARTS_AT_ONCE = 16 * 2**20, 8


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
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            copy_file(str(path), join(uri, path.relative_to(folder).as_posix()))


def download(uri: str, folder: Path) -> None:
    """Copy all files below a URI into a local folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in map(str, fileio.listdir(uri)):
        source = join(uri, name)
        if fileio.isdir(source):
            download(source, folder / name)
        else:
            fileio.copy(source, str(folder / name), overwrite=True)


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """The folder behind a URI as a local one: itself where it is local, else a temporary download."""
    if not is_remote(uri):
        yield Path(uri)
        return
    with tempfile.TemporaryDirectory() as temporary:
        if fileio.exists(uri):
            download(uri, Path(temporary))
        yield Path(temporary)


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
    import numpy as np
    import torch
    from PIL import Image

    values = read_json(folder / "record.json")
    images = {
        name: torch.from_numpy(np.array(Image.open(folder / file).convert("RGB")))
        for name, file in values["images"].items()
    }
    series = pd.read_parquet(folder / "series.parquet")[list(SERIES_COLUMNS)]
    return StepRecord(values["name"], values["params"], values["metrics"], series, images)


def load_record(artifact_uri: str) -> StepRecord | None:
    """The step record of an artifact, without loading the artifact itself."""
    with local_copy(join(artifact_uri, RECORD)) as folder:
        return read_record(folder)


def write_images(images: Tensor | tuple[Tensor, ...], folder: Path) -> None:
    """Write 8-bit PNG files 000.png, 001.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        to_pil(image).save(folder / f"{index:03d}.png", compress_level=1)


def read_images(folder: Path) -> tuple[Tensor, ...]:
    """Inverse of `write_images`."""
    from PIL import Image

    return tuple(from_pil(Image.open(path)) for path in sorted(folder.glob("*.png")))


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
        """Write the artifact with its record to the store."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            self.write(data, folder)
            if getattr(data, "record", None) is not None:
                (folder / RECORD).mkdir()
                write_record(data.record, folder / RECORD)
            upload(folder, self.uri)

    def load(self, data_type: type[Any]) -> Any:
        """Read the artifact with its record from the store."""
        with local_copy(self.uri) as folder:
            return self.read(folder, read_record(folder / RECORD))

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
        with tempfile.TemporaryDirectory() as temporary:
            save_image(picture, Path(temporary) / "picture.png")
            upload(Path(temporary), join(self.uri, "visualization"))
        return {join(self.uri, "visualization", "picture.png"): VisualizationType.IMAGE}

    def compute_content_hash(self, data: Any) -> str:
        """Hash of the content alone: equal results of two runs are equal for the cache."""
        return content_hash(data)

    def write_text_page(self, name: str, text: str, kind: VisualizationType) -> dict[str, VisualizationType]:
        """Store a text visualization beside the artifact's files."""
        with tempfile.TemporaryDirectory() as temporary:
            (Path(temporary) / name).write_text(text)
            upload(Path(temporary), join(self.uri, "visualization"))
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
        uri = join(self.uri, place) if own else join(str(self.artifact_store.path), place.removeprefix(STORE))
        return WeightsRef(uri, str(entry["sha256"]), int(entry["size_bytes"]))
