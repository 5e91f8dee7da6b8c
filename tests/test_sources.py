"""Which source a stage depends on, against what a real run of each stage loads in a process of its own."""

from __future__ import annotations

import ast
import inspect
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dreambooth3d import recipe, stages
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from dreambooth3d.sources import ROOT, sources_of
from dreambooth3d.toybox.subjects import write_subject
from operations.launch.sources import sources, training_digest
from tests import stage_process
from tests.product import TINY, write_models

NOT_LOADED_HERE = {
    "nerf/field/triton_grid.py",  # on a GPU
    "photos/remote.py", "photos/masks/learned.py", "photos/masks/color_models.py",  # for other photo sets
    "toybox/captions.py", "toybox/contexts.py",  # for photos that somebody has described
    "export/page.css", "export/viewer.html", "export/viewer.js",  # no modules
}  # fmt: skip
PRELOADED = ["torch", "pandas", "PIL.Image", "transformers", "diffusers", "accelerate"]
STAGES = [
    name for name, function in inspect.getmembers(stages, inspect.isfunction) if function.__module__ == stages.__name__
]


@dataclass
class Watched:
    """Runs each stage in a process of its own, which has loaded nothing of the library before."""

    folder: Path
    loaded: dict[str, set[str]] = field(default_factory=dict)

    def __call__(self, name: str, stage: Callable[..., Any], /, *inputs: Any, **options: Any) -> Any:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        with ProcessPoolExecutor(1, context) as process:
            given = (stage.__name__, pickle.dumps((inputs, options)), str(self.folder / name))
            value, files = process.submit(stage_process.run, *given).result()
        relative = {Path(file).relative_to(ROOT).as_posix() for file in files}
        self.loaded.setdefault(stage.__name__, set()).update(relative)
        return pickle.loads(value)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The files that each stage loads, of a tiny training with a context, a tiny ceiling and a tiny generation."""
    folder = tmp_path_factory.mktemp("sources")
    write_models(folder / "models")
    write_subject("corgi", folder)
    models = {name: str(folder / "models" / name) for name in ("selector", "judge")}
    common = {name: TINY[name] for name in ("evaluate", "export_asset")} | {
        "device": "cpu", "photos": {"dir": str(folder / "corgi")}, "scorers": models,
    }  # fmt: skip
    edit = {name: TINY["refine_nerf"][name] for name in ("steps", "views_per_step", "check_every", "render")}
    training = {
        **TINY, **common, "base_model": {"path": str(folder / "models" / "tiny")}, "edit_nerf": edit,
        "contexts": ["a photo of a red sks dog"],
    }  # fmt: skip
    fit = {**TINY["init_nerf"], "count": 4, "view_size": 16, "reconstruction": {"views_per_step": 1}}
    generation = {name: value for name, value in training.items() if name in TextTo3dConfig.model_fields} | {
        "generation": {"prompt": "a photo of a red dog"}, "refine_nerf": {},
    }  # fmt: skip
    watched = Watched(folder / "work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMBOOTH3D_WORK", str(folder / "cache"))
        recipe.run(TrainingConfig.model_validate(training), watched)
        recipe.fit_truth(CeilingConfig.model_validate({**common, "fit_true_views": fit}), watched)
        recipe.generate(TextTo3dConfig.model_validate(generation), watched)
    assert sorted(watched.loaded) == sorted(STAGES)
    return watched.loaded


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_run_loads_is_what_its_result_depends_on(stage: str, loaded: dict[str, set[str]]) -> None:
    settings = {file for file in loaded[stage] if file.startswith("dreambooth3d/config/")}
    # The tests' own package sets the environment; settings take names for their sentences.
    beside = {"dreambooth3d/stages.py", "dreambooth3d/environment.py", "dreambooth3d/naming.py"}
    found = sources_of(getattr(stages, stage)).files - settings
    ran = loaded[stage] - settings - (beside - found)
    assert ran <= found
    assert {file.removeprefix("dreambooth3d/") for file in found - ran} <= NOT_LOADED_HERE


def depends_on(stage: Callable[..., Any], *modules: str) -> set[str]:
    """Those of the modules, named relative to the library, that a stage depends on."""
    return {module for module in modules if f"dreambooth3d/{module}.py" in sources_of(stage).files}


def test_a_stage_does_not_depend_on_what_it_does_not_use() -> None:
    beside = (
        "evaluation/report", "evaluation/contexts", "evaluation/selection", "export/mesh", "toybox/captions",
        "photos/check", "photos/fetch", "recipe", "in_process", "environment", "naming",
    )  # fmt: skip
    for stage in (stages.init_nerf, stages.refine_nerf, stages.edit_nerf, stages.generate_pseudo_views):
        assert depends_on(stage, *beside) == set()
    tuning = ("diffusion/finetuning/dreambooth", "diffusion/sampling/img2img", "diffusion/guidance/score_distillation")
    assert depends_on(stages.evaluate, "prompts", "evaluation/report", *tuning) == {"prompts", "evaluation/report"}
    assert depends_on(stages.finetune_dreambooth, *tuning, "nerf/training/distillation") == {tuning[0]}
    assert depends_on(stages.validate_photos, "nerf/training/distillation", *tuning) == set()


def test_data_beside_a_module_counts_where_it_reads_such() -> None:
    assert {"dreambooth3d/export/viewer.html", "dreambooth3d/export/viewer.js"} <= sources_of(stages.export_asset).files


def test_stages_count_function_by_function() -> None:
    """The caches of ZenML hash these: the file of all stages is no dependency, the function's own source is."""
    for name in STAGES:
        policy = sources(getattr(stages, name))
        assert "dreambooth3d/stages.py" not in policy.file_dependencies
        assert [source.import_path for source in policy.source_dependencies] == [f"dreambooth3d.stages.{name}"]
        assert all(ROOT.joinpath(file).is_file() for file in policy.file_dependencies)


def test_settings_compute_nothing() -> None:
    """They are no dependency, since steps are given their values; a property's code would be missed."""
    for path in sorted((ROOT / "dreambooth3d" / "config").glob("*.py")):
        tree = ast.parse(path.read_text())
        functions = tree.body  # which check single values
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node not in functions:
                checks = [ast.unparse(decorator).startswith("model_validator") for decorator in node.decorator_list]
                # What is over many subjects no stage knows; the guidance's settings count as code.
                assert any(checks) or path.stem in ("fleet", "guidance"), f"{path.name}: {node.name}"
    assert all("dreambooth3d.config.fleet" not in text for text in _texts(sources_of(recipe.run).files))


def test_a_training_is_its_recipe_and_the_stages_of_it() -> None:
    found = sources_of(recipe.run)
    names = {name.removeprefix("dreambooth3d.stages.") for name in found.functions if ".stages." in name}
    assert names == {*STAGES} - {"fit_true_views", "read_prompt", "read_guide", "evaluate_prompt"}
    for name in names:
        assert sources_of(getattr(stages, name)).files <= found.files
    assert "dreambooth3d/evaluation/ceiling.py" not in found.files
    assert len(training_digest()) == 64


def _texts(files: frozenset[str]) -> list[str]:
    return [ROOT.joinpath(file).read_text() for file in files if file.endswith(".py")]
