"""Cameras of photos taken anyhow: where each was, how it was rolled, and where in the frame the subject's centre is.

A virtual rotation of the camera (Hartley and Zisserman, "Multiple View Geometry", 8.4.2) turns such a photo into the
one that an upright camera at the same place, looking at the subject's centre, would have taken: exact, given the field
of view.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, normalize

from dreambooth3d.artifacts import FRAME_FACTS, POSE_FACTS, SubjectPhotos
from dreambooth3d.cameras import TURNTABLE_FOV_Y_DEG, Cameras

SAMPLES_PER_PIXEL = 4
"""Per axis, when a photo is turned."""
FRAME_SHARES = (0.6, 0.98)
"""Of half the frame, which the farthest outline of any photo takes up when the field of view is the usual one."""
MAX_OFF_COMMON = 0.03
"""Of half the frame, root mean square, by which photos that look at one point may seem to miss it."""
USUAL_SHARE = 0.9
"""The same, where the usual field of view is too small or too large."""
TILT_STEPS, TILT_STEP, TILT_DAMPING = 8, 1e-2, 1e-3
"""Gauss-Newton steps, the difference in radians that gives slopes, and what keeps few photos from a large tilt."""
UPRIGHT_ROLL_DEG, UPRIGHT_OFF = 2.0, 0.02
"""Roll, and root mean square of the centres in halves of the frame, up to which photos count as upright and centred."""


@dataclass(frozen=True)
class PlacedCameras:
    """Cameras of n square photos.

    Attributes:
        cameras: azimuth, elevation and distance of each, and the field of view of its photo.
        roll_deg: (n,) by how much the camera was turned counter-clockwise about its axis, in degrees.
        centre: (n, 2) where the subject's centre is in the photo, x to the right and y up, in [-1, 1] within the frame.
    """

    cameras: Cameras
    roll_deg: Float[Tensor, " n"]
    centre: Float[Tensor, "n 2"]

    @property
    def to_upright(self) -> Float[Tensor, "n 3 3"]:
        """(n, 3, 3) rotations from each photo's camera frame to that of its upright camera that looks at the centre."""
        half = torch.tan(torch.deg2rad(self.cameras.fov_y_deg) / 2)[:, None]
        ahead = torch.cat([self.centre * half, -torch.ones_like(half)], dim=-1)
        return _about_axis(self.roll_deg) @ rotation_towards(ahead)

    @property
    def upright(self) -> bool:
        """Whether all photos are as upright cameras of the usual field of view took them that looked at the centre."""
        usual = (self.cameras.fov_y_deg == TURNTABLE_FOV_Y_DEG).all()
        return bool(usual and (self.roll_deg == 0).all() and (self.centre == 0).all())

    def around_common_point(self) -> PlacedCameras:
        """The same cameras with the point that all of them look at as the subject's centre, where there is one.

        What the middle of the subject is, photos that all look at one point say themselves.
        """
        pose = self.cameras.camera_to_world
        rotation = pose[:, :3, :3] @ self.to_upright
        position, axis = pose[:, :3, 3], -rotation[:, :, 2]
        across = torch.eye(3, device=axis.device) - axis[:, :, None] * axis[:, None]
        point = torch.linalg.solve(across.sum(dim=0), (across @ position[:, :, None]).sum(dim=0))[:, 0]
        moved = self.around(point)
        return moved if moved.look_at_centre else self

    @property
    def look_at_centre(self) -> bool:
        """Whether the subject's centre is in the middle of all photos, but for what nobody notices."""
        return bool(self.centre.square().mean().sqrt() <= MAX_OFF_COMMON)

    def around(self, point: Float[Tensor, " 3"]) -> PlacedCameras:
        """The same cameras with another point of the world as the subject's centre."""
        pose = self.cameras.camera_to_world
        return self._around(pose[:, :3, :3] @ self.to_upright, pose[:, :3, 3] - point)

    def levelled(self) -> PlacedCameras:
        """The same cameras in the world in which they roll least.

        Photos do not say which way is up, and cameras that may roll can all be tilted together with the subject. People
        hold cameras level, by and large.
        """
        pose = self.cameras.camera_to_world
        rotation, position = pose[:, :3, :3] @ self.to_upright, pose[:, :3, 3]

        def tilted(tilt: Tensor) -> PlacedCameras:
            about = torch.linalg.matrix_exp(_cross_matrix(torch.cat([tilt, tilt.new_zeros(1)])))
            return self._around(about @ rotation, position @ about.T)

        tilt = position.new_zeros(2)
        for _ in range(TILT_STEPS):
            roll = torch.deg2rad(tilted(tilt).roll_deg)
            columns = [torch.deg2rad(tilted(tilt + step).roll_deg) - roll for step in TILT_STEP * torch.eye(2).to(tilt)]
            slope = torch.stack(columns, dim=1) / TILT_STEP
            normal = slope.T @ slope + TILT_DAMPING * torch.eye(2).to(tilt)
            tilt = tilt - torch.linalg.solve(normal, slope.T @ roll)
        return tilted(tilt)

    def simplified(self) -> PlacedCameras:
        """Upright cameras of the usual field of view that look at the centre, where these are nearly that."""
        off = self.centre.square().mean().sqrt()
        if self.roll_deg.abs().max() > UPRIGHT_ROLL_DEG or off > UPRIGHT_OFF:
            return self
        full = torch.full_like(self.roll_deg, TURNTABLE_FOV_Y_DEG)
        own, usual = (torch.tan(torch.deg2rad(fov) / 2) for fov in (self.cameras.fov_y_deg, full))
        cameras = replace(self.cameras, distance=self.cameras.distance * own / usual, fov_y_deg=full)
        return PlacedCameras(cameras, torch.zeros_like(self.roll_deg), torch.zeros_like(self.centre))

    def _around(self, rotation: Tensor, position: Tensor) -> PlacedCameras:
        """Cameras of rotations (n, 3, 3) to the world at positions (n, 3) relative to the subject's centre."""
        distance = position.norm(dim=-1)
        azimuth = torch.rad2deg(torch.atan2(position[:, 1], position[:, 0]))
        elevation = torch.rad2deg(torch.asin(position[:, 2] / distance))
        cameras = Cameras(azimuth, elevation, distance, self.cameras.fov_y_deg)
        ahead = torch.einsum("nij,ni->nj", rotation, -position)
        upright = cameras.camera_to_world[:, :3, :3].mT @ rotation
        half = torch.tan(torch.deg2rad(cameras.fov_y_deg) / 2)[:, None]
        roll = roll_of(upright @ rotation_towards(ahead).mT)
        return PlacedCameras(cameras, roll, ahead[:, :2] / (-ahead[:, 2:] * half))

    def __getitem__(self, index: Tensor) -> PlacedCameras:
        return PlacedCameras(self.cameras[index], self.roll_deg[index], self.centre[index])

    def cpu(self) -> PlacedCameras:
        """The same on the CPU."""
        return PlacedCameras(self.cameras.to(torch.device("cpu")), self.roll_deg.cpu(), self.centre.cpu())

    def where_known(self, others: PlacedCameras) -> PlacedCameras:
        """These cameras where their places are known, the others elsewhere."""
        known = ~self.cameras.azimuth_deg.isnan()
        cameras = self.cameras.map(lambda own, other: torch.where(known, own, other), others.cameras)
        roll = torch.where(known, self.roll_deg, others.roll_deg)
        return PlacedCameras(cameras, roll, torch.where(known[:, None], self.centre, others.centre))

    def columns(self) -> dict[str, list[float]]:
        """Columns of a photo set's facts, by name."""
        looked = self.cameras
        poses = (looked.azimuth_deg, looked.elevation_deg, looked.distance)
        frames = (looked.fov_y_deg, self.roll_deg, *self.centre.unbind(-1))
        rounded = [values.double().round(decimals=4).tolist() for values in (*poses, *frames)]
        return dict(zip((*POSE_FACTS, *FRAME_FACTS), rounded, strict=True))

    @staticmethod
    def of_columns(columns: Mapping[str, Sequence[float]]) -> PlacedCameras:
        """Inverse of `columns`."""
        poses = [torch.tensor(list(columns[name]), dtype=torch.float32) for name in (*POSE_FACTS, *FRAME_FACTS)]
        azimuth, elevation, distance, fov, roll, x, y = poses
        return PlacedCameras(Cameras(azimuth, elevation, distance, fov), roll, torch.stack([x, y], dim=-1))


def placed_cameras(photos: SubjectPhotos) -> PlacedCameras | None:
    """The cameras of a photo set, NaN for photos that were not located; None where nobody has looked for them."""
    if not {*POSE_FACTS, *FRAME_FACTS} <= set(photos.facts):
        return None
    return PlacedCameras.of_columns({name: photos.facts[name].tolist() for name in (*POSE_FACTS, *FRAME_FACTS)})


def towards_subjects(masks: Float[Tensor, "n height height"], fov_y_deg: Float[Tensor, " n"]) -> PlacedCameras:
    """Cameras of which nothing is known but the middles of the subjects' boxes; their places are NaN."""
    side = masks.shape[-1]
    middles = []
    for solid in masks > 0.5:
        y, x = torch.nonzero(solid, as_tuple=True)
        middles.append(torch.stack([x.amin() + x.amax() + 1 - side, side - 1 - y.amin() - y.amax()]) / side)
    unknown = torch.full_like(fov_y_deg, math.nan)
    centre = torch.stack(middles).to(fov_y_deg)
    return PlacedCameras(Cameras(unknown, unknown, unknown, fov_y_deg), torch.zeros_like(fov_y_deg), centre)


def fitting_fov_y_deg(masks: Float[Tensor, "n height height"], placed: PlacedCameras) -> float:
    """A field of view in degrees in which all subjects fit once photos are rectified: the usual one if it will do."""
    farthest = 0.0
    halves = torch.tan(torch.deg2rad(placed.cameras.fov_y_deg) / 2)
    for solid, rotation, half in zip(masks > 0.5, placed.to_upright, halves, strict=True):
        seen = pixel_directions(solid, half) @ rotation.T
        farthest = max(farthest, (seen[:, :2] / -seen[:, 2:]).abs().max().item())
    usual = math.tan(math.radians(TURNTABLE_FOV_Y_DEG) / 2)
    if FRAME_SHARES[0] * usual <= farthest <= FRAME_SHARES[1] * usual:
        return TURNTABLE_FOV_Y_DEG
    return math.degrees(2 * math.atan(farthest / USUAL_SHARE))


def pixel_directions(solid: Bool[Tensor, "height height"], half_width: Float[Tensor, ""]) -> Float[Tensor, "k 3"]:
    """(k, 3) directions in the camera's frame of a bool mask's pixels, from the tangent of half the field of view."""
    y, x = torch.nonzero(solid, as_tuple=True)
    side = solid.shape[-1]
    plane = torch.stack([(x + 0.5) * 2 / side - 1, 1 - (y + 0.5) * 2 / side], dim=-1) * half_width
    return torch.cat([plane, torch.full_like(plane[:, :1], -1.0)], dim=-1)


def rotation_towards(ahead: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """(n, 3, 3) rotations that take directions (n, 3) in a camera's frame to its axis, -z, and keep it upright."""
    backward = -normalize(ahead, dim=-1)
    right = normalize(torch.linalg.cross(torch.eye(3).to(ahead)[1].expand_as(backward), backward), dim=-1)
    return torch.stack([right, torch.linalg.cross(backward, right), backward], dim=-2)


def roll_of(rotation: Float[Tensor, "n 3 3"]) -> Float[Tensor, " n"]:
    """(n,) degrees of rotations (n, 3, 3) about the axis z."""
    return torch.rad2deg(torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0]))


def _cross_matrix(axis: Tensor) -> Tensor:
    """(3, 3) of the cross product with a vector (3,)."""
    x, y, z = axis
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)


def _about_axis(roll_deg: Tensor) -> Tensor:
    angle = torch.deg2rad(roll_deg)
    turned = torch.zeros(len(angle), 3, 3, device=angle.device)
    turned[:, 0, 0] = turned[:, 1, 1] = angle.cos()
    turned[:, 1, 0], turned[:, 0, 1], turned[:, 2, 2] = angle.sin(), -angle.sin(), 1.0
    return turned


def turn_photos(
    photos: Float[Tensor, "n channels height height"],
    fov_y_deg: Float[Tensor, " n"],
    rotation: Float[Tensor, "n 3 3"],
    half_width: Float[Tensor, " n"],
    size: int,
) -> tuple[Float[Tensor, "n channels {size} {size}"], Float[Tensor, "n {size} {size}"]]:
    """What cameras would have seen that were turned, and had another field of view.

    Args:
        photos: (n, channels, height, height).
        fov_y_deg: (n,) of the photos.
        rotation: (n, 3, 3) from the photos' camera frames to the turned ones.
        half_width: (n,) tangent of half the new field of view.
        size: of the result.

    Returns:
        (n, channels, size, size), beyond the photos their nearest pixels, and (n, size, size) which share of each pixel
        lies within its photo.
    """
    fine = size * SAMPLES_PER_PIXEL
    along = (torch.arange(fine, device=photos.device) + 0.5) * 2 / fine - 1
    y, x = torch.meshgrid(-along, along, indexing="ij")
    local = torch.stack([x, y, torch.full_like(x, -1.0)], dim=-1)
    local = local.expand(len(photos), -1, -1, -1) * torch.stack(
        [half_width, half_width, torch.ones_like(half_width)], -1
    ).view(-1, 1, 1, 3)
    seen = torch.einsum("nhwi,nij->nhwj", local, rotation)
    half = torch.tan(torch.deg2rad(fov_y_deg) / 2).view(-1, 1, 1, 1)
    plane = seen[..., :2] / (-half * seen[..., 2:]).clamp(min=1e-3)
    known = ((plane.abs().amax(-1) <= 1) & (seen[..., 2] < 0)).float()
    # Photos much larger than the result would alias between the samples.
    factor = int((half_width / half.flatten()).min().item() * photos.shape[-1] / fine)
    pooled = avg_pool2d(photos, factor) if factor > 1 else photos
    turned = grid_sample(pooled, plane * plane.new_tensor([1.0, -1.0]), align_corners=False, padding_mode="border")
    return avg_pool2d(turned, SAMPLES_PER_PIXEL), avg_pool2d(known[:, None], SAMPLES_PER_PIXEL)[:, 0]


def rectify(
    photos: Float[Tensor, "n channels height height"], placed: PlacedCameras, fov_y_deg: float, size: int
) -> tuple[Float[Tensor, "n channels {size} {size}"], Float[Tensor, "n {size} {size}"]]:
    """The photos as upright cameras of one field of view that look at the subject's centre would have taken them.

    Args:
        photos: (n, channels, height, height), such as colours and mask.
        placed: the n cameras.
        fov_y_deg: of the result.
        size: of the result.

    Returns:
        (n, channels, size, size), and (n, size, size) which share of each pixel lies within its photo.
    """
    half = torch.full((len(photos),), math.tan(math.radians(fov_y_deg) / 2), device=photos.device)
    rotation = placed.to_upright.to(photos.device)
    return turn_photos(photos, placed.cameras.fov_y_deg.to(photos.device), rotation, half, size)
