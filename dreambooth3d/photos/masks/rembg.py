"""Masks by the package rembg, an optional extra, from an ONNX file that is here: nothing is downloaded in a run."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreambooth3d.errors import ConfigError, gist
from dreambooth3d.photos.masks.shared_colors import keep_shared
from dreambooth3d.photos.masks.source import (
    HALF,
    Mask,
    PhotoMask,
    SourcePhoto,
    cut_share,
    require_pinned,
    says_something,
)

RELEASE = "https://github.com/danielgatis/rembg/releases/download/v0.0.0"
TIMEOUT_S = 60.0
CHUNK = 2**20
INSTALL = "Run `pip install 'dreambooth3d[masks]'`{}, or set photos.masks to another source."
TRUST_FROM = 0.6
"""Confidence from which a mask is a target: of how decided the model is, how far the mask's colours are those of the
other photos' subjects, and how little of its outline lies on the frame, where masks often go on into the background."""
USUALLY_SHARED = 0.8
"""Odds of a mask's colours, in terms of the best of the set, from which they are the subject's."""


@dataclass(frozen=True)
class Model:
    """A model file of rembg's release.

    Attributes:
        file: its name there.
        md5: of its content, as rembg publishes it.
    """

    file: str
    md5: str


MODELS: Mapping[str, Model] = {
    "isnet-general-use": Model("isnet-general-use.onnx", "fc16ebd8b0c10d971d3513d564d01e29"),
    "isnet-anime": Model("isnet-anime.onnx", "6f184e756bb3bd901c8849220a83e38e"),
    "u2net": Model("u2net.onnx", "60024c5c889badc19c04ad937298a77b"),
    "u2netp": Model("u2netp.onnx", "8e83ca70e441ab06c318d82300c84806"),
    "u2net_human_seg": Model("u2net_human_seg.onnx", "c09ddc2e0104f800e3e1bb4652583d1f"),
    "silueta": Model("silueta.onnx", "55e59e0d8062d2f5d013f4725ee84782"),
    "birefnet-general": Model("BiRefNet-general-epoch_244.onnx", "7a35a0141cbbc80de11d9c9a28f52697"),
    "birefnet-general-lite": Model(
        "BiRefNet-general-bb_swin_v1_tiny-epoch_232.onnx", "4fab47adc4ff364be1713e97b7e66334"
    ),
    "birefnet-portrait": Model("BiRefNet-portrait-epoch_150.onnx", "c3a64a6abf20250d090cd055f12a3b67"),
    "birefnet-dis": Model("BiRefNet-DIS-epoch_590.onnx", "2d4d44102b446f33a4ebb2e56c051f2b"),
    "birefnet-hrsod": Model("BiRefNet-HRSOD_DHU-epoch_115.onnx", "c017ade5de8a50ff0fd74d790d268dda"),
    "birefnet-cod": Model("BiRefNet-COD-epoch_125.onnx", "f6d0d21ca89d287f17e7afe9f5fd3b45"),
    "birefnet-massive": Model(
        "BiRefNet-massive-TR_DIS5K_TR_TEs-epoch_420.onnx", "33e726a2136a3d59eb0fdf613e31e3e9"
    ),
}  # fmt: skip
"""What `dreambooth3d models fetch` brings, by rembg's names."""
BY_INPUT_SIZE = {1024: "isnet-general-use", 320: "u2net"}
"""As which model of rembg a file of another name is run, by the pixels per side that it takes."""


def installed() -> bool:
    """Whether rembg and the runtime of its models are."""
    return all(importlib.util.find_spec(name) is not None for name in ("rembg", "onnxruntime"))


def models_folder() -> Path:
    """Where fetched models are kept, beside the work folder."""
    from dreambooth3d.runtime import work_root  # needs torch

    return work_root().absolute().parent / "models" / "rembg"


def model_file(setting: str) -> Path | None:
    """The ONNX file that `photos.rembg_model` means; None for a known model that is not here.

    Raises:
        ConfigError: it is neither a known model nor a file.
    """
    if setting in MODELS:
        path = models_folder() / f"{setting}.onnx"
        return path if path.is_file() else None
    path = Path(os.path.expanduser(setting))
    if not path.is_file():
        raise ConfigError(
            f"photos.rembg_model: {setting} is neither an ONNX file nor a known model. Choose among "
            f"{', '.join(MODELS)}, or give the path of a file."
        )
    return path


def require_model(setting: str) -> Path:
    """The ONNX file of a run that is told to use rembg.

    Raises:
        ConfigError: rembg is not installed, or its model is not here.
    """
    path = model_file(setting)
    if not installed():
        fetch = "" if path else f" and `dreambooth3d models fetch {setting}`"
        install = INSTALL.format(fetch)
        raise ConfigError(f"photos.masks: rembg is asked for, but the package is not installed. {install}")
    if path is None:
        raise ConfigError(
            f"photos.rembg_model: {setting} is not here, and a run downloads nothing. Run `dreambooth3d models fetch "
            f"{setting}`, or set photos.rembg_model to an ONNX file."
        )
    return path


def fetch_model(name: str) -> Path:
    """Download a model of rembg's release, unless it is here; all or nothing.

    Args:
        name: one of `MODELS`.

    Returns:
        The file.

    Raises:
        ConfigError: no network, or another MD5 than the published one.
    """
    target, model = models_folder() / f"{name}.onnx", MODELS[name]
    if target.is_file() and _md5(target) == model.md5:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    url = f"{RELEASE}/{model.file}"
    handle, partial = tempfile.mkstemp(prefix=f".{name}-", suffix=".part", dir=target.parent)
    try:
        with open(handle, "wb") as file:
            _download(url, file)
        if _md5(Path(partial)) != model.md5:
            raise ConfigError(
                f"{url}: does not have the expected MD5 {model.md5}, so that nothing was kept. Try again; if it stays "
                "so, the file was changed at its source or on the way."
            )
        os.chmod(partial, 0o644)
        os.replace(partial, target)
    finally:
        Path(partial).unlink(missing_ok=True)
    return target


def _download(url: str, file: Any) -> None:
    """Write what is behind a URL to an open file."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            while chunk := response.read(CHUNK):
                file.write(chunk)
    except urllib.error.HTTPError as error:
        raise ConfigError(f"{url}: the server answered {error.code} ({error.reason}). Try again later.") from None
    # urllib wraps most failures in URLError; a connection cut while reading raises the plain ones.
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise ConfigError(
            f"{url}: could not be downloaded ({getattr(error, 'reason', error)}). This needs a network: connect, or "
            "set photos.rembg_model to an ONNX file."
        ) from None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


@dataclass(frozen=True)
class Rembg:
    """A model of rembg.

    Attributes:
        file: its ONNX file.
        sha256: of the file, as a run has pinned it.
    """

    file: Path
    sha256: str
    name: str = "rembg"

    def masks(self, photos: Sequence[SourcePhoto]) -> list[PhotoMask | None]:
        """A mask of each photo, None where the model sees no subject.

        Raises:
            ConfigError: the file is another than the one pinned, or no model that can be run.
        """
        require_pinned(self.file, self.sha256)
        session = _session(self.file)
        found = [self._predict(session, photo) for photo in photos]
        served = [index for index, mask in enumerate(found) if says_something(mask)]
        shared = keep_shared([photos[index] for index in served], [found[index] for index in served])
        most = max((each.shared for each in shared), default=1.0)
        masks: list[PhotoMask | None] = [None] * len(photos)
        for index, each in zip(served, shared, strict=True):
            usual = min(1.0, each.shared / most / USUALLY_SHARED)
            confidence = decidedness(each.mask) * usual * (1 - cut_share(each.mask))
            masks[index] = PhotoMask(each.mask, confidence, confidence >= TRUST_FROM)
        return masks

    def _predict(self, session: Any, photo: SourcePhoto) -> Mask:
        try:
            return np.asarray(session.predict(Image.fromarray(photo.pixels))[0].convert("L"))
        except Exception as error:  # onnxruntime raises types of its own
            raise ConfigError(
                f"{self.file}: cannot be run ({gist(error)}). Set photos.rembg_model to a model of rembg."
            ) from None


def decidedness(mask: Mask) -> float:
    """In [0, 1]: 1 for a mask without pixels between subject and background, less the more there are beside it."""
    values = mask / 255.0
    doubt = (4 * values * (1 - values)).sum()
    return float(np.clip(1 - doubt / max(1.0, float((mask >= HALF).sum())), 0, 1))


def _session(file: Path) -> Any:
    """rembg's own session for a file, with the preparation of images that belongs to it."""
    try:
        onnxruntime, sessions = import_module("onnxruntime"), import_module("rembg.sessions").sessions
    except ImportError as error:
        raise ConfigError(f"photos.masks: rembg cannot be imported ({gist(error)}). {INSTALL.format('')}") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    try:
        name = file.stem if file.stem in MODELS else _kind(onnxruntime.InferenceSession(str(file), options, providers))
        # rembg's sessions ask this method where their file is, and download it there.
        local = type("Local", (sessions[name],), {"download_models": classmethod(lambda *_, **__: str(file))})
        return local(name, options, providers=providers)
    except Exception as error:  # onnxruntime raises types of its own
        raise ConfigError(
            f"{file}: is no ONNX model that can be run ({gist(error)}). Fetch it again, or set photos.rembg_model to "
            "another one."
        ) from None


def _kind(session: Any) -> str:
    """The model of rembg that takes images of the same size."""
    side = session.get_inputs()[0].shape[-1]
    if side not in BY_INPUT_SIZE:
        raise ValueError(f"it takes images of {side} pixels per side, where {list(BY_INPUT_SIZE)} are known")
    return BY_INPUT_SIZE[side]
