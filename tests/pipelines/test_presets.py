"""Presets: what YAML may say, and files on top of others."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf
from typer.testing import CliRunner

from dreambooth3d.cli.main import app
from dreambooth3d.cli.train import checked_parameters
from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.strict_yaml import dump
from operations.launch.checking import check_file, config_type, list_problems
from operations.launch.presets import read_preset

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PRESETS = sorted([*CONFIGS.glob("*.yaml"), *(CONFIGS / "bench").glob("*.yaml")])
BASE = """\
schedule: {cron_expression: "0 3 * * *"}
steps:
  init_nerf: {retry: {max_retries: 1}}
parameters:
  seed: 1
  photos: {subject: corgi}
  init_nerf:
    steps: 30
    guidance: {guidance_scale: [7.5, 3.0]}
"""


class Folder:
    """A folder of YAML files, in which the test runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("base.yaml", BASE)

    def write(self, name: str, text: str | bytes) -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    def read(self, text: str) -> dict[str, Any]:
        return read_preset(self.write("own.yaml", text)).values

    def refusal(self, text: str | bytes, name: str = "own.yaml") -> str:
        """The one sentence with which a file is refused, by every command that reads it."""
        file = self.write(name, text)
        with pytest.raises(ConfigError) as caught:
            check_file(file)
        for command in (["config", "check", file], ["config", "show", file, "--defaults"]):
            result = CliRunner().invoke(app, command)
            assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
            assert result.stderr.strip().splitlines() == [f"Error: {caught.value}"]
        return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        ("parameters: {seed: [}", "own.yaml:1:21", "expected the node content"),
        ("parameters:\n\tseed: 1\n", "own.yaml:2:1", "Indent with spaces instead of tabs."),
        ("parameters:\n  device: 'cpu\n  seed: 1\n", "own.yaml:4:1", "(begun in line 2). Close the quote."),
        ("parameters: *nothing", "own.yaml:1:13", "undefined alias 'nothing'. Define it further up"),
        ("parameters: {seed: 1}\n---\nparameters: {seed: 2}\n", "own.yaml:2:1", "Keep one of them"),
        ("parameters: {photos: {dir: Rex: the dog}}", "own.yaml:1:31", "put the text into quotes."),
        ("parameters: {seed: 1,\n  seed: 2}", "own.yaml:2", "the key 'seed' is given twice. Remove one of the two."),
        ("parameters: !!python/name:os.system ''", "own.yaml:1:13", "the tag !!python/name:os.system means nothing"),
        ("parameters: !!set {seed}", "own.yaml:1:13", "the tag !!set means nothing"),
        ("parameters: &all\n  photos: *all\n", "own.yaml:1:13", "this value contains itself. Remove the alias."),
        ("parameters: &all\n  <<: *all\n", "own.yaml:1:13", "this value contains itself. Remove the alias."),
        ("parameters: {seed: !remove}", "own.yaml:1:27", "Leave a space behind the tag, as in {key: !remove }"),
        ("parameters: {<<: 3}", "own.yaml:1:18", "<<: takes keys and values"),
        ("parameters: {1: 2}", "own.yaml:1:14", "the key 1 is no text. Put it into quotes."),
        ("parameters: {null: 2}", "own.yaml:1:14", "the key null is no text"),
        ("parameters: {[a]: 2}", "own.yaml:1:14", "a key must be text"),
        ("parameters: {{a: b}: 2}", "own.yaml:1:14", "a key must be text"),
        (f"parameters: {{seed: {'1' * 5000}}}", "own.yaml:1:20", "is too large a number"),
        (f"parameters: {{seed: 0x{'f' * 5000}}}", "own.yaml:1:20", "is too large a number"),
        ("parameters: {seed: !!int one}", "own.yaml:1:20", "'one' is no !!int"),
        (f"parameters: {'[' * 3000}{']' * 3000}", "own.yaml:1:52", "nested more than 40 levels deep"),
        (b"parameters:\n  photos: {class_noun: H\xe4se}\n", "own.yaml:2:25", "the byte 0xE4 is no part of a text"),
        (b"\x89PNG\r\n\x1a\n\x00", "own.yaml:1:1", "Save the file as text in UTF-8."),
        (b"parameters: {seed: 1}\n\x00", "own.yaml:2:1", "the character U+0000 may not stand in a text"),
        ("parameters: {seed: 1}".encode("utf-16-le"), "own.yaml:1:2", "Save the file as text in UTF-8."),
    ],
)  # fmt: skip
def test_malformed_yaml_is_one_sentence_with_its_place(
    folder: Folder, text: str | bytes, place: str, part: str
) -> None:
    message = folder.refusal(text)
    assert message.startswith(f"{place}: is not valid YAML: ") and part in message
    assert "\n" not in message and len(message) < 300


@pytest.mark.parametrize("merged", ["[{0}]", "{{<<: [{0}]}}"])
def test_an_alias_bomb_is_refused_at_once(folder: Folder, merged: str) -> None:
    """Written out it would be 10**12 values."""
    rows = ["a0: &a0 {k: x}"]
    rows += [f"a{row}: &a{row} {merged.format(', '.join([f'*a{row - 1}'] * 10))}" for row in range(1, 13)]
    assert "aliases stand for more than" in folder.refusal("\n".join(rows))


@pytest.mark.parametrize(("text", "part"), [("", "holds no keys"), ("# nothing", "holds no keys"), ("- a", "no keys")])
def test_files_without_keys(folder: Folder, text: str, part: str) -> None:
    assert part in folder.refusal(text)


def test_what_is_no_readable_file(folder: Folder) -> None:
    (folder.root / "own").mkdir()
    locked = folder.root / folder.write("locked.yaml", BASE)
    locked.chmod(0)
    with pytest.raises(ConfigError, match="^own: is a folder. Name a YAML file in it.$"):
        check_file("own")
    if not os.access(locked, os.R_OK):
        with pytest.raises(ConfigError, match=r"^locked.yaml: cannot be read \(Permission denied\)"):
            check_file("locked.yaml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_editors_write(folder: Folder, encoding: str) -> None:
    text = "parameters:\r\n  photos: {dir: häßlich, class_noun: dog}\r\n"
    config = check_file(folder.write("own.yaml", text.encode(encoding)))
    assert isinstance(config, TrainingConfig) and config.photos.dir == "häßlich"


def test_merge_keys_are_those_of_yaml(folder: Folder) -> None:
    """As PyYAML's own loader has them: what is written out wins, then the first of a list."""
    text = """
parameters:
  init_nerf: &init {steps: 70, views_per_step: 2, render: &render {size: 32}}
  refine_nerf: {<<: *init, steps: 50, render: {<<: *render, samples_per_ray: 8}}
  edit_nerf: {<<: [{steps: 1}, *init]}
"""
    assert folder.read(text) == yaml.safe_load(text)
    assert folder.read(text)["parameters"]["edit_nerf"] == {"steps": 1, "views_per_step": 2, "render": {"size": 32}}


def test_dates_are_text(folder: Folder) -> None:
    """A folder may be called so, or nearly so; what ZenML then reads is what was checked."""
    for name in ("2024-05-01", "2024-13-45"):
        folder.write("own.yaml", f"parameters: {{photos: {{dir: {name}, class_noun: dog}}}}")
        assert checked_parameters("own.yaml").photos.dir == name
        assert yaml.safe_load(read_preset("own.yaml").text())["parameters"]["photos"]["dir"] == name


def test_a_file_on_top_of_another(folder: Folder) -> None:
    folder.write("mine/own.yaml", """
base: ../base.yaml
schedule: !remove
settings: {docker: {parent_image: mine}}
parameters:
  photos: {class_noun: dog}
  init_nerf: {steps: 40, guidance: {guidance_scale: [5.0, 5.0], max_timestep: null}}
""")  # fmt: skip
    assert read_preset("mine/own.yaml").values == {
        "settings": {"docker": {"parent_image": "mine"}},
        "steps": {"init_nerf": {"retry": {"max_retries": 1}}},
        "parameters": {
            "seed": 1,
            "photos": {"subject": "corgi", "class_noun": "dog"},
            "init_nerf": {"steps": 40, "guidance": {"guidance_scale": [5.0, 5.0], "max_timestep": None}},
        },
    }
    assert read_preset("mine/own.yaml").name == "own"


def _random_keys(draw: random.Random, depth: int = 0) -> dict[str, Any]:
    """Nested keys and values, without null: the same names again and again, for two of them to meet."""
    values = {name: draw.choice([1, 0.5, True, "text", [1, 2], []]) for name in draw.sample("abcd", draw.randint(0, 3))}
    sections = draw.sample("xyz", draw.randint(0, 3)) if depth < 3 else []
    return values | {name: _random_keys(draw, depth + 1) for name in sections}


@pytest.mark.parametrize("seed", range(20))
def test_files_merge_as_omegaconf_has_it(folder: Folder, seed: int) -> None:
    draw = random.Random(seed)
    layers = [{"all": 0, **_random_keys(draw)} for _ in range(3)]
    for index, layer in enumerate(layers):
        folder.write(f"{index}.yaml", yaml.safe_dump(({"base": f"{index - 1}.yaml"} if index else {}) | layer))
    assert read_preset("2.yaml").values == OmegaConf.to_container(OmegaConf.merge(*layers))


def test_sections_with_a_base_of_their_own(folder: Folder) -> None:
    """Such a section has nothing of the base of the file; a training is all that a file for one subject says."""
    folder.write("many.yaml", "parameters: {subjects: [a, b], training: {base: base.yaml, photos: !remove }}")
    many = {"seed": 1, "init_nerf": {"steps": 30, "guidance": {"guidance_scale": [7.5, 3.0]}}}
    assert read_preset("many.yaml").values == {"parameters": {"subjects": ["a", "b"], "training": many}}
    folder.write("other.yaml", "parameters: {seed: 2}\nsettings: {docker: {skip_build: true}}")
    own = folder.read(
        "base: many.yaml\nsettings: {base: other.yaml}\nparameters: {training: {base: other.yaml, device: cpu}}"
    )
    assert own == {
        "settings": {"docker": {"skip_build": True}},
        "parameters": {"subjects": ["a", "b"], "training": {"seed": 2, "device": "cpu"}},
    }
    assert folder.read("steps: {base: base.yaml}\nparameters: {training: {base: many.yaml}}") == {
        "steps": {"init_nerf": {"retry": {"max_retries": 1}}}, "parameters": {"training": many},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: own.yaml", r"own.yaml:1: base: the bases go round in a circle \(own.yaml -> own.yaml\)"),
        ("\nbase: loop.yaml", r"loop.yaml:1: base: .* circle \(own.yaml -> loop.yaml -> own.yaml\). Remove one"),
        ("parameters: {training: {base: own.yaml}}", r"own.yaml:1: parameters.training.base: .* circle"),
        ("seed: 1\nbase: none.yaml", "own.yaml:2: base: there is no file none.yaml. Name it as seen from own.yaml"),
        (f"base: {'a' * 400}.yaml", r"aaa.*: cannot be read \(File name too long\)"),
        ("base: link.yaml", "own.yaml:1: base: there is no file link.yaml."),
        ("base: [base.yaml]", "own.yaml:1: base: must be the name of one file"),
        ("base:", "own.yaml:1: base: must be the name of one file"),
        ("base: !remove", "own.yaml:1: base: must be the name of one file"),
        ("base: .", r"\.: is a folder"),
        ("base: list.yaml", "list.yaml: holds no keys"),
        ("base: broken.yaml", "broken.yaml:2:1: is not valid YAML"),
        ("settings: {base: base.yaml}", "own.yaml:1: settings.base: base.yaml has no keys under settings."),
        ("base: base.yaml\nparameters:\n  photo: !remove", "own.yaml:3: parameters.photo: there is nothing to !rem"),
        ("parameters: {seed: !remove }", "own.yaml:1: parameters.seed: there is nothing to !remove."),
        ("base: base.yaml\nparameters: {seed: !remove 1}", "own.yaml:2:20: .*!remove stands alone"),
        ("base: base.yaml\nparameters: [!remove ]", "own.yaml:2:14: .*!remove stands alone"),
        ("base: base.yaml\nparameters:\n  # seed: 2\n", "own.yaml:2: parameters: has no value, but the base has k"),
    ],
)  # fmt: skip
def test_bases_that_make_no_sense(folder: Folder, text: str, message: str) -> None:
    folder.write("loop.yaml", "base: own.yaml")
    folder.write("list.yaml", "- a")
    (folder.root / "link.yaml").symlink_to("link.yaml")
    folder.write("broken.yaml", "a: 1\n\tb: 2")
    assert re.match(message, folder.refusal(text))


def test_a_base_that_may_not_be_read(folder: Folder) -> None:
    locked = folder.root / folder.write("locked.yaml", BASE)
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("this user may read everything")
    assert folder.refusal("base: locked.yaml").startswith("locked.yaml: cannot be read (Permission denied)")


def test_a_problem_names_the_file_that_said_it(folder: Folder) -> None:
    folder.write("base.yaml", BASE.replace("steps: 30", "stepz: 30"))
    assert folder.refusal("base: base.yaml\nparameters: {seed: 2}").startswith(
        "base.yaml:8, a base of own.yaml: parameters.init_nerf.stepz: unknown key, did you mean steps?"
    )
    folder.write("base.yaml", BASE)
    own = "base: base.yaml\nparameters:\n  init_nerf:\n    steps: -1\n"
    assert folder.refusal(own).startswith("own.yaml:4: parameters.init_nerf.steps: ")
    with pytest.raises(ConfigError, match=r"^base.yaml with overrides: parameters.init_nerf.stepz: unknown key"):
        checked_parameters("base.yaml", ["init_nerf.stepz=3"])
    with pytest.raises(ConfigError, match=r"^init_nerf: .* is no value in YAML \(!remove stands alone"):
        checked_parameters("base.yaml", ["init_nerf={steps: !remove }"])


@pytest.mark.parametrize("options", [[], ["--defaults"]])
@pytest.mark.parametrize("file", PRESETS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_config_show_prints_a_file_that_means_the_same(folder: Folder, file: Path, options: list[str]) -> None:
    result = CliRunner().invoke(app, ["config", "show", str(file), *options])
    assert result.exit_code == 0, result.stderr
    folder.write("shown.yaml", result.stdout)
    assert CliRunner().invoke(app, ["config", "check", "shown.yaml"]).exit_code == 0
    own, shown = read_preset(file).values, yaml.safe_load(result.stdout)
    kind = config_type(own.get("parameters") or {})
    assert kind.model_validate(shown["parameters"]) == kind.model_validate(own["parameters"])
    assert {**shown, "parameters": 0} == {**own, "parameters": 0}
    if options:
        filled = {name for name, said in kind.model_fields.items() if said.default is not None}
        assert shown["parameters"].keys() >= filled


def test_config_show_with_overrides(folder: Folder) -> None:
    folder.write("own.yaml", "base: base.yaml\nparameters: {photos: {subject: mallard}}")
    result = CliRunner().invoke(app, ["config", "show", "own.yaml", "photos.class_noun=häßlicher Hund", "seed=5"])
    comment, _, text = result.stdout_bytes.decode("utf-8").partition("\n")
    assert comment == "# own.yaml, on top of base.yaml with overrides"
    parameters = yaml.safe_load(text)["parameters"]
    assert parameters["photos"] == {"subject": "mallard", "class_noun": "häßlicher Hund"} and parameters["seed"] == 5
    assert "class_noun: häßlicher Hund\n" in text


@pytest.mark.parametrize("file", PRESETS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_preset_says_nothing_that_its_base_says(file: Path, folder: Folder) -> None:
    """Without any one of its lines it would mean something else."""
    said = yaml.load(file.read_text(), _Tagged)

    def leaves(values: dict[str, Any], where: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        below = [leaves(value, (*where, key)) if isinstance(value, dict) and value else [(*where, key)]
                 for key, value in values.items()]  # fmt: skip
        return [leaf for found in below for leaf in found]

    meant = read_preset(file).values
    for *sections, key in [leaf for leaf in leaves(said) if leaf[-1] != "base"]:
        less = yaml.load(file.read_text(), _Tagged)
        holder = less
        for section in sections:
            holder = holder[section]
        del holder[key]
        text = dump(_with_full_bases(less, file.parent)).replace("'!remove'", "!remove")
        assert folder.read(text) != meant, ".".join([*sections, key])


class _Tagged(yaml.SafeLoader):
    """Takes `!remove` for a text, and shared anchors apart."""


_Tagged.add_constructor("!remove", lambda loader, node: "!remove")


def _with_full_bases(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    full = {key: _with_full_bases(value, folder) if isinstance(value, dict) else value for key, value in values.items()}
    return full | ({"base": str(folder / full["base"])} if "base" in full else {})


def test_pipelines_take_a_file_with_its_bases(folder: Folder) -> None:
    """What ZenML reads of the file, each time that it does, is what was checked."""
    from pipelines.training import dreambooth3d

    folder.write("own.yaml", "base: base.yaml\nschedule: !remove\nparameters: {init_nerf: {steps: 40}}")
    own = dreambooth3d.with_options(config_path="own.yaml")
    expected = {"seed": 1, "photos": {"subject": "corgi"}}
    expected |= {"init_nerf": {"steps": 40, "guidance": {"guidance_scale": [7.5, 3.0]}}}
    assert own.preset == "own"
    assert own._given["parameters"] == own._from_config_file["parameters"] == expected
    assert own.step_settings == {"init_nerf": {"retry": {"max_retries": 1}}}
    assert own._parse_config_file("own.yaml", ["parameters", "schedule"]) == {"parameters": expected}


def test_every_shipped_preset_is_valid_with_its_bases() -> None:
    assert sum(len(read_preset(file).files) > 1 for file in PRESETS) >= 15
    assert [problem for file in PRESETS for problem in list_problems(read_preset(file).values)] == []


@pytest.mark.parametrize("named", ["demo", "demo.yaml", "configs/demo.yaml"])
def test_a_preset_has_a_name(named: str, folder: Folder) -> None:
    """Wherever one is; a file that has the name is meant before it."""
    expected = read_preset(CONFIGS / "demo.yaml").values
    assert read_preset(named).values == expected and Path(read_preset(named).path).name == "demo.yaml"
    own = {**expected, "parameters": expected["parameters"] | {"seed": 7}}
    assert folder.read("base: demo\nparameters: {seed: 7}") == own
    folder.write(named, "parameters: {seed: 5}")
    assert read_preset(named).values == {"parameters": {"seed": 5}}


def test_a_name_that_is_none(folder: Folder) -> None:
    assert "no preset of this name. Did you mean demo?" in refused("demmo")
    assert "Presets are airflow, " in refused("xyz")
    assert "configs/none.yaml: there is no such file" in refused("configs/none.yaml")


def refused(named: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_preset(named)
    return str(caught.value)
