"""Which meshes are worth rendering: textured things in one piece, each of them once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import ndimage

from dreambooth3d.toybox.pretraining.meshes.render import Camera, Light, MeshRenderer
from dreambooth3d.toybox.pretraining.meshes.textured import MeshError, TexturedMesh

MOST_FACES = 120_000
_FLATTEST = 0.12
_LEAST_FILLED = 0.22
_LARGEST_PIECE = 0.7
_LEAST_CONTRAST = 0.045
_LEAST_SATURATION = 0.10
_THUMBNAIL = 16
_UNLIT = Light((0.0, 0.0, 1.0), ambient=1.0)


def check_size(mesh: TexturedMesh) -> None:
    """Refuse what is flat, or has too many triangles.

    Raises:
        MeshError: says which.
    """
    if len(mesh.faces) > MOST_FACES:
        raise MeshError(f"{len(mesh.faces)} triangles.")
    extents = mesh.extents()
    if extents.min() / extents.max() < _FLATTEST:
        raise MeshError("flat.")


def look(renderer: MeshRenderer) -> Float[ndarray, "views size size 4"]:
    """Small unlit pictures from three sides, in [0, 1].

    Raises:
        MeshError: the mesh is scattered in pieces, invisible, or of one grey.
    """
    cameras = [Camera(azimuth, 15, 2.6, 40) for azimuth in (30, 120, 260)]
    views = np.stack([renderer.render(camera, _UNLIT, pixels=_THUMBNAIL * 2) for camera in cameras]) / 255
    filled = [_filled(view[..., 3]) for view in views]
    if min(filled) < _LEAST_FILLED * 0.6 or np.mean(filled) < _LEAST_FILLED:
        raise MeshError("thin, or in scattered pieces.")
    if np.median([_in_one_piece(view[..., 3]) for view in views]) < _LARGEST_PIECE:
        raise MeshError("scattered.")
    seen = views[views[..., 3] > 0.5]
    if len(seen) < 60:
        raise MeshError("hardly visible.")
    color = seen[:, :3]
    saturation = (color.max(1) - color.min(1)).mean()
    if color.std(0).max() < _LEAST_CONTRAST and saturation < _LEAST_SATURATION:
        raise MeshError("nearly of one grey.")
    if not 0.05 < color.mean() < 0.96:
        raise MeshError("nearly black or white.")
    views[..., :3] *= views[..., 3:]
    return views.reshape(len(views), _THUMBNAIL, 2, _THUMBNAIL, 2, 4).mean((2, 4)).astype(np.float32)


def _filled(alpha: Float[ndarray, "size size"]) -> float:
    """Share of its bounding rectangle that a silhouette covers."""
    rows, columns = np.nonzero(alpha.max(1) > 0.1)[0], np.nonzero(alpha.max(0) > 0.1)[0]
    if not len(rows):
        return 0.0
    return float(alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean())


def _in_one_piece(alpha: Float[ndarray, "size size"]) -> float:
    """Share of a silhouette that its largest connected part covers."""
    labels, count = ndimage.label(alpha > 0.1, np.ones((3, 3)))
    sizes = ndimage.sum_labels(alpha, labels, np.arange(1, count + 1))
    return float(np.max(sizes, initial=0) / max(alpha[labels > 0].sum(), 1e-6))


@dataclass
class Seen:
    """The looks of the meshes that were taken.

    Attributes:
        nearest: below this distance (root mean square over pixels) two looks are of one thing.
        alike: below this distance of their silhouettes two looks are of one shape, of which `repeats` are taken.
    """

    nearest: float = 0.06
    alike: float = 0.03
    repeats: int = 2
    looks: list[Float[ndarray, " values"]] = field(default_factory=list)

    def is_new(self, views: Float[ndarray, "views size size 4"]) -> bool:
        """Whether nothing like it has been taken; it is from then on."""
        row = views.reshape(-1, 4)
        if self.looks:
            others = np.stack(self.looks)
            distance = np.sqrt(((others - row) ** 2).mean((1, 2)))
            shapes = np.sqrt(((others[..., 3] - row[:, 3]) ** 2).mean(1))
            if distance.min() < self.nearest or (shapes < self.alike).sum() >= self.repeats:
                return False
        self.looks.append(row)
        return True
