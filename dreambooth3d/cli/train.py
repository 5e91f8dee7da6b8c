"""`dreambooth3d train`, `config check` and `config show`: the pipeline's front door with overrides."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dreambooth3d.errors import ConfigError, DreamBooth3DError

if TYPE_CHECKING:
    from dreambooth3d.config.training import CeilingConfig, TrainingConfig
    from operations.launch.checking import PipelineConfig
    from operations.launch.presets import Preset


def run_training(config: str, overrides: Sequence[str], live: bool = False) -> None:
    """Check the resolved configuration, then run the main job with it.

    Args:
        config: a preset's file.
        overrides: `key.sub=value`, below the file's parameters.
        live: show in a browser what is made meanwhile.

    Raises:
        DreamBooth3DError: a user's error, also one in a step.
    """
    import typer

    from dreambooth3d.cli.live.starting import require_live, watching
    from dreambooth3d.cli.setup import bring_subject, ensure_stack
    from operations.launch.checking import check_preset
    from operations.launch.presets import as_file

    if live:
        require_live()
    preset = resolve(config, overrides)
    parameters = _of_one_subject(check_preset(preset), config)
    if parameters.photos.dir is None and parameters.photos.dataset is None:
        bring_subject(parameters.photos.subject)
    # Loads for seconds, which what is wrong in the settings alone need not wait for.
    from operations.launch.preflight import preflight

    # Before ZenML is started, so that a bad input costs nothing and writes nothing.
    preflight(parameters)
    ensure_stack(typer.echo)
    from pipelines.training import dreambooth3d

    # Under the preset's own name, which becomes a tag of the run.
    with as_file(preset) as file, watching(live, typer.echo):
        dreambooth3d.with_options(config_path=str(file))()


def _of_one_subject(parameters: PipelineConfig, config: str) -> TrainingConfig | CeilingConfig:
    """The parameters, if they are for one subject: runs over many have a front door of their own."""
    from dreambooth3d.config.fleet import PortfolioConfig, RetrainConfig, StaticRetrainConfig
    from dreambooth3d.config.generation import TextTo3dConfig
    from dreambooth3d.config.training import CeilingConfig, TrainingConfig

    if isinstance(parameters, TrainingConfig | CeilingConfig):
        return parameters
    if isinstance(parameters, TextTo3dConfig):
        command = f"dreambooth3d generate '{parameters.generation.prompt}' --preset {config}"
        raise ConfigError(f"{config}: is for a prompt alone. Start it with `{command}`.")

    kinds = {
        PortfolioConfig: "portfolio.portfolio",
        RetrainConfig: "retraining.retrain",
        StaticRetrainConfig: "retraining_static.retrain_static",
    }
    command = f"zenml pipeline run pipelines.{kinds[type(parameters)]} --config {config}"
    raise ConfigError(f"{config}: is for many subjects. Start it with `{command}`.")


def checked_parameters(config: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """The validated parameters of a pipeline's YAML with overrides.

    Raises:
        ConfigError: names the first problem.
    """
    from operations.launch.checking import check_preset

    return check_preset(resolve(config, overrides))


def fetch_models(config: str, overrides: Sequence[str] = ()) -> list[str]:
    """Fetch what a configuration names of base model, scorers and masks unless it is here; one line each.

    Args:
        config: a file, or the name of a model of rembg, which is fetched alone.
        overrides: of the file's parameters.

    Raises:
        DreamBooth3DError: the configuration is wrong, or a model is not to be had.
    """
    from dreambooth3d.photos.masks.rembg import MODELS, fetch_model

    if config in MODELS and not overrides:
        return [f"rembg: {fetch_model(config)}"]
    from dreambooth3d.config.fleet import FleetConfig
    from dreambooth3d.config.generation import TextTo3dConfig
    from dreambooth3d.config.training import TrainingConfig
    from dreambooth3d.diffusion.model.base_model import model_folder
    from dreambooth3d.diffusion.model.base_model import resolve as resolve_base_model
    from dreambooth3d.evaluation.clip import scorer_folder

    found = checked_parameters(config, overrides)
    parameters = found.training if isinstance(found, FleetConfig) else found
    lines: list[str] = []
    if isinstance(parameters, TrainingConfig | TextTo3dConfig):
        lines.append(f"base model: {model_folder(resolve_base_model(parameters.base_model)).absolute()}")
    scorers = (("selector", parameters.scorers.selector), ("judge", parameters.scorers.judge))
    lines.extend(f"{name}: {scorer_folder(path, f'scorers.{name}').absolute()}" for name, path in scorers)
    if isinstance(parameters, TextTo3dConfig):
        return lines
    if parameters.photos.masks == "rembg" and parameters.photos.rembg_model in MODELS:
        lines.append(f"rembg: {fetch_model(parameters.photos.rembg_model)}")
    return lines


def resolve(config: str, overrides: Sequence[str]) -> Preset:
    """A pipeline's YAML with its bases, and with `key.sub=value` overrides of its parameters.

    Raises:
        ConfigError: no such file, no YAML, or an override without `=`.
    """
    from operations.launch.checking import override_parameter
    from operations.launch.presets import read_preset

    preset, keys = read_preset(config), []
    given = preset.values.get("parameters")
    parameters = {} if given is None else copy.deepcopy(given)
    if not isinstance(parameters, dict):
        raise ConfigError(preset.located("parameters: must be keys and values"))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not (equals and all(key.split("."))):
            raise ConfigError(f"{override}: is no override. Write key.sub=value, for example photos.class_noun=duck.")
        override_parameter(parameters, key, text)
        keys.append(key)
    return preset.overridden(parameters, keys) if overrides else preset


def show_file(config: str, overrides: Sequence[str], defaults: bool = False, as_json: bool = False) -> None:
    """Print a pipeline's YAML with its bases and overrides in it, where asked for with all defaults: a file by itself.

    As JSON it is the same values.

    Raises:
        ConfigError: no such file, no YAML, or with `defaults` any other problem.
    """
    import typer

    from dreambooth3d.cli.show import print_json
    from dreambooth3d.strict_yaml import dump
    from operations.launch.checking import check_preset
    from operations.launch.presets import all_parameters

    preset = resolve(config, overrides)
    values = {**preset.values, "parameters": all_parameters(check_preset(preset))} if defaults else preset.values
    if as_json:
        print_json(values)
        return
    origin = f"# {', on top of '.join(preset.files)}{' with overrides' if overrides else ''}"
    shown = "".join(letter if letter.isprintable() else "?" for letter in origin)
    # As files are: in UTF-8, whatever the locale.
    typer.echo(f"{shown}\n{dump(values, ascii_only=False)}".encode(), nl=False)


def check_files(files: Sequence[str], as_json: bool = False) -> bool:
    """Print one line per problem, to stderr, or that a file is fine; whether all are.

    Args:
        files: a pipeline's YAML files.
        as_json: print a list of files with their problems instead.
    """
    import typer

    from operations.launch.checking import list_problems
    from operations.launch.presets import read_preset

    found: dict[str, list[str]] = {}
    for file in files:
        try:
            preset = read_preset(file)
            found[file] = [preset.located(problem) for problem in list_problems(preset.values)]
        except DreamBooth3DError as error:
            found[file] = [str(error)]
        if as_json:
            continue
        for problem in found[file]:
            typer.echo(f"Error: {problem}", err=True)
        if not found[file]:
            typer.echo(f"{file}: OK")
    if as_json:
        listed = [{"file": file, "good": not problems, "problems": problems} for file, problems in found.items()]
        typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
    return not any(found.values())
