"""A small drawing in perspective of where the photos were taken: cameras around the subject on its ground."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.cameras import SUBJECT_RADIUS, Cameras, orbit_cameras

WIDTH, HEIGHT = 460.0, 330.0
EYE_AZIMUTH_DEG, EYE_ELEVATION_DEG, EYE_FOV_Y_DEG = 28.0, 32.0, 30.0
FRUSTUM = 0.42
"""Depth of a drawn camera, in world units."""
DOT = 10.0


def sketch(cameras: Cameras, numbers: Sequence[int], label: str) -> str:
    """The SVG: a ball for the subject, the ground with its front marked, and a numbered pyramid for each camera.

    Args:
        cameras: of the photos; those that are not finite are left out.
        numbers: of the photos.
        label: what it says to those who do not see it, as HTML.
    """
    poses = cameras.camera_to_world
    known = [index for index in range(len(cameras)) if bool(poses[index].isfinite().all())]
    reach = max([float(poses[index, :3, 3].norm()) for index in known], default=2.5)
    project = _Projection(reach)
    parts = [_ground(project, reach * 0.92), _front(project, reach)]
    drawn = [(project.depth(torch.zeros(3)), _subject(project))]
    drawn += [(project.depth(poses[index, :3, 3]), _camera(project, poses[index], numbers[index])) for index in known]
    parts += [part for _, part in sorted(drawn, key=lambda each: -each[0])]
    return f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


class _Projection:
    """From world coordinates to those of the drawing.

    Args:
        reach: distance of the furthest camera, all of which the drawing has to show.
    """

    def __init__(self, reach: float) -> None:
        self.focal = HEIGHT / 2 / math.tan(math.radians(EYE_FOV_Y_DEG) / 2)
        away = self.focal * (reach + FRUSTUM) * 1.1 / (WIDTH / 2)
        eye = orbit_cameras(torch.tensor([EYE_AZIMUTH_DEG]), EYE_ELEVATION_DEG, away)
        self.world_to_eye = torch.linalg.inv(eye.camera_to_world[0])

    def _local(self, point: Float[Tensor, " 3"]) -> Tensor:
        return self.world_to_eye[:3, :3] @ point + self.world_to_eye[:3, 3]

    def depth(self, point: Float[Tensor, " 3"]) -> float:
        """How far away a point is."""
        return float(-self._local(point)[2])

    def scale(self, point: Float[Tensor, " 3"]) -> float:
        """Pixels per world unit there."""
        return self.focal / max(self.depth(point), 1e-3)

    def at(self, point: Float[Tensor, " 3"]) -> tuple[float, float]:
        """Where a point is seen."""
        local, scale = self._local(point), self.scale(point)
        return WIDTH / 2 + float(local[0]) * scale, HEIGHT / 2 - float(local[1]) * scale


def _path(points: Sequence[tuple[float, float]], kind: str, closed: bool = True) -> str:
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="{kind}" d="M{steps}{"Z" if closed else ""}"/>'


def _ground(project: _Projection, radius: float) -> str:
    """Rings on the ground below the subject, with a ray at each 45 degrees."""
    low = -SUBJECT_RADIUS

    def ring(size: float) -> str:
        turns = [2 * math.pi * step / 48 for step in range(48)]
        points = [project.at(torch.tensor([size * math.cos(turn), size * math.sin(turn), low])) for turn in turns]
        return _path(points, "ground")

    rays = []
    for step in range(8):
        turn = math.pi * step / 4
        end = torch.tensor([radius * math.cos(turn), radius * math.sin(turn), low])
        rays.append(_path([project.at(torch.tensor([0.0, 0.0, low])), project.at(end)], "ground", closed=False))
    return ring(radius) + ring(radius / 2) + "".join(rays)


def _front(project: _Projection, radius: float) -> str:
    x, y = project.at(torch.tensor([radius * 1.06, 0.0, -SUBJECT_RADIUS]))
    return f'<text class="word" x="{x:.1f}" y="{y:.1f}">front</text>'


def _subject(project: _Projection) -> str:
    centre = torch.zeros(3)
    x, y = project.at(centre)
    radius = SUBJECT_RADIUS * project.scale(centre)
    return (
        f'<circle class="subject" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
        f'<text class="word" x="{x:.1f}" y="{y + 4:.1f}">subject</text>'
    )


def _camera(project: _Projection, pose: Float[Tensor, "4 4"], number: int) -> str:
    """The pyramid of what a camera sees, open towards the subject, and its number where the camera is."""
    half = 0.38 * FRUSTUM
    corners = [torch.tensor([x * half, y * half, -FRUSTUM]) for x, y in ((-1, 1), (1, 1), (1, -1), (-1, -1))]
    away = [project.at(pose[:3, :3] @ corner + pose[:3, 3]) for corner in corners]
    x, y = project.at(pose[:3, 3])
    sides = "".join(_path([(x, y), away[index], away[index - 1]], "side") for index in range(4))
    return (
        f'{sides}{_path(away, "picture")}<circle class="taken" cx="{x:.1f}" cy="{y:.1f}" r="{DOT:g}"/>'
        f'<text class="taken" x="{x:.1f}" y="{y + 4.5:.1f}">{number}</text>'
    )
