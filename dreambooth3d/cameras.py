"""Cameras around a subject: poses, rays, view words.

World: z up, right-handed, the subject inside the unit ball. Azimuth 0 is the subject's front (camera on +x) and grows
counter-clockwise seen from above; elevation is measured from the horizon. Poses are OpenGL camera-to-world matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.errors import ArtifactError

VIEW_WORDS = ("front", "side", "back", "overhead")
OVERHEAD_ELEVATION_DEG = 60.0
SUBJECT_RADIUS = 0.8
"""Of the ball around the origin that a subject fills: the convention of the whole world here."""
_RANGES = {
    "azimuth_deg": (-360e3, 360e3), "elevation_deg": (-90.0, 90.0), "distance": (0.0, 1e6), "fov_y_deg": (0.0, 180.0)
}  # fmt: skip
"""What numbers a file of cameras may hold; torch keeps them in float32."""
TURNTABLE_FRAMES = 36
TURNTABLE_DISTANCE = 2.5
TURNTABLE_FOV_Y_DEG = 42.0
TURNTABLE_ELEVATION_DEG = 15.0


def wrap_degrees(angle_deg: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Map angles in degrees to [-180, 180)."""
    return torch.remainder(angle_deg + 180.0, 360.0) - 180.0


class Viewpoints(Protocol):
    """A batch of n pinhole cameras with square pixels and the principal point in the middle, as renderers see them."""

    @property
    def camera_to_world(self) -> Float[Tensor, "n 4 4"]:
        """(n, 4, 4) OpenGL camera-to-world matrices: columns right, up, backward, position."""
        ...

    @property
    def fov_y_deg(self) -> Float[Tensor, " n"]:
        """(n,) vertical field of view in degrees."""
        ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> Viewpoints:
        """The same cameras on another device."""
        ...

    def rays(
        self, height: int, width: int
    ) -> tuple[Float[Tensor, "n {height} {width} 3"], Float[Tensor, "n {height} {width} 3"]]:
        """Origins and unit directions (n, height, width, 3) of the rays through pixel centres, in world units."""
        ...


@dataclass(frozen=True)
class PosedCameras:
    """A batch of cameras anywhere, turned anyhow.

    Attributes:
        camera_to_world: (n, 4, 4) OpenGL camera-to-world matrices.
        fov_y_deg: (n,) vertical field of view in degrees.
    """

    camera_to_world: Float[Tensor, "n 4 4"]
    fov_y_deg: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.fov_y_deg)

    def to(self, device: torch.device | str) -> PosedCameras:
        """The same cameras on another device."""
        return PosedCameras(self.camera_to_world.to(device), self.fov_y_deg.to(device))

    def rays(
        self, height: int, width: int
    ) -> tuple[Float[Tensor, "n {height} {width} 3"], Float[Tensor, "n {height} {width} 3"]]:
        """See `Viewpoints`."""
        return pinhole_rays(self.camera_to_world, self.fov_y_deg, height, width)


def pinhole_rays(
    pose: Float[Tensor, "n 4 4"], fov_y_deg: Float[Tensor, " n"], height: int, width: int
) -> tuple[Float[Tensor, "n {height} {width} 3"], Float[Tensor, "n {height} {width} 3"]]:
    """Rays through the pixel centres of cameras with poses (n, 4, 4) and fields of view (n,); see `Viewpoints.rays`."""
    half = torch.tan(torch.deg2rad(fov_y_deg) / 2)[:, None, None]
    y, x = torch.meshgrid(
        1 - 2 * (torch.arange(height, device=pose.device) + 0.5) / height,
        2 * (torch.arange(width, device=pose.device) + 0.5) / width - 1,
        indexing="ij",
    )
    local = torch.stack(
        [half * x * (width / height), half * y, -torch.ones_like(half * x)], dim=-1
    )  # (n, height, width, 3)
    directions = torch.nn.functional.normalize(torch.einsum("nij,nhwj->nhwi", pose[:, :3, :3], local), dim=-1)
    origins = pose[:, None, None, :3, 3].expand_as(directions)
    return origins, directions


@dataclass(frozen=True)
class Cameras:
    """A batch of cameras that look at the origin.

    Attributes:
        azimuth_deg: (n,) azimuth in degrees, 0 is the subject's front.
        elevation_deg: (n,) elevation in degrees, in (-90, 90).
        distance: (n,) distance from the origin in world units.
        fov_y_deg: (n,) vertical field of view in degrees.
    """

    azimuth_deg: Float[Tensor, " n"]
    elevation_deg: Float[Tensor, " n"]
    distance: Float[Tensor, " n"]
    fov_y_deg: Float[Tensor, " n"]

    def __len__(self) -> int:
        return self.azimuth_deg.shape[0]

    def __getitem__(self, index: slice | list[int] | Tensor) -> Cameras:
        return self.map(lambda values: values[index])

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras on another device; the host does not wait for a copy to a GPU."""
        on_gpu = torch.device(device).type == "cuda"
        return self.map(lambda values: values.to(device, non_blocking=on_gpu))

    def map(self, function: Callable[..., Tensor], *others: Cameras) -> Cameras:
        """Cameras with `function(own values, *values of the others)`, for one attribute at a time."""
        batches = (self, *others)
        return type(self)(*(function(*values) for values in zip(*(batch._values() for batch in batches), strict=True)))

    @staticmethod
    def cat(batches: Sequence[Cameras]) -> Cameras:
        """All cameras of the batches, one batch after the other."""
        return batches[0].map(lambda *values: torch.cat(values), *batches[1:])

    def _values(self) -> tuple[Tensor, ...]:
        return self.azimuth_deg, self.elevation_deg, self.distance, self.fov_y_deg

    @property
    def camera_to_world(self) -> Float[Tensor, "n 4 4"]:
        """(n, 4, 4) OpenGL camera-to-world matrices: columns right, up, backward, position."""
        azimuth, elevation = torch.deg2rad(self.azimuth_deg), torch.deg2rad(self.elevation_deg)
        backward = torch.stack(
            [elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()], dim=-1
        )
        right = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], dim=-1)
        up = torch.linalg.cross(backward, right)
        pose = torch.zeros(len(self), 4, 4, dtype=backward.dtype, device=backward.device)
        pose[:, :3, 0], pose[:, :3, 1], pose[:, :3, 2] = right, up, backward
        pose[:, :3, 3] = backward * self.distance[:, None]
        pose[:, 3, 3] = 1.0
        return pose

    def rays(
        self, height: int, width: int
    ) -> tuple[Float[Tensor, "n {height} {width} 3"], Float[Tensor, "n {height} {width} 3"]]:
        """Rays through pixel centres.

        Returns:
            origins (n, height, width, 3) in world units and directions (n, height, width, 3) of unit length.
        """
        return pinhole_rays(self.camera_to_world, self.fov_y_deg, height, width)

    def view_words(self) -> list[str]:
        """One of `VIEW_WORDS` per camera."""
        return [
            view_word(azimuth, elevation)
            for azimuth, elevation in zip(self.azimuth_deg.tolist(), self.elevation_deg.tolist(), strict=True)
        ]

    def to_json(self) -> list[dict[str, Any]]:
        """One JSON-ready object per camera, with its angles and its 4x4 pose."""
        poses = self.camera_to_world.tolist()
        return [
            {
                "azimuth_deg": azimuth,
                "elevation_deg": elevation,
                "distance": distance,
                "fov_y_deg": fov,
                "camera_to_world": pose,
            }
            for azimuth, elevation, distance, fov, pose in zip(
                *(value.tolist() for value in Cameras._values(self)), poses, strict=True
            )
        ]

    @staticmethod
    def from_json(entries: object) -> Cameras:
        """Inverse of `to_json`, of any plain value.

        Raises:
            ArtifactError: it is no list of such objects, or one of their numbers is out of its range.
        """
        try:
            values = [[float(entry[key]) for entry in entries] for key in _RANGES]  # type: ignore[attr-defined]
        except (TypeError, KeyError, ValueError, OverflowError):
            names = ", ".join(_RANGES)
            raise ArtifactError(
                f"cameras.json: is no list of cameras with the numbers {names}. Export the asset again."
            ) from None
        for (name, (low, high)), numbers in zip(_RANGES.items(), values, strict=True):
            if wrong := [number for number in numbers if not low <= number <= high]:
                raise ArtifactError(
                    f"cameras.json: {name} {wrong[0]:g} is not from {low:g} to {high:g}. Export the asset again."
                )
        return Cameras(*map(torch.tensor, values))


@dataclass(frozen=True)
class ShakenCameras(Cameras):
    """Cameras that miss the origin a little; azimuth, elevation and distance are those of where they should be.

    Attributes:
        shift: (n, 3) from where a camera should be to where it is, in world units.
        target: (n, 3) the point that it looks at.
        roll_deg: (n,) by how much it is rolled about its own axis, counter-clockwise as it sees it.
    """

    shift: Float[Tensor, "n 3"]
    target: Float[Tensor, "n 3"]
    roll_deg: Float[Tensor, " n"]

    def _values(self) -> tuple[Tensor, ...]:
        return *super()._values(), self.shift, self.target, self.roll_deg

    @property
    def camera_to_world(self) -> Float[Tensor, "n 4 4"]:
        """(n, 4, 4) as of `Cameras`."""
        straight = super().camera_to_world
        position = straight[:, :3, 3] + self.shift
        backward = torch.nn.functional.normalize(position - self.target, dim=-1)
        right = torch.nn.functional.normalize(torch.linalg.cross(straight[:, :3, 1], backward), dim=-1)
        up = torch.linalg.cross(backward, right)
        cosine, sine = (part(torch.deg2rad(self.roll_deg))[:, None] for part in (torch.cos, torch.sin))
        columns = (cosine * right + sine * up, cosine * up - sine * right, backward, position)
        pose = torch.zeros_like(straight)
        pose[:, :3, :] = torch.stack(columns, dim=-1)
        pose[:, 3, 3] = 1.0
        return pose


def shaken(cameras: Cameras, generator: torch.Generator, *, position: float, target: float, roll_deg: float) -> Cameras:
    """The cameras with small random errors.

    Args:
        cameras: n cameras on the CPU.
        generator: source of randomness, on the CPU.
        position: largest shift along each axis, in world units.
        target: standard deviation along each axis of the point that they look at, in world units.
        roll_deg: standard deviation of their roll.
    """
    count = len(cameras)
    shift = position * (2 * torch.rand(count, 3, generator=generator) - 1)
    aim = target * torch.randn(count, 3, generator=generator)
    roll = roll_deg * torch.randn(count, generator=generator)
    straight = (cameras.azimuth_deg, cameras.elevation_deg, cameras.distance, cameras.fov_y_deg)
    return ShakenCameras(*straight, shift, aim, roll)


def view_word(azimuth_deg: float, elevation_deg: float) -> str:
    """The view word of one camera: overhead above 60 degrees, else front, side or back by quadrant."""
    if elevation_deg > OVERHEAD_ELEVATION_DEG:
        return "overhead"
    azimuth = abs((azimuth_deg + 180.0) % 360.0 - 180.0)
    return "front" if azimuth < 45.0 else "back" if azimuth > 135.0 else "side"


def orbit_cameras(
    azimuths_deg: Float[Tensor, " n"],
    elevation_deg: float = TURNTABLE_ELEVATION_DEG,
    distance: float = TURNTABLE_DISTANCE,
    fov_y_deg: float = TURNTABLE_FOV_Y_DEG,
) -> Cameras:
    """Cameras at the given azimuths (n,) that share elevation, distance and field of view."""
    full = torch.ones_like(azimuths_deg)
    return Cameras(azimuths_deg, full * elevation_deg, full * distance, full * fov_y_deg)


def turntable_cameras(frames: int = TURNTABLE_FRAMES) -> Cameras:
    """The turntable: `frames` cameras evenly around the subject from azimuth 0."""
    return orbit_cameras(torch.arange(frames, dtype=torch.float32) * (360.0 / frames))


def spread_cameras(count: int, elevations_deg: tuple[float, ...] = (0.0, 15.0, 35.0)) -> Cameras:
    """`count` distinct cameras at even azimuths from 0, whose elevations cycle through the given ones."""
    azimuth = torch.arange(count, dtype=torch.float32) * (360.0 / count)
    elevation = torch.tensor([elevations_deg[index % len(elevations_deg)] for index in range(count)])
    full = torch.ones_like(azimuth)
    return Cameras(azimuth, elevation, full * TURNTABLE_DISTANCE, full * TURNTABLE_FOV_Y_DEG)


def random_cameras(
    count: int,
    generator: torch.Generator,
    *,
    elevation_deg: tuple[float, float] = (-10.0, 80.0),
    distance: tuple[float, float] = (2.2, 2.8),
    fov_y_deg: tuple[float, float] = (38.0, 48.0),
    azimuth_deg: tuple[float, float] = (0.0, 360.0),
    stratified: bool = True,
) -> Cameras:
    """Random cameras around the subject, uniform over the part of the sphere between the bounds.

    Args:
        count: number of cameras.
        generator: source of randomness, on the CPU.
        elevation_deg, distance, fov_y_deg, azimuth_deg: ranges (low, high).
        stratified: draw one azimuth from each of `count` equal sectors, so that one batch sees all sides.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    azimuth = torch.rand(count, generator=generator)
    if stratified:
        azimuth = torch.rand(1, generator=generator) + (torch.arange(count) + azimuth) / count
    low, high = (math.sin(math.radians(bound)) for bound in elevation_deg)
    elevation = torch.rad2deg(torch.asin(uniform(low, high)))
    first, last = azimuth_deg
    azimuth = torch.remainder(first + torch.remainder(azimuth, 1.0) * (last - first), 360.0)
    return Cameras(azimuth, elevation, uniform(*distance), uniform(*fov_y_deg))
