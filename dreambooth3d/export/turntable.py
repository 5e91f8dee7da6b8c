"""The turntable: numbered frames, their cameras, and a film of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.cameras import Cameras
from dreambooth3d.errors import DreamBooth3DError
from dreambooth3d.images import save_image


def upsample(frames: Float[Tensor, "n 3 height width"], size: int) -> Float[Tensor, "n 3 {size} {size}"]:
    """(n, 3, size, size) of frames (n, 3, h, w) in [0, 1], bicubic and antialiased."""
    if frames.shape[-2:] == (size, size):
        return frames
    return torch.nn.functional.interpolate(
        frames, size=(size, size), mode="bicubic", antialias=True, align_corners=False
    ).clamp(0, 1)


def write_frames(frames: Float[Tensor, "n 3 height width"], cameras: Cameras, folder: Path) -> None:
    """Write `frames/000.png` and so on, and `cameras.json`, into a folder.

    Args:
        frames: (n, 3, h, w) in [0, 1].
        cameras: the n cameras.
        folder: an existing folder.

    `cameras.json` is a list with one object per frame: its file, angles in degrees, distance in world units, vertical
    field of view in degrees, and the 4x4 OpenGL camera-to-world matrix; `Cameras.from_json` reads it.
    """
    (folder / "frames").mkdir(exist_ok=True)
    entries = []
    for index, (frame, camera) in enumerate(zip(frames, cameras.to("cpu").to_json(), strict=True)):
        name = f"frames/{index:03d}.png"
        save_image(frame, folder / name)
        entries.append({"file": name} | camera)
    (folder / "cameras.json").write_text(json.dumps(entries, indent=1) + "\n")


def write_film(frames: Float[Tensor, "n 3 height width"], path: Path, frames_per_second: int) -> str:
    """Write frames (n, 3, h, w) in [0, 1] as mp4 (H.264 and yuv420p, which every browser plays).

    Returns:
        The encoder that was used: imageio-ffmpeg, or OpenCV (MPEG-4 part 2) where that is all there is.

    Raises:
        DreamBooth3DError: no encoder is installed.
    """
    pixels = _even(frames.detach().float().cpu())
    pixels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    if importlib.util.find_spec("imageio_ffmpeg") and importlib.util.find_spec("imageio"):
        _write_ffmpeg(pixels, path, frames_per_second)
        return "libx264"
    if importlib.util.find_spec("cv2"):
        _write_opencv(pixels, path, frames_per_second)
        return "mp4v"
    raise DreamBooth3DError(
        f"{path.name}: no video encoder is installed. Run `pip install imageio[ffmpeg]` (or opencv-python-headless)."
    )


def _even(frames: Tensor) -> Tensor:
    """Repeat the last row or column of frames with odd sides: yuv420p halves both."""
    height, width = frames.shape[-2:]
    return torch.nn.functional.pad(frames, (0, width % 2, 0, height % 2), mode="replicate")


def _write_ffmpeg(pixels: np.ndarray, path: Path, frames_per_second: int) -> None:
    import imageio.v2 as imageio

    with imageio.get_writer(
        path, format="FFMPEG", fps=frames_per_second, codec="libx264", pixelformat="yuv420p", quality=9,
        macro_block_size=2, ffmpeg_log_level="error", output_params=["-movflags", "+faststart", "-threads", "1"],
    ) as writer:  # fmt: skip
        for frame in pixels:
            writer.append_data(frame)  # pyright: ignore[reportAttributeAccessIssue] - declared by the old interface alone


def _write_opencv(pixels: np.ndarray, path: Path, frames_per_second: int) -> None:
    import cv2  # pyright: ignore[reportMissingImports] - installed by whoever has no imageio-ffmpeg

    height, width = pixels.shape[1:3]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), frames_per_second, (width, height))
    if not writer.isOpened():
        raise DreamBooth3DError(f"{path.name}: OpenCV cannot write mp4 here. Run `pip install imageio[ffmpeg]`.")
    try:
        for frame in pixels:
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
    finally:
        writer.release()
