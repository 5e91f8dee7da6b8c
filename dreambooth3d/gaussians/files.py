"""Files of Gaussians as splat viewers read them.

Axes are those of the files of the original implementation, which viewers expect: x to the right, y down, z away from
who looks at the subject's front.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dreambooth3d.errors import EmptyFieldError
from dreambooth3d.gaussians.gaussians import Gaussians

TO_FILE = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])
"""Rotation from the world (z up, the front towards +x) to the axes of the files."""
FIRST_HARMONIC = 0.28209479177387814
"""Of degree 0: 1 / (2 sqrt(pi))."""
PLY_FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
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
    def of(gaussians: Gaussians, unit: float) -> _Values:
        """`unit`: what a world unit measures in the file."""
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
        turns = Rotation.from_matrix(TO_FILE @ axes[order]).as_quat(canonical=True, scalar_first=True)
        return _Values(
            unit * means[order] @ TO_FILE.T, unit * scales[order], turns, opacities[order], colors[order].clip(0, 1)
        )


def write_ply(gaussians: Gaussians, path: Path, unit: float = 1.0) -> None:
    """Write a binary PLY in the layout of the original implementation, with spherical harmonics of degree 0.

    Args:
        unit: what a world unit measures in the file.

    Raises:
        EmptyFieldError: none of them can be seen.

    Source: https://github.com/graphdeco-inria/gaussian-splatting, whose viewers and others read these properties.
    """
    values = _Values.of(gaussians, unit)
    table = np.concatenate(
        [
            values.positions,
            np.zeros_like(values.positions),
            (values.colors - 0.5) / FIRST_HARMONIC,
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
    values = _Values.of(gaussians, unit)
    records = np.zeros(len(values.positions), SPLAT_RECORD)
    records["position"], records["scale"] = values.positions, values.scales
    rgba = np.concatenate([values.colors, values.opacities[:, None]], axis=1)
    records["color"] = (255 * rgba).round().astype(np.uint8)
    records["rotation"] = (128 * values.rotations + 128).round().clip(0, 255).astype(np.uint8)
    path.write_bytes(records.tobytes())
