"""Files of Gaussians as splat viewers read them.

Axes are those that viewers expect of each, as who looks at the subject's front sees them: in PLY and .splat, as in the
files of the original implementation, x to the right, y down and z away; in SPZ, as its specification has it and as in
glTF, x to the right, y up and z towards the viewer.
"""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from dreambooth3d.errors import ConfigError, EmptyFieldError
from dreambooth3d.gaussians.gaussians import Gaussians

Y_DOWN = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])
"""Rotation from the world (z up, the front towards +x) to the axes of PLY and .splat."""
Y_UP = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
"""Rotation from the world to the axes of SPZ."""
FIRST_HARMONIC = 0.28209479177387814
"""Of degree 0: 1 / (2 sqrt(pi))."""
PLY_FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
SPZ_MAGIC, SPZ_VERSION = 0x5053474E, 2
SPZ_COLOR_SCALE = 0.15
"""What a unit of the harmonic of degree 0 takes of a byte's range."""
SPZ_LOG_SCALES = (-10.0, 255 / 16 - 10.0)
"""The logarithms of scales that a byte holds."""
SPZ_FRACTION_BITS = (1, 22)
_POSITION_BITS = 24
SPLAT_RECORD = np.dtype([("position", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("rotation", "u1", 4)])


@dataclass(frozen=True)
class _Values:
    """What files hold of n Gaussians, in the axes of the files, the most visible first.

    Attributes:
        positions, scales: (n, 3) in the file's units; scales are standard deviations.
        rotations: (n, 4) unit quaternions, the real part first and not negative.
        opacities: (n,) in (0, 1).
        colors: (n, 3) in [0, 1].
    """

    positions: np.ndarray
    scales: np.ndarray
    rotations: np.ndarray
    opacities: np.ndarray
    colors: np.ndarray

    @staticmethod
    @torch.no_grad()
    def of(gaussians: Gaussians, unit: float, to_file: Float[np.ndarray, "3 3"]) -> _Values:
        """`unit`: what a world unit measures in the file; `to_file`: rotation to its axes."""
        means, scales, axes, opacities, colors = (
            values.double().cpu().numpy()
            for values in (
                gaussians.means(), gaussians.radii(), gaussians.axes(), gaussians.opacities(), gaussians.colors()
            )
        )  # fmt: skip
        kept = np.isfinite(means).all(axis=1) & np.isfinite(scales).all(axis=1) & (opacities > 1 / 255)
        if not kept.any():
            raise EmptyFieldError("gaussians: none of them can be seen, so there is nothing to write. Train again.")
        order = np.flatnonzero(kept)[np.argsort(-(scales.prod(axis=1) * opacities)[kept], kind="stable")]
        turns = Rotation.from_matrix(to_file @ axes[order]).as_quat(canonical=True, scalar_first=True)
        return _Values(
            unit * means[order] @ to_file.T, unit * scales[order], turns, opacities[order], colors[order].clip(0, 1)
        )

    @property
    def harmonics(self) -> np.ndarray:
        """(n, 3) coefficients of degree 0."""
        return (self.colors - 0.5) / FIRST_HARMONIC


def write_ply(gaussians: Gaussians, path: Path, unit: float = 1.0) -> None:
    """Write a binary PLY in the layout of the original implementation, with spherical harmonics of degree 0.

    Args:
        unit: what a world unit measures in the file.

    Raises:
        EmptyFieldError: none of them can be seen.

    Source: https://github.com/graphdeco-inria/gaussian-splatting, whose viewers and others read these properties.
    """
    values = _Values.of(gaussians, unit, Y_DOWN)
    table = np.concatenate(
        [
            values.positions,
            np.zeros_like(values.positions),
            values.harmonics,
            np.log(values.opacities / (1 - values.opacities).clip(1e-6))[:, None],
            np.log(values.scales),
            values.rotations,
        ],
        axis=1,
    ).astype("<f4")
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    lines += [f"property float {name}" for name in PLY_FIELDS]
    path.write_bytes(("\n".join([*lines, "end_header"]) + "\n").encode() + table.tobytes())


def write_splat(gaussians: Gaussians, path: Path, unit: float = 1.0) -> None:
    """Write 32 bytes for each: position and scale as floats, colour with opacity and rotation as bytes.

    Args:
        unit: what a world unit measures in the file.

    Raises:
        EmptyFieldError: none of them can be seen.

    Source: https://github.com/antimatter15/splat.
    """
    values = _Values.of(gaussians, unit, Y_DOWN)
    records = np.zeros(len(values.positions), SPLAT_RECORD)
    records["position"], records["scale"] = values.positions, values.scales
    rgba = np.concatenate([values.colors, values.opacities[:, None]], axis=1)
    records["color"] = (255 * rgba).round().astype(np.uint8)
    records["rotation"] = (128 * values.rotations + 128).round().clip(0, 255).astype(np.uint8)
    path.write_bytes(records.tobytes())


def write_spz(gaussians: Gaussians, path: Path, unit: float = 1.0) -> None:
    """Write a compressed file of 19 bytes for each, in version 2 of the format, which all its readers know.

    Positions are fixed-point numbers of 24 bits, with as many of them behind the point as the extent allows. Scales
    have steps of 6 %, colours of a 136th, opacities of a 255th.

    Args:
        unit: what a world unit measures in the file.

    Raises:
        EmptyFieldError: none of them can be seen.
        ConfigError: they are too small or too large for the format.

    Source: https://github.com/nianticlabs/spz.
    """
    values = _Values.of(gaussians, unit, Y_UP)
    bits = _fraction_bits(values)
    limit = 2 ** (_POSITION_BITS - 1) - 1
    fixed = np.round(values.positions * 2**bits).clip(-limit, limit).astype("<i4")
    header = struct.pack("<IIIBBBB", SPZ_MAGIC, SPZ_VERSION, len(fixed), 0, bits, 0, 0)
    columns = (
        np.ascontiguousarray(fixed).view(np.uint8).reshape(-1, 3, 4)[..., :3],
        _bytes(255 * values.opacities),
        _bytes(255 * (SPZ_COLOR_SCALE * values.harmonics + 0.5)),
        _bytes(16 * (np.log(values.scales) - SPZ_LOG_SCALES[0])),
        _bytes(127.5 * _nearly_unturned(values.rotations)[:, 1:] + 127.5),
    )
    content = header + b"".join(np.ascontiguousarray(column).tobytes() for column in columns)
    path.write_bytes(gzip.compress(content, mtime=0))


def _fraction_bits(values: _Values) -> int:
    """Bits behind the point of a fixed-point number that holds every position."""
    reach, usual = float(np.abs(values.positions).max()), float(np.median(np.log(values.scales)))
    bits = _POSITION_BITS - 2 - int(np.floor(np.log2(max(reach, 1e-9))))
    if not SPZ_LOG_SCALES[0] <= usual <= SPZ_LOG_SCALES[1] or bits < SPZ_FRACTION_BITS[0]:
        raise ConfigError(
            f"spz: an asset that reaches {reach:.2g} from the origin does not fit the format's numbers. Choose another "
            "--metres."
        )
    return min(bits, SPZ_FRACTION_BITS[1])


def _nearly_unturned(rotations: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Quaternions (n, 4) of the same ellipsoids with a real part of at least one half, by half turns about their axes.

    The real part is not kept: it follows from the others, well where it is large.
    """
    w, x, y, z = rotations.T
    alike = np.stack([rotations.T, [-x, w, z, -y], [-y, -z, w, x], [-z, y, -x, w]])
    chosen = alike[np.abs(alike[:, 0]).argmax(axis=0), :, np.arange(len(rotations))]
    return chosen * np.where(chosen[:, :1] < 0, -1, 1)


def _bytes(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)
