"""The recipe without an orchestrator: the README's lines as they stand there, and stages and steps side by side."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import steps
from dreambooth3d import recipe, stages
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.toybox.subjects import write_subject
from tests.product import ROOT, TINY, Product, make_product

EDIT = {name: TINY["refine_nerf"][name] for name in ("steps", "views_per_step", "check_every", "render")}
LOADED = "\nimport sys; print(sorted({'zenml', 'mlflow', 'steps', 'pipelines', 'operations'} & set(sys.modules)))"
FROM_PIPELINES = {"resolve_dataset", "decide_subjects", "retrain_apart", "publish", "summarize"}


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """A checkout with a folder of photos, where the demo is tiny, and nothing is set up."""
    made = make_product(tmp_path_factory.mktemp("recipe"))
    parameters = {**TINY, "edit_nerf": EDIT, "contexts": ["a photo of a red sks duck"]}
    (made.root / "configs" / "demo.yaml").write_text(yaml.safe_dump({"parameters": parameters}))
    write_subject("mallard", made.home)
    (made.root / "my_photos").mkdir()
    for photo in made.home.glob("mallard/*.jpg"):
        photo.rename(made.root / "my_photos" / photo.name)
    return made


def test_the_readme_s_lines_make_an_asset_without_an_orchestrator(product: Product) -> None:
    section = (ROOT / "README.md").read_text().split("## From Python\n")[1].split("\n## ")[0]
    (lines,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    result = product.run("-c", lines + LOADED)
    assert result.returncode == 0, result.stderr[-3000:]
    shown, loaded = result.stdout.strip().splitlines()[-2:]
    similarity, page = shown.split()
    assert 0 < float(similarity) < 1 and loaded == "[]"
    assert Path(page).parts[:2] == ("outputs", "duck")
    folder = (product.root / page).parent
    for name in ("asset.html", "asset.glb", "turntable.mp4", "frames/035.png"):
        assert (folder / name).stat().st_size > 0
    (edited,) = (product.root / "outputs" / "duck").glob("export_context_0-*/**/asset.html")
    assert "a photo of a red sks duck" in edited.read_text()
    assert not (product.root / ".zenconfig").exists()


def test_each_stage_is_the_step_of_its_name() -> None:
    """A step takes what its stage takes, under the same names, and the device in place of the surroundings."""
    found = dict(inspect.getmembers(stages, inspect.isfunction))
    assert {*found} == {*steps.__all__} - FROM_PIPELINES
    for name, stage in found.items():
        expected = [*inspect.signature(stage).parameters][1:]
        given = [*inspect.signature(getattr(steps, name).entrypoint).parameters]
        assert [parameter for parameter in given if parameter != "device"] == expected, name


def order(**sections: Any) -> list[str]:
    """The names under which a recipe runs its stages."""
    names: list[str] = []

    def run_stage(name: str, stage: Any, /, *inputs: Any, **options: Any) -> Any:
        inspect.signature(stage).bind(None, *inputs, **options)
        names.append(name)
        return (f"{name}/partial", f"{name}/full", name) if name == "select_checkpoints" else name

    config = TrainingConfig.model_validate({"photos": {"dir": str(ROOT / "data" / "corgi")}, **sections})
    made = recipe.run(config, run_stage)
    assert made.report == "evaluate" and len(made.contexts) == len(config.contexts)
    return names


def test_a_recipe_leaves_out_what_its_settings_leave_out() -> None:
    first = ["validate_photos", "finetune_dreambooth", "select_checkpoints", "init_nerf"]
    last = ["load_ground_truth", "evaluate", "export_asset"]
    second = ["generate_pseudo_views", "finetune_multiview", "refine_nerf"]
    assert order() == [*first, *second, *last]
    off = {"init_from": "full", "pseudo_views": False, "multiview": False, "refine_with": "none"}
    assert order(recipe=off) == [*first, *last]
    assert order(recipe={"multiview": False, "refine_with": "full"}) == [*first, second[0], second[2], *last]
    edited = [f"{name}_{index}" for index in (0, 1) for name in ("edit_nerf", "evaluate_context", "export_context")]
    assert order(contexts=["a red sks dog", "a green sks dog"]) == [*first, *second, *last, *edited]


@pytest.mark.parametrize(
    ("asked", "guide", "names"),
    [
        ({}, None, ["read_prompt", "read_guide", "init_nerf"]),
        ({}, "a run's checkpoint", ["read_prompt", "init_nerf"]),
        ({"refine": True}, None, ["read_prompt", "read_guide", "init_nerf", "refine_nerf"]),
    ],
)
def test_a_prompt_alone_needs_no_photos_and_no_fine_tuning(asked: dict, guide: Any, names: list[str]) -> None:
    """What is wanted of it reaches each stage: its own defaults, said in full, and the negative prompt."""
    ran, given = [], {}

    def run_stage(name: str, stage: Any, /, *inputs: Any, **options: Any) -> Any:
        given[name] = inspect.signature(stage).bind(None, *inputs, **options).arguments
        ran.append(name)
        return name

    generation = {"prompt": "a photo of a red snowman", "negative_prompt": "a dog", **asked}
    config = TextTo3dConfig.model_validate({"generation": generation})
    made = recipe.generate(config, run_stage, guide)
    assert ran == [*names, "evaluate_prompt", "export_asset"]
    assert made.asset == names[-1] and made.report == "evaluate_prompt"
    assert (
        given["init_nerf"]["checkpoint"] == (guide or "read_guide") and given["read_prompt"]["class_noun"] == "snowman"
    )
    for name in names[names.index("init_nerf") :]:
        said = given[name]["config"].model_dump(exclude_unset=True)
        assert said["guidance"]["negative_prompt"] == "a dog" and said["photos"]["weight"] == 0
        assert said["guards"]["clip_i"]["action"] == "off"
    assert given["init_nerf"]["config"].model_dump(exclude_unset=True)["face_front"] is True
    assert given["export_asset"]["config"].model_dump(exclude_unset=True)["six_views"] is True
