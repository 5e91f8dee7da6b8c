"""The figures of the house that docs/architecture.md gives: `python .ci/figures.py [CHECKOUT]` prints a checkout's.

Those of an older commit: `git worktree add /tmp/before COMMIT`, then `python .ci/figures.py /tmp/before`.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx

SHELL = ("materializers", "operations", "steps", "pipelines")
PACKAGES = ("dreambooth3d", *SHELL)
JOINERS = tuple(
    f"dreambooth3d.{name}" for name in ("stages", "recipe", "checkpoint_distillation", "in_process", "sources")
)
# From the ground up: what imports something of a later line runs upwards.
FLOORS = (
    ("dreambooth3d", "dreambooth3d.config"),
    ("dreambooth3d.toybox", "dreambooth3d.photos", "dreambooth3d.diffusion", "dreambooth3d.nerf"),
    ("dreambooth3d.evaluation", "dreambooth3d.export"),
    (*JOINERS, "dreambooth3d.run_report"),
    ("materializers",),
    ("operations.records", "operations.orchestrators"),
    ("operations.registry",),
    ("operations.launch", "operations"),
    ("steps",),
    ("pipelines",),
    ("dreambooth3d.cli",),
)
LONG_FUNCTION, LONG_FILE = 50, 300


def modules(root: Path) -> dict[str, Path]:
    """The files of the product by the names that they are imported by."""
    found = {}
    for path in sorted(itertools.chain.from_iterable((root / name).rglob("*.py") for name in PACKAGES)):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str, files: dict[str, Path]) -> str:
    """The folder that a module lies in; what joins the stages is a room of its own, wherever its files lie."""
    if module in JOINERS:
        return JOINERS[0]
    return module if files[module].name == "__init__.py" else module.rpartition(".")[0]


def floor(name: str) -> int:
    """The room's floor, from 0: that of the nearest folder above it that has one."""
    while not any(name in names for names in FLOORS):
        name = name.rpartition(".")[0]
    return next(number for number, names in enumerate(FLOORS) if name in names)


def imports(tree: ast.AST, known: dict[str, Path], everywhere: bool) -> Iterator[str]:
    """The modules of the product that a file imports: at its top, or also inside functions."""
    for node in ast.walk(tree) if everywhere else _top(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield from [each for each in (name, name.rpartition(".")[0]) if each in known][:1]


def _top(tree: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported; neither functions nor what only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        checks_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not checks_types and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from _top(node)


def circles(trees: dict[str, ast.Module], files: dict[str, Path], everywhere: bool) -> str:
    """How many groups of files import one another, and their names."""
    graph = nx.DiGraph()
    graph.add_edges_from((name, other) for name, tree in trees.items() for other in imports(tree, files, everywhere))
    found = [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]
    return f"{len(found)} {found if found else ''}".strip()


def type_errors(root: Path) -> int:
    """Errors of the type checker, by the settings of this checkout."""
    here = Path(__file__).resolve().parents[1]
    settings = {
        "include": [str(root / name) for name in PACKAGES],
        "pythonVersion": "3.11",
        "typeCheckingMode": "standard",
        "stubPath": str(here / "typings"),
        "useLibraryCodeForTypes": False,
        "extraPaths": [str(root)],
    }
    file = root / ".figures-pyrightconfig.json"
    file.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "-p", str(file), "--pythonpath", sys.executable, "--outputjson"]
    try:
        answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    finally:
        file.unlink()
    return answer["summary"]["errorCount"]


def figures(root: Path) -> dict[str, Any]:
    """All of them by name."""
    files = modules(root)
    trees = {name: ast.parse(path.read_text()) for name, path in files.items()}
    arrows = {
        (room(name, files), room(other, files))
        for name, tree in trees.items()
        for other in imports(tree, files, everywhere=True)
        if room(name, files) != room(other, files)
    }
    upward = sorted(f"{low} -> {high}" for low, high in arrows if floor(low) < floor(high))
    lengths = {
        f"{name}.{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    lines = {name: len(path.read_text().splitlines()) for name, path in files.items()}
    longest, longest_file = max(lengths, key=lengths.__getitem__), max(lines, key=lines.__getitem__)
    yaml = "\n".join(path.read_text() for path in sorted((root / "configs").rglob("*.yaml"))).splitlines()
    settings = [line for line in yaml if line.strip() and not re.match(r"\s*#", line)]
    return {
        "files": len(files),
        "lines": sum(lines.values()),
        "rooms": len({room(name, files) for name in files}),
        "arrows between rooms": len(arrows),
        "arrows upwards": f"{len(upward)} {upward if upward else ''}".strip(),
        "circles of files, on import": circles(trees, files, everywhere=False),
        "circles of files, with imports inside functions": circles(trees, files, everywhere=True),
        "type errors": type_errors(root),
        f"functions of more than {LONG_FUNCTION} lines": sum(length > LONG_FUNCTION for length in lengths.values()),
        "longest function": f"{lengths[longest]} ({longest})",
        f"files of more than {LONG_FILE} lines": sum(length > LONG_FILE for length in lines.values()),
        "longest file": f"{lines[longest_file]} ({longest_file})",
        "lines of presets": f"{len(settings)}, {len(set(settings))} of them distinct",
    }


def main(root: str = ".") -> None:
    """Print one figure per line."""
    for name, value in figures(Path(root).resolve()).items():
        print(f"{name}: {value}")


main(*sys.argv[1:])
