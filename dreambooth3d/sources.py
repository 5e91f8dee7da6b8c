"""Which of the library's source a function's result depends on: what it imports, followed from module to module.

Left out are settings (`dreambooth3d.config`), which hold values and checks of values, and compute nothing: whoever asks
has the values. Those of the guidance count, since they also say what each loss needs. Imports inside functions count,
those for type checkers alone do not.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "dreambooth3d"
SETTINGS = f"{LIBRARY}.config"
COUNTED_SETTINGS = f"{SETTINGS}.guidance"
STAGES = f"{LIBRARY}.stages"


@dataclass(frozen=True)
class Sources:
    """What a function's result depends on.

    Attributes:
        functions: its dotted name, and those of the functions and classes of its module that it uses.
        files: all other modules, and the data files of those that read such, relative to the checkout.
    """

    functions: frozenset[str]
    files: frozenset[str]

    def digest(self) -> str:
        """SHA-256 over all of it."""
        digest = hashlib.sha256()
        for file in sorted(self.files):
            digest.update(file.encode() + b"\0" + ROOT.joinpath(file).read_bytes() + b"\0")
        for name in sorted(self.functions):
            digest.update(f"{name}\0{_source(name)}\0".encode())
        return digest.hexdigest()

    def __or__(self, other: Sources) -> Sources:
        """Both together."""
        return Sources(self.functions | other.functions, self.files | other.files)


@cache
def sources_of(function: Callable[..., Any]) -> Sources:
    """What the result of a function of the library depends on, however far from it.

    Its own module's imports count where they stand outside all functions, or inside one that it uses. Stages
    (`dreambooth3d.stages`) count function by function: an edit of one says nothing about another.
    """
    definitions = _definitions(function.__module__)
    used, pending = set[str](), [function.__name__]
    stages = Sources(frozenset(), frozenset())
    while pending:
        name = pending.pop()
        if name in used:
            continue
        used.add(name)
        for node in ast.walk(definitions[name]):
            if isinstance(node, ast.Name) and node.id in definitions:
                pending.append(node.id)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "stages":
                stages |= sources_of(getattr(_stages(), node.attr))
    tree = _tree(function.__module__)
    outside = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    named = {f"{function.__module__}.{name}" for name in used}
    return Sources(frozenset(named), _followed(_imported([*outside, *(definitions[name] for name in used)]))) | stages


@cache
def library_digest() -> str:
    """SHA-256 over the whole library's source, so that no resumable state of other code is continued."""
    digest = hashlib.sha256()
    for path in sorted(ROOT.joinpath(LIBRARY).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _stages() -> Any:
    from dreambooth3d import stages

    return stages


def _followed(modules: Iterable[str]) -> frozenset[str]:
    """The files of modules and of all that these import."""
    seen, pending = set[str](), list(modules)
    while pending:
        module = pending.pop()
        if module in seen or module == STAGES:
            continue
        if _within(module, SETTINGS) and module != COUNTED_SETTINGS:
            continue
        seen.add(module)
        pending += _imports(module)
        pending += [module.rpartition(".")[0]] if "." in module else []
    return frozenset(file for module in seen for file in _files(module))


def _files(module: str) -> Iterator[str]:
    """A module's file, and the data beside it where it reads such."""
    path = _path(module)
    yield path.relative_to(ROOT).as_posix()
    if "importlib.resources" in path.read_text():
        for beside in path.parent.iterdir():
            if beside.is_file() and beside.suffix not in (".py", ".pyc"):
                yield beside.relative_to(ROOT).as_posix()


@cache
def _imports(module: str) -> frozenset[str]:
    return frozenset(_imported([_tree(module)]))


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The library's modules that nodes import, wherever inside, but for type checkers alone."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _within(alias.name, LIBRARY))
        elif isinstance(node, ast.ImportFrom) and _within(node.module or "", LIBRARY):
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield below if _path(below).exists() else str(node.module)


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_path(module).read_text())


def _definitions(module: str) -> dict[str, ast.stmt]:
    """A module's own functions and classes by name."""
    return {node.name: node for node in _tree(module).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def _source(name: str) -> str:
    module, _, function = name.rpartition(".")
    return str(ast.get_source_segment(_path(module).read_text(), _definitions(module)[function]))


def _path(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")
