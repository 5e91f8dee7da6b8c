"""The commands of all texts against the real command lines: they exist, and their options and settings are valid."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

from dreambooth3d.cli.generate import DEFAULT_PRESET, preset_file
from dreambooth3d.cli.main import app
from dreambooth3d.cli.train import resolve
from dreambooth3d.errors import DreamBooth3DError
from operations.launch.checking import check_preset
from tests.website.texts import (
    ROOT,
    TEXTS,
    Command,
    all_commands,
    commands_in,
    indented_commands,
    inline_commands,
    read,
)

COMMANDS = all_commands()
OURS = typer.main.get_command(app)
WRONG: Any = typer.BadParameter.__base__
"""What typer's own copy of click raises of a command that does not exist, or lacks something."""
OWN_FILE = re.compile(r"(^|/)my_")
"""Files that a reader makes."""
EXECUTED = (
    ("dreambooth3d", "--version"),
    ("dreambooth3d", "config", "check"),
    ("dreambooth3d", "config", "show"),
)
"""What costs nothing, and needs nothing but the checkout."""


def of(program: str) -> list[Command]:
    return [command for command in COMMANDS if command.words[0] == program]


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def parsed(group: Any, words: Sequence[str], parent: click.Context | None = None) -> click.Context:
    """The context of the command that the words name, with its parameters.

    Raises:
        UsageError: of click, or of typer's copy of it: there is no such command or option, or an argument is missing.
    """
    context = group.make_context(words[0], [*words[1:]], parent=parent)
    if not isinstance(group, click.Group) and not hasattr(group, "resolve_command"):
        return context
    _, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    return parsed(command, [command.name, *rest], context)


def check_settings(path: list[str], given: dict[str, Any]) -> None:
    """Check a command's file and overrides as the command would before it starts anything."""
    name, overrides = " ".join(path), given.get("overrides") or []
    if name == "generate":
        texts = {"prompt": given["prompt"], "negative_prompt": given["negative"], "guide": given["guide"]}
        overrides = [*overrides, *(f"generation.{key}={value}" for key, value in texts.items() if value)]
        check_preset(resolve(str(preset_file(given["preset"] or DEFAULT_PRESET)), overrides))
    elif name == "config check":
        for file in given["files"]:
            if not OWN_FILE.search(file):
                check_preset(resolve(file, []))
    elif (file := given.get("config")) and str(file).endswith(".yaml") and not OWN_FILE.search(file):
        check_preset(resolve(file, overrides))


@pytest.mark.parametrize("command", of("dreambooth3d"), ids=str)
def test_our_own(command: Command) -> None:
    context = parsed(OURS, command.words)
    check_settings(context.command_path.split()[1:], context.params)


@pytest.fixture(scope="module")
def zenml() -> click.Group:
    """ZenML's command line; it is not called."""
    from zenml.cli.cli import cli

    return cli


@pytest.mark.parametrize("command", of("zenml"), ids=str)
def test_zenml_s(command: Command, zenml: click.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a file only the name is looked at: others are a reader's own.
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)
    context = parsed(zenml, command.words)
    if command.words[:3] != ("zenml", "pipeline", "run"):
        return
    module, _, pipeline = context.params["source"].rpartition(".")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    assert pipeline in {name for node in tree.body for name in names_of(node)}
    if not OWN_FILE.search(file := context.params["config_path"]):
        check_preset(resolve(file, []))


def names_of(node: ast.stmt) -> Iterator[str]:
    """What a statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    for target in getattr(node, "targets", ()):
        if isinstance(target, ast.Name):
            yield target.id


MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][\w-]*)(?: [\w -]*)?:(?!=)", MAKEFILE, re.MULTILINE))


def check_make(words: Sequence[str]) -> None:
    """A target that exists, and variables that the Makefile reads."""
    for word in words[1:]:
        name, is_set, value = word.partition("=")
        if not is_set:
            assert name in TARGETS or (ROOT / name).is_file(), name
            continue
        assert re.search(rf"\$[({{](?:if \$\()?{name}\b|^{name} \?=", MAKEFILE, re.MULTILINE), name
        assert name != "CONFIG" or (ROOT / value).is_file(), value


@pytest.mark.parametrize("command", of("make"), ids=str)
def test_make_s(command: Command) -> None:
    check_make(command.words)


def check_module(words: Sequence[str]) -> None:
    """A module that exists, and options that stand in it or beside it."""
    if words[2] not in ("pytest", "pip", "http.server"):
        place = ROOT / words[2].replace(".", "/")
        file = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
        assert file.is_file(), f"{file} is missing"
        said = "".join(each.read_text() for each in ([*place.glob("*.py")] if place.is_dir() else [file]))
        for option in (word.partition("=")[0] for word in words[3:] if word.startswith("--")):
            assert f'"{option}"' in said, option


def test_python_s() -> None:
    for command in of("python"):
        check_module(command.words)


@pytest.mark.parametrize("name", TEXTS)
def test_those_in_a_sentence(name: str) -> None:
    """Of these the end may be missing, as in `dreambooth3d production`."""
    for words in inline_commands(read(name)):
        if words[0] == "make":
            check_make(words)
        elif words[0] == "python":
            check_module(words)
        elif words[0] == "dreambooth3d":
            check_beginning(OURS, words[1:])


def check_beginning(command: Any, words: Sequence[str]) -> None:
    """Commands as far as they go, and the names of options."""
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands") and words and words[0].islower() and not words[0].startswith("-"):
        raise AssertionError(f"{command.name} has no command {words[0]}")
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--install-completion"}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


def test_none_stands_in_a_block_that_nothing_checks() -> None:
    assert {name: found for name in TEXTS if (found := indented_commands(read(name)))} == {}


def test_what_is_cheap_runs() -> None:
    runnable = {
        command.words for command in COMMANDS if any(command.words[: len(start)] == start for start in EXECUTED)
    }
    wanted = {words for words in runnable if not any(map(OWN_FILE.search, words))}
    assert wanted
    for words in sorted(wanted):
        result = CliRunner().invoke(app, list(words[1:]))
        assert result.exit_code == 0, f"{words}: {result.output}"


@pytest.mark.parametrize(
    "line",
    [
        "dreambooth3d runs lst", "dreambooth3d runs show --everything", "dreambooth3d export",
        "dreambooth3d train configs/missing.yaml", "dreambooth3d train configs/demo.yaml init_nerf.stps=3",
        "dreambooth3d generate 'a dog' --preset nothing",
    ],
)  # fmt: skip
def test_a_wrong_one_is_found(line: str) -> None:
    (words,) = commands_in(f"```bash\n{line}\n```\n")
    with pytest.raises((WRONG, DreamBooth3DError)):
        test_our_own(Command("", words))


def test_a_wrong_target_variable_or_module_is_found() -> None:
    for words in (("make", "demoo"), ("make", "demo", "CONFIG=configs/missing.yaml"), ("make", "demo", "CONFG=1")):
        with pytest.raises(AssertionError):
            check_make(words)
    for words in (("python", "-m", "benchmarks.nothing"), ("python", "-m", "benchmarks.family", "--quickly")):
        with pytest.raises(AssertionError):
            check_module(words)
