"""The configuration reference: a page per section of the pipelines' parameters, made of their models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from dreambooth3d.config.fleet import StaticRetrainConfig
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from website.markdown import cell, table

FOLDER = "configuration"
_OTHERS: tuple[tuple[type[BaseModel], tuple[str, ...]], ...] = (
    (TextTo3dConfig, ("generation",)),
    (StaticRetrainConfig, ("dataset", "subjects", "parallel", "gates", "stack")),
    (CeilingConfig, ("fit_true_views",)),
)
"""Of the other pipelines what is not the training's: their other sections are named and documented alike."""
_OVERVIEW = """# Configuration

Every key that a file or the command line may set, made of the models in `dreambooth3d/config/` when the site is built.
A file is `parameters:` with these sections below; an override is the whole key:

```bash
dreambooth3d train configs/demo.yaml init_nerf.steps=600 init_nerf.guidance.loss=csd
dreambooth3d config check configs/demo.yaml
dreambooth3d config show configs/demo.yaml --defaults
```

How a file stands on another one, and which types there are, says
[A file of your own](../local.md#a-file-of-your-own); which presets there are, [Presets](../presets.md). Unknown keys
and values of another type are errors.
"""
_BOUNDS = (
    ("minimum", "from {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "to {}"),
    ("exclusiveMaximum", "below {}"),
)
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Key:
    """One setting.

    Attributes:
        path: as an override writes it, such as `init_nerf.guidance.loss`.
        allowed: type and allowed values, in words.
        default: as YAML has it; empty where it must be given.
        meaning: its sentences.
    """

    path: str
    allowed: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Group:
    """The keys of one section, without those of sections in it.

    Attributes:
        path: of the section; empty for keys at the top.
        meaning: what the section's model says of itself, or the key that holds it.
        absent: whether the section is left out by default.
        keys: in the model's order.
    """

    path: str
    meaning: str
    absent: bool
    keys: tuple[Key, ...]


def groups(model: type[BaseModel]) -> Iterator[Group]:
    """All settings of a pipeline's parameters, section by section, from its JSON schema."""
    schema = model.model_json_schema()
    yield from _groups("", schema, schema["$defs"], {}, absent=False)


def _groups(
    path: str, section: Mapping[str, Any], named: Mapping[str, Any], given: Mapping[str, Any] | None, *, absent: bool
) -> Iterator[Group]:
    """Args: `given` are the defaults that the section's own owner sets, which win over those of its model."""
    keys, inner = [], []
    for name, schema in section["properties"].items():
        where = f"{path}.{name}".lstrip(".")
        value = (given or {}).get(name, schema.get("default", ...))
        below = _section_of(schema, named)
        if below is None:
            shown = "" if value is ... else _yaml(value)
            keys.append(Key(where, _allowed(schema, named), shown, _sentences(schema)))
        else:
            inner.append((where, below, value))
    yield Group(path, _sentences(section), absent, tuple(keys))
    for where, below, value in inner:
        yield from _groups(
            where, below, named, value if isinstance(value, Mapping) else None, absent=absent or value is None
        )


def _sentences(schema: Mapping[str, Any]) -> str:
    return " ".join(schema.get("description", "").split())


def _section_of(schema: Mapping[str, Any], named: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The section that a key holds, also one that may be left out; None for a value."""
    for choice in (schema, *schema.get("anyOf", ()), *schema.get("allOf", ())):
        found = named.get(choice.get("$ref", "").rpartition("/")[2])
        if found is not None and "properties" in found:
            return found
    return None


def _yaml(value: object) -> str:
    """A value as a file would say it."""
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    return json.dumps(value)


def _allowed(schema: Mapping[str, Any], named: Mapping[str, Any]) -> str:
    """Type and allowed values in words."""
    if "$ref" in schema:
        return _allowed(named[schema["$ref"].rpartition("/")[2]], named)
    if choices := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_allowed(choice, named) for choice in choices))
    if "enum" in schema:
        return ", ".join(f"`{_yaml(choice)}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{_yaml(schema['const'])}`"
    kind = schema.get("type")
    if kind == "array":
        return _list(schema, named)
    if kind == "object":
        below = schema.get("additionalProperties", {})
        section = _section_of(below, named)
        return "names with " + (", ".join(f"`{key}`" for key in section["properties"]) if section else "values")
    words = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text",
             "null": "none"}.get(str(kind), "any")  # fmt: skip
    bounds = [text.format(_yaml(schema[name])) for name, text in _BOUNDS if schema.get(name, _LARGEST) < _LARGEST]
    return " ".join([words, *bounds])


def _list(schema: Mapping[str, Any], named: Mapping[str, Any]) -> str:
    if items := schema.get("prefixItems"):
        kinds = list(dict.fromkeys(_allowed(item, named) for item in items))
        return f"{len(items)} values, each a {kinds[0]}" if len(kinds) == 1 else f"list of {', '.join(kinds)}"
    return f"list of {_allowed(schema['items'], named)}" if schema.get("items") else "list"


def pages() -> dict[str, str]:
    """Markdown of each page by its path in the site."""
    made: dict[str, list[Group]] = {}
    top: list[Key] = []
    for model, wanted in ((TrainingConfig, tuple(TrainingConfig.model_fields)), *_OTHERS):
        for group in groups(model):
            name = group.path.partition(".")[0]
            if not group.path:
                top += [key for key in group.keys if key.path in wanted]
            elif name in wanted:
                made.setdefault(name, []).append(group)
    texts = {f"{FOLDER}/{name}.md": _page(name, found) for name, found in made.items()}
    return {f"{FOLDER}/index.md": _overview(top, made)} | texts


def _overview(top: list[Key], made: Mapping[str, list[Group]]) -> str:
    rows = [
        [f"[`{name}`]({name}.md)", str(sum(len(group.keys) for group in found)), cell(found[0].meaning)]
        for name, found in made.items()
    ]
    sections = table(["section", "keys", "what"], rows)
    return "\n".join([_OVERVIEW, *sections, "", "## Keys without a section", "", *_keys(top), ""])


def _page(name: str, found: list[Group]) -> str:
    lines = [f"# {name}", "", found[0].meaning, ""]
    for group in found:
        if group is not found[0]:
            lines += [f"## {group.path}", "", group.meaning, ""] if group.keys else []
        if group.absent and group.keys:
            lines += ["Left out by default.", ""]
        lines += [*_keys(group.keys), ""] if group.keys else []
    return "\n".join(lines)


def _keys(keys: tuple[Key, ...] | list[Key]) -> list[str]:
    rows = [
        [f"`{key.path}`", cell(key.allowed), f"`{cell(key.default)}`" if key.default else "", cell(key.meaning)]
        for key in keys
    ]
    return table(["key", "allowed", "default", "meaning"], rows)
