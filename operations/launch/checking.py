"""The strict check of a pipeline's YAML: everything that ZenML would silently ignore or take as something else."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, overload

import yaml
from pydantic import BaseModel, ValidationError

from dreambooth3d.config.base import Choice, Section, text_problem
from dreambooth3d.config.fleet import FleetConfig, PortfolioConfig, RetrainConfig, StaticRetrainConfig
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.training import CONTEXT_STEPS, CeilingConfig, TrainingConfig
from dreambooth3d.errors import ConfigError, gist
from dreambooth3d.naming import printable
from dreambooth3d.photos.subject import folder_setting
from dreambooth3d.places import repository
from dreambooth3d.strict_yaml import NotYamlError, parse
from operations.launch.presets import Preset, read_preset
from operations.launch.sentences import NO_VALUE, SomeSection, sentence, suggestion
from operations.orchestrators.airflow_settings import airflow_problems

STEPS = repository() / "steps"
_FLAVORS = {
    "docker": "zenml.config.DockerSettings",
    "resources": "zenml.config.ResourceSettings",
    "experiment_tracker.mlflow": "zenml.integrations.mlflow.flavors.mlflow_experiment_tracker_flavor."
    "MLFlowExperimentTrackerSettings",
    "orchestrator.local_docker": "zenml.orchestrators.local_docker.local_docker_orchestrator."
    "LocalDockerOrchestratorSettings",
    "orchestrator.kubernetes": "zenml.integrations.kubernetes.flavors.kubernetes_orchestrator_flavor."
    "KubernetesOrchestratorSettings",
    "orchestrator.kubeflow_pods": "operations.orchestrators.kubeflow.flavor.KubeflowPodsSettings",
    "orchestrator.airflow": "zenml.integrations.airflow.flavors.airflow_orchestrator_flavor."
    "AirflowOrchestratorSettings",
    "step_operator.kubernetes": "zenml.integrations.kubernetes.flavors.kubernetes_step_operator_flavor."
    "KubernetesStepOperatorSettings",
    "step_operator.ssh": "zenml.integrations.ssh.flavors.ssh_step_operator_flavor.SSHStepOperatorSettings",
}
PipelineConfig = TrainingConfig | CeilingConfig | TextTo3dConfig | FleetConfig
ConfigType = type[PipelineConfig]
_POD_SECTIONS = ("pod_settings", "orchestrator_pod_settings")
# Kubernetes' own keys, of which ZenML warns at most; those of volumes are too many to list.
_POD_KEYS = {
    "resources": ("requests", "limits", "claims"),
    "tolerations": ("key", "operator", "value", "effect", "tolerationSeconds"),
    "volume_mounts": ("name", "mountPath", "subPath", "subPathExpr", "readOnly", "mountPropagation"),
    "env": ("name", "value", "valueFrom"),
    "env_from": ("prefix", "configMapRef", "secretRef"),
}
# Steps of runs over many subjects; their others are those of each subject's training.
_FLEET_STEPS = {
    RetrainConfig: ("resolve_dataset", "decide_subjects", "summarize"),
    PortfolioConfig: ("resolve_dataset", "summarize"),
    StaticRetrainConfig: ("resolve_dataset", "retrain_apart"),
}
_NEVER_CACHED = {
    "publish": "the run has no row",
    "resolve_dataset": "new photos go unseen",
    "decide_subjects": "changes go unseen",
    "retrain_apart": "nothing is trained",
    "summarize": "the run has no row",
}
_OWN_PACKAGES = ("dreambooth3d", "operations", "pipelines", "steps")
_LONGEST_RUN_NAME = 200
_QUOTES = ("'", '"')
_ALIASES = {"experiment_tracker": "experiment_tracker.mlflow"}


def config_type(parameters: Mapping[str, Any]) -> ConfigType:
    """Whose parameters these are: all but those of the training have a section that no other pipeline has."""
    if "fit_true_views" in parameters:
        return CeilingConfig
    if "generation" in parameters:
        return TextTo3dConfig
    if "stack" in parameters:
        return StaticRetrainConfig
    if "gates" in parameters:
        return RetrainConfig
    return PortfolioConfig if {"training", "subjects"} & parameters.keys() else TrainingConfig


def check_file(path: Path | str) -> PipelineConfig:
    """Check a pipeline's YAML, all of it.

    Returns:
        The validated parameters.

    Raises:
        ConfigError: names the first problem, and how many more there are.
    """
    return check_preset(read_preset(path))


def check_preset(preset: Preset) -> PipelineConfig:
    """Check what a pipeline's YAML says with its bases in it, all of it.

    Returns:
        The validated parameters.

    Raises:
        ConfigError: names the first problem and where it was said, and how many more there are.
    """
    problems = list_problems(preset.values)
    if problems:
        more = f" (and {len(problems) - 1} more: `dreambooth3d config check {preset.path}`)" if problems[1:] else ""
        raise ConfigError(f"{preset.located(problems[0])}{more}")
    return parse_parameters(preset.values.get("parameters") or {})


def list_problems(values: Mapping[str, Any]) -> list[str]:
    """One sentence per problem of a pipeline's YAML."""
    from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
    from zenml.model.model import Model

    problems = list(_unknown_keys("", values, PipelineRunConfiguration.model_fields))
    if unkept := [one for key in values if key != "parameters" for one in _unkept(str(key), values[key])]:
        return problems + unkept
    parameters = {} if values.get("parameters") is None else values["parameters"]
    problems += parameter_problems(parameters)
    if isinstance(parameters, Mapping):
        problems += _choices_without_value("parameters", parameters, config_type(parameters))
    problems += _settings_problems("settings", values.get("settings"))
    problems += _schedule_problems(values.get("schedule"))
    problems += _unknown_keys("model", values.get("model"), Model.model_fields)
    problems += _run_name_problems(values.get("run_name"))
    problems += _hook_problems("", values)
    problems += _step_problems(values.get("steps"), step_names(parameters))
    if values.get("enable_cache") is True:
        problems.append("enable_cache: true here would cache publish as well. Set it per step under steps.")
    if problems:
        return problems
    own = {key: value for key, value in values.items() if key not in ("parameters", "settings")}
    return list(_type_problems("", own, PipelineRunConfiguration)) or list(airflow_problems(values))


@overload
def parse_parameters(parameters: Mapping[str, Any], config: None = None) -> PipelineConfig: ...


@overload
def parse_parameters(parameters: Mapping[str, Any], config: type[SomeSection]) -> SomeSection: ...


def parse_parameters(parameters: Mapping[str, Any], config: type[Section] | None = None) -> Section:
    """Validate parameters without any conversion of types; YAML's lists may stand for tuples.

    Without `config`, the parameters themselves tell whose they are.

    Raises:
        pydantic.ValidationError: something does not fit.
    """
    # Strict JSON mode refuses "300" for a number and true for 1, but takes a list for a tuple.
    config = config or config_type(parameters)
    return config.model_validate_json(json.dumps(parameters), strict=True)


def _choices_without_value(where: str, values: Mapping[str, Any], section: type[BaseModel]) -> Iterator[str]:
    """A photo folder that is asked for by a key without a value would silently be the preset's."""
    for name, field in section.model_fields.items():
        place = f"{where}.{name}"
        if name in values and values[name] is None and any(isinstance(mark, Choice) for mark in field.metadata):
            yield f"{place}: {NO_VALUE}"
        kind = _section_in(field.annotation)
        if kind is not None and isinstance(values.get(name), Mapping):
            yield from _choices_without_value(place, values[name], kind)


def _unkept(where: str, value: object, above: tuple[int, ...] = ()) -> Iterator[str]:
    """One sentence per value that YAML knows and JSON does not, or that is lost on its way through ZenML."""
    if isinstance(value, Mapping | list | tuple):
        if id(value) in above:
            yield f"{where}: contains itself. Remove the alias."
            return
        inner = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in inner:
            if isinstance(value, Mapping) and not isinstance(key, str):
                yield f"{where}: the key {key} is no text. Put it into quotes."
            else:
                yield from _unkept(f"{where}.{printable(str(key))}", one, (*above, id(value)))
    elif isinstance(value, str):
        # Elsewhere ZenML's environment variables are of use; here they would bypass the check.
        problem = text_problem(value, variables=where.startswith("parameters"))
        if problem:
            yield f"{where}: {problem}."
    elif isinstance(value, date):  # also a time
        if not where.startswith("schedule"):
            yield f"{where}: {value} is a date in YAML. Put it into quotes."
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: input should be a finite number, not {value}"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield f"{where}: is too large a number"
    elif not isinstance(value, int | float | NoneType):
        yield f"{where}: is a {type(value).__name__} in YAML, and no setting is one"


def override_parameter(parameters: dict[str, Any], key: str, text: str) -> None:
    """Set one parameter to a value that is given as text, in place.

    Text stays text where the schema takes text: a folder's name may hold a colon, a hash or nothing but digits, and
    `no` is a choice. So does the one text of a list of texts; several stand in brackets, each in quotes. Everything
    else is read as YAML.

    Args:
        parameters: of a pipeline, nested.
        key: dotted, such as `photos.dir`.
        text: what stands behind the equals sign.

    Raises:
        ConfigError: the text is no YAML, may be meant as one text or as several, or the key lies below one that is no
            section.
    """
    *sections, name = key.split(".")
    place = parameters
    for index, section in enumerate(sections):
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise ConfigError(f"{key}: {'.'.join(sections[: index + 1])} is no section, but {place!r}.")
    place[name] = _typed(key, text, _annotation(key.split("."), config_type(parameters)))


def _typed(key: str, text: str, annotation: Any) -> Any:
    if NoneType in get_args(annotation) and text == "null":
        return None
    if _takes_text(annotation):
        return folder_setting(text) if key == "photos.dir" else text
    return _texts(key, text) if _takes_texts(annotation) and text != "all" else _from_yaml(key, text)


def _texts(key: str, text: str) -> list[str]:
    """One text as it stands, since any may hold a comma; or those in brackets, each in quotes where there are several.

    Raises:
        ConfigError: the text may be meant in two ways.
    """
    in_brackets = f'\'{key}=["one", "another"]\''
    given = text.strip()
    if not given:
        raise ConfigError(f"{key}: is empty. Write {key}=[] for none.")
    if given[0] in _QUOTES:
        raise ConfigError(f"{key}: {text} begins with a quote. Leave it out, or write a list: {in_brackets}.")
    if given[0] != "[":
        return [text]
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    if not isinstance(node, yaml.SequenceNode) or not all(isinstance(item, yaml.ScalarNode) for item in node.value):
        raise ConfigError(f"{key}: {text} is no list of texts. Put each text into quotes: {in_brackets}.")
    inside = given[1:-1].strip()
    quoted = all(item.style in _QUOTES for item in node.value)
    if not quoted and [item.value for item in node.value] != [inside]:
        raise ConfigError(
            f"{key}: {text} may be one text with commas, or several. For one write '{key}={inside}', for several put "
            f"each into quotes: {in_brackets}."
        )
    return [item.value for item in node.value]


def _annotation(path: Sequence[str], section: Any) -> Any:
    """The declared type of the parameter at a path; None where there is no such parameter."""
    annotation = None
    for name in path:
        fields = getattr(section, "model_fields", {})
        if name not in fields:
            return None
        annotation = fields[name].annotation
        section = _section_in(annotation)
    return annotation


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a parameter of this type is, or may be."""
    (option, *others) = _options(annotation)
    return option if not others and isinstance(option, type) and issubclass(option, BaseModel) else None


def _options(annotation: Any) -> list[Any]:
    """The types that one allows, None aside."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) not in (Union, UnionType):
        return [annotation]
    return [one for part in get_args(annotation) if part is not NoneType for one in _options(part)]


def _takes_text(annotation: Any) -> bool:
    """Whether a parameter of this type is text, or one of several texts."""
    return all(
        option is str or (get_origin(option) is Literal and all(isinstance(text, str) for text in get_args(option)))
        for option in _options(annotation)
    )


def _takes_texts(annotation: Any) -> bool:
    """Whether a parameter of this type is any number of texts."""
    return any(
        get_origin(option) is tuple and get_args(option)[1:] == (...,) and _takes_text(get_args(option)[0])
        for option in _options(annotation)
    )


def _from_yaml(key: str, text: str) -> Any:
    try:
        return parse(text).plain()
    except NotYamlError as error:
        raise ConfigError(f"{key}: {text!r} is no value in YAML ({error.problem}). Put text into quotes.") from None


def parameter_problems(parameters: object, config: ConfigType | None = None) -> list[str]:
    """One sentence per problem of a pipeline's `parameters`."""
    if not isinstance(parameters, Mapping):
        return ["parameters: must be keys and values"]
    if problems := list(_unkept("parameters", parameters)):
        return problems
    config = config or config_type(parameters)
    if config is TextTo3dConfig and "photos" in parameters:
        return [
            "parameters.photos: photos and generation exclude each other. Remove photos to make an asset from the "
            "prompt alone, or generation to train on the photos, with the prompt as one of contexts."
        ]
    try:
        parse_parameters(parameters, config)
    except ValidationError as error:
        # Of what may be a word or a list, the list's problems say more.
        lists = [one for one in error.errors() if not any(str(part).startswith("literal[") for part in one["loc"])]
        return [sentence(problem, config) for problem in lists]
    return []


def _unknown_keys(where: str, values: object, known: Iterable[str]) -> Iterator[str]:
    """One sentence per key that is not known, or one that there are no keys."""
    if values is None:
        return
    if not isinstance(values, Mapping):
        yield f"{where}: must be keys and values, not {values!r}"
        return
    for key in values:
        if key not in known:
            name = f"{where}.{key}" if where else str(key)
            yield f"{name}: unknown key{suggestion(str(key), known)}"


def _settings_problems(where: str, settings: object) -> list[str]:
    known = [*_FLAVORS, *_ALIASES]
    problems = list(_unknown_keys(where, settings, known))
    if isinstance(settings, Mapping):
        for key in [str(key) for key in settings if key in known]:
            module, _, name = _FLAVORS[_ALIASES.get(key, key)].rpartition(".")
            try:
                model: type[BaseModel] = getattr(importlib.import_module(module), name)
            except ImportError:  # the integration is not installed: its keys cannot be checked here
                continue
            place = f"{where}.{key}"
            problems += (
                list(_unknown_keys(place, settings[key], model.model_fields))
                or list(_pods_problems(place, settings[key]))
                or list(_type_problems(place, settings[key] or {}, model))
            )
        if problems:
            return problems
        if "orchestrator.kubernetes" in settings and _wants_gpus(settings):
            problems.append(
                f"{where}.resources.gpu_count: Kubernetes ignores it. Set nvidia.com/gpu under "
                f"{where}.orchestrator.kubernetes.pod_settings.resources.limits."
            )
        wanted = _keyed(settings.get("resources")).get("gpu_count") if "step_operator.ssh" in settings else None
        if wanted and not problems and not _keyed(settings["step_operator.ssh"]).get("gpu_indices"):
            problems.append(
                f"{where}.resources.gpu_count: the SSH step operator ignores it. Set gpu_indices under "
                f"{where}.step_operator.ssh."
            )
    return problems


def _wants_gpus(settings: Mapping[str, Any]) -> bool:
    """Whether a step asks for GPUs where only other orchestrators would read it."""
    limits: object = settings["orchestrator.kubernetes"]
    for key in ("pod_settings", "resources", "limits"):
        limits = _keyed(limits).get(key)
    return bool(_keyed(settings.get("resources")).get("gpu_count")) and not any("/" in key for key in _keyed(limits))


def _keyed(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _run_name_problems(name: object) -> Iterator[str]:
    """A run's name is also that of the folder of its results."""
    if isinstance(name, str) and ("/" in name or "\\" in name or name.startswith(".") or len(name) > _LONGEST_RUN_NAME):
        yield (
            f"run_name: {printable(name[:40])!r} cannot be a folder's name. Leave out slashes, backslashes and a dot "
            f"in front, and keep it below {_LONGEST_RUN_NAME} characters."
        )


def _hook_problems(where: str, values: Mapping[str, Any]) -> Iterator[str]:
    """A hook is code that runs: a file of settings names none but the project's own and ZenML's."""
    for key in [key for key in values if str(key).endswith("_hook_source") and values[key] is not None]:
        source = values[key].get("module") if isinstance(values[key], Mapping) else values[key]
        if str(source).partition(".")[0] not in _OWN_PACKAGES and not str(source).startswith("zenml.hooks."):
            yield (
                f"{where}{key}: {printable(str(source))!r} is code from elsewhere. Name a hook of this project or of "
                "zenml.hooks."
            )


def _schedule_problems(schedule: object) -> list[str]:
    from zenml.config.schedule import Schedule

    problems = list(_unknown_keys("schedule", schedule, Schedule.model_fields))
    cron = schedule.get("cron_expression") if isinstance(schedule, Mapping) else None
    if cron is not None and len(str(cron).split()) != 5:
        problems.append(
            f"schedule.cron_expression: {cron!r} has not five fields (minute, hour, day, month, weekday), "
            'write for example "0 3 * * 0"'
        )
    return problems


def _pods_problems(where: str, settings: object) -> Iterator[str]:
    """What is wrong with the pods of a section for Kubernetes; ZenML would pass most of it on, or drop it."""
    for name in _POD_SECTIONS:
        pod = settings.get(name) if isinstance(settings, Mapping) else None
        if pod is None:
            continue
        from zenml.integrations.kubernetes.pod_settings import KubernetesPodSettings

        place = f"{where}.{name}"
        found = list(_unknown_keys(place, pod, KubernetesPodSettings.model_fields))
        yield from found or _pod_problems(place, pod)


def _pod_problems(where: str, pod: Mapping[str, Any]) -> Iterator[str]:
    for section in [section for section in _POD_KEYS if pod.get(section) is not None]:
        values = pod[section]
        entries = list(enumerate(values)) if isinstance(values, list) else [("", values)]
        for index, entry in entries:
            place = f"{where}.{section}.{index}".rstrip(".")
            yield from _unknown_keys(place, entry, _POD_KEYS[section])
    resources = pod.get("resources")
    if isinstance(resources, Mapping):
        requests, limits = _keyed(resources.get("requests")), _keyed(resources.get("limits"))
        for key in [key for key in requests if "/" in key and limits.get(key) != requests[key]]:
            yield (
                f"{where}.resources.requests.{key}: {requests[key]!r} needs the same under limits: "
                "Kubernetes shares no device among pods. Set limits alone."
            )
    volumes = {volume.get("name") for volume in _listed(pod.get("volumes")) if isinstance(volume, Mapping)}
    for mount in [mount for mount in _listed(pod.get("volume_mounts")) if isinstance(mount, Mapping)]:
        if mount.get("name") not in volumes:
            yield f"{where}.volume_mounts: there is no volume {mount.get('name')!r}. Add it under volumes."


def _type_problems(where: str, values: object, model: type[BaseModel]) -> Iterator[str]:
    """One sentence per value of a wrong type in a section that belongs to ZenML."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        for problem in error.errors():
            place = ".".join(map(str, [where, *problem["loc"]] if where else problem["loc"]))
            yield f"{place}: {problem['msg'][:1].lower()}{problem['msg'][1:]}, not {problem['input']!r}"
    except ImportError:  # the integration's own client is not installed: its types cannot be checked here
        return
    except (TypeError, ValueError, AttributeError) as error:  # raised by validators of ZenML's own
        yield f"{where or 'the file'}: a value has the wrong type ({gist(error)})"


def step_names(parameters: object) -> list[str]:
    """The names under which a YAML with these parameters may configure steps; those of contexts end in a number."""
    kind = config_type(parameters) if isinstance(parameters, Mapping) else TrainingConfig
    many = {step for steps in _FLEET_STEPS.values() for step in steps}
    once = {path.stem for path in STEPS.glob("[!_]*.py")} - {*CONTEXT_STEPS} - many
    once |= {*_FLEET_STEPS.get(kind, ())}
    contexts = parameters.get("contexts") if isinstance(parameters, Mapping) else None
    count = len(contexts) if isinstance(contexts, list | tuple) else 0
    return sorted(once) + [f"{step}_{index}" for index in range(count) for step in CONTEXT_STEPS]


def _step_problems(steps: object, names: list[str]) -> list[str]:
    from zenml.config.retry_config import StepRetryConfig
    from zenml.config.step_configurations import StepConfigurationUpdate
    from zenml.model.model import Model

    problems = list(_unknown_keys("steps", steps, names))
    if not isinstance(steps, Mapping):
        return problems
    for name in [name for name in steps if name in names]:
        where, values = f"steps.{name}", steps[name]
        problems += _unknown_keys(where, values, StepConfigurationUpdate.model_fields)
        if isinstance(values, Mapping):
            problems += _hook_problems(f"{where}.", values)
            problems += _unknown_keys(f"{where}.model", values.get("model"), Model.model_fields)
            problems += _settings_problems(f"{where}.settings", values.get("settings"))
            if isinstance(values.get("retry"), Mapping):
                problems += _unknown_keys(f"{where}.retry", values["retry"], StepRetryConfig.model_fields)
            if values.get("parameters"):
                problems.append(f"{where}.parameters: would go unchecked. Set them in the top-level parameters.")
            if name in _NEVER_CACHED and values.get("enable_cache"):
                problems.append(f"{where}.enable_cache: {name} must always run, or {_NEVER_CACHED[name]}. Remove it.")
    return problems
