"""Presets: YAML files that say what to run, alone or on top of another (`base: sd15_dog.yaml`)."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dreambooth3d.errors import ConfigError
from dreambooth3d.naming import printable
from dreambooth3d.places import repository
from dreambooth3d.strict_yaml import REMOVED, Place, Said, dump, read_yaml

BASE = "base"
CONFIGS = "configs"
_TRAINING = ("parameters", "training")
_SECTIONS = ((), ("parameters",), _TRAINING, ("settings",), ("steps",))


@dataclass(frozen=True)
class Preset:
    """A pipeline's YAML with its bases in it.

    Attributes:
        path: of the file, as it was named.
        values: plain, as ZenML takes them.
        places: where each of them was said, by dotted key.
        files: all that were read, the file itself first.
    """

    path: str
    values: dict[str, Any]
    places: Mapping[str, Place] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name without its suffix; a tag of the preset's runs."""
        return Path(self.path).stem

    def located(self, problem: str) -> str:
        """A sentence about one of the values, which begins with its key, with the place where it was said in front."""
        where = problem.partition(": ")[0]
        while where and where not in self.places:
            where = where.rpartition(".")[0]
        place = self.places.get(where, Place(self.path))
        inherited = "" if place.file in ("", self.path) or place.line is None else f", a base of {self.path}"
        return f"{place}{inherited}: {problem}"

    def overridden(self, parameters: dict[str, Any], keys: list[str]) -> Preset:
        """With these parameters, of which some were given beside the file, by dotted key."""
        given = Place(f"{self.path} with overrides")
        changed = {f"parameters.{key}" for key in keys}
        kept = {
            where: place
            for where, place in self.places.items()
            if not any(where == key or where.startswith(f"{key}.") for key in changed)
        }
        values = {**self.values, "parameters": parameters}
        return Preset(self.path, values, {**kept, **dict.fromkeys(changed, given)}, self.files)

    def text(self) -> str:
        """A YAML file that says the same without a base."""
        return dump(self.values)


def shipped() -> dict[str, Path]:
    """This product's own presets by name."""
    return {file.stem: file for file in sorted((repository() / CONFIGS).glob("*.yaml"))}


def preset_file(named: Path | str) -> Path:
    """The file of that path; where there is none, the preset that it names: `demo`, `demo.yaml`, `configs/demo.yaml`.

    Raises:
        ConfigError: a name without a suffix that is neither.
    """
    path = Path(named)
    is_name = len(path.parts) == 1 and not path.suffix
    if _may_exist(path) and not (is_name and path.is_dir()):
        return path
    files = [Path(CONFIGS, f"{path}.yaml")] if is_name else [path]
    found = [place / file for file in files for place in (Path(), repository(), repository() / CONFIGS)]
    if known := [file for file in found if file.is_file()]:
        return known[0]
    if is_name and not path.is_dir():
        near = difflib.get_close_matches(path.name, shipped(), n=1)
        remedy = f"Did you mean {near[0]}?" if near else f"Presets are {', '.join(shipped())}."
        raise ConfigError(f"{printable(str(named))}: there is no such file, and no preset of this name. {remedy}")
    return path


def read_preset(path: Path | str) -> Preset:
    """Read a pipeline's YAML, and the files that it names as bases.

    Args:
        path: of the file, or a preset's name, as of `preset_file`.

    What a file says goes over what its base says: keys and values are merged at every depth, anything else replaces,
    and `key: !remove` takes a key away. Below `parameters`, `parameters.training`, `settings` or `steps`, `base` says
    where this section comes from, in place of the base of the file.

    Raises:
        ConfigError: one of the files cannot be read, is no YAML or holds no keys, or their bases go round in a circle.
    """
    reader = _Reader()
    file = preset_file(path)
    said = reader.file(file)
    return Preset(str(file), said.plain(), dict(said.places()), tuple(str(file) for file in reader.read))


def all_parameters(config: BaseModel) -> dict[str, Any]:
    """All parameters in plain values, defaults included, but those that are null unless something is said."""
    plain = config.model_dump(mode="json")
    for name, declared in type(config).model_fields.items():
        value = getattr(config, name)
        if value is None and declared.default is None:
            del plain[name]
        elif isinstance(value, BaseModel):
            plain[name] = all_parameters(value)
    return plain


@contextmanager
def as_file(preset: Preset) -> Iterator[Path]:
    """A file of the same name that says the same without a base, for readers that know of none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{preset.name}.yaml"
        file.write_text(preset.text(), encoding="ascii")
        yield file


class _Reader:
    """Reads files with their bases, each once.

    Attributes:
        read: the files, in the order in which they were opened.
    """

    def __init__(self) -> None:
        self.read: dict[Path, Said] = {}
        self._open: list[Path] = []

    def file(self, path: Path) -> Said:
        """What a file says with its bases in it."""
        if path not in self.read:
            said = read_yaml(path, removable=True)
            if not isinstance(said.value, dict):
                raise ConfigError(
                    f"{path}: holds no keys. Write at least `parameters:` with your settings into it, or `base:`."
                )
            self._open.append(path)
            self.read[path] = said
            self.read[path] = self._laid_over(None, said, ())
            self._open.pop()
        return self.read[path]

    def _laid_over(self, base: Said | None, own: Said, where: tuple[str, ...]) -> Said:
        """What is said about a section, over what its base says."""
        if not isinstance(own.value, dict):
            return _replacing(base, own, where)
        if where in _SECTIONS and BASE in own.value:
            base = self._base(own.value[BASE], where)
        below = base.value if base is not None and isinstance(base.value, dict) else {}
        merged = dict(below)
        for key, said in own.value.items():
            place = (*where, key)
            if key == BASE and where in _SECTIONS:
                continue
            if said.value is not REMOVED:
                merged[key] = self._laid_over(below.get(key), said, place)
            elif merged.pop(key, None) is None:
                raise ConfigError(f"{said.place}: {'.'.join(place)}: there is nothing to !remove. Delete this line.")
        return Said(merged, own.place)

    def _base(self, named: Said, where: tuple[str, ...]) -> Said:
        """What the base that a section names says about that section."""
        key = ".".join((*where, BASE))
        if not isinstance(named.value, str) or not named.value.strip():
            raise ConfigError(f"{named.place}: {key}: must be the name of one file, such as {BASE}: demo.yaml")
        path = Path(os.path.normpath(Path(named.place.file).parent / named.value))
        if not _may_exist(path):
            path = shipped().get(named.value.removesuffix(".yaml"), path)
        if not _may_exist(path):
            raise ConfigError(
                f"{named.place}: {key}: there is no file {path}. Name it as seen from {named.place.file}, or in full."
            )
        opened, real = [os.path.realpath(one) for one in self._open], os.path.realpath(path)
        if real in opened:
            circle = " -> ".join(map(str, [*self._open[opened.index(real) :], path]))
            raise ConfigError(f"{named.place}: {key}: the bases go round in a circle ({circle}). Remove one of them.")
        found = _section(self.file(path), where)
        if found is None:
            raise ConfigError(
                f"{named.place}: {key}: {path} has no keys under {'.'.join(where)}. Name another file, or remove it."
            )
        return found


def _may_exist(path: Path) -> bool:
    """Whether there is such a file; true where only reading it will tell."""
    try:
        return path.exists()
    except OSError:
        return True


def _section(said: Said, where: tuple[str, ...]) -> Said | None:
    """A section of a file; the training of one that is for one subject is all of its parameters."""
    for key in where:
        inside = said.value.get(key)
        if key == _TRAINING[-1] and inside is None:
            return said
        if inside is None or not isinstance(inside.value, dict):
            return None
        said = inside
    return said


def _replacing(base: Said | None, own: Said, where: tuple[str, ...]) -> Said:
    """A value that is no keys and values, over what its base says."""
    if own.value is None and base is not None and isinstance(base.value, dict) and base.value:
        raise ConfigError(
            f"{own.place}: {'.'.join(where)}: has no value, but the base has keys there. Write keys, or "
            f"`{where[-1]}: !remove` to do without them all."
        )
    return own
