"""Pictures of textured meshes, by ray casting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from numpy import ndarray

from dreambooth3d.toybox.pretraining.meshes.textured import TexturedMesh

VIEWS = 8
_SMOOTH = np.cos(np.deg2rad(50))
_LAYERS = 8
"""How many see-through surfaces a ray passes before it counts as missing everything."""
_MARGIN = 0.96


@dataclass(frozen=True)
class Camera:
    """A camera without roll.

    Attributes:
        azimuth_deg: around the subject, 0 in front of it (at +x), counter-clockwise seen from above.
        elevation_deg: above the horizon.
        distance: to the world's origin.
        fov_y_deg: angle that the picture's height takes.
        target: the point in the picture's middle.
    """

    azimuth_deg: float
    elevation_deg: float
    distance: float
    fov_y_deg: float
    target: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def position(self) -> Float[ndarray, " 3"]:
        """Where the camera stands."""
        azimuth, elevation = np.deg2rad([self.azimuth_deg, self.elevation_deg])
        level = np.cos(elevation)
        return self.distance * np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)])

    def axes(self) -> Float[ndarray, "3 3"]:
        """Its right, up and backward directions, as columns."""
        back = self.position() - np.array(self.target)
        back /= np.linalg.norm(back)
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(back, right), back], 1)

    def project(self, points: Float[ndarray, "points 3"]) -> Float[ndarray, "points 2"]:
        """Where points lie in the picture: [-1, 1] to the right and upwards."""
        local = (points - self.position()) @ self.axes()
        return local[:, :2] / -local[:, 2:] / np.tan(np.deg2rad(self.fov_y_deg) / 2)


@dataclass(frozen=True)
class Light:
    """A distant lamp in a lit room.

    Attributes:
        direction: unit vector towards the lamp, in the world.
        ambient: light from everywhere; the lamp gives the rest, up to 1.
        gain: by which red, green and blue are multiplied.
        specular: strength of highlights, 0 for dull surfaces.
        shininess: Blinn and Phong's exponent.
    """

    direction: tuple[float, float, float]
    ambient: float
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    specular: float = 0.0
    shininess: float = 30.0


class MeshRenderer:
    """Casts rays at one mesh."""

    def __init__(self, mesh: TexturedMesh) -> None:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        self.mesh = mesh
        self.corners = mesh.vertices[mesh.faces]
        self.normals = _corner_normals(mesh)
        self.uv = mesh.uv[mesh.faces]
        self.scene = rtcore_scene.EmbreeScene()
        TriangleMesh(self.scene, self.corners.astype(np.float32))

    def render(self, camera: Camera, light: Light, *, pixels: int, supersampling: int = 4) -> UInt8[ndarray, "h w 4"]:
        """A square picture on a transparent background, its colours not multiplied by opacity."""
        size = pixels * supersampling
        directions = self._directions(camera, size)
        position = camera.position()
        rows = self._rows(camera, size)
        color, hit = np.zeros((size * size, 3)), np.zeros(size * size, bool)
        color[rows], hit[rows] = self._cast(position, directions[rows], light)
        return _reduced(color.reshape(size, size, 3), hit.reshape(size, size), supersampling)

    def _directions(self, camera: Camera, size: int) -> Float[ndarray, "rays 3"]:
        reach = np.tan(np.deg2rad(camera.fov_y_deg) / 2)
        steps = ((np.arange(size) + 0.5) / size * 2 - 1) * reach
        right, up = np.meshgrid(steps, -steps)
        local = np.stack([right, up, -np.ones_like(right)], -1).reshape(-1, 3)
        return local / np.linalg.norm(local, axis=1, keepdims=True) @ camera.axes().T

    def _rows(self, camera: Camera, size: int) -> Integer[ndarray, " some"]:
        """The rays inside the mesh's rectangle in the picture."""
        seen = camera.project(self.corners.reshape(-1, 3))
        low, high = (seen.min(0).clip(-1, 1) + 1) / 2 * size, (seen.max(0).clip(-1, 1) + 1) / 2 * size
        columns = np.arange(max(0, int(low[0]) - 1), min(size, int(high[0]) + 2))
        lines = np.arange(max(0, size - int(high[1]) - 2), min(size, size - int(low[1]) + 1))
        return (lines[:, None] * size + columns).reshape(-1)

    def _cast(
        self, position: Float[ndarray, " 3"], directions: Float[ndarray, "rays 3"], light: Light
    ) -> tuple[Float[ndarray, "rays 3"], Bool[ndarray, " rays"]]:
        color, hit = np.zeros(directions.shape), np.zeros(len(directions), bool)
        start = np.zeros(len(directions))
        going = np.arange(len(directions))
        for _ in range(_LAYERS):
            rays = directions[going]
            origins = (position + start[going, None] * rays).astype(np.float32)
            found = self.scene.run(origins, rays.astype(np.float32), output=1)
            met = found["primID"] >= 0
            going, rays = going[met], rays[met]
            if not len(going):
                break
            face, u, v = (found[name][met] for name in ("primID", "u", "v"))
            weights = np.stack([1 - u - v, u, v], 1).astype(np.float64)
            start[going] += found["tfar"][met] + 1e-4
            surface = self._surface(face, weights)
            solid = surface[:, 3] >= 0.4
            hit[going[solid]] = True
            color[going[solid]] = self._lit(surface[solid, :3], face[solid], weights[solid], rays[solid], light)
            going = going[~solid]
        return color, hit

    def _surface(self, face: Integer[ndarray, " hits"], weights: Float[ndarray, "hits 3"]) -> Float[ndarray, "hits 4"]:
        uv = np.einsum("nk,nkc->nc", weights, self.uv[face])
        owner = self.mesh.material_of[face]
        out = np.empty((len(face), 4))
        for number in np.unique(owner):
            at = np.nonzero(owner == number)[0]
            material = self.mesh.materials[number]
            out[at] = material.color
            if material.texture is not None:
                out[at] *= _sampled(material.texture, uv[at])
        return out

    def _lit(
        self,
        color: Float[ndarray, "hits 3"],
        face: Integer[ndarray, " hits"],
        weights: Float[ndarray, "hits 3"],
        rays: Float[ndarray, "hits 3"],
        light: Light,
    ) -> Float[ndarray, "hits 3"]:
        normal = np.einsum("nk,nkc->nc", weights, self.normals[face])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-9)
        normal = np.where((normal * rays).sum(1, keepdims=True) > 0, -normal, normal)
        lamp = np.array(light.direction)
        half = lamp - rays
        half /= np.linalg.norm(half, axis=1, keepdims=True).clip(1e-9)
        diffuse = light.ambient + (1 - light.ambient) * (normal @ lamp).clip(0, 1)
        highlight = light.specular * (normal * half).sum(1).clip(0, 1) ** light.shininess
        return (color * diffuse[:, None] + highlight[:, None]) * np.array(light.gain)


def _sampled(texture: UInt8[ndarray, "height width 4"], uv: Float[ndarray, "hits 2"]) -> Float[ndarray, "hits 4"]:
    """Bilinear look-ups of a repeated texture, in [0, 1]."""
    height, width = texture.shape[:2]
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    left, top = np.floor(x), np.floor(y)
    across, down = (x - left)[:, None], (y - top)[:, None]
    columns = [(left.astype(np.int64) + step) % width for step in (0, 1)]
    lines = [(top.astype(np.int64) + step) % height for step in (0, 1)]
    upper = texture[lines[0], columns[0]] * (1 - across) + texture[lines[0], columns[1]] * across
    lower = texture[lines[1], columns[0]] * (1 - across) + texture[lines[1], columns[1]] * across
    return (upper * (1 - down) + lower * down) / 255


def _corner_normals(mesh: TexturedMesh) -> Float[ndarray, "faces 3 3"]:
    """The file's normals; where it has none, those of neighbouring faces averaged over all but sharp edges."""
    corners = mesh.vertices[mesh.faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(flat, axis=1, keepdims=True)
    unit = flat / area.clip(1e-12)
    _, place = np.unique(mesh.vertices.round(5), axis=0, return_inverse=True)
    where = place.reshape(-1)[mesh.faces]
    total = np.zeros((where.max() + 1, 3))
    for corner in range(3):
        np.add.at(total, where[:, corner], flat)
    smooth = total / np.linalg.norm(total, axis=1, keepdims=True).clip(1e-12)
    own = smooth[where]
    own = np.where((own * unit[:, None]).sum(-1, keepdims=True) > _SMOOTH, own, unit[:, None])
    if mesh.normals is None:
        return own
    given = mesh.normals[mesh.faces]
    return np.where(np.linalg.norm(given, axis=-1, keepdims=True) > 0.5, given, own)


def _reduced(
    color: Float[ndarray, "size size 3"], hit: Bool[ndarray, "size size"], factor: int
) -> UInt8[ndarray, "pixels pixels 4"]:
    pixels = len(hit) // factor
    weight = hit.reshape(pixels, factor, pixels, factor).sum((1, 3))
    total = (color.clip(0, 1) * hit[..., None]).reshape(pixels, factor, pixels, factor, 3).sum((1, 3))
    mean = total / np.maximum(weight, 1)[..., None]
    return (np.concatenate([mean, weight[..., None] / factor**2], -1) * 255).round().astype(np.uint8)


def random_cameras(mesh: TexturedMesh, count: int, rng: np.random.Generator) -> Iterator[Camera]:
    """Cameras all around, one in each equal sector of azimuths, with the whole mesh in their pictures."""
    points = mesh.vertices[np.unique(mesh.faces)]
    for azimuth in rng.permutation(np.arange(count) * 360 / count + rng.uniform(0, 360)):
        yield _camera_around(points, float((azimuth + rng.uniform(-25, 25)) % 360), rng)


def _camera_around(points: Float[ndarray, "points 3"], azimuth: float, rng: np.random.Generator) -> Camera:
    elevation = rng.uniform(5, 35) if rng.random() < 0.75 else rng.uniform(-5, 60)
    while True:
        camera = Camera(
            azimuth,
            float(elevation),
            float(rng.uniform(2.2, 3.2)),
            float(rng.uniform(35, 60)),
            (float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-0.06, 0.06))),
        )
        if np.abs(camera.project(points)).max() < _MARGIN:
            return camera


def random_light(rng: np.random.Generator) -> Light:
    """A lamp from anywhere above, in a room of any brightness, in a third of all cases with highlights."""
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.98)
    level = np.sqrt(1 - height**2)
    warmth, gain = float(rng.uniform(-0.06, 0.06)), float(rng.uniform(0.92, 1.15))
    return Light(
        (float(level * np.cos(azimuth)), float(level * np.sin(azimuth)), float(height)),
        float(rng.uniform(0.4, 0.75)),
        (gain * (1 + warmth), gain, gain * (1 - warmth)),
        float(rng.uniform(0.1, 0.45)) if rng.random() < 0.33 else 0.0,
        float(rng.uniform(8, 60)),
    )
