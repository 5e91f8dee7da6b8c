"""The site without building it: pages are in its menu, links lead somewhere, what is made of code is complete."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from PIL import Image
from pydantic import BaseModel

from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.glossary import METRICS
from operations.launch.checking import parse_parameters
from tests.website.texts import ROOT, TEXTS, anchors_in, links_in, read
from website import configuration, metrics, pages, pictures

MADE = pages.made()


class _Settings(yaml.SafeLoader):
    """MkDocs' settings name functions of Python, which are of no matter here."""


_Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
SETTINGS: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(), _Settings)


def menu(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        for inside in entry.values() if isinstance(entry, dict) else [entry]:
            yield from menu(inside) if isinstance(inside, list) else [inside]


def test_each_page_is_in_the_menu_once_and_each_entry_is_a_page() -> None:
    files = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert files.isdisjoint(MADE)
    assert sorted(menu(SETTINGS["nav"])) == sorted(files | MADE.keys())


def test_the_site_asks_nobody_for_anything() -> None:
    assert SETTINGS["theme"]["font"] is False and SETTINGS["plugins"] == ["search", "offline"]
    # Without an own one of this name the plug-in takes one from elsewhere.
    assert SETTINGS["extra"]["polyfills"] == ["iframe-worker.js"]
    assert not re.search(r"https?://", (ROOT / "mkdocs.yml").read_text() + (ROOT / "docs" / "site.css").read_text())
    # Pictures of the texts are files beside them.
    pictures_of = {target for name in TEXTS for target in re.findall(r"!\[[^]]*\]\(\s*([^)\s]+)", read(name))}
    assert pictures_of and [target for target in pictures_of if "://" in target] == []


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files_and_to_headings_in_them(name: str) -> None:
    for link in links_in(read(name)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        assert (ROOT / target).exists(), link
        if anchor:
            assert anchor in anchors_in(read(target)), link


@pytest.mark.parametrize("name", [*(f"docs/{page}" for page in MADE), *TEXTS])
def test_on_the_site_they_lead_to_pages(name: str) -> None:
    page = name.removeprefix("docs/")
    if page in MADE:
        text = MADE[page]
    elif name.startswith("docs/"):
        text = pages.site_links(read(name), name, page)
    else:
        return  # README.md is no page; the others are among those that are made
    for link in links_in(text):
        path = link.partition("#")[0]
        if not path or re.match(r"[a-z]+:", link):
            continue
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        assert target in MADE or target in pages.MOVED.values() or (ROOT / "docs" / target).is_file(), link


def test_links_are_moved_with_a_text() -> None:
    text = "[a](docs/faults.md#b) ![c](d.webp) [e](https://f.g) [h](#i) [j](../LICENSE)"
    moved = pages.site_links(text, "models/README.md", "models.md")
    assert moved == text.replace("../LICENSE", "licence.md")
    assert pages.site_links("[a](docs/faults.md#b)", "CHANGELOG.md", "changelog.md") == "[a](faults.md#b)"
    assert pages.site_links("[a](../../LICENSE)", "docs/b/c.md", "b/c.md") == "[a](../licence.md)"
    assert pages.site_links("[a](../models/samples.webp)", "docs/a.md", "a.md") == "[a](images/models.webp)"


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every setting of a dumped configuration, by its whole key."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}".lstrip("."))
    else:
        yield path, value


def test_the_reference_has_every_key_with_the_default_that_a_run_takes() -> None:
    shown = {key.path: key for group in configuration.groups(TrainingConfig) for key in group.keys}
    absent = {group.path for group in configuration.groups(TrainingConfig) if group.absent}
    taken = dict(leaves(TrainingConfig().model_dump(mode="json")))
    assert taken.keys() - shown.keys() <= absent  # sections that are left out
    assert len(shown) > 600 and all(key.meaning and key.allowed for key in shown.values())
    for path in taken.keys() & shown.keys():
        default, value = shown[path].default, taken[path]
        assert (default.strip('"') if isinstance(value, str) else yaml.safe_load(default)) == value, path


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("init_nerf.guidance.loss", "csd", "sdss"), ("init_nerf.steps", 3, 0), ("recipe.multiview", True, 1),
        ("photos.min_subject_share", 0.5, 1.5), ("finetune_dreambooth.lora_rank", 4, -1),
    ],
)  # fmt: skip
def test_what_the_reference_allows_is_what_is_accepted(key: str, good: object, bad: object) -> None:
    (found,) = (one for group in configuration.groups(TrainingConfig) for one in group.keys if one.path == key)
    expected = {
        "init_nerf.guidance.loss": "`sds`, `sjc`, `csd`, `nfsd`, `sdi`, `vsd`",
        "init_nerf.steps": "whole number above 0",
        "recipe.multiview": "`true`, `false`", "photos.min_subject_share": "number from 0 to 1",
        "finetune_dreambooth.lora_rank": "whole number from 0",
    }  # fmt: skip
    assert set(found.allowed.split(", ")) == set(expected[key].split(", "))
    section, *inner, name = key.split(".")
    for value, accepted in ((good, True), (bad, False)):
        given: dict[str, Any] = {name: value}
        for part in reversed(inner):
            given = {part: given}
        try:
            parse_parameters({section: given})
        except ValueError:
            assert not accepted
        else:
            assert accepted


def test_sections_of_every_pipeline_have_a_page() -> None:
    from dreambooth3d.config.fleet import PortfolioConfig, RetrainConfig, StaticRetrainConfig
    from dreambooth3d.config.generation import TextTo3dConfig
    from dreambooth3d.config.training import CeilingConfig

    text = "".join(page for name, page in MADE.items() if name.startswith(configuration.FOLDER))
    models: tuple[type[BaseModel], ...] = (
        TrainingConfig, CeilingConfig, TextTo3dConfig, PortfolioConfig, RetrainConfig, StaticRetrainConfig
    )  # fmt: skip
    named = {name for model in models for name in model.model_fields} - {"training"}
    assert {name for name in named if f"# {name}\n" not in text and f"| `{name}` |" not in text} == set()


def test_the_glossary_has_every_metric() -> None:
    text = metrics.page()
    assert [name for name in METRICS if f"| `{name}` |" not in text] == []
    assert text.count("\n| ") == len(METRICS) + 2  # head and rule


def test_every_preset_is_in_its_table() -> None:
    text = read("docs/presets.md")
    files = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/*.yaml")}
    assert set(re.findall(r"configs/\w+\.yaml", text)) == files


def test_the_readme_is_two_screens_and_its_lines_of_python_stand_on_the_site_too() -> None:
    readme = read("README.md")
    assert len(readme.splitlines()) <= 100
    (lines,) = re.findall(r"```python\n.*?```", readme, re.DOTALL)
    assert lines in read("docs/python.md")


@pytest.mark.parametrize("name", pictures.SHEETS)
def test_strips_are_cut_out_of_their_sheets(name: str) -> None:
    """Each is as `python -m website.pictures` makes it of the sheet that is there."""
    made = pictures.strip(name)
    with Image.open(pictures.STRIPS / f"{name}.webp") as opened:
        kept = opened.convert("RGB")
    assert kept.size == made.size
    small = [image.resize((64, 16), Image.Resampling.BOX).tobytes() for image in (made, kept)]
    assert max(abs(one - other) for one, other in zip(*small, strict=True)) <= 12
