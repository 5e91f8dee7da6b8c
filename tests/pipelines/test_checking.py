"""The strict YAML check, without ZenML's store."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from dreambooth3d.config.fleet import PortfolioConfig, RetrainConfig, StaticRetrainConfig
from dreambooth3d.config.generation import TextTo3dConfig
from dreambooth3d.config.photos import DatasetConfig
from dreambooth3d.config.training import CeilingConfig, TrainingConfig
from dreambooth3d.errors import ConfigError
from operations.launch import checking
from operations.launch.presets import read_preset

ROOT = Path(__file__).resolve().parents[2]


CEILING = ROOT / "configs" / "bench" / "multiview_truth.yaml"
OTHER_KINDS = {
    CEILING.stem: CeilingConfig,
    "portfolio": PortfolioConfig,
    "retrain": RetrainConfig,
    "quick_generation": TextTo3dConfig,
    "retrain_kubeflow": StaticRetrainConfig,
    "retrain_airflow": StaticRetrainConfig,
    "retrain_airflow_kubernetes": StaticRetrainConfig,
    "retrain_gpu": RetrainConfig,
    "retrain_gpu_box": RetrainConfig,
    "retrain_kubernetes": RetrainConfig,
    "retrain_static": StaticRetrainConfig,
}
PRESETS = sorted([*(ROOT / "configs").glob("*.yaml"), *(ROOT / "configs" / "bench").glob("*.yaml")])


@pytest.mark.parametrize("file", PRESETS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_presets(file: Path) -> None:
    config = checking.check_file(file)
    kind = TextTo3dConfig if file.stem.startswith("text_to_3d") else OTHER_KINDS.get(file.stem, TrainingConfig)
    assert type(config) is kind
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


def test_parameters_tell_whose_they_are() -> None:
    assert checking.config_type({"fit_true_views": {}}) is CeilingConfig
    assert checking.config_type({"generation": {}}) is TextTo3dConfig
    assert checking.config_type({"init_nerf": {}}) is checking.config_type({}) is TrainingConfig
    config = checking.parse_parameters({"seed": 2}, CeilingConfig)
    assert isinstance(config, CeilingConfig) and config.seed == 2


def test_sections_of_the_other_pipeline_are_unknown() -> None:
    (problem,) = checking.parameter_problems({"fit_true_views": {"steps": 3}, "init_nerf": {"steps": 3}})
    assert problem.startswith("parameters.init_nerf: unknown key")
    (problem,) = checking.parameter_problems({"fit_true_views": {"stepz": 3}})
    assert problem == "parameters.fit_true_views.stepz: unknown key, did you mean steps?"
    (problem,) = checking.parameter_problems({"fit_true_views": {}}, TrainingConfig)
    assert problem.startswith("parameters.fit_true_views: unknown key")


def test_each_pipeline_refuses_the_other_s_file() -> None:
    """One sentence that names the file, whose parameters it holds, and what to do."""
    from operations.launch.strict import CommandError
    from pipelines.ceiling import multiview_truth
    from pipelines.training import dreambooth3d

    demo = str(ROOT / "configs" / "demo.yaml")
    for pipeline, file, found, own in (
        (multiview_truth, demo, "TrainingConfig", "CeilingConfig"),
        (dreambooth3d, str(CEILING), "CeilingConfig", "TrainingConfig"),
    ):
        with pytest.raises(CommandError) as error:
            pipeline.with_options(config_path=file)
        message = error.value.message
        assert message.startswith(f"{file}: ") and f"({found}, not {own})" in message
        assert "\n" not in message and message.endswith("Choose another file, or another pipeline.")


def test_a_pipeline_keeps_its_parameters_through_options() -> None:
    from pipelines.ceiling import multiview_truth

    own = multiview_truth.with_options(config_path=str(CEILING))
    assert own.config_type is CeilingConfig and own.preset == "multiview_truth"


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


def _kubernetes() -> dict[str, Any]:
    values = read_preset(ROOT / "configs" / "kubernetes.yaml").values
    values["steps"] = {"init_nerf": values["steps"]["init_nerf"]}
    return values


POD = "steps.init_nerf.settings.orchestrator.kubernetes.pod_settings"


@pytest.mark.parametrize(
    ("place", "old", "new", "message"),
    [
        ("", "schedule", "scedule", "scedule: unknown key, did you mean schedule?"),
        ("schedule", "cron_expression", "cron_expresion", "cron_expresion: unknown key, did you mean cron_expression?"),
        ("steps.init_nerf.retry", "max_retries", "max_retrys", "retry.max_retrys: unknown key"),
        (
            "steps.init_nerf.settings",
            "orchestrator.kubernetes",
            "orchestrator.kube",
            "settings.orchestrator.kube: unkn",
        ),
        (POD, "tolerations", "toleration", f"{POD}.toleration: unknown key, did you mean tolerations?"),
        (f"{POD}.resources", "limits", "limit", f"{POD}.resources.limit: unknown key, did you mean limits?"),
        (f"{POD}.tolerations.0", "effect", "efect", f"{POD}.tolerations.0.efect: unknown key, did you mean effect?"),
        (f"{POD}.volume_mounts.0", "mountPath", "mount_path", "mount_path: unknown key, did you mean mountPath?"),
        (POD, "volumes", None, f"{POD}.volume_mounts: there is no volume 'dshm'"),
    ],
)
def test_typos_in_settings_for_kubernetes_are_refused(place: str, old: str, new: str | None, message: str) -> None:
    """Each renames one key of the preset, which itself has no problem."""
    values = _kubernetes()
    assert checking.list_problems(values) == []
    holder: Any = values
    for part in place.replace("orchestrator.kubernetes", "orchestrator/kubernetes").split(".") if place else []:
        holder = holder[int(part) if part.isdigit() else part.replace("/", ".")]
    value = holder.pop(old)
    if new is not None:
        holder[new] = value
    assert any(message in problem for problem in checking.list_problems(values)), checking.list_problems(values)


def test_gpus_that_kubernetes_would_not_give_are_refused() -> None:
    """A count that it ignores, and a request without the limit that must equal it."""
    values = _kubernetes()
    settings = values["steps"]["init_nerf"]["settings"]
    settings["resources"] = {"gpu_count": 1}
    assert checking.list_problems(values) == []
    pod = settings["orchestrator.kubernetes"]["pod_settings"]
    pod["resources"]["limits"] = {"memory": "32Gi"}
    (problem,) = checking.list_problems(values)
    assert problem.startswith("steps.init_nerf.settings.resources.gpu_count: Kubernetes ignores it.")
    pod["resources"]["requests"]["nvidia.com/gpu"] = "1"
    assert "requests.nvidia.com/gpu: '1' needs the same under limits" in checking.list_problems(values)[0]


def test_a_schedule_has_five_fields() -> None:
    (problem,) = checking.list_problems({"schedule": {"cron_expression": "0 3 * *"}})
    assert problem.startswith("schedule.cron_expression: '0 3 * *' has not five fields")


@pytest.mark.parametrize("target", ["kubernetes", "airflow", "gpu_box"])
def test_other_machines_train_as_the_gpu_preset_does(target: str) -> None:
    own, preset = (checking.check_file(ROOT / "configs" / f"{name}.yaml") for name in (target, "toybox_gpu"))
    # Only where all steps run elsewhere do they fetch the checkout's photos themselves.
    assert own.photos.dataset == (None if target == "gpu_box" else DatasetConfig())
    photos = own.photos.model_copy(update={"dataset": None})
    assert own.model_copy(update={"photos": photos}) == preset


@pytest.mark.parametrize("target", ["airflow", "airflow_kubernetes", "gpu_box"])
def test_other_machines_retrain_as_the_cluster_does(target: str) -> None:
    own, cluster = (checking.check_file(ROOT / "configs" / f"retrain_{name}.yaml") for name in (target, "kubernetes"))
    shared = ("dataset", "subjects", "gates", "training")
    assert [getattr(own, name) for name in shared] == [getattr(cluster, name) for name in shared]


def test_gpus_that_the_box_would_not_give_are_refused() -> None:
    values = read_preset(ROOT / "configs" / "gpu_box.yaml").values
    settings = values["steps"]["evaluate"]["settings"]
    values["steps"] = {"evaluate": values["steps"]["evaluate"]}
    settings["resources"] = {"gpu_count": 1}
    assert checking.list_problems(values) == []
    del settings["step_operator.ssh"]["gpu_indices"]
    (problem,) = checking.list_problems(values)
    assert problem.startswith("steps.evaluate.settings.resources.gpu_count: the SSH step operator ignores it. Set")


AIRFLOW, APART = "settings.orchestrator.airflow", "steps.retrain_apart.settings"


@pytest.mark.parametrize(
    ("preset", "place", "key", "value", "message"),
    [
        ("", APART, "resources", {"gpu_count": 1}, f"{APART}.resources.gpu_count: Airflow ignores it. Under"),
        ("", f"{AIRFLOW}.operator_args", "automove", 1, "DockerOperator has no such argument, did you mean auto_re"),
        ("", f"{APART}.orchestrator.airflow.operator_args", "namespace", "a", "DockerOperator has no such argument"),
        ("", f"{AIRFLOW}.operator_args", "environment", {}, "operator_args.environment: that would take away"),
        ("", AIRFLOW, "dag_id", None, "dag_id: is missing, so that each registration would add one more DAG"),
        ("", AIRFLOW, "custom_dag_generator", None, "custom_dag_generator: without operations."),
        ("", AIRFLOW, "dag_ids", "a", f"{AIRFLOW}.dag_ids: unknown key, did you mean dag_id?"),
        ("_kubernetes", f"{AIRFLOW}.operator_args", "shm_size", 1, "shm_size: the KubernetesPodOperator has no such"),
        ("_kubernetes", f"{AIRFLOW}.operator_args", "env_from", None, "env_from: is missing, so that the pods could"),
    ],
)  # fmt: skip
def test_what_airflow_would_drop_or_break_on_is_refused(
    preset: str, place: str, key: str, value: object, message: str
) -> None:
    """Each changes one key of the preset, which itself has no problem; None removes it."""
    values = read_preset(ROOT / "configs" / f"retrain_airflow{preset}.yaml").values
    assert checking.list_problems(values) == []
    holder: Any = values
    for part in place.replace("orchestrator.airflow", "orchestrator/airflow").split("."):
        holder = holder[part.replace("/", ".")]
    if value is None:
        del holder[key]
    else:
        holder[key] = value
    (problem,) = checking.list_problems(values)
    assert message in problem


def test_step_names_are_the_pipeline_s() -> None:
    import steps

    assert sorted(steps.__all__) == sorted(path.stem for path in (ROOT / "steps").glob("[!_]*.py"))


def test_steps_of_runs_over_many_subjects() -> None:
    """Their own steps and those of each training may be configured; what decides is never cached."""
    own = {"settings": {"resources": {"gpu_count": 1}}}
    retrain, portfolio = {"gates": {}}, {"subjects": "all"}
    usual = {"resolve_dataset": own, "summarize": own, "init_nerf": own}
    for parameters in (retrain, portfolio):
        assert checking.list_problems({"parameters": parameters, "steps": usual}) == []
    assert checking.list_problems({"parameters": retrain, "steps": {"decide_subjects": own}}) == []
    assert checking.list_problems({"parameters": portfolio, "steps": {"decide_subjects": own}})
    assert checking.list_problems({"steps": {"resolve_dataset": own}})
    for step in ("resolve_dataset", "decide_subjects", "summarize", "publish"):
        (problem,) = checking.list_problems({"parameters": retrain, "steps": {step: {"enable_cache": True}}})
        assert problem.startswith(f"steps.{step}.enable_cache: {step} must always run")


def test_steps_of_contexts_are_configured_by_their_number() -> None:
    own = {"enable_cache": False}
    contexts = {"contexts": ["a photo of a red sks dog"]}
    assert (
        checking.list_problems({"parameters": contexts, "steps": {"edit_nerf_0": own, "export_context_0": own}}) == []
    )
    (problem,) = checking.list_problems({"parameters": contexts, "steps": {"edit_nerf_1": own}})
    assert "steps.edit_nerf_1: unknown key, did you mean edit_nerf_0?" in problem
    assert checking.list_problems({"steps": {"edit_nerf": own}})


STABLE_DIFFUSION = sorted((ROOT / "configs").glob("sd15_*.yaml"))


def test_the_stable_diffusion_presets_differ_in_the_subject_alone() -> None:
    """Each names a subject that `photos fetch` brings, and all of these have one."""
    from dreambooth3d.photos.fetch import SHA256

    configs = {path: checking.check_file(path) for path in STABLE_DIFFUSION}
    assert {config.photos.subject for config in configs.values()} == set(SHA256)
    assert all(path.stem == f"sd15_{config.photos.subject}" for path, config in configs.items())
    rest = [config.model_dump(exclude={"photos": {"subject"}}) for config in configs.values()]
    assert all(values == rest[0] for values in rest)
    assert all(read_preset(path).values.keys() == {"parameters"} for path in configs)


def test_the_stable_diffusion_presets_keep_the_rules() -> None:
    """Pinned models, two different scorers, checkpoints that exist, and steps in the seed's order of magnitude."""
    from dreambooth3d.hub import split_revision
    from operations.launch.preflight import _check_steps

    config = checking.check_file(STABLE_DIFFUSION[0])
    _check_steps(config)
    scorers = [split_revision(path) for path in (config.scorers.selector, config.scorers.judge)]
    assert scorers[0][0] != scorers[1][0]
    for revision in (config.base_model.revision, *(revision for _, revision in scorers)):
        assert revision is not None and len(revision) == 40 and int(revision, 16)
    assert config.refine_nerf.reconstruction.camera_poses == "random" and config.recipe.refine_with == "multiview"
    assert config.finetune_dreambooth.steps == 800


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("reconstruction_weight", "reconstruction"),
        ("silhouette_weight", "reconstruction.silhouette_weight or photos.silhouette_weight"),
        ("reconstruction_views", "reconstruction"),
        ("camera_poses", "reconstruction.camera_poses"),
    ],
)
def test_a_key_that_lies_in_a_section_is_found_there(old: str, new: str) -> None:
    (problem,) = checking.parameter_problems({"refine_nerf": {old: 1}})
    assert problem == f"parameters.refine_nerf.{old}: unknown key, did you mean {new}?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settings: {orchestrator.kubernetes: {pod_settings: 3}, resources: {gpu_count: 1}}", "must be keys and"),
        ("settings: {orchestrator.kubernetes: {pod_settings: {resources: 3}}}", "must be keys and values"),
        ("settings: {orchestrator.kubernetes: {pod_settings: {resources: {limits: 3}}}, resources: {gpu_count: 1}}",
         "limits"),
        ("settings: {orchestrator.kubernetes: {pod_settings: {volumes: 3, volume_mounts: 4}}}", "volume_mounts"),
        ("settings: {resources: 3, step_operator.ssh: 4}", "must be keys and values"),
        ("model: 7", "model: must be keys and values, not 7"),
        ("steps: {evaluate: {model: 7}}", "steps.evaluate.model: must be keys and values, not 7"),
        ("run_name: ../../x", "run_name: '../../x' cannot be a folder's name"),
        ("run_name: .x", "cannot be a folder's name"),
        (f"run_name: {'x' * 300}", "cannot be a folder's name"),
        ("success_hook_source: os.system", "success_hook_source: 'os.system' is code from elsewhere"),
        ("init_hook_source: {module: os, attribute: system, type: builtin}", "init_hook_source: 'os' is code"),
        ("steps: {evaluate: {failure_hook_source: evil.run}}", "failure_hook_source: 'evil.run' is code"),
    ],
)  # fmt: skip
def test_what_would_be_a_traceback_or_code_from_elsewhere_is_one_sentence(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"parameters: {{photos: {{subject: corgi}}}}\n{text}\n")
    with pytest.raises(ConfigError, match=r"own\.yaml") as raised:
        checking.check_file(file)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_hooks_of_the_project_and_of_zenml_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    hooks = ("success_hook_source: zenml.hooks.alerter_success_hook", "init_hook_source: operations.records.hooks.x")
    file.write_text("\n".join(["parameters: {photos: {subject: corgi}}", *hooks]))
    checking.check_file(file)


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("parameters:\n" + "".join(f"  k{index}: 3\n" for index in range(100_000)))
    with pytest.raises(ConfigError, match=r"own\.yaml: has more than 256 KiB"):
        checking.check_file(file)
