"""`dreambooth3d train` and `config check`: the pipeline's front door with overrides."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dreambooth3d.errors import ConfigError, DreamBooth3DError

if TYPE_CHECKING:
    from operations.launch.checking import PipelineConfig


def run_training(config: str, overrides: Sequence[str]) -> None:
    """Check the resolved configuration, then run the main job with it.

    Raises:
        DreamBooth3DError: a user's error, also one in a step.
    """
    from operations.launch.checking import check_file
    from operations.launch.preflight import preflight

    with tempfile.TemporaryDirectory() as temporary:
        # Under the preset's own name, which becomes a tag of the run.
        resolved = Path(temporary) / f"{Path(config).stem}.yaml"
        resolved.write_text(yaml.safe_dump(resolve(config, overrides), sort_keys=False))
        try:
            # Before ZenML is started, so that a bad input costs nothing and writes nothing.
            parameters = check_file(resolved)
            _require_one_subject(parameters, config)
            preflight(parameters)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(resolved), _shown(config, overrides))) from None
        from pipelines.training import dreambooth3d

        dreambooth3d.with_options(config_path=str(resolved))()


def _require_one_subject(parameters: PipelineConfig, config: str) -> None:
    """Runs over many subjects have a front door of their own."""
    from dreambooth3d.config.fleet import PortfolioConfig, RetrainConfig, StaticRetrainConfig

    kinds = {
        PortfolioConfig: "portfolio.portfolio",
        RetrainConfig: "retraining.retrain",
        StaticRetrainConfig: "retraining_static.retrain_static",
    }
    if pipeline := kinds.get(type(parameters)):
        command = f"zenml pipeline run pipelines.{pipeline} --config {config}"
        raise ConfigError(f"{config}: is for many subjects. Start it with `{command}`.")


def checked_parameters(config: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """The validated parameters of a pipeline's YAML with overrides.

    Raises:
        ConfigError: names the first problem.
    """
    from operations.launch.checking import list_problems, parse_parameters

    values = resolve(config, overrides)
    if problems := list_problems(values):
        raise ConfigError(f"{_shown(config, overrides)}: {problems[0]}")
    return parse_parameters(values["parameters"])


def fetch_models(config: str, overrides: Sequence[str] = ()) -> list[str]:
    """Fetch what a configuration names of base model and scorers, unless it is here; one line each with its folder.

    Raises:
        DreamBooth3DError: the configuration is wrong, or a model is not to be had.
    """
    from dreambooth3d.config.training import TrainingConfig
    from dreambooth3d.diffusion.model.base_model import model_folder
    from dreambooth3d.diffusion.model.base_model import resolve as resolve_base_model
    from dreambooth3d.evaluation.clip import scorer_folder

    found, lines = checked_parameters(config, overrides), []
    parameters = getattr(found, "training", found)
    if isinstance(parameters, TrainingConfig):
        lines.append(f"base model: {model_folder(resolve_base_model(parameters.base_model)).absolute()}")
    for name in ("selector", "judge"):
        lines.append(f"{name}: {scorer_folder(getattr(parameters.scorers, name), f'scorers.{name}').absolute()}")
    return lines


def _shown(config: str, overrides: Sequence[str]) -> str:
    return f"{config} with overrides" if overrides else config


def resolve(config: str, overrides: Sequence[str]) -> dict[str, Any]:
    """A pipeline's YAML with `key.sub=value` overrides of its parameters.

    Raises:
        ConfigError: no such file, no YAML, or an override without `=`.
    """
    from operations.launch.checking import override_parameter, read_yaml

    values = read_yaml(config)
    parameters = copy.deepcopy(values.get("parameters") or {})
    if not isinstance(parameters, dict):
        raise ConfigError(f"{config}: parameters: must be keys and values")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not (equals and all(key.split("."))):
            raise ConfigError(f"{override}: is no override. Write key.sub=value, for example photos.class_noun=duck.")
        override_parameter(parameters, key, text)
    return {**values, "parameters": parameters}


def check_files(files: Sequence[str]) -> bool:
    """Print one line per problem, to stderr, or that a file is fine; whether all are."""
    import typer

    from operations.launch.checking import list_problems, read_yaml

    good = True
    for file in files:
        try:
            problems = list_problems(read_yaml(file))
        except DreamBooth3DError as error:
            typer.echo(f"Error: {error}", err=True)
            good = False
            continue
        for problem in problems:
            typer.echo(f"Error: {file}: {problem}", err=True)
        if not problems:
            typer.echo(f"{file}: OK")
        good = good and not problems
    return good
