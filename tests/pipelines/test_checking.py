"""The strict YAML check, without ZenML's store."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from dreambooth3d.config import TrainingConfig
from dreambooth3d.errors import ConfigError
from pipelines import checking

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_presets(file: Path) -> None:
    config = checking.check_file(file)
    assert isinstance(config, TrainingConfig)
    text = file.read_text()
    assert text.startswith("#"), "a preset says what it is for"
    assert "/home/" not in text


def test_values_are_taken_exactly(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("parameters: {seed: 3, init_nerf: {learning_rate: 1, guidance: {max_timestep: [0.9, 0.5]}}}")
    config = checking.check_file(file)
    assert config.seed == 3
    assert config.init_nerf.learning_rate == 1.0
    assert config.init_nerf.guidance.max_timestep == (0.9, 0.5)
    assert config.refine_nerf == TrainingConfig().refine_nerf


def test_first_problem_and_how_many_more(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("parameters: {sed: 3}\nstepz: {}\nsettings: {dokcer: {}}")
    with pytest.raises(ConfigError, match=r"stepz.*and 2 more"):
        checking.check_file(file)


def test_settings_of_the_stack_are_checked_to_the_last_key() -> None:
    good = {"settings": {"docker": {"requirements": ["a"]}}, "steps": {"init_nerf": {"enable_cache": False}}}
    assert checking.list_problems(good) == []
    wrong = {"settings": {"experiment_tracker": {"nested": "perhaps"}}}
    assert "settings.experiment_tracker.nested" in checking.list_problems(wrong)[0]


@pytest.mark.parametrize("path", sorted({*checking._FLAVORS.values()}))
def test_known_settings_exist(path: str) -> None:
    module, _, name = path.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ImportError:
        pytest.skip("this integration is not installed")
    assert hasattr(found, name)


def test_step_names_are_the_pipeline_s() -> None:
    import steps

    assert sorted(steps.__all__) == sorted(path.stem for path in (ROOT / "steps").glob("[!_]*.py"))
