"""Models in the formats of games that nothing else reads."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dreambooth3d.toybox.pretraining.meshes.textured import Material, MeshError, TexturedMesh, joined, read_texture
from dreambooth3d.toybox.pretraining.meshes.textures import FindTexture, textured

_TEAM_COLORS = (
    (0.75, 0.12, 0.1),
    (0.1, 0.25, 0.7),
    (0.1, 0.5, 0.2),
    (0.85, 0.7, 0.1),
    (0.5, 0.2, 0.6),
    (0.8, 0.4, 0.1),
)


def _team_colored(material: Material, path: Path) -> Material:
    """A texture whose opacity says where its player's colour shows through, in one of six colours."""
    texture = material.texture
    if texture is None or texture[..., 3].min() > 250:
        return material
    team = np.array(_TEAM_COLORS[sum(path.stem.encode()) % len(_TEAM_COLORS)]) * 255
    share = texture[..., 3:].astype(np.float64) / 255
    color = texture[..., :3] * share + team * (1 - share)
    return Material(material.color, np.concatenate([color, np.full_like(share, 255)], -1).round().astype(np.uint8))


class _Bytes:
    def __init__(self, path: Path) -> None:
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, form: str) -> tuple:
        size = struct.calcsize("<" + form)
        if self.at + size > len(self.data):
            raise MeshError(f"{self.path}: ends early.")
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += size
        return values

    def array(self, kind: str, count: int, width: int) -> ndarray:
        size = np.dtype(kind).itemsize * count * width
        if self.at + size > len(self.data):
            raise MeshError(f"{self.path}: ends early.")
        values = np.frombuffer(self.data, kind, count * width, self.at).reshape(count, width)
        self.at += size
        return values

    def text(self, size: int) -> str:
        return self.take(f"{size}s")[0].split(b"\0")[0].decode("latin-1")


def read_g3d(path: Path, find: FindTexture, *, of_player: bool = False) -> TexturedMesh:
    """Version 4 of the models of Glest and MegaGlest, their first frame.

    Args:
        path: the model.
        find: finds its textures.
        of_player: whether it is in a player's colours where the file asks for them; else textures are open there.
    """
    data = _Bytes(path)
    magic, version = data.take("3sB")
    if magic != b"G3D" or version != 4:
        raise MeshError(f"{path}: G3D of version {version}; 4 is read.")
    count, _ = data.take("HB")
    parts = []
    for _ in range(count):
        data.text(64)
        frames, points, indices, *color = data.take("3I3f")
        _, _, _, _, opacity, properties, textures = data.take("3f f f II")
        names = [data.text(64) for bit in range(32) if textures >> bit & 1]
        vertices = data.array("<f4", frames * points, 3)[:points]
        normals = data.array("<f4", frames * points, 3)[:points]
        uv = data.array("<f4", points, 2) if textures else np.zeros((points, 2))
        faces = data.array("<u4", indices // 3, 3)
        material = textured(names[0], find) if names else Material((*color, opacity))
        if of_player and properties & 1:
            material = _team_colored(material, path)
        parts.append(TexturedMesh(vertices, faces, uv, normals, np.zeros(len(faces), np.int64), (material,)))
    return joined(parts)


def read_pie(path: Path, find: FindTexture) -> TexturedMesh:
    """Versions 2 and 3 of Warzone 2100's models, all levels."""
    lines = iter(line.strip() for line in path.read_text("latin-1").splitlines() if line.strip())
    version, material, scale = 3, None, 1.0
    parts: list[TexturedMesh] = []
    points = np.zeros((0, 3))
    for line in lines:
        word, *rest = line.split()
        if word == "PIE":
            version = int(rest[0])
            scale = 1.0 if version >= 3 else 1 / 256
        elif word == "TEXTURE":
            material = textured(rest[1], find)
        elif word == "POINTS":
            points = np.array([[float(value) for value in next(lines).split()[:3]] for _ in range(int(rest[0]))])
        elif word == "POLYGONS":
            if material is None:
                raise MeshError(f"{path}: no texture.")
            polygons = [_pie_polygon(next(lines).split(), scale) for _ in range(int(rest[0]))]
            parts.append(_pie_part(points, polygons, material))
    return joined(parts)


def _pie_polygon(words: list[str], scale: float) -> tuple[list[int], Float[ndarray, "corners 2"]]:
    flags, corners = int(words[0], 16), int(words[1])
    rest = words[2 + corners + (4 if flags & 0x4000 else 0) :]
    uv = np.array([float(value) for value in rest[: 2 * corners]]).reshape(-1, 2) * scale
    return [int(value) for value in words[2 : 2 + corners]], uv * [1, -1] + [0, 1]


def _pie_part(
    points: Float[ndarray, "points 3"], polygons: list[tuple[list[int], ndarray]], material: Material
) -> TexturedMesh:
    vertices = np.concatenate([points[corners] for corners, _ in polygons])
    uv = np.concatenate([part for _, part in polygons])
    faces, start = [], 0
    for corners, _ in polygons:
        faces += [[start, start + k, start + k + 1] for k in range(1, len(corners) - 1)]
        start += len(corners)
    return TexturedMesh(vertices, np.array(faces), uv, None, np.zeros(len(faces), np.int64), (material,))


def read_spm(path: Path, find: FindTexture) -> TexturedMesh:
    """Version 1 of SuperTuxKart's models, in their bind pose."""
    data = _Bytes(path)
    magic, kind, flags = data.take("2sBB")
    if magic != b"SP" or kind >> 3 != 1 or kind & 7 == 0:
        raise MeshError(f"{path}: no model of SuperTuxKart's first version.")
    data.take("6f")
    names = [[data.text(data.take("B")[0]) for _ in range(2)] for _ in range(data.take("H")[0])]
    parts = []
    for _ in range(data.take("H")[0]):
        parts += [_spm_part(data, flags, kind & 7 == 1, names, find) for _ in range(data.take("H")[0])]
    return joined(parts)


def _spm_part(data: _Bytes, flags: int, skinned: bool, names: list[list[str]], find: FindTexture) -> TexturedMesh:
    points, indices, number = data.take("IIH")
    first, second = names[number]
    vertices, uv = np.zeros((points, 3)), np.zeros((points, 2))
    packed, colors = np.zeros(points, np.int64), np.ones((points, 3))
    for i in range(points):
        vertices[i] = data.take("3f")
        if flags & 1:
            packed[i] = data.take("I")[0]
        if flags & 2 and data.take("B")[0] != 128:
            colors[i] = np.array(data.take("3B")) / 255
        if first:
            uv[i] = data.take("2e")
            data.at += (4 if second else 0) + (4 if flags & 4 else 0)
        data.at += 16 if skinned else 0
    faces = data.array("<u2" if points > 255 else "u1", indices // 3, 3)
    signed = np.stack([(packed >> shift & 1023) for shift in (0, 10, 20)], -1)
    normals = np.where(signed > 511, signed - 1024, signed) / 511.0
    tint = (*colors.mean(0), 1.0)
    material = textured(first, find, tint) if first else Material(tint)
    uv = uv * [1, -1] + [0, 1]
    kept = normals if flags & 1 else None
    return TexturedMesh(vertices, faces, uv, kept, np.zeros(len(faces), np.int64), (material,))


def read_md2(path: Path, find: FindTexture) -> TexturedMesh:
    """Quake 2's models, their first frame; the skin bears the model's name where the named one is missing."""
    data = _Bytes(path)
    magic, version, width, height, _, skins, points, corners, triangles, _, _ = data.take("4s10I")
    if magic != b"IDP2" or version != 8:
        raise MeshError(f"{path}: no MD2 model.")
    at_skins, at_corners, at_triangles, at_frames, _, _ = data.take("6I")
    data.at = at_skins
    names = [data.text(64).lstrip(".") for _ in range(skins)]
    texture = next((found for name in [*names, path.stem] if name and (found := find(name))), None)
    if texture is None:
        raise MeshError(f"{path}: no texture {names}.")
    data.at = at_corners
    places = data.array("<i2", corners, 2) / [width, height]
    data.at = at_triangles
    rows = data.array("<u2", triangles, 6).astype(np.int64)
    data.at = at_frames
    frame = np.array(data.take("6f"))
    data.text(16)
    vertices = data.array("u1", points, 4)[:, :3] * frame[:3] + frame[3:]
    if rows.size and (rows[:, :3].max() >= points or rows[:, 3:].max() >= corners):
        raise MeshError(f"{path}: a triangle without corners.")
    faces = np.arange(3 * triangles).reshape(-1, 3)
    uv = places[rows[:, 3:].reshape(-1)] * [1, -1] + [0, 1]
    material = Material(texture=read_texture(texture))
    return TexturedMesh(vertices[rows[:, :3].reshape(-1)], faces, uv, None, np.zeros(triangles, np.int64), (material,))


def read_pmd(path: Path, texture: Path, material: str) -> TexturedMesh:
    """Versions 3 and 4 of 0 A.D.'s compiled models, in their bind pose.

    Args:
        path: the model.
        texture: its texture.
        material: the name of its actor's material, which says what the texture's opacity means.
    """
    data = _Bytes(path)
    magic, version, _ = data.take("4sII")
    if magic != b"PSMD" or version not in (3, 4):
        raise MeshError(f"{path}: no model of 0 A.D.")
    points = data.take("I")[0]
    sets = data.take("I")[0] if version >= 4 else 1
    row = [("at", "<f4", 3), ("normal", "<f4", 3), ("uv", "<f4", (sets, 2)), ("bones", "u1", 4), ("share", "<f4", 4)]
    kind = np.dtype(row)
    rows = np.frombuffer(data.data, kind, points, data.at)
    data.at += kind.itemsize * points
    faces = data.array("<u2", data.take("I")[0], 3)
    pixels = read_texture(texture)
    skin = Material(texture=pixels)
    if "player" in material:
        skin = _team_colored(skin, path)
    elif "trans" not in material or "no_trans" in material:
        skin = Material(texture=np.dstack([pixels[..., :3], np.full_like(pixels[..., 3], 255)]))
    uv = rows["uv"][:, 0]
    return TexturedMesh(rows["at"], faces, uv, rows["normal"], np.zeros(len(faces), np.int64), (skin,))
