"""The download, against a server on the loopback."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.errors import PhotoSetError
from dreambooth3d.photos import fetch
from dreambooth3d.photos.subject import fetchable_subjects, resolve_folder
from tests.photos.photo_sets import write_set


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """No lines among the test's output."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A served folder with three photos of `dog`, whose sums are the pinned ones."""
    folder = write_set(tmp_path / "served" / "dog", count=3, class_noun=None)
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "served")))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "SHA256", {"dog": sums})
    monkeypatch.setattr(fetch, "BASE_URL", f"http://127.0.0.1:{server.server_port}")
    yield folder
    server.shutdown()
    server.server_close()


def test_fetch_brings_photos_and_subject_file(served: Path, tmp_path: Path) -> None:
    target = tmp_path / "data" / "dog"
    assert fetch.fetch("dog", target) == target
    assert [path.name for path in sorted(target.iterdir())] == ["00.png", "01.png", "02.png", "subject.yaml"]
    assert (target / "00.png").read_bytes() == (served / "00.png").read_bytes()
    assert resolve_folder(PhotosConfig(dir=str(target)))[1].class_noun == "dog"
    assert list(target.parent.iterdir()) == [target]


def test_fetch_again_needs_no_network(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = fetch.fetch("dog", tmp_path / "dog")
    monkeypatch.setattr(fetch, "BASE_URL", "http://127.0.0.1:9")
    assert fetch.fetch("dog", target) == target


def test_wrong_sum_names_the_file_and_leaves_nothing(served: Path, tmp_path: Path) -> None:
    (served / "02.png").write_bytes(b"tampered")
    target = tmp_path / "data" / "dog"
    with pytest.raises(PhotoSetError, match=r"dog/02\.png: does not have the expected SHA-256"):
        fetch.fetch("dog", target)
    assert list(target.parent.iterdir()) == []


def test_missing_file_names_the_answer(served: Path, tmp_path: Path) -> None:
    (served / "01.png").unlink()
    with pytest.raises(PhotoSetError, match=r"01\.png: the server answered 404"):
        fetch.fetch("dog", tmp_path / "dog")
    assert not (tmp_path / "dog").exists()


def test_offline_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(PhotoSetError, match="needs a network") as error:
        fetch.fetch("cat", tmp_path / "data" / "cat")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_other_files_are_never_overwritten(served: Path, tmp_path: Path) -> None:
    target = write_set(tmp_path / "dog", count=3)
    (target / "01.png").write_bytes(b"mine")
    with pytest.raises(PhotoSetError, match=r"01\.png there is missing or not the original"):
        fetch.fetch("dog", target)
    assert (target / "01.png").read_bytes() == b"mine"


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(PhotoSetError, match="dog, cat, clock, can"):
        fetch.fetch("unicorn", tmp_path)


def test_pinned_sums_have_the_shape_of_the_dataset() -> None:
    assert {name: len(sums) for name, sums in fetch.SHA256.items()} == {"dog": 5, "cat": 5, "clock": 6, "can": 6}
    assert fetchable_subjects() == tuple(fetch.SHA256)
    values = [sha256 for sums in fetch.SHA256.values() for sha256 in sums.values()]
    assert len(set(values)) == 22
    assert all(len(value) == 64 and set(value) <= set("0123456789abcdef") for value in values)
    assert all(list(sums) == [f"{index:02d}.jpg" for index in range(len(sums))] for sums in fetch.SHA256.values())
