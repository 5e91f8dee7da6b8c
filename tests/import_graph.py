"""Which module imports which, by their source alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dreambooth3d", "materializers", "operations", "steps", "pipelines")


@cache
def modules() -> Mapping[str, Path]:
    """All modules of the product by their full name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST, *, optional: bool = True) -> Iterator[str]:
    """The full names of what a piece of source imports, and of what it may import from there.

    Args:
        tree: the source.
        optional: with those inside functions and for type checkers alone.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif optional or not _is_optional(node):
            yield from imported(node, optional=optional)


def _is_optional(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return ast.unparse(node.test).endswith("TYPE_CHECKING")
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


@cache
def graph(optional: bool) -> Mapping[str, frozenset[str]]:
    """By module, the product's modules that it imports; a name from a package is a module of it, or the package."""
    edges = {}
    for name, path in modules().items():
        named = [*imported(ast.parse(path.read_text()), optional=optional)]
        found = {other for other in named if other in modules()}
        # `from package import module` names the package as well, which is what is imported only where it has content.
        above = {other.rpartition(".")[0] for other in found}
        edges[name] = frozenset(found - above - {name})
    return edges


def circles(edges: Mapping[str, frozenset[str]]) -> set[frozenset[str]]:
    """The sets of modules that import each other, however far around (strongly connected components)."""
    reach = {name: _reachable(name, edges) for name in edges}
    return {
        frozenset(other for other in reached if name in reach[other])
        for name, reached in reach.items()
        if name in reached
    }


def _reachable(name: str, edges: Mapping[str, frozenset[str]]) -> set[str]:
    seen: set[str] = set()
    pending = [*edges[name]]
    while pending:
        module = pending.pop()
        if module not in seen:
            seen.add(module)
            pending += edges[module]
    return seen
