"""Models that others made: readers against files written here, renders against geometry, and what a pack holds."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import trimesh
from numpy import ndarray
from PIL import Image
from typer.testing import CliRunner

from dreambooth3d.cameras import SUBJECT_RADIUS, Cameras
from dreambooth3d.cli.main import app
from dreambooth3d.errors import DatasetError
from dreambooth3d.toybox.pretraining.meshes import backgrounds, cutouts, fetch, formats, pack, screen, sources
from dreambooth3d.toybox.pretraining.meshes.assimp import has_library, read_acc, read_assimp
from dreambooth3d.toybox.pretraining.meshes.candidates import Candidate, axes
from dreambooth3d.toybox.pretraining.meshes.nouns import NOUNS, generic_noun, is_benchmark
from dreambooth3d.toybox.pretraining.meshes.render import Camera, Light, MeshRenderer, random_cameras
from dreambooth3d.toybox.pretraining.meshes.textured import Material, MeshError, TexturedMesh, joined
from dreambooth3d.toybox.pretraining.meshes.textures import texture_finder

pytest.importorskip("embreex")

UNLIT = Light((0.0, 0.0, 1.0), ambient=1.0)
RED, GREEN, BLUE, YELLOW = (230, 20, 20), (20, 200, 20), (20, 20, 230), (230, 220, 20)
QUARTERS = (RED, GREEN, BLUE, YELLOW)  # top left, top right, bottom left, bottom right
Y_UP = axes("+z", "+y")


def plain(mesh: trimesh.Trimesh, *materials: Material, of: list[int] | None = None) -> TexturedMesh:
    faces = np.asarray(mesh.faces)
    number = np.zeros(len(faces), int) if of is None else np.asarray(of)
    return TexturedMesh(np.asarray(mesh.vertices), faces, np.zeros((len(mesh.vertices), 2)), None, number, materials)


def cube() -> TexturedMesh:
    """A cube whose sides towards +x, -x, +y, -y are red, green, blue and yellow, top and bottom white."""
    box = trimesh.creation.box()
    side = {(1, 0, 0): 0, (-1, 0, 0): 1, (0, 1, 0): 2, (0, -1, 0): 3, (0, 0, 1): 4, (0, 0, -1): 4}
    colors = [*QUARTERS, (255, 255, 255)]
    materials = [Material((r / 255, g / 255, b / 255, 1.0)) for r, g, b in colors]
    return plain(box, *materials, of=[side[tuple(normal.round().astype(int))] for normal in box.face_normals])


def quarters(alpha: int = 255) -> Image.Image:
    """Four coloured quarters, `alpha` the opacity of the lower ones."""
    picture = np.zeros((32, 32, 4), np.uint8)
    for number, color in enumerate(QUARTERS):
        rows, columns = (slice(16 * k, 16 * k + 16) for k in divmod(number, 2))
        picture[rows, columns] = (*color, alpha if number > 1 else 255)
    return Image.fromarray(picture)


def middles(picture: ndarray) -> list[tuple[int, ...]]:
    """Colours in the middles of the four quarters of a picture's silhouette."""
    rows, columns = (np.nonzero(picture[..., 3].max(axis) > 0)[0] for axis in (1, 0))
    at = [(rows[0] + (rows[-1] - rows[0]) * share) for share in (0.25, 0.75)]
    across = [(columns[0] + (columns[-1] - columns[0]) * share) for share in (0.25, 0.75)]
    return [tuple(picture[int(y), int(x), :3].tolist()) for y in at for x in across]


def near(color: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(color, other, strict=True)) <= 6


# Renders.


@pytest.mark.parametrize(("azimuth", "color"), [(0, RED), (180, GREEN), (90, BLUE), (270, YELLOW)])
def test_a_cube_shows_the_side_that_faces_the_camera(azimuth: float, color: tuple[int, int, int]) -> None:
    renderer = MeshRenderer(cube().normalized(np.eye(3)))
    picture = renderer.render(Camera(azimuth, 0, 2.5, 45), UNLIT, pixels=33)
    assert near(tuple(picture[16, 16, :3].tolist()), color)
    assert picture[16, 16, 3] == 255 and picture[0, 0, 3] == 0


def test_a_spheres_silhouette_is_where_the_products_rays_meet_the_sphere() -> None:
    camera = Camera(130, 25, 2.4, 50)
    ball = plain(trimesh.creation.icosphere(5, SUBJECT_RADIUS), Material())
    alpha = MeshRenderer(ball).render(camera, UNLIT, pixels=64)[..., 3] / 255
    pose = Cameras(*(torch.tensor([value]) for value in (130.0, 25.0, 2.4, 50.0))).camera_to_world[0].numpy()
    steps = ((np.arange(512) + 0.5) / 256 - 1) * np.tan(np.deg2rad(25))
    local = np.stack([*np.meshgrid(steps, -steps), np.full((512, 512), -1.0)], -1)
    rays = local / np.linalg.norm(local, axis=-1, keepdims=True) @ pose[:3, :3].T
    along = rays @ pose[:3, 3]
    inside = along**2 - pose[:3, 3] @ pose[:3, 3] + SUBJECT_RADIUS**2 > 0
    truth = inside.reshape(64, 8, 64, 8).mean((1, 3))
    assert np.abs(alpha - truth).mean() < 0.004
    assert alpha.mean() == pytest.approx(truth.mean(), rel=0.01)


def test_a_camera_projects_points_to_where_they_are_rendered() -> None:
    at = np.array([0.3, -0.4, 0.5])
    camera = Camera(40, 20, 2.6, 45, target=(0.05, -0.03, 0.02))
    dot = plain(trimesh.creation.icosphere(2, 0.02).apply_translation(at), Material())
    alpha = MeshRenderer(dot).render(camera, UNLIT, pixels=128)[..., 3]
    rows, columns = np.nonzero(alpha)
    seen = np.array([(columns.mean() + 0.5) / 64 - 1, 1 - (rows.mean() + 0.5) / 64])
    assert np.allclose(seen, camera.project(at[None])[0], atol=0.01)


def test_light_from_above_leaves_the_lower_half_of_a_ball_in_the_ambient_light() -> None:
    ball = plain(trimesh.creation.icosphere(4, SUBJECT_RADIUS), Material((0.5, 0.5, 0.5, 1.0)))
    picture = MeshRenderer(ball).render(Camera(0, 0, 3.0, 40), Light((0.0, 0.0, 1.0), 0.4), pixels=65)
    lower = picture[45, 32, 0] / 255
    upper = picture[12, 32, 0] / 255
    assert lower == pytest.approx(0.5 * 0.4, abs=0.01)
    assert upper > 0.35


def test_rays_pass_through_what_a_texture_leaves_open() -> None:
    front = TexturedMesh(
        np.array([[0.3, -0.5, -0.5], [0.3, 0.5, -0.5], [0.3, 0.5, 0.5], [0.3, -0.5, 0.5]]),
        np.array([[0, 1, 2], [0, 2, 3]]),
        np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]),
        None,
        np.zeros(2, int),
        (Material(texture=np.asarray(quarters(alpha=0))),),
    )
    wall = trimesh.creation.box((0.01, 1.0, 1.0)).apply_translation((-0.3, 0, 0))
    both = joined([front, plain(wall, Material((1.0, 0.0, 1.0, 1.0)))])
    picture = MeshRenderer(both).render(Camera(0, 0, 3.0, 30), UNLIT, pixels=64)
    assert [near(color, wanted) for color, wanted in zip(middles(picture), (RED, GREEN, (255, 0, 255), (255, 0, 255)),
                                                        strict=True)] == [True] * 4  # fmt: skip


def test_random_cameras_stand_all_around_and_see_the_whole_mesh() -> None:
    mesh = cube().normalized(np.eye(3))
    cameras = list(random_cameras(mesh, 8, np.random.default_rng(0)))
    turns = np.sort([camera.azimuth_deg for camera in cameras])
    assert np.diff([*turns, turns[0] + 360]).max() < 100
    assert all(np.abs(camera.project(mesh.vertices)).max() < 1 for camera in cameras)


def test_a_mesh_is_brought_into_the_ball_and_turned_to_the_front() -> None:
    long = trimesh.creation.box((2.0, 4.0, 20.0)).apply_translation((3, 4, 5))
    mesh = plain(long, Material()).normalized(Y_UP)  # its front at +z, its top at +y
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(SUBJECT_RADIUS)
    assert np.allclose(mesh.extents() / mesh.extents()[0], [1, 0.1, 0.2])
    assert np.allclose(mesh.vertices.min(0), -mesh.vertices.max(0))
    assert np.allclose(axes("+z", "+y") @ [0, 0, 1], [1, 0, 0]) and np.allclose(axes("+z", "+y") @ [0, 1, 0], [0, 0, 1])
    assert np.linalg.det(axes("-x", "+y")) == pytest.approx(1)


# Readers. All files show the same picture on a square that faces +z, upright along +y.

SQUARE = [(-1.0, -1.0, 0.0), (1.0, -1.0, 0.0), (1.0, 1.0, 0.0), (-1.0, 1.0, 0.0)]
DOWNWARDS = [(0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)]
UPWARDS = [(u, 1 - v) for u, v in DOWNWARDS]


def write_pie(path: Path) -> None:
    points = "\n".join(" ".join(map(str, point)) for point in SQUARE)
    corners = " ".join(f"{u * 256} {v * 256}" for u, v in DOWNWARDS)
    path.write_text(
        f"PIE 2\nTYPE 200\nTEXTURE 0 skin.png 256 256\nLEVELS 1\nLEVEL 1\nPOINTS 4\n{points}\n"
        f"POLYGONS 1\n\t200 4 0 1 2 3 {corners}\n"
    )


def write_g3d(path: Path) -> None:
    head = b"G3D" + struct.pack("<BHB", 4, 1, 0) + bytes(64)
    head += struct.pack("<3I3f3fffII", 1, 4, 6, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1) + b"skin.png".ljust(64, b"\0")
    values = [*sum(SQUARE, ()), *[0.0, 0.0, 1.0] * 4, *sum(UPWARDS, ())]
    path.write_bytes(head + struct.pack(f"<{len(values)}f", *values) + struct.pack("<6I", 0, 1, 2, 0, 2, 3))


def write_spm(path: Path) -> None:
    data = b"SP" + struct.pack("<BB6fH", 1 << 3 | 2, 0b10, *[0.0] * 6, 1) + b"\x08skin.png\x00"
    data += struct.pack("<HHIIH", 1, 1, 4, 6, 0)
    for number, (point, uv) in enumerate(zip(SQUARE, DOWNWARDS, strict=True)):
        color = b"\x80" if number % 2 else b"\x00\xff\xff\xff"
        data += struct.pack("<3f", *point) + color + struct.pack("<2e", *uv)
    path.write_bytes(data + struct.pack("<6B", 0, 1, 2, 0, 2, 3))


def write_md2(path: Path) -> None:
    at_skins, at_corners = 68, 68 + 64
    at_triangles = at_corners + 16
    at_frames = at_triangles + 24
    counts = (8, 32, 32, 56, 1, 4, 4, 2, 0, 1)
    head = struct.pack("<4s16I", b"IDP2", *counts, at_skins, at_corners, at_triangles, at_frames, 0, 0)
    corners = struct.pack("<8h", *(round(32 * value) for pair in DOWNWARDS for value in pair))
    triangles = struct.pack("<12H", 0, 1, 2, 0, 1, 2, 0, 2, 3, 0, 2, 3)
    frame = struct.pack("<6f", 1, 1, 1, -1, -1, 0) + b"still".ljust(16, b"\0")
    frame += b"".join(struct.pack("4B", round(x) + 1, round(y) + 1, 0, 0) for x, y, _ in SQUARE)
    path.write_bytes(head + b".skin".ljust(64, b"\0") + corners + triangles + frame)


def write_pmd(path: Path) -> None:
    data = b"PSMD" + struct.pack("<IIII", 4, 0, 4, 1)
    for point, uv in zip(SQUARE, UPWARDS, strict=True):
        data += struct.pack("<3f3f2f4B4f", *point, 0, 0, 1, *uv, *[255] * 4, *[0.0] * 4)
    path.write_bytes(data + struct.pack("<I6H", 2, 0, 1, 2, 0, 2, 3))


def write_obj(path: Path) -> None:
    path.with_suffix(".mtl").write_text("newmtl skin\nKd 0.5 0.5 0.5\nmap_Kd skin.png\n")
    points = "\n".join([f"v {x} {y} {z}" for x, y, z in SQUARE] + [f"vt {u} {v}" for u, v in UPWARDS])
    path.write_text(f"mtllib {path.stem}.mtl\n{points}\nusemtl skin\nf 1/1 2/2 3/3 4/4\n")


def write_acc(path: Path) -> None:
    points = "\n".join(f"{x} {y} {z}" for x, y, z in SQUARE)
    corners = "\n".join(f"{k} {u} {v} 0.5 0.5" for k, (u, v) in enumerate(UPWARDS))
    path.write_text(
        'AC3Db\nMATERIAL "m" rgb 1 1 1 amb 1 1 1 emis 0 0 0 spec 0 0 0 shi 0 trans 0\nOBJECT world\nkids 1\n'
        f'OBJECT poly\nname "a"\ntexture "skin.png" base\ntexture "tiles.png" tiled\nnumvert 4\n{points}\n'
        "numsurf 1\nSURF 0x20\nmat 0\n"
        f"refs 4\n{corners}\nkids 0\n"
    )


def read_pmd(path: Path, find: Callable[[str], Path | None]) -> TexturedMesh:
    skin = find("skin.png")
    assert skin is not None
    return formats.read_pmd(path, skin, "default.xml")


OWN = [
    (write_pie, formats.read_pie),
    (write_g3d, formats.read_g3d),
    (write_spm, formats.read_spm),
    (write_md2, formats.read_md2),
    (write_pmd, read_pmd),
]
BY_ASSIMP = [(write_obj, read_assimp), (write_acc, read_acc)]


def shown(write: Callable, read: Callable, folder: Path) -> list[tuple[int, ...]]:
    path = folder / f"model.{write.__name__.removeprefix('write_')}"
    quarters().save(folder / "skin.png")
    write(path)
    mesh = read(path, texture_finder(folder)).normalized(Y_UP)
    return middles(MeshRenderer(mesh).render(Camera(0, 0, 3, 40), UNLIT, pixels=64))


@pytest.mark.parametrize(("write", "read"), OWN, ids=lambda function: function.__name__)
def test_a_games_model_shows_its_texture_the_right_way_up(write: Callable, read: Callable, tmp_path: Path) -> None:
    assert all(near(*pair) for pair in zip(shown(write, read, tmp_path), QUARTERS, strict=True))


@pytest.mark.parametrize(("write", "read"), BY_ASSIMP, ids=lambda function: function.__name__)
def test_a_common_model_shows_its_texture_the_right_way_up(write: Callable, read: Callable, tmp_path: Path) -> None:
    if not has_library():
        pytest.skip("no assimp library: apt-get install libassimp5")
    assert all(near(*pair) for pair in zip(shown(write, read, tmp_path), QUARTERS, strict=True))


@pytest.mark.parametrize(("write", "read"), OWN[:4], ids=lambda function: function.__name__)
def test_a_model_without_its_texture_or_cut_off_is_refused(write: Callable, read: Callable, tmp_path: Path) -> None:
    path = tmp_path / "model"
    write(path)
    with pytest.raises(MeshError, match="no texture"):
        read(path, texture_finder(tmp_path))
    skins = tmp_path / "skins"
    skins.mkdir()
    quarters().save(skins / "skin.png")
    if read is not formats.read_pie:
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(MeshError, match="ends early"):
            read(path, texture_finder(skins))


# What is taken.


def taken(mesh: TexturedMesh) -> ndarray:
    mesh = mesh.normalized(np.eye(3))
    screen.check_size(mesh)
    return screen.look(MeshRenderer(mesh))


def test_flat_grey_and_scattered_things_are_left_out() -> None:
    board = plain(trimesh.creation.box((1.0, 1.0, 0.05)), Material((1.0, 0.2, 0.1, 1.0)))
    grey = plain(trimesh.creation.box(), Material((0.6, 0.6, 0.6, 1.0)))
    crumbs = [trimesh.creation.box((0.5, 0.5, 0.5)).apply_translation(at) for at in 2.0 * np.eye(3)]
    scattered = plain(trimesh.util.concatenate(crumbs), Material((1.0, 0.2, 0.1, 1.0)))
    for mesh, why in ((board, "flat"), (grey, "one grey"), (scattered, "scattered")):
        with pytest.raises(MeshError, match=why):
            taken(mesh)
    assert taken(cube()).shape == (3, 16, 16, 4)


def test_the_same_thing_is_taken_once_and_one_shape_in_two_paints() -> None:
    shapes = [plain(trimesh.creation.cylinder(0.3, 1.0), Material((*color, 1.0))) for color in np.eye(3)]
    seen = screen.Seen()
    assert seen.is_new(taken(shapes[0])) and not seen.is_new(taken(shapes[0]))
    assert seen.is_new(taken(shapes[1])) and not seen.is_new(taken(shapes[2]))
    assert seen.is_new(taken(cube()))


@pytest.mark.parametrize(
    ("name", "noun"),
    [
        ("Shipping container", "container"), ("hotDog", "food"), ("teddyBear", "toy"), ("horse_box", "container"),
        ("oldCar_a", "vehicle"), ("autumnTree_f", "plant"), ("qwertz", "object"),
    ],
)  # fmt: skip
def test_nouns_come_from_names(name: str, noun: str) -> None:
    assert generic_noun(name) == noun
    assert noun in NOUNS


def test_meshes_that_others_test_with_are_never_taken(tmp_path: Path) -> None:
    assert all(map(is_benchmark, ("karts/suzanne/suzanne", "WaterBottle", "armChair2", "fauna/fox_red", "Avocado")))
    assert not any(map(is_benchmark, ("wall-spotlight", "foxglove", "cowboy", "water_tower")))
    data = tmp_path / "supertuxkart-data/usr/share/games/supertuxkart/data/models"
    data.mkdir(parents=True)
    for name in ("teapot.spm", "headlight.spm"):
        write_spm(data / name)
    assert [one.name for one in sources.list_candidates(tmp_path)] == []
    write_spm(data / "chest.spm")
    assert [(one.name, one.noun) for one in sources.list_candidates(tmp_path)] == [("models/chest", "container")]


# Packs.


def colored_cube(color: tuple[float, float, float]) -> TexturedMesh:
    return joined([cube(), plain(trimesh.creation.cone(0.4, 1.0), Material((*color, 1.0)))])


def candidates() -> list[Candidate]:
    shapes = [cube, partial(colored_cube, (1.0, 0.5, 0.0)), cube]
    return [Candidate("a", f"thing/{k}", "toy", True, np.eye(3), shape) for k, shape in enumerate(shapes)]


def test_a_pack_holds_every_view_of_every_new_mesh_where_its_table_says(tmp_path: Path) -> None:
    rendered = list(pack.render_candidates(candidates(), {"a": 5}, processes=2))
    pairs = [pair for one in rendered for pair in zip(one.rows, one.pictures, strict=True)]
    table = pack.write_pack(iter(pairs), tmp_path, "views")
    assert len(rendered) == 2  # the third looks as the first
    assert pd.read_parquet(tmp_path / "views.parquet").equals(table) and len(table) == 16
    data = (tmp_path / "views.bin").read_bytes()
    assert len(data) == table["length"].sum()
    for row, (_, picture) in zip(table.itertuples(), pairs, strict=True):
        assert data[row.offset : row.offset + row.length] == picture
        pixels = pack.read_picture(data, row.offset, row.length)
        assert pixels.shape == (pack.PIXELS, pack.PIXELS, 4)
        assert pixels[..., 3].mean() / 255 == pytest.approx(row.coverage, abs=0.01)
    again = pack.render_candidate(candidates()[1])
    assert again.pictures in [one.pictures for one in rendered]
    assert table.groupby("mesh")["split"].nunique().max() == 1


def test_limits_hold_for_each_package() -> None:
    assert len(list(pack.render_candidates(candidates(), {"a": 1}, processes=1))) == 1


def test_whole_collections_are_kept_for_tests() -> None:
    assert pack.split_of("torcs-data", "cars/x") == pack.split_of("sweethome3d-furniture", "KatorLegaz/y") == "test"
    names = [pack.split_of("0ad-data", f"thing/{k}") for k in range(2000)]
    assert 0.01 < names.count("test") / len(names) < 0.05


def test_backgrounds_are_squares_of_the_pictures_that_are_wanted(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (700, 900, 3)).astype(np.uint8)
    nature = tmp_path / "mate-backgrounds/usr/share/backgrounds/mate/nature"
    terrain = tmp_path / "ufoai-textures/usr/share/games/ufoai/tex_stone"
    for path in (nature, terrain):
        path.mkdir(parents=True)
    Image.fromarray(noise).resize((1800, 1400)).save(nature / "Dune.jpg")
    Image.fromarray(noise[:256, :256]).save(terrain / "wall.jpg")
    Image.fromarray(noise[:256, :256]).save(terrain / "wall_nm.jpg")
    Image.fromarray(noise[:100, :100]).save(terrain / "small.jpg")
    cut = list(backgrounds.cut_backgrounds(tmp_path))
    assert [row["kind"] for row, _ in cut] == ["photograph"] * 2 + ["texture"]
    assert all(Image.open(io.BytesIO(data)).size == (backgrounds.SIDE, backgrounds.SIDE) for _, data in cut)


def test_pictures_lie_as_they_are_in_qts_resources(tmp_path: Path) -> None:
    picture = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (300, 320, 3)).astype(np.uint8)
    Image.fromarray(noise).save(picture, "webp")
    folder = tmp_path / "gcompris-qt-data/usr/share"
    folder.mkdir(parents=True)
    data = picture.getvalue()
    (folder / "erase.rcc").write_bytes(b"qres" + bytes(40) + data + bytes(7) + data + b"end")
    cut = list(backgrounds.cut_backgrounds(tmp_path))
    assert {row["picture"] for row, _ in cut} == {"gcompris-qt-data/erase/0", "gcompris-qt-data/erase/1"}


def test_photographs_that_were_cut_out_are_told_from_drawings(tmp_path: Path) -> None:
    stamps = tmp_path / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    noise = np.random.default_rng(0).integers(0, 255, (200, 320, 4)).astype(np.uint8)
    noise[..., 3] = 0
    noise[20:180, 40:300, 3] = 255
    drawn = np.where(noise[..., 3:] > 0, (200, 40, 40, 255), 0).astype(np.uint8)
    pictures = {
        "animals/dog.png": noise, "animals/cartoon/cat.png": noise, "animals/cow.png": noise, "animals/hen.png": drawn,
        "symbols/one.png": noise, "food/small.png": noise[:100, :120], "town/wall.png": noise | (0, 0, 0, 255),
    }  # fmt: skip
    for name, pixels in pictures.items():
        (stamps / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(stamps / name)
    [(row, square)] = cutouts.cutouts(tmp_path)
    assert row["picture"] == "animals/dog.png" and square.shape == (cutouts.SIDE, cutouts.SIDE, 4)
    rows, columns = (np.flatnonzero((square[..., 3] > 128).any(axis)) for axis in (1, 0))
    assert len(columns) / len(rows) == pytest.approx(260 / 160, rel=0.05), "not stretched"
    assert rows[0] + rows[-1] == pytest.approx(cutouts.SIDE - 1, abs=1) == columns[0] + columns[-1], "in the middle"


# Fetching.


def test_of_a_packages_archives_only_what_is_used_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "public.zip", "w") as archive:
        archive.writestr("art/meshes/gaia/tree.dae.cached.pmd", b"mesh")
        archive.writestr("audio/music.ogg", b"sound")
    fetch.unpack_archives("0ad-data", tmp_path)
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == ["public.zip", "public.zip.d/art/meshes/gaia/tree.dae.cached.pmd"]


def test_without_apt_or_packages_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["toybox", "meshes", str(tmp_path), "--out", str(tmp_path / "pack")])
    assert result.exit_code == 1 and "--fetch" in result.output and "Traceback" not in result.output
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DatasetError, match="Debian"):
        fetch.fetch(tmp_path)


def test_every_source_names_its_licence_and_is_fetched_once() -> None:
    every = (*sources.SOURCES, *backgrounds.SOURCES, cutouts.SOURCE)
    assert all(source.licence for source in every)
    assert sorted(fetch.packages()) == sorted({source.package for source in every})
    assert set(pack.LIMITS) == {source.package for source in sources.SOURCES}
