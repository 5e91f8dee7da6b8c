"""The settings of `environment.VARIABLES` in the virtual environment's `activate` script, for a shell of the user."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from dreambooth3d.environment import ACTIVE, IGNORED, STORE_URL, VARIABLES, Rule, Variable

ACTIVATE = "DREAMBOOTH3D_ACTIVATE"
_BEGIN, _END = "# >>> dreambooth3d >>>", "# <<< dreambooth3d <<<"


def activate_script() -> Path | None:
    """The `activate` script of the running virtual environment, or the one named by `DREAMBOOTH3D_ACTIVATE`, if any."""
    if given := os.environ.get(ACTIVATE):
        return Path(given)
    script = Path(sys.prefix) / "bin" / "activate"
    return script if sys.prefix != sys.base_prefix and script.is_file() else None


def write_activation(script: Path, root: Path) -> None:
    """Write the settings into an `activate` script, and their withdrawal into its `deactivate`; any number of times."""
    text = _without_blocks(script.read_text())
    opening = "deactivate () {\n"
    text = text.replace(opening, opening + _leave_block(), 1).rstrip("\n") + "\n"
    # Two clones may be set up at once in one environment.
    partial = script.with_name(f"{script.name}.{os.getpid()}.partial")
    partial.write_text(text + _enter_block(script, root))
    partial.chmod(script.stat().st_mode)
    partial.replace(script)


def is_current(script: Path, root: Path) -> bool:
    """Whether an `activate` script holds the settings as they are written now."""
    text = script.read_text()
    return _enter_block(script, root) in text and _leave_block() in text


def _without_blocks(text: str) -> str:
    while _BEGIN in text:
        before, _, rest = text.partition(_BEGIN)
        text = before.rstrip(" ") + rest.partition(_END)[2].removeprefix("\n")
    return text


def _enter_block(script: Path, root: Path) -> str:
    """Shell lines that follow the table, relative to the environment where it lies inside the repository."""
    environment = script.parents[1]
    inside = environment.resolve().is_relative_to(root.resolve())
    place = f"$VIRTUAL_ENV/{os.path.relpath(root, environment)}" if inside else str(root)
    lines = [_BEGIN, f'_dreambooth3d_root="$(cd "{place}" && pwd -P)"', f'_dreambooth3d_before="${{{ACTIVE}:-}}"']
    lines += [line for variable in VARIABLES for line in _enter_lines(variable)]
    lines += [*_change(ACTIVE, "$_dreambooth3d_root"), "unset _dreambooth3d_root _dreambooth3d_before", _END, ""]
    return "\n".join(lines)


def _enter_lines(variable: Variable) -> Iterator[str]:
    name, value = variable.name, variable.ours("$_dreambooth3d_root")
    if variable.rule is Rule.OURS:
        yield from _change(name, value)
        return
    if variable.rule is Rule.DEFAULT:
        # What another activated environment has set is not the user's own.
        others = f'"${name}" = "{variable.ours("$_dreambooth3d_before")}"'
        others = f'{{ [ -n "$_dreambooth3d_before" ] && [ {others} ] ; }}'
        unset = [f'[ -z "${{{each}:-}}" ]' for each in variable.unless if each != name]
        condition, commands = " && ".join([f'{{ [ -z "${{{name}:-}}" ] || {others} ; }}', *unset]), _change(name, value)
    else:
        condition = f'[ -n "${{{name}+set}}" ]'
        if variable.rule is Rule.WITHDRAWN_HERE:
            condition += f' && [ -z "${{{STORE_URL}:-}}" ]'
        commands = [*_change(name, None), f'export {IGNORED}="${{{IGNORED}:-}} {name}"']
    yield from [f"if {condition} ; then", *(f"  {command}" for command in commands), "fi"]


def _change(name: str, value: str | None) -> list[str]:
    """Set or unset a variable, and keep what `deactivate` needs to undo it."""
    keep = f'if [ -n "${{{name}+set}}" ] ; then _OLD_DREAMBOOTH3D_{name}="${name}" ; fi'
    return [keep, f"_DREAMBOOTH3D_HAS_{name}=1", f"unset {name}" if value is None else f'export {name}="{value}"']


def _leave_block() -> str:
    """Shell lines that give back what was there before."""
    lines = [_BEGIN, f'if [ -n "${{{ACTIVE}:-}}" ] ; then']
    for name in [*(variable.name for variable in VARIABLES), ACTIVE]:
        old, has = f"_OLD_DREAMBOOTH3D_{name}", f"_DREAMBOOTH3D_HAS_{name}"
        lines.append(
            f'  if [ -n "${{{old}+set}}" ] ; then export {name}="${old}" ; '
            f'elif [ -n "${{{has}:-}}" ] ; then unset {name} ; fi ; unset {old} {has}'
        )
    return "\n".join([*lines, f"  unset {IGNORED}", "fi", _END, ""])
