"""Who may know whom (docs/architecture.md): arrows run downwards from room to room, and nothing runs in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.import_graph import PACKAGES, ROOT, circles, graph, imported, modules

LIBRARY = [
    path
    for path in sorted((ROOT / "dreambooth3d").rglob("*.py"))
    if "cli" not in path.parts and path != ROOT / "dreambooth3d" / "__main__.py"  # which is the command line
]
GROUND = (
    "artifacts", "backdrops", "cameras", "digests", "environment", "errors", "faults", "glossary", "guidance", "hub",
    "images", "live", "locks", "masks", "naming", "parallel", "places", "progress", "prompts", "record", "runtime",
    "strict_yaml", "temporary", "transfer", "weights",
)  # fmt: skip
FLOORS = (
    # The library. Rooms side by side on one floor do not know each other.
    ("dreambooth3d", "dreambooth3d.config", *(f"dreambooth3d.{name}" for name in GROUND)),
    ("dreambooth3d.diffusion.model", "dreambooth3d.representation", "dreambooth3d.photos"),
    (
        "dreambooth3d.diffusion.sampling",
        "dreambooth3d.diffusion.guidance",
        "dreambooth3d.nerf.rendering",
        "dreambooth3d.toybox",
    ),
    ("dreambooth3d.diffusion.finetuning", "dreambooth3d.gaussians", "dreambooth3d.nerf.field"),
    ("dreambooth3d.surface",),
    ("dreambooth3d.kinds", "dreambooth3d.nerf.photo_cameras"),
    ("dreambooth3d.nerf.training",),
    ("dreambooth3d.evaluation", "dreambooth3d.export"),
    ("dreambooth3d.checkpoint_distillation", "dreambooth3d.run_report"),
    ("dreambooth3d.stages",),
    ("dreambooth3d.sources",),
    ("dreambooth3d.in_process",),
    ("dreambooth3d.recipe",),
    # What runs, keeps and shows trainings.
    ("materializers",),
    ("operations.zenml_start",),
    ("operations.records", "operations.orchestrators"),
    ("operations.registry",),
    ("operations.launch",),
    ("steps",),
    ("pipelines",),
    ("dreambooth3d.cli",),
    ("dreambooth3d.__main__",),
)
OPTIONAL_CIRCLES = {
    # ZenML loads a flavor without its orchestrator, whose packages may be missing.
    frozenset({"operations.orchestrators.kubeflow.flavor", "operations.orchestrators.kubeflow.orchestrator"}),
}
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def room_of(module: str) -> str:
    """The innermost room that a module lies in."""
    name = module
    while name not in FLOOR_OF:
        name = name.rpartition(".")[0]
        assert name and name != "dreambooth3d", f"{module}: no floor is named for it"
    return name


def imports(path: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, also inside functions."""
    return imported(ast.parse(path.read_text()))


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


PACKAGES_WITHOUT_CONTENT = {"operations", "dreambooth3d.diffusion", "dreambooth3d.nerf"}


@pytest.mark.parametrize("module", sorted(set(modules()) - PACKAGES_WITHOUT_CONTENT))
def test_no_arrow_runs_upwards(module: str) -> None:
    """Imports inside functions and for type checkers included."""
    room = room_of(module)
    for other in graph(optional=True)[module] - PACKAGES_WITHOUT_CONTENT:
        beside = room_of(other) == room or (FLOOR_OF[room] == 0 and FLOOR_OF[room_of(other)] == 0)
        assert beside or FLOOR_OF[room_of(other)] < FLOOR_OF[room], f"{module} imports {other}"


def test_packages_without_a_floor_are_empty() -> None:
    assert not any(modules()[name].read_text().strip() for name in PACKAGES_WITHOUT_CONTENT)


def test_nothing_imports_in_a_circle() -> None:
    assert circles(graph(optional=False)) == set()
    assert circles(graph(optional=True)) <= OPTIONAL_CIRCLES


def test_the_ground_floor_knows_no_settings_and_settings_know_names_only() -> None:
    for name in GROUND:
        assert not [other for other in graph(optional=True)[f"dreambooth3d.{name}"] if "dreambooth3d.config" in other]
    for module in modules():
        if within(module, "dreambooth3d.config"):
            known = {other for other in graph(optional=True)[module] if not within(other, "dreambooth3d.config")}
            assert known <= {"dreambooth3d.naming"}, module


def test_floors_and_circles_are_seen() -> None:
    """On edges that are no one's: the rule itself must be able to fail."""
    edges = {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset({"a"}), "d": frozenset({"a"})}
    assert circles(edges) == {frozenset({"a", "b", "c"})}
    assert circles(edges | {"c": frozenset()}) == set()
    assert room_of("dreambooth3d.nerf.field.encodings") == "dreambooth3d.nerf.field"
    with pytest.raises(AssertionError, match="no floor"):
        room_of("dreambooth3d.elsewhere")


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_library_knows_no_orchestrator_and_no_tracker(path: Path) -> None:
    foreign = ("zenml", "mlflow", "steps", "pipelines", "materializers", "operations", "dreambooth3d.cli")
    assert not [name for name in imports(path) if any(within(name, package) for package in foreign)]


def test_nerf_knows_no_diffusion() -> None:
    for path in (ROOT / "dreambooth3d" / "nerf").rglob("*.py"):
        foreign = ("diffusers", "transformers", "dreambooth3d.diffusion")
        assert not [name for name in imports(path) if any(within(name, package) for package in foreign)], path


def test_diffusion_knows_no_nerf() -> None:
    for path in (ROOT / "dreambooth3d" / "diffusion").rglob("*.py"):
        assert not [name for name in imports(path) if within(name, "dreambooth3d.nerf")], path


def test_nothing_is_pickled() -> None:
    for folder in PACKAGES:
        for path in (ROOT / folder).rglob("*.py"):
            # What a process hands to one that it has started is never stored, and from nobody else.
            allowed = path == ROOT / "dreambooth3d" / "parallel.py"
            found = [name for name in imports(path) if within(name, "pickle") or within(name, "cloudpickle")]
            assert allowed or not found, path
            assert "torch.save" not in path.read_text(), path
            assert "torch.load" not in path.read_text(), path


def functions(path: Path) -> dict[str, ast.FunctionDef]:
    """The module-level functions of a file by name."""
    return {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


STAGES = functions(ROOT / "dreambooth3d" / "stages.py")
STEPS = {name: function for path in (ROOT / "steps").glob("*.py") for name, function in functions(path).items()}


@pytest.mark.parametrize("source", [STAGES, STEPS], ids=["stages", "steps"])
def test_only_evaluation_names_the_judge(source: dict[str, ast.FunctionDef]) -> None:
    """No other stage knows a judge by name; what is opened at run time, the end-to-end test sees."""
    knowing = set()
    for name, function in source.items():
        names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        names |= {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
        knowing |= {name} if any("judge" in found for found in names) else set()
    assert knowing == {"evaluate", "evaluate_context", "evaluate_prompt"}


@pytest.mark.parametrize("source", [STAGES, STEPS], ids=["stages", "steps"])
def test_ground_truth_is_taken_by_the_ceiling_and_by_what_measures_only(source: dict[str, ast.FunctionDef]) -> None:
    taking = {
        name
        for name, function in source.items()
        for node in ast.walk(function)
        if isinstance(node, ast.arg) and node.annotation is not None and "GroundTruth" in ast.unparse(node.annotation)
    }
    assert taking == {"evaluate", "evaluate_context", "export_asset", "fit_true_views"}
    method = functions(ROOT / "dreambooth3d" / "recipe.py")["run"]
    assert "fit_true_views" not in ast.unparse(method)
