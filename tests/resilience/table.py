"""The table of faults in docs/faults.md, and the tests that its lines name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.product import ROOT

PAGE = ROOT / "docs" / "faults.md"
_CHAINS = {
    "": "test_a_run_that_was_killed_in_every_step_ends_as_an_untouched_one",
    "told to stop": "test_a_run_that_was_told_to_stop_ends_as_an_untouched_one",
    "wrong clock": "test_a_clock_that_jumps_by_years_changes_nothing",
}
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@dataclass(frozen=True)
class Fault:
    """One line of the table.

    Attributes:
        name: its first column.
        tests: `file::function` of each test that it names.
    """

    name: str
    tests: tuple[str, ...]


def faults(page: Path = PAGE) -> list[Fault]:
    """The lines of the page's tables, the headings aside."""
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")]
    return [
        Fault(name, tuple(f"{file}::{test}" for file, test in _TEST.findall(shown)))
        for name, *_, shown in rows
        if name != "fault"
    ]


def names_of_tests(file: Path) -> Iterator[str]:
    """The tests of a file, as `file::function`."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield f"{file.relative_to(ROOT).as_posix()}::{node.name}"


def shown_by_kills(figures: Mapping[str, Any]) -> set[str]:
    """The tests whose chains of interruptions the kills of the long form are, if all of these ended well.

    Args:
        figures: `kills` of the report; empty where there are none yet.
    """
    chains = {"": figures, **figures.get("others", {})}
    good = {
        name
        for name, each in chains.items()
        if each.get("tried") and each["identical"] == each["tried"] and not each["left_behind"]
    }
    return {f"tests/resilience/test_kills.py::{_CHAINS[name]}" for name in good & _CHAINS.keys()}


def passed(tests: Sequence[str]) -> set[str]:
    """Run tests, slow ones too, and return those of which every case has passed; a skipped one has not."""
    if not tests:
        return set()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-o", "junit_family=xunit1", f"--junitxml={report}", *tests]
        subprocess.run(command, cwd=ROOT, check=False)
        return passed_in(report, tests)


def passed_in(report: Path, tests: Iterable[str]) -> set[str]:
    """The tests of which a report of pytest's knows passed cases, and no others."""
    cases: dict[str, list[bool]] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('file')}::{str(case.get('name')).partition('[')[0]}"
        good = not any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
        cases.setdefault(name, []).append(good)
    return {test for test in tests if all(cases.get(test, [False]))}
