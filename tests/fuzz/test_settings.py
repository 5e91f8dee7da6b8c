"""Files of settings, overrides and `subject.yaml`: altered keys, values and structure, and altered text."""

from __future__ import annotations

import copy
import functools
import shutil
from pathlib import Path
from typing import Any

import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from dreambooth3d.cli.train import resolve
from dreambooth3d.config.fleet import RetrainConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.photos.subject import SubjectInfo, resolve_folder
from operations.launch.checking import check_file, check_preset
from operations.launch.presets import read_preset
from tests.fuzz.inputs import ODD, altered, damaged
from tests.fuzz.outcomes import tried, tries

ROOT = Path(__file__).parents[2]
PRESETS = tuple(sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("configs/**/*.yaml")))
FRAGMENTS = (
    "!!python/object/apply:os.system [id]", "&a [*a]", "*a", "<<: *b", "{[1]: 2}", "? [1]\n: 2", "---", "%YAML 9.9",
    "!remove",
    "2024-01-01", "0o17", "1_000", "0x1F", "1:30", ".inf", "1" * 1200, "[" * 60, "{a: " * 50, "a: &a [1]\nb: *a",
    "\t", "\x85",
    "base: ../..", "base: .", "base: /dev/zero", "on", "~", "'", '"', "|\n  x", ">", "# x", "@", "`", "=", "- - -",
)  # fmt: skip


def dumped(value: Any) -> str:
    """As YAML, odd characters as escapes."""
    return yaml.safe_dump(value, sort_keys=False)


@st.composite
def odd_text(draw: st.DrawFn, text: str) -> bytes:
    """YAML with a fragment in one line, or with damaged bytes."""
    if draw(st.booleans()):
        return draw(damaged(text.encode()))
    lines = text.split("\n")
    place, fragment = draw(st.integers(0, len(lines) - 1)), draw(st.sampled_from(FRAGMENTS))
    kind = draw(st.sampled_from(("value", "line", "twice", "indent")))
    if kind == "value":
        lines[place] = f"{lines[place].partition(':')[0]}: {fragment}"
    elif kind == "line":
        lines.insert(place, fragment)
    elif kind == "twice":
        lines.insert(place, lines[place])
    else:
        lines[place] = f"  {lines[place]}"
    return "\n".join(lines).encode(draw(st.sampled_from(("utf-8", "utf-8", "utf-8", "utf-16", "latin-1"))), "replace")


SUBJECT = "class_noun: dog\nidentifier: sks\ndescription: a brown dog with a red collar\n"


@tries()
@given(data=odd_text(SUBJECT) | altered(yaml.safe_load(SUBJECT)).map(lambda value: dumped(value).encode()))
@example(b"class_noun: \xff")
def test_subject_file(playground: Path, data: bytes) -> None:
    (playground / "subject.yaml").write_bytes(data)
    found = tried("subject.yaml", playground, lambda: resolve_folder(PhotosConfig(dir=str(playground))))
    assert found is None or isinstance(found[1], SubjectInfo)


@functools.cache
def preset(name: str) -> dict[str, Any]:
    """A shipped preset with its bases in it."""
    return read_preset(ROOT / name).values


@st.composite
def presets(draw: st.DrawFn) -> tuple[str, bytes]:
    """A shipped preset's name, and the file altered: what it says with its bases, or its own text."""
    name = draw(st.sampled_from(PRESETS))
    if draw(st.booleans()):
        return name, dumped(draw(altered(preset(name)))).encode()
    own = (ROOT / name).read_text()
    return name, draw(
        odd_text(own) | altered(yaml.safe_load(own.replace("!remove", "null"))).map(lambda one: dumped(one).encode())
    )


@tries(60)
@given(presets())
def test_run_configs(playground: Path, given_file: tuple[str, bytes]) -> None:
    name, data = given_file
    if not (playground / "configs").is_dir():
        shutil.copytree(ROOT / "configs", playground / "configs")
    file = playground / name
    whole = file.read_bytes()
    file.write_bytes(data)
    try:
        found = tried("run configs", playground, lambda: check_file(file))
    finally:
        file.write_bytes(whole)
    assert found is None or isinstance(found, BaseModel)


def keys_of(section: type[BaseModel], above: str = "") -> list[str]:
    """All dotted keys of a section."""
    found = []
    for name, field in section.model_fields.items():
        found.append(above + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += keys_of(field.annotation, f"{above}{name}.")
    return found


KEYS = (
    *keys_of(TrainingConfig),
    *keys_of(RetrainConfig),
    "photos",
    "a.b.c",
    "seed.x",
    "base",
    "contexts.0",
    "contexts.0.prompt",
)
VALUES = st.sampled_from([str(value)[:3000] for value in ODD]) | st.sampled_from(FRAGMENTS) | st.text(max_size=12)
SOUND = st.sampled_from(("1", "0", "2.5", "true", "none", "[1, 2]", '["a", "b"]', "a, b", "cpu", "dog"))


@tries()
@given(
    name=st.sampled_from(
        ("configs/demo.yaml", "configs/portfolio.yaml", "configs/retrain.yaml", "configs/text_to_3d.yaml")
    ),
    overrides=st.lists(
        st.tuples(st.sampled_from(KEYS) | st.text(max_size=8), VALUES | SOUND).map("=".join) | st.text(max_size=8),
        max_size=3,
    ),
)
def test_overrides(playground: Path, name: str, overrides: list[str]) -> None:
    found = tried("overrides", playground, lambda: check_preset(resolve(str(ROOT / name), copy.copy(overrides))))
    assert found is None or isinstance(found, BaseModel)
