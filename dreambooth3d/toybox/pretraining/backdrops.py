"""What is behind the subjects of composed photos: places, walls, floors and tables, sharp or out of focus."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.toybox.pretraining.draws import Draws, coarse

PLAIN_SHARE = 0.2
SAME_PLACE_SHARE = 0.5
OUT_OF_FOCUS_SHARE = 0.45
SURFACE_SHARE = 0.3
PANELS_SHARE = 0.25
PANELS = 3


class Backdrops:
    """Backgrounds of photo sets of `photos` photos each, of `size` pixels a side.

    Args:
        pictures: (k, 3, height, width) photographs and textures.
        size: of the backgrounds, in pixels.
        photos: in each set.
    """

    def __init__(self, pictures: UInt8[Tensor, "k 3 height width"], size: int, photos: int) -> None:
        self.pictures, self.size, self.photos = pictures, size, photos
        self.draws = Draws(pictures.device)
        line = (torch.arange(size, device=pictures.device) + 0.5) * 2 / size - 1
        self.x, self.y = line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)

    def of_sets(self, sets: int, feet: Float[Tensor, " photos"]) -> Float[Tensor, "photos 3 size size"]:
        """(sets * photos, 3, size, size): one place or several, sharp or not, or a wall.

        Args:
            sets: how many.
            feet: (sets * photos,) where each photo's subject stands, from -1 at the top to 1.
        """
        draws, count = self.draws, sets * self.photos
        same = self._of_each(draws.chance(sets, SAME_PLACE_SHARE))
        places = torch.where(same > 0, self.crops(count, True, (0.3, 0.9)), self.crops(count, False, (0.3, 1.0)))
        plain = self._of_each(draws.chance(sets, PLAIN_SHARE))
        scenes = self._with_panels(torch.where(plain > 0, self._walls(count), places), sets)
        scenes = self._out_of_focus(scenes)
        scenes = self._on_surfaces(scenes, sets, feet)
        # As soft as a subject that was rendered at a smaller size, so that sharpness does not tell the two apart.
        return torch.lerp(scenes, coarse(scenes, 2), draws.amounts(count) * draws.chance(count, 0.7))

    def crops(self, count: int, same: bool, zoom: tuple[float, float]) -> Float[Tensor, "{count} 3 size size"]:
        """Cut from the pictures; `same` takes one picture for all photos of a set."""
        draws = self.draws
        chosen = torch.randint(len(self.pictures), (count,), device=self.pictures.device)
        if same:
            chosen = self._of_each(chosen.view(-1, self.photos)[:, 0])
        scale, angle = draws.between(count, *zoom), draws.between(count, -0.2, 0.2)
        flip = 1 - 2 * (draws.uniform(count) < 0.5).float()
        shift = (2 * draws.uniform(count, 2) - 1) * (1 - scale)[:, None].clamp(min=0)
        cos, sin = angle.cos() * scale, angle.sin() * scale
        theta = torch.stack([cos * flip, -sin, shift[:, 0], sin * flip, cos, shift[:, 1]], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(theta, [count, 3, self.size, self.size], align_corners=False)
        pictures = self.pictures[chosen].float() / 255
        return F.grid_sample(pictures, grid, align_corners=False, padding_mode="reflection")

    def _of_each(self, values: Tensor) -> Tensor:
        """Values of sets, for each of their photos."""
        return values.repeat_interleave(self.photos, 0)

    def _walls(self, count: int) -> Tensor:
        """Colours that change evenly, half of them with a floor of another colour."""
        draws = self.draws
        top, bottom, across = (draws.colours(count) for _ in range(3))
        floor = (self.y > draws.amounts(count, -0.4, 0.8)).float() * draws.chance(count, 0.5)
        even = torch.lerp(top, bottom, 0.2 * (1 + self.y)) + 0.075 * (across - 0.5) * self.x
        return (even * (1 - floor) + bottom * floor).clamp(0, 1)

    def _with_panels(self, scenes: Tensor, sets: int) -> Tensor:
        """Doors, posters, shelves: upright rectangles, often framed, of the same colours in all photos of a set."""
        draws, count = self.draws, len(scenes)
        some = self._of_each(draws.chance(sets, PANELS_SHARE))
        for _ in range(PANELS):
            colour, rim = self._of_each(draws.colours(sets)), self._of_each(draws.colours(sets))
            lean = 0.1 * torch.randn(count, 1, 1, 1, device=scenes.device)
            across = (self.x + lean * self.y - draws.amounts(count, -1, 1)).abs() - draws.amounts(count, 0.03, 0.45)
            along = (self.y - lean * self.x - draws.amounts(count, -1, 0.8)).abs() - draws.amounts(count, 0.1, 1.2)
            outside = torch.maximum(across, along)
            shown = some * draws.chance(count, 0.7)
            inner = torch.lerp(scenes, colour, draws.amounts(count, 0.4, 1.0))
            framed = torch.where(outside > -draws.amounts(count, 0.0, 0.06), rim, inner)
            scenes = torch.where((outside < 0) & (shown > 0), framed, scenes)
        return scenes

    def _out_of_focus(self, scenes: Tensor) -> Tensor:
        """Some more, some less."""
        draws, count = self.draws, len(scenes)
        soft = torch.where(draws.chance(count, 0.4) > 0, coarse(coarse(scenes, 4), 16), coarse(scenes, 4))
        return torch.lerp(scenes, soft, draws.amounts(count, 0.3, 1.0) * draws.chance(count, OUT_OF_FOCUS_SHARE))

    def _on_surfaces(self, scenes: Tensor, sets: int, feet: Tensor) -> Tensor:
        """Something else below the subject: a floor, a table, a cloth, of the same stuff in all photos of a set."""
        draws, count = self.draws, len(scenes)
        ground = self.crops(count, True, (0.2, 0.8))
        even = self._of_each(draws.colours(sets))
        ground = torch.lerp(ground, even, self._of_each(draws.amounts(sets) * draws.chance(sets, 0.5)))
        edge = feet.view(-1, 1, 1, 1) - draws.amounts(count, 0.0, 0.8)
        below = ((self.y - edge + draws.amounts(count, -0.15, 0.15) * self.x) * self.size / 4 + 0.5).clamp(0, 1)
        return torch.lerp(scenes, ground, below * self._of_each(draws.chance(sets, SURFACE_SHARE)))
