"""Photos turned so that the subject is in the middle and fills the frame: what the search for cameras looks at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from dreambooth3d.cameras import Cameras
from dreambooth3d.masks import unsure_regions
from dreambooth3d.photos.cameras.placement import (
    PlacedCameras,
    pixel_directions,
    roll_of,
    rotation_towards,
    turn_photos,
)

CENTRED_SIZE = 64
MARGIN = 1.35
"""Half of the frame in terms of the farthest outline's distance from the middle of the subject's bounding box."""
MAX_CUT = 0.02
"""Share of the frame's border that the subject may cover before what lies beyond the frame counts as unknown."""


@dataclass(frozen=True)
class CentredPhotos:
    """n photos turned towards their subject.

    Attributes:
        images: (n, 3, size, size) in [0, 1].
        masks: (n, size, size) of the subject, in [0, 1].
        depth_inside: (n, size, size) distance to the outline in halves of the frame, positive inside and where a
            subject that the frame cuts may go on.
        half_width: (n,) tangent of half the field of view.
        rotation: (n, 3, 3) from the photos' camera frames to the turned ones.
        fov_y_deg: (n,) field of view of the photos.
    """

    images: Float[Tensor, "n 3 size size"]
    masks: Float[Tensor, "n size size"]
    depth_inside: Float[Tensor, "n size size"]
    half_width: Float[Tensor, " n"]
    rotation: Float[Tensor, "n 3 3"]
    fov_y_deg: Float[Tensor, " n"]

    @staticmethod
    def of(
        images: Float[Tensor, "n 3 height height"],
        masks: Float[Tensor, "n height height"],
        fov_y_deg: Float[Tensor, " n"],
        size: int = CENTRED_SIZE,
    ) -> CentredPhotos:
        """Turn photos with masks; each mask has pixels above 0.5.

        Of regions where a mask is unsure nothing is known: they may be the subject, and say nothing for themselves.
        """
        unsure = unsure_regions(masks)
        half = torch.tan(torch.deg2rad(fov_y_deg) / 2)
        boxes = [pixel_directions(mask > 0.5, own) for mask, own in zip(masks * ~unsure, half, strict=True)]
        middles = torch.stack([torch.cat([(box.amax(0) + box.amin(0))[:2] / 2, box[0, 2:]]) for box in boxes])
        rotation = rotation_towards(middles)
        turned = [box @ own.T for box, own in zip(boxes, rotation, strict=True)]
        width = torch.stack([MARGIN * (box[:, :2] / -box[:, 2:]).abs().max() for box in turned])
        layers = torch.cat([images, (masks * ~unsure)[:, None], unsure[:, None].float()], 1)
        both, known = turn_photos(layers, fov_y_deg, rotation, width, size)
        solid = (both[:, 3] * known) > 0.5
        open_ended = solid | (both[:, 4] > 0.5) | ((known < 0.5) & _cut(masks)[:, None, None])
        depth = torch.stack([_depth_inside(mask) for mask in open_ended]) * (2 / size)
        return CentredPhotos(both[:, :3], both[:, 3] * known, depth, width, rotation, fov_y_deg)

    def __len__(self) -> int:
        return len(self.half_width)

    def __getitem__(self, index: Tensor | list[int]) -> CentredPhotos:
        return CentredPhotos(
            self.images[index], self.masks[index], self.depth_inside[index], self.half_width[index],
            self.rotation[index], self.fov_y_deg[index],
        )  # fmt: skip

    @property
    def height(self) -> Float[Tensor, " n"]:
        """(n,) tangent of half the angle between the subject's highest and lowest point."""
        rows = (self.masks > 0.5).any(dim=-1).float().mean(dim=-1)
        return rows * self.half_width

    def placed(self, cameras: Cameras, upright: Float[Tensor, "n 3 3"]) -> PlacedCameras:
        """Cameras of the photos, from the cameras' places and rotations (n, 3, 3) from the turned to upright frames."""
        whole = upright @ self.rotation
        ahead = -whole[:, 2]
        half = torch.tan(torch.deg2rad(self.fov_y_deg) / 2)[:, None]
        roll = roll_of(whole @ rotation_towards(ahead).mT)
        return PlacedCameras(cameras, roll, ahead[:, :2] / (-ahead[:, 2:] * half))


def _cut(masks: Tensor) -> Tensor:
    """(n,) whether the frame cuts the subjects of masks (n, height, width)."""
    border = torch.cat([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], dim=-1)
    return (border > 0.5).float().mean(-1) > MAX_CUT


def _depth_inside(solid: Tensor) -> Tensor:
    """(h, w) distance in pixels from each pixel's centre to the outline of a bool mask, positive inside."""
    inside = solid.cpu().numpy()
    depth = torch.from_numpy(distance_transform_edt(inside) - distance_transform_edt(~inside)).float()
    return (depth - 0.5 * depth.sign()).to(solid.device)
