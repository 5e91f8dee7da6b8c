"""YAML of which nothing is guessed: every fault is one sentence with its place, every value knows where it was said."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dreambooth3d.errors import ConfigError

REMOVED = object()
"""The value of a key that is tagged `!remove`."""
_REMOVE = "!remove"
_YAML = "tag:yaml.org,2002:"
_MERGE = f"{_YAML}merge"
_SCALARS = {f"{_YAML}{name}" for name in ("str", "int", "float", "bool", "null")}
# Levels, values with those behind aliases, and digits (Python refuses to read numbers of some thousand).
_DEEPEST, _MOST, _LONGEST_NUMBER = 40, 50_000, 1000
_LARGEST_BYTES = 2**18
_REMEDIES = {
    r"found character '\t'": "Indent with spaces instead of tabs",
    "while scanning a tag": "Leave a space behind the tag, as in {key: !remove }, or put the text into quotes",
    "found undefined alias": "Define it further up, as &name, or put the text into quotes",
    "expected a single document": "Keep one of them, and remove the line ---",
    "while scanning a quoted scalar": "Close the quote",
    "found unexpected end of stream": "Close the quote",
    "mapping values are not allowed here": "Put text with a colon into quotes, or correct the indentation",
    "could not find expected ':'": "Write key: value",
    "did not find expected ',' or": "Close the bracket",
    "expected ',' or": "Close the bracket, or put the text into quotes",
    "expected <block end>": "Correct the indentation",
    "cannot start any token": "Put the text into quotes",
}


@dataclass(frozen=True)
class Place:
    """Where something was said: the file, as the user named it, and the line, counted from 1."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Said:
    """A value and where it was said.

    Attributes:
        value: a scalar, a list of `Said`, a dictionary of `Said` by key, or `REMOVED`.
        place: of its key, or of itself where it has none.
    """

    value: Any
    place: Place

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: said.plain() for key, said in self.value.items()}
        return [said.plain() for said in self.value] if isinstance(self.value, list) else self.value

    def places(self, where: str = "") -> Iterator[tuple[str, Place]]:
        """All places, by dotted key."""
        if where:
            yield where, self.place
        children = self.value.items() if isinstance(self.value, dict) else ()
        children = enumerate(self.value) if isinstance(self.value, list) else children
        for key, said in children:
            yield from said.places(f"{where}.{key}" if where else str(key))


class NotYamlError(ConfigError):
    """A fault in the text.

    Attributes:
        problem: what is wrong.
        line: where, counted from 1.
        column: where, counted from 1; None where only the line is known.
        remedy: what to do.
    """

    def __init__(self, problem: str, line: int, column: int | None, remedy: str) -> None:
        """A fault at a place."""
        super().__init__(f"{problem}. {remedy}.")
        self.problem, self.line, self.column, self.remedy = problem, line, column, remedy


def read_yaml(path: Path | str, shown: str | None = None, removable: bool = False) -> Said:
    """What a YAML file says; UTF-8, or UTF-16 with its mark; at most 256 KiB.

    Args:
        path: of the file.
        shown: the path as errors and places name it; None for `path` itself.
        removable: see `parse`.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it is not valid YAML.
    """
    shown = shown or str(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{shown}: there is no such file. Choose one of configs/*.yaml or write your own.") from None
    except IsADirectoryError:
        raise ConfigError(f"{shown}: is a folder. Name a YAML file in it.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{shown}: cannot be read ({reason}). Choose a file that you may read.") from None
    if len(data) > _LARGEST_BYTES:
        kibibytes = _LARGEST_BYTES // 1024
        raise ConfigError(f"{shown}: has more than {kibibytes} KiB, which no file of settings has. Shorten it.")
    try:
        return parse(_decoded(data), shown, removable)
    except NotYamlError as error:
        place = ":".join(str(part) for part in (shown, error.line, error.column) if part is not None)
        raise ConfigError(f"{place}: is not valid YAML: {error}") from None


def parse(text: str, file: str = "", removable: bool = False) -> Said:
    """What a text in YAML says. Dates stay text, since no setting is one.

    Args:
        text: one document.
        file: as places shall name it.
        removable: whether keys may be tagged `!remove`.

    Raises:
        NotYamlError: the text is no YAML, has a key twice or one that is no text, or holds what no setting can be.
    """
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return _Builder(loader, file, removable).built(node) if node is not None else Said(None, Place(file, 1))
    except yaml.reader.ReaderError as error:
        line, column = _line_and_column(text[: error.position])
        problem = f"the character U+{error.character:04X} may not stand in a text"
        raise NotYamlError(problem, line, column, "Save the file as text in UTF-8") from None
    except yaml.MarkedYAMLError as error:
        raise _fault(error) from None
    finally:
        if loader is not None:
            loader.dispose()


def dump(values: Any, ascii_only: bool = True) -> str:
    """A value as YAML, nothing abbreviated by an alias; in ASCII it reads the same whatever the reader's locale."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=not ascii_only)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (PyYAML's signature)
        return True


class _Loader(yaml.SafeLoader):
    """Refuses a nesting that would end Python's stack, and takes neither dates nor a bare `=` for anything but text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (a class variable of PyYAML, which its stubs call an instance's)
        first: [(tag, regexp) for tag, regexp in resolvers if tag not in (f"{_YAML}timestamp", f"{_YAML}value")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self._depth >= _DEEPEST:
            raise _too_deep(self.peek_event().start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Builder:
    """Turns YAML's nodes into values with places."""

    def __init__(self, loader: _Loader, file: str, removable: bool) -> None:
        self._loader, self._file, self._removable = loader, file, removable
        self._open: list[int] = []
        self._count = 0

    def built(self, node: yaml.Node, place: Place | None = None, removable: bool = False) -> Said:
        """The value of a node, where `removable` also that it is to be removed."""
        place = place or Place(self._file, node.start_mark.line + 1)
        with self._inside(node):
            if node.tag == _REMOVE:
                if not removable or not isinstance(node, yaml.ScalarNode) or node.value:
                    raise _at(node, "!remove stands alone, for a key's value in a file", "Write `key: !remove`")
                return Said(REMOVED, place)
            if isinstance(node, yaml.MappingNode) and node.tag == f"{_YAML}map":
                return Said(self._mapping(node), place)
            if isinstance(node, yaml.SequenceNode) and node.tag == f"{_YAML}seq":
                return Said([self.built(item) for item in node.value], place)
            return Said(self._scalar(node), place)

    @contextmanager
    def _inside(self, node: yaml.Node) -> Iterator[None]:
        if id(node) in self._open:
            raise _at(node, "this value contains itself", "Remove the alias")
        if len(self._open) >= _DEEPEST:
            raise _too_deep(node.start_mark)
        self._count += 1
        if self._count > _MOST:
            raise _at(node, f"its aliases stand for more than {_MOST} values", "Write less")
        self._open.append(id(node))
        yield
        self._open.pop()

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Said]:
        merged: dict[str, Said] = {}
        own: dict[str, Said] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                # By YAML's rule the first of several wins, and what is written out wins over all.
                merged = {**self._merged(value_node), **merged}
                continue
            key = self._key(key_node)
            if key in own:
                raise _at(key_node, f"the key {key!r} is given twice", "Remove one of the two", column=False)
            place = Place(self._file, key_node.start_mark.line + 1)
            own[key] = self.built(value_node, place, removable=self._removable)
        return {**merged, **own}

    def _merged(self, node: yaml.Node) -> dict[str, Said]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[str, Said] = {}
        for one in nodes:
            if not isinstance(one, yaml.MappingNode):
                raise _at(one, "<<: takes keys and values, or a list of such", "Write `<<: *name`")
            found = {**self.built(one).value, **found}
        return found

    def _key(self, node: yaml.Node) -> str:
        if node.tag == f"{_YAML}str" and isinstance(node, yaml.ScalarNode):
            return node.value
        if isinstance(node, yaml.ScalarNode) and node.value:
            raise _at(node, f"the key {_short(node.value)[1:-1]} is no text", "Put it into quotes")
        raise _at(node, "a key must be text, such as seed", "Name it, or put it into quotes")

    def _scalar(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.tag == _MERGE:
            return node.value
        if node.tag not in _SCALARS or not isinstance(node, yaml.ScalarNode):
            tag = node.tag.replace(_YAML, "!!")
            raise _at(node, f"the tag {tag} means nothing here", "Remove it, or put the text into quotes")
        if node.tag == f"{_YAML}int" and len(node.value) > _LONGEST_NUMBER:
            raise _at(node, f"{_short(node.value)} is too large a number", "Put text into quotes")
        try:
            return self._loader.construct_object(node)
        except (ValueError, LookupError):
            kind = node.tag.replace(_YAML, "!!")
            raise _at(node, f"{_short(node.value)} is no {kind}", "Put text into quotes") from None


def _decoded(data: bytes) -> str:
    """The text of a file.

    Raises:
        NotYamlError: it has another encoding, or is no text.
    """
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = data[: error.start].count(b"\n") + 1, error.start - data.rfind(b"\n", 0, error.start)
        problem = f"the byte 0x{data[error.start]:02X} is no part of a text in {'UTF-16' if utf16 else 'UTF-8'}"
        raise NotYamlError(problem, line, column, "Save the file as text in UTF-8") from None


def _line_and_column(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _at(node: yaml.Node, problem: str, remedy: str, column: bool = True) -> NotYamlError:
    mark = node.start_mark
    return NotYamlError(problem, mark.line + 1, mark.column + 1 if column else None, remedy)


def _too_deep(mark: yaml.Mark) -> NotYamlError:
    return NotYamlError(
        f"this is nested more than {_DEEPEST} levels deep", mark.line + 1, mark.column + 1, "Write it flatter"
    )


def _fault(error: yaml.MarkedYAMLError) -> NotYamlError:
    mark = error.problem_mark or error.context_mark
    gist = ", ".join(part for part in (error.context, error.problem) if part)
    remedy = next((remedy for part, remedy in _REMEDIES.items() if part in gist), "Correct it")
    begun = error.context_mark
    since = f" (begun in line {begun.line + 1})" if begun and mark and begun.line != mark.line else ""
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return NotYamlError(f"{gist}{since}", line, column, remedy)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
