"""Contexts through the real front door: one run, shared DreamBooth stages, an asset per prompt."""

from __future__ import annotations

import json

import pytest

from tests.pipelines.test_end_to_end import Outcome, tracker, train
from tests.product import TINY, Product, make_product

RED, HAT = "a photo of a red sks dog", "sks dog with a red hat"
EDIT = {name: TINY["refine_nerf"][name] for name in ("steps", "views_per_step", "check_every", "render")}
OF_CONTEXTS = [f"{step}_{index}" for index in (0, 1) for step in ("edit_nerf", "evaluate_context", "export_context")]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """A product of its own."""
    made = make_product(tmp_path_factory.mktemp("contexts"))
    assert made.dreambooth3d("setup").returncode == 0
    made.write_config("two", contexts=[RED, HAT], edit_nerf=EDIT)
    return made


@pytest.fixture(scope="module")
def first(product: Product) -> Outcome:
    """The first run."""
    return train(product, "configs/two.yaml")


@pytest.mark.slow
def test_the_row_has_every_context(product: Product, first: Outcome) -> None:
    metrics, params = first.row.data.metrics, first.row.data.params
    for step in OF_CONTEXTS:
        assert metrics[f"steps/seconds/{step}"] > 0
        assert metrics[f"steps/cached/{step}"] == 0
    for index, prompt in enumerate((RED, HAT)):
        assert params[f"edit_nerf_{index}.prompt"] == prompt
        for name in ("clip_t", "attribute_accuracy", "psnr_fg", "mask_iou"):
            assert f"evaluate_context_{index}/{name}" in metrics
            assert f"evaluate_context_{index}/{name}_source" in metrics
        below = f"contexts/{index}"
        files = {
            file.path
            for folder in ("asset", "report")
            for file in tracker(product).list_artifacts(first.row.info.run_id, f"{below}/{folder}")
        }
        assert files >= {f"{below}/asset/asset.glb", f"{below}/asset/turntable.mp4", f"{below}/report/report.json"}
    assert "evaluate_context_0/colour_accuracy_truth" in metrics
    assert "evaluate_context_1/accessory_accuracy_truth" in metrics
    assert sum(name.startswith("steps/seconds/finetune_dreambooth") for name in metrics) == 1


@pytest.mark.slow
def test_outputs_and_summary(product: Product, first: Outcome) -> None:
    folder = product.root / "outputs" / first.row.data.tags["zenml.pipeline_run"] / "contexts"
    for index, prompt in enumerate((RED, HAT)):
        for file in ("asset.html", "asset.glb", "report.json", "views.csv", "comparison.png", "frames/035.png"):
            assert (folder / str(index) / file).is_file()
        assert prompt in first.result.stdout
        assert f"contexts/{index}/asset.html" in first.result.stdout
    pages = [(folder / str(index) / "asset.html").read_text() for index in (0, 1)]
    assert RED in pages[0] and HAT in pages[1]


@pytest.mark.slow
def test_a_run_with_the_second_context_alone_is_served_from_the_cache(product: Product, first: Outcome) -> None:
    """Also where a context has another number than in the run that made it."""
    alone = train(product, product.write_config("one", contexts=[HAT], edit_nerf=EDIT)).row.data
    begin = "steps/cached/"
    cached = {key.removeprefix(begin): value for key, value in alone.metrics.items() if key.startswith(begin)}
    assert {"refine_nerf", *OF_CONTEXTS[:3]} <= set(cached)
    assert set(cached.values()) == {1}
    assert alone.params["edit_nerf_0.prompt"] == HAT
    for name in ("evaluate_context_{}/clip_t", "export_context_{}/mesh_faces"):
        assert alone.metrics[name.format(0)] == first.row.data.metrics[name.format(1)]
    assert not any(name.startswith("evaluate_context_1") for name in alone.metrics)


def test_a_prompt_that_does_not_name_the_subject_is_refused_before_anything_is_written(product: Product) -> None:
    before = product.files()
    config = product.write_config("nameless", contexts=[RED, "a photo of a red dog"])
    result = product.dreambooth3d("train", config)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()[-1:]
    assert line.startswith("Error: contexts.1: 'a photo of a red dog' does not name the subject")
    assert "'a photo of a red sks dog'" in line
    assert product.files() - before == {config}


@pytest.mark.slow
def test_the_prompt_reaches_the_viewer_s_metrics(product: Product, first: Outcome) -> None:
    folder = product.root / "outputs" / first.row.data.tags["zenml.pipeline_run"]
    report = json.loads((folder / "contexts" / "0" / "report.json").read_text())
    assert report["metrics"]["attribute_accuracy"] == first.row.data.metrics["evaluate_context_0/attribute_accuracy"]
    assert set(report["metrics"]) == set(report["definitions"])
