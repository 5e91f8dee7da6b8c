"""The notebook: as committed it shows its pictures, its cells name what is there, and it runs."""

from __future__ import annotations

import ast
import base64
import importlib
import io
import json
import re
from typing import Any

import pytest
from PIL import Image

from dreambooth3d import recipe, stages
from tests.product import ROOT

NOTEBOOK = ROOT / "examples" / "dreambooth3d.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
SOURCE = "\n".join("".join(cell["source"]) for cell in CODE)
FOREIGN = ("zenml", "mlflow", "steps", "pipelines", "materializers", "operations")
ONLY_THERE = ("IPython",)
"""Which a notebook's kernel brings."""


def test_what_the_cells_import_is_there() -> None:
    for node in ast.walk(ast.parse(SOURCE)):
        for alias in node.names if isinstance(node, ast.Import) else ():
            importlib.import_module(alias.name)
        if isinstance(node, ast.ImportFrom):
            name = str(node.module)
            assert name.partition(".")[0] not in FOREIGN
            if name.partition(".")[0] not in ONLY_THERE:
                module = importlib.import_module(name)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_it_runs_the_stages_of_the_recipe_in_their_order() -> None:
    order: list[str] = []

    def run_stage(name: str, stage: Any, /, *inputs: Any, **options: Any) -> Any:
        order.append(name)
        return (name,) * 3 if stage is stages.select_checkpoints else name

    from dreambooth3d.config.training import TrainingConfig

    recipe.run(
        TrainingConfig.model_validate({"photos": {"dir": str(ROOT / "tests" / "examples"), "class_noun": "dog"}}),
        run_stage,
    )
    assert re.findall(r"stages\.(\w+),", SOURCE) == order


def test_it_is_committed_with_its_pictures() -> None:
    assert [cell["execution_count"] for cell in CODE] == [*range(1, len(CODE) + 1)]
    assert NOTEBOOK.stat().st_size < 2**20
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    pictures = [output["data"]["image/jpeg"] for output in outputs if "image/jpeg" in output.get("data", {})]
    opened = [Image.open(io.BytesIO(base64.b64decode(picture))).convert("L") for picture in pictures]
    assert len(opened) >= 5 and all(picture.getextrema() != (255, 255) for picture in opened)
    assert "/tmp/" not in "".join(map(json.dumps, outputs)), "a machine's paths are nobody's business"


@pytest.mark.slow
def test_it_runs() -> None:
    """In its own environment: `make test-notebook`."""
    pytest.importorskip("nbclient")
    from examples.refresh import executed

    found = executed(NOTEBOOK)
    text = "".join(output.get("text", "") for output in found.cells[-1].outputs)
    assert "asset.glb" in text and "turntable.mp4" in text
    scores = next(cell for cell in found.cells if "stages.evaluate," in cell.source)
    (printed,) = [output["text"] for output in scores.outputs if output.get("name") == "stdout"]
    quality, mean = (
        float(re.findall(rf"^{name} +([\d.]+)", printed, re.MULTILINE)[0]) for name in ("mask_iou", "clip_i")
    )
    assert 0.5 < quality <= 1 and 0 < mean <= 1
