"""What `dreambooth3d doctor` finds, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from dreambooth3d.errors import gist


@dataclass(frozen=True)
class Finding:
    """One checked thing.

    Attributes:
        name: what was checked.
        good: whether a run can do with it.
        text: what was found, and what to do.
        commands: what brings that which is missing, to be copied into a shell.
        warns: a person should read it, though a run can do with it; so it is where commands bring something.
    """

    name: str
    good: bool
    text: str
    commands: tuple[str, ...] = ()
    warns: bool = False

    @property
    def level(self) -> str:
        """`ok`, `WARN` where a run works, yet something is missing, slower or not known, or `BROKEN`."""
        if not self.good:
            return "BROKEN"
        return "WARN" if self.warns or self.commands else "ok"

    def as_json(self) -> dict[str, object]:
        """All of it, with its level."""
        return {**vars(self), "level": self.level}


def attempt(checks: Mapping[str, Callable[[], str | Finding]]) -> Iterator[Finding]:
    """Run each check; one that returns a text is good, one that raises is not."""
    for name, check in checks.items():
        try:
            result = check()
        except Exception as error:  # whatever is broken, the other checks are still of use
            result = Finding(name, False, gist(error))
        yield result if isinstance(result, Finding) else Finding(name, True, result)


def shown(findings: list[Finding]) -> list[str]:
    """One line per finding, then the commands, each once."""
    lines = [f"{finding.level:<6} {finding.name:<12} {finding.text}" for finding in findings]
    commands = list(dict.fromkeys(command for finding in findings for command in finding.commands))
    return lines + (["", "What brings what is missing:", *(f"  {command}" for command in commands)] if commands else [])
