"""rembg's models: fetched from a server on the loopback, and run where the extra is installed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.photos.masks import rembg
from dreambooth3d.photos.masks.choose import choose_masks, mask_models
from dreambooth3d.photos.masks.rembg import MODELS, Model, Rembg, decidedness, fetch_model, model_file
from dreambooth3d.photos.masks.source import SourcePhoto, overlap
from dreambooth3d.weights import sha256_file

SIDE = 320


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """No lines among the test's output."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A served model file, whose MD5 is the published one."""
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "tiny.onnx").write_bytes(bytes(range(256)) * 9000)
    md5 = hashlib.md5((folder / "tiny.onnx").read_bytes()).hexdigest()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(rembg, "MODELS", {"u2net": Model("tiny.onnx", md5), "u2netp": Model("none.onnx", md5)})
    monkeypatch.setattr(rembg, "RELEASE", f"http://127.0.0.1:{server.server_port}")
    yield folder / "tiny.onnx"
    server.shutdown()
    server.server_close()


def test_a_model_is_fetched_once_and_then_found(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_file("u2net") is None
    path = fetch_model("u2net")
    assert path == model_file("u2net") and path.read_bytes() == served.read_bytes()
    assert [each.name for each in path.parent.iterdir()] == ["u2net.onnx"]
    monkeypatch.setattr(rembg, "RELEASE", "http://127.0.0.1:9")
    assert fetch_model("u2net") == path
    path.write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="could not be downloaded .* needs a network"):
        fetch_model("u2net")


def test_what_is_no_model_is_not_kept(served: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.onnx: the server answered 404"):
        fetch_model("u2netp")
    served.write_bytes(b"tampered")
    with pytest.raises(ConfigError, match="does not have the expected MD5"):
        fetch_model("u2net")
    assert list(rembg.models_folder().iterdir()) == []


def test_published_sums_have_the_shape_of_sums() -> None:
    sums = [model.md5 for model in MODELS.values()]
    assert len(set(sums)) == len(MODELS) == len({model.file for model in MODELS.values()})
    assert all(len(md5) == 32 and set(md5) <= set("0123456789abcdef") for md5 in sums)


def disc() -> tuple[SourcePhoto, np.ndarray]:
    """A bright disc on dark noise, and its mask."""
    y, x = np.mgrid[:200, :300]
    mask = np.hypot(x - 140, y - 90) < 60
    pixels = np.random.default_rng(0).integers(0, 60, (200, 300, 3))
    pixels[mask] += 190
    return SourcePhoto(Path("disc.png"), pixels.astype(np.uint8)), mask.astype(np.uint8) * 255


class Brightness:
    """A session to which all that is bright is the subject."""

    def predict(self, image: Image.Image) -> list[Image.Image]:
        return [Image.fromarray(np.where(np.asarray(image.convert("L")) > 128, 255, 0).astype(np.uint8))]


def test_a_session_makes_masks_of_the_photos_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(b"a")
    monkeypatch.setattr(rembg, "_session", lambda path: Brightness())
    photo, truth = disc()
    dark = SourcePhoto(Path("dark.png"), np.zeros((50, 50, 3), np.uint8))
    found, nothing = Rembg(file, sha256_file(file)).masks([photo, dark])
    assert nothing is None and found.trusted and found.confidence == 1
    assert overlap(found.mask, truth) == 1


def test_a_mask_between_black_and_white_is_no_decision() -> None:
    sharp = np.zeros((40, 40), np.uint8)
    sharp[10:30, 10:30] = 255
    soft = np.where(sharp > 0, 255, 40).astype(np.uint8)
    assert decidedness(sharp) == 1 and decidedness(soft) < 0.1
    assert 0.5 < decidedness(np.where(sharp > 0, 235, 0).astype(np.uint8)) < 0.8


def _field(number: int, content: bytes | int | str) -> bytes:
    """One field of a protocol buffer."""

    def varint(value: int) -> bytes:
        head = b""
        while value > 127:
            head, value = head + bytes([value & 127 | 128]), value >> 7
        return head + bytes([value])

    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def write_brightness_model(path: Path, side: int = SIDE) -> Path:
    """An ONNX model whose mask is the mean over channels, written by hand."""

    def tensor(name: str, channels: int) -> bytes:
        shape = b"".join(_field(1, _field(1, size)) for size in (1, channels, side, side))
        return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, shape)))

    axes = _field(1, "axes") + _field(8, 1) + _field(20, 7)
    node = _field(1, "image") + _field(2, "mask") + _field(4, "ReduceMean") + _field(5, axes)
    graph = _field(1, node) + _field(2, "g") + _field(11, tensor("image", 3)) + _field(12, tensor("mask", 1))
    path.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13)))
    return path


def test_a_local_file_is_run_twice_alike_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pooch = pytest.importorskip("pooch")
    pytest.importorskip("rembg")
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: pytest.fail("a run downloads nothing"))
    config = PhotosConfig(masks="rembg", rembg_model=str(write_brightness_model(tmp_path / "mine.onnx")))
    photo, truth = disc()
    (first,), (second,) = (choose_masks([photo], config, mask_models(config)) for _ in range(2))
    assert np.array_equal(first.mask.mask, second.mask.mask) and first.mask.mask.shape == (200, 300)
    assert overlap(first.mask.mask, truth) > 0.97


def test_what_is_no_model_that_can_be_run_is_said(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("rembg")
    photo, _ = disc()
    for file in (tmp_path / "text.onnx", write_brightness_model(tmp_path / "odd.onnx", side=96)):
        file.exists() or file.write_text("no model")
        config = PhotosConfig(masks="rembg", rembg_model=str(file))
        with pytest.raises(ConfigError, match=f"{file.name}: is no ONNX model that can be run"):
            choose_masks([photo], config, mask_models(config))
