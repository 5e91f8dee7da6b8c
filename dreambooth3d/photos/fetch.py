"""Download of the four subjects of the DreamBooth dataset that the presets `sd15_*` use.

Source: https://github.com/google/dreambooth, folder `dataset/`, licensed CC BY 4.0 (Ruiz, Li, Jampani, Pritch,
Rubinstein, Aberman). The photos of these four come from unsplash.com under the Unsplash licence: dog and cat by
@alvannee, clock by @laurachouette, can by @zn35pjqq. They are not part of this repository.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from dreambooth3d.errors import PhotoSetError
from dreambooth3d.photos.public import PHOTOGRAPHERS
from dreambooth3d.photos.subject import SUBJECT_FILE, shown_path
from dreambooth3d.photos.tracking import DATA, repository_root

COMMIT = "e9b8c013ef2e30ab3d5d9018808513e9093e3bc4"
BASE_URL = f"https://raw.githubusercontent.com/google/dreambooth/{COMMIT}/dataset"
TIMEOUT_S = 30.0

SHA256: Mapping[str, Mapping[str, str]] = {
    "dog": {
        "00.jpg": "adeda67e5dac2a62ac5d122a32ba0365546150da40455d035760c142ebf82c97",
        "01.jpg": "fcb5dcd60a3d02a81e908fd8f37f2bcd533b1258f2ee852a962742cb4bb6e62d",
        "02.jpg": "daad1959b4754734000bcb3699d616876f49797960a2c2b36915503fd5a1c1e5",
        "03.jpg": "1da748df122f41169c4fb41d3476ff84f2c738aa94b267871aa5ec8a945898dc",
        "04.jpg": "be64947acdf522c2c26368b658d8d5594d3a9b90d9e460f42d84b4c19bd6e9bc",
    },
    "cat": {
        "00.jpg": "811beba5bfffc66533e097b9b8aa2fad3b78f410334a258ba0d2c8de900c9af7",
        "01.jpg": "b4b39821f8562d268f28d3bc06f48f72c42e8cdde89414e6764dae743b31eac0",
        "02.jpg": "b3c2334ffe5ab739658c8b35a28578fbdaf63fb8c6217dac69c49c0a9e9efd9c",
        "03.jpg": "02cb573443ecb4d0467313043dbbf9edafade4a49d76a44d8819f280af0fc11c",
        "04.jpg": "62afd15fe7205e514044bb5846299e3b7ef4769ad95a667eb246ae57416d69eb",
    },
    "clock": {
        "00.jpg": "a9bdebcfa263a3522679a99b7a53bf1463f30ca7a714657c13c812fe08c934f9",
        "01.jpg": "ded06bf31fdc8e0da7225f5dfe3bc413e6c0c02db85b3e5e69b0bbc3dc608f8b",
        "02.jpg": "bc0136fc201d1112bd7af83033df84d120be66244cb3e478bcc2113c390c043c",
        "03.jpg": "0e1eb6ca2c944f3bfaed3ace56f5f186ed073a477e0333e0237253d98f0c9267",
        "04.jpg": "41235973f26152ac92d32bfc166fb5f9f1e352c5e16807920238473316ec462b",
        "05.jpg": "682c626ee4df269330ac01ef7b73a1f542fc29d70f852a6525c2216c397b5400",
    },
    "can": {
        "00.jpg": "165f674d17e27ad11c2ec048b23135d5c3ebbe0b7b9ba01bec07f9dd8b505649",
        "01.jpg": "0be6499890c9f125f84bb94c3570838892c3caf27527ec7f5e342d2e17480808",
        "02.jpg": "3925cb2fddc9433cdb6722667f3eafb7976aa9e31fed994e55a6bb9531a62d35",
        "03.jpg": "14b003d0295376567238269f1cc55ef1a83012265f91199bab908f965d73aef9",
        "04.jpg": "96743adc998c1bb2c880ea852fca89f370177a58f3d521d88a188fee1dfdab85",
        "05.jpg": "18cef529288325383adbd6320010c4b09948a002435cea168afa1247b613b469",
    },
}
"""SHA-256 of each photo, by subject and file name."""


def fetch(name: str, target: Path | None = None) -> Path:
    """Download one subject's photos and write its `subject.yaml`; all or nothing.

    Args:
        name: dog, cat, clock or can; also its class noun.
        target: the folder to make; `data/<name>` in the repository where None. A complete one is left as it is.

    Returns:
        The folder.

    Raises:
        PhotoSetError: unknown name, no network, a photo with another SHA-256, or other files in `target`.
    """
    if name not in SHA256:
        raise PhotoSetError(f"photos fetch: {name!r} is not known. Choose among {', '.join(SHA256)}.")
    target = target or repository_root() / DATA / name
    if target.exists():
        _refuse_other_content(name, target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=".part", dir=target.parent))
    try:
        for file, sha256 in SHA256[name].items():
            (partial / file).write_bytes(_download(f"{BASE_URL}/{name}/{file}", sha256))
        (partial / SUBJECT_FILE).write_text(_subject_file(name))
        partial.chmod(0o755)
        os.rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _download(url: str, sha256: str) -> bytes:
    """The bytes behind `url`, when they are the expected ones."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            content = response.read()
    except urllib.error.HTTPError as error:
        raise PhotoSetError(f"{url}: the server answered {error.code} ({error.reason}). Try again later.") from None
    # urllib wraps most failures in URLError; a connection cut while reading raises the plain ones.
    except (OSError, urllib.error.URLError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise PhotoSetError(
            f"{url}: could not be downloaded ({reason}). This needs a network: connect, or use photos of your own "
            "through photos.dir."
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PhotoSetError(
            f"{url}: does not have the expected SHA-256 {sha256[:12]}..., so that nothing was kept. "
            "Try again; if it stays so, the file was changed at its source or on the way."
        )
    return content


def _refuse_other_content(name: str, target: Path) -> None:
    """Raise where `target` is not exactly this subject's folder."""
    for file, sha256 in SHA256[name].items():
        path = target / file
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise PhotoSetError(
                f"{shown_path(target)}: exists already, and {file} there is missing or not the original. "
                "Move the folder away, or fetch into another one."
            )


def _subject_file(name: str) -> str:
    """Content of `subject.yaml`, with source and licence."""
    return (
        f"# Photos: https://github.com/google/dreambooth, dataset/{name}, commit {COMMIT[:12]} (dataset: CC BY 4.0).\n"
        f"# Taken by {PHOTOGRAPHERS[name]} on unsplash.com, Unsplash licence (https://unsplash.com/license).\n"
        f"class_noun: {name}\n"
    )
