"""The ceiling's pipeline through its real front door: its row, and what it refuses before anything is written."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests.product import TINY, ZENML, Product, make_product

STEPS = ("validate_photos", "load_ground_truth", "fit_true_views", "evaluate", "export_asset")
PARAMETERS = {name: TINY[name] for name in ("seed", "device", "photos", "scorers", "evaluate", "export_asset")} | {
    "fit_true_views": {
        **TINY["init_nerf"], "steps": 12, "learning_rate": 0.05, "count": 6, "view_size": 16,
        "reconstruction": {"views_per_step": 2},
    },
}  # fmt: skip


def fit(product: Product, config: str) -> subprocess.CompletedProcess[str]:
    """Run the ceiling's pipeline as its documentation says."""
    command = (ZENML, "pipeline", "run", "pipelines.ceiling.multiview_truth", "--config", config)
    return product.run_warm(*command)


def write_config(product: Product, name: str, **parameters: object) -> str:
    (product.root / "configs" / f"{name}.yaml").write_text(yaml.safe_dump({"parameters": PARAMETERS | parameters}))
    return f"configs/{name}.yaml"


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    made = make_product(tmp_path_factory.mktemp("ceiling"))
    result = made.dreambooth3d("setup")
    assert result.returncode == 0, result.stderr
    return made


def test_photos_without_ground_truth_are_refused(product: Product) -> None:
    mine = product.home / "mine"
    mine.mkdir()
    for photo in sorted((product.root / "data" / "mallard").glob("*.jpg")):
        (mine / photo.name).write_bytes(photo.read_bytes())
    config = write_config(product, "no_truth", photos={"dir": str(mine), "class_noun": "duck"})
    before = product.files()
    result = fit(product, config)
    assert result.returncode == 1 and "Traceback" not in result.stdout + result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ") and "ground_truth.yaml" in last and "Choose a toybox subject" in last
    assert product.files() == before


@pytest.fixture(scope="module")
def row(product: Product) -> Run:
    """The row of a whole run."""
    result = fit(product, write_config(product, "tiny_ceiling"))
    assert result.returncode == 0, result.stderr[-3000:]
    assert "psnr_fg" in result.stdout
    (database,) = (product.root / ".zenconfig").rglob("mlflow.db")
    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("dreambooth3d-ceiling")
    (found,) = client.search_runs([experiment.experiment_id])
    return found


@pytest.mark.slow
def test_its_row_is_complete(row: Run) -> None:
    metrics, params, tags = row.data.metrics, row.data.params, row.data.tags
    for step in STEPS:
        if step != "load_ground_truth":
            assert metrics[f"steps/seconds/{step}"] > 0
    assert 0 < metrics["evaluate/psnr_fg"] < 100
    assert metrics["evaluate/psnr_fg"] == metrics["evaluate_coarse/psnr_fg"], "there is only one field"
    assert metrics["fit_true_views/steps"] == 12 and params["fit_true_views.count"] == "6"
    assert "init_nerf.steps" not in params and "finetune_dreambooth.steps" not in params
    assert tags["preset"] == "tiny_ceiling" and tags["status"] == "completed" and tags["subject"] == "corgi"


@pytest.mark.slow
def test_its_results_lie_where_they_are_looked_for(product: Product, row: Run) -> None:
    folder = product.root / "outputs" / row.data.tags["zenml.pipeline_run"]
    assert (folder / "asset.html").is_file() and len(list((folder / "frames").glob("*.png"))) == 36
    values = json.loads(product.dreambooth3d("runs", "show", row.data.tags["zenml.pipeline_run"], "--json").stdout)
    assert values["metrics"]["evaluate/psnr_fg"] == row.data.metrics["evaluate/psnr_fg"]
