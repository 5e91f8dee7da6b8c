"""Who may know whom (docs/architecture.md): the library knows no orchestrator, NeRF code no diffusion internals."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = [path for path in sorted((ROOT / "dreambooth3d").rglob("*.py")) if "cli" not in path.parts]


def imports(path: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_library_knows_no_orchestrator_and_no_tracker(path: Path) -> None:
    foreign = ("zenml", "mlflow", "steps", "pipelines", "materializers", "dreambooth3d.cli")
    assert not [name for name in imports(path) if any(within(name, package) for package in foreign)]


def test_nerf_knows_no_diffusion() -> None:
    for path in (ROOT / "dreambooth3d" / "nerf").rglob("*.py"):
        foreign = ("diffusers", "transformers", "dreambooth3d.diffusion")
        assert not [name for name in imports(path) if any(within(name, package) for package in foreign)], path


def test_diffusion_knows_no_nerf_but_cameras() -> None:
    for path in (ROOT / "dreambooth3d" / "diffusion").rglob("*.py"):
        known = [name for name in imports(path) if within(name, "dreambooth3d.nerf")]
        assert all(name == "dreambooth3d.nerf" or within(name, "dreambooth3d.cameras") for name in known), path


def test_nothing_is_pickled() -> None:
    for folder in ("dreambooth3d", "materializers", "steps", "pipelines"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not [name for name in imports(path) if within(name, "pickle") or within(name, "cloudpickle")], path
            assert "torch.save" not in path.read_text(), path
            assert "torch.load" not in path.read_text(), path


def test_only_evaluate_names_the_judge() -> None:
    """No other step knows a judge by name; what is opened at run time, the end-to-end test sees."""
    for path in (ROOT / "steps").glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        names |= {node.arg for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.arg)}
        assert path.stem in ("evaluate", "evaluate_context") or not any("judge" in name for name in names), path


def test_ground_truth_is_taken_by_evaluation_and_ceiling_only() -> None:
    for path in (ROOT / "steps").glob("[!_]*.py"):
        annotations = {
            ast.unparse(node.annotation)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.arg) and node.annotation is not None
        }
        taken_by = ("evaluate", "evaluate_context", "fit_true_views")
        assert ("GroundTruth" in annotations) == (path.stem in taken_by), path
    assert "fit_true_views" not in (ROOT / "pipelines" / "training.py").read_text()
