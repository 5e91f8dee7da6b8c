"""Which models of which Debian packages are used, how they stand, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from dreambooth3d.toybox.pretraining.meshes import assimp, formats
from dreambooth3d.toybox.pretraining.meshes.candidates import LEFT_HANDED, Candidate, axes
from dreambooth3d.toybox.pretraining.meshes.nouns import generic_noun, is_benchmark
from dreambooth3d.toybox.pretraining.meshes.textures import texture_finder


@dataclass(frozen=True)
class Source:
    """A package with models.

    Attributes:
        package: Debian package.
        licence: of the models that are used, from the package's copyright file.
        list_models: its candidates, from the folder that it was unpacked into.
        archives: of the archives in it those that are unpacked as well, a glob.
        members: what is unpacked of them, globs; () is everything.
    """

    package: str
    licence: str
    list_models: Callable[[Path], Iterator[Candidate]]
    archives: str = ""
    members: tuple[str, ...] = ()


def _sweethome3d(root: Path) -> Iterator[Candidate]:
    for catalog in sorted(root.rglob("PluginFurnitureCatalog.properties")):
        entries: dict[str, dict[str, str]] = {}
        for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*)$", catalog.read_text("latin-1"), re.M):
            entries.setdefault(number, {})[key] = value.strip()
        for entry in entries.values():
            path = catalog.parent / entry.get("model", "/").lstrip("/")
            if path.suffix != ".obj" or entry.get("category") in ("Doors and windows", "Staircases"):
                continue
            turn = np.array([float(x) for x in entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()]).reshape(3, 3)
            noun = generic_noun(entry["name"], path.stem, _CATEGORIES.get(entry.get("category", ""), ""))
            yield Candidate(
                "sweethome3d-furniture",
                f"{catalog.parent.name.split('.')[0]}/{path.stem}",
                noun,
                noun in ("furniture", "animal", "character", "vehicle"),
                axes("+z", "+y") @ turn,
                partial(assimp.read_assimp, path, texture_finder(path.parent)),
            )


_CATEGORIES = {"Characters": "character", "Vehicles": "vehicle", "Lights": "lamp"}


def _warzone(root: Path) -> Iterator[Candidate]:
    base = next(iter(root.rglob("base.wz.d")), None)
    if base is None:
        return
    find = texture_finder(base / "texpages")
    for folder, noun in (("features", ""), ("structs", "building")):
        for path in sorted((base / folder).glob("*.pie")):
            if not re.search("smash|wrek|module|_nex|_col|_anim", path.stem):
                grown = re.search("tree|bush", path.stem)
                named = _WARZONE.get(path.stem) or noun or ("plant" if grown else "")
                yield Candidate(
                    "warzone2100-data",
                    f"{folder}/{path.stem}",
                    named or "building",
                    False,
                    axes("+z", "+y"),
                    partial(formats.read_pie, path, find),
                )


_WARZONE: dict[str, str] = {
    name: noun
    for noun, names in (
        ("vehicle", "mibus miblucar micamper michevy mijeep mipickup mitanker mitankerh icdozer mirus micrane"),
        ("object", "mibould1 mibould2 mibould3 mipipe mipipe1 mipylon mitrap2 mitrapst"),
    )
    for name in names.split()
}


_GRUESOME = re.compile("bodypart|hanged|impaled|hell|crosses|grab")


def _megaglest(root: Path) -> Iterator[Candidate]:
    data = root / "usr/share/games/megaglest"
    for folder in sorted({path.parent for path in root.rglob("*.g3d")}):
        relative = folder.relative_to(data).as_posix()
        if "/units/" in relative and folder.name == "models":
            yield from _megaglest_unit(folder, relative.removesuffix("/models"))
        elif relative.startswith("tilesets") or "/resources/" in relative:
            for path in sorted(folder.glob("*.g3d")):
                if _GRUESOME.search(path.stem):
                    continue
                yield _megaglest_model(path, relative.removesuffix("/models"), generic_noun(path.stem), moves=False)


def _megaglest_unit(folder: Path, name: str) -> Iterator[Candidate]:
    files = sorted(folder.glob("*.g3d"))
    moves = any(re.search("walk|mov", path.stem) for path in files)
    noun = generic_noun(folder.parent.name)
    if noun == "object":
        noun = "character" if moves else "building"
    for path in _one_pose(files):
        yield _megaglest_model(path, name, noun, moves=moves)


def _megaglest_model(path: Path, folder: str, noun: str, *, moves: bool) -> Candidate:
    read = partial(formats.read_g3d, path, texture_finder(path.parent), of_player="/units/" in folder)
    return Candidate("megaglest-data", f"{folder}/{path.stem}", noun, moves, axes("+z", "+y"), read)


def _one_pose(files: list[Path]) -> list[Path]:
    """Of one unit's animations that in which it stands."""
    for word in ("stand", "idle", "stop", "walk", ""):
        fitting = [path for path in files if word in path.stem and not re.search("die|dead|dying|construct", path.stem)]
        if fitting:
            return [min(fitting, key=lambda path: len(path.stem))]
    return []


def _supertuxkart(root: Path) -> Iterator[Candidate]:
    data = root / "usr/share/games/supertuxkart/data"
    unwanted = re.compile(
        r"track|physics|(^|_)low|medium|lod_[b-z]|lod[1-9]|sky|water|collision|flame|plane|wheel|light|spark|glow|"
        r"effect|cloud|arrow|checkline|shadow|beam|smoke|adscreen|headlight|road|path|ground|hit|screen|fog|bubble|"
        r"part|leaves|destroyed|broken|mesh|rotor|mouth|elevator",
        re.I,
    )
    for path in sorted(data.rglob("*.spm")):
        kind, folder = path.relative_to(data).parts[0], path.parent
        if unwanted.search(path.stem) or kind not in ("karts", "library", "tracks", "models"):
            continue
        if kind == "karts" and path.stem != _kart_model(folder):
            continue
        yield Candidate(
            "supertuxkart-data",
            path.relative_to(data).with_suffix("").as_posix(),
            "vehicle" if kind == "karts" else generic_noun(path.stem, folder.name if kind == "library" else ""),
            kind == "karts",
            axes("+z", "+y") @ LEFT_HANDED,
            partial(formats.read_spm, path, texture_finder(folder, data / "textures", data / "models")),
        )


def _kart_model(folder: Path) -> str:
    found = re.search(r'model-file\s*=\s*"([^"]+)\.spm"', (folder / "kart.xml").read_text("utf-8", "replace"))
    return found[1] if found else folder.name


def _torcs(root: Path) -> Iterator[Candidate]:
    data = root / "usr/share/games/torcs"
    for path in sorted(data.rglob("*.acc")) + sorted(data.glob("data/objects/*.ac*")):
        if "lod" in path.stem or "/tracks/" in path.as_posix() or "/wheels/" in path.as_posix():
            continue
        car = "/cars/" in path.as_posix()
        yield Candidate(
            "torcs-data",
            path.relative_to(data).with_suffix("").as_posix(),
            "vehicle" if car else generic_noun(path.stem),
            car,
            axes("+x", "+y"),
            partial(assimp.read_acc, path, texture_finder(path.parent, data / "data/textures", data / "data/objects")),
        )


def _trigger_rally(root: Path) -> Iterator[Candidate]:
    for path in sorted(root.rglob("vehicles/*/*.obj")):
        if "wheel" not in path.stem:
            yield Candidate(
                "trigger-rally-data",
                path.stem,
                "vehicle",
                True,
                axes("+y", "+z"),
                partial(assimp.read_assimp, path, texture_finder(path.parent)),
            )


_LAMP = re.compile("light|lamp|beacon|wake", re.I)


def _flightgear_models(root: Path) -> Iterator[Candidate]:
    data = root / "usr/share/games/flightgear/Models"
    for path in sorted(data.rglob("*.ac")):
        relative = path.relative_to(data)
        if relative.parts[0] in ("Weather", "Astro", "Effects", "Volcanoes") or _LAMP.search(relative.as_posix()):
            continue
        yield Candidate(
            "flightgear-data-models",
            relative.with_suffix("").as_posix(),
            generic_noun(path.stem, path.parent.name, relative.parts[0]),
            False,
            axes("-x", "+y"),
            partial(assimp.read_assimp, path, texture_finder(path.parent), modulate=True),
        )


def _flightgear_ai(root: Path) -> Iterator[Candidate]:
    data = root / "usr/share/games/flightgear/AI/Aircraft"
    for folder in sorted(path for path in data.glob("*") if path.is_dir()):
        models = [path for path in folder.rglob("*.ac") if not _LAMP.search(path.relative_to(data).as_posix())]
        if models:
            path = max(models, key=lambda model: model.stat().st_size)
            skins = [path.parent, *sorted({file.parent for file in folder.rglob("*.png")})]
            yield Candidate(
                "flightgear-data-ai",
                f"{folder.name}/{path.stem}",
                "vehicle",
                True,
                axes("-x", "+y"),
                partial(assimp.read_assimp, path, texture_finder(*skins), modulate=True),
            )


_READ_UFO = {".md2": formats.read_md2, ".obj": assimp.read_assimp}


def _ufoai(root: Path) -> Iterator[Candidate]:
    data = next(iter(root.rglob("0models.pk3.d/models")), None)
    if data is None:
        return
    for path in sorted([*data.rglob("*.md2"), *data.rglob("*.obj")]):
        relative = path.relative_to(data)
        if relative.parts[0] not in ("objects", "aircraft", "aliens", "animals", "ugvs", "weapons"):
            continue
        yield Candidate(
            "ufoai-data",
            relative.with_suffix("").as_posix(),
            generic_noun(*reversed(relative.with_suffix("").parts)),
            False,
            axes("+x", "+z") if path.suffix == ".md2" else axes("+z", "+y"),
            partial(_READ_UFO[path.suffix], path, texture_finder(path.parent)),
        )


_ZERO_AD_PIECES = re.compile(
    "rubble|foundation|fndn|decal|destruct|scaf|prop(s|_|\\.)|decor|shields|_plants|_nature|sail|cargo|_paintings|_relief"
)


def _zero_ad(root: Path) -> Iterator[Candidate]:
    art = next(iter(root.rglob("public.zip.d/art")), None)
    if art is None:
        return
    for folder, noun in (
        ("fauna", "animal"),
        ("structures", "building"),
        ("flora", "plant"),
        ("geology", "object"),
        ("props/special", ""),
        ("props/structures", ""),
        ("props/temp", ""),
        ("units/global", ""),
    ):
        for path in sorted((art / "actors" / folder).rglob("*.xml")):
            parts = _actor_parts(path, art)
            if parts is None or _ZERO_AD_PIECES.search(path.name):
                continue
            mesh, texture, material = parts
            yield Candidate(
                "0ad-data",
                path.relative_to(art / "actors").with_suffix("").as_posix(),
                noun or generic_noun(path.stem, path.parent.name),
                noun == "animal",
                axes("-z", "+y") @ LEFT_HANDED,
                partial(formats.read_pmd, mesh, texture, material),
            )


def _actor_parts(path: Path, art: Path) -> tuple[Path, Path, str] | None:
    """Compiled mesh, texture and material of an actor, of each group's first variant."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError:
        return None
    mesh, texture = None, None
    for group in root.iter("group"):
        for variant in group.iter("variant"):
            found = variant.find("mesh")
            if mesh is None and found is not None and found.text:
                mesh = art / "meshes" / f"{found.text.strip()}.cached.pmd"
            for entry in variant.iter("texture"):
                if texture is None and entry.get("name") == "baseTex":
                    texture = art / "textures/skins" / f"{entry.get('file')}.cached.dds"
    if mesh is None or texture is None or not mesh.is_file() or not texture.is_file():
        return None
    return mesh, texture, root.findtext("material") or ""


SOURCES = (
    Source("sweethome3d-furniture", "CC-BY-3.0, CC0-1.0", _sweethome3d, "*.sh3f"),
    Source(
        "0ad-data",
        "CC-BY-SA-3.0",
        _zero_ad,
        "public.zip",
        ("art/meshes/*", "art/actors/*", "art/textures/skins/*", "art/textures/terrain/types/*"),
    ),
    Source("megaglest-data", "CC-BY-SA-3.0", _megaglest),
    Source("supertuxkart-data", "CC-BY-SA-3.0, CC-BY-SA-4.0, CC-BY-3.0, CC0-1.0, GPL-2, GPL-3", _supertuxkart),
    Source("warzone2100-data", "GPL-2+, CC-BY-SA-3.0, CC0-1.0", _warzone, "base.wz"),
    Source("flightgear-data-ai", "GPL-2+", _flightgear_ai),
    Source("flightgear-data-models", "GPL-2+", _flightgear_models),
    Source("ufoai-data", "GPL-2+, GPL-3+, CC-BY-SA-3.0, CC-BY-3.0, public domain", _ufoai, "0models.pk3"),
    Source("torcs-data", "GPL-2+, Free Art License", _torcs),
    Source("trigger-rally-data", "GPL-2+, CC-BY-SA-3.0, CC-BY-3.0, CC0-1.0", _trigger_rally, "*.zip"),
)


def list_candidates(folder: Path) -> Iterator[Candidate]:
    """All models in `folder`, in which each package has been unpacked into a folder of its name."""
    for source in SOURCES:
        root = folder / source.package
        if root.is_dir():
            yield from (found for found in source.list_models(root) if not is_benchmark(found.name))
