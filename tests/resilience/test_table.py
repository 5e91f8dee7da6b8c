"""docs/faults.md is complete and true: each line names tests that exist, and each test of the harness stands there."""

from __future__ import annotations

from pathlib import Path

from tests.product import ROOT
from tests.resilience.table import faults, names_of_tests, passed_in, shown_by_kills

HARNESS = ROOT / "tests" / "resilience"
OF_ITSELF = ("tests/resilience/test_table.py", "tests/resilience/test_kills.py::test_kills_are_spread_over_all_moments")


def test_every_line_names_tests_that_exist() -> None:
    listed = faults()
    assert len(listed) > 30 and len({fault.name for fault in listed}) == len(listed)
    for fault in listed:
        assert fault.tests, fault.name
        for test in fault.tests:
            assert test in set(names_of_tests(ROOT / test.partition("::")[0])), f"{fault.name}: {test}"


def test_every_test_of_the_harness_is_listed() -> None:
    listed = {test for fault in faults() for test in fault.tests}
    found = {test for file in HARNESS.glob("test_*.py") for test in names_of_tests(file)}
    assert {test for test in found - listed if not test.startswith(OF_ITSELF)} == set()


def test_only_a_test_whose_cases_have_all_passed_counts(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    case = '<testcase file="{file}" name="{name}">{inner}</testcase>'
    cases = (
        ("a.py", "test_a[1]", ""), ("a.py", "test_a[2]", ""), ("a.py", "test_b", ""), ("b.py", "test_b", "<skipped/>"),
        ("b.py", "test_c[1]", ""), ("b.py", "test_c[2]", "<failure/>"),
    )  # fmt: skip
    body = "".join(case.format(file=file, name=name, inner=inner) for file, name, inner in cases)
    report.write_text(f"<testsuites><testsuite>{body}</testsuite></testsuites>")
    asked = ("a.py::test_a", "a.py::test_b", "b.py::test_b", "b.py::test_c", "c.py::test_never_run")
    assert passed_in(report, asked) == {"a.py::test_a", "a.py::test_b"}


def test_kills_show_only_what_has_ended_well() -> None:
    good, bad = {"tried": 5, "identical": 5, "left_behind": 0}, {"tried": 2, "identical": 1, "left_behind": 0}
    shown = shown_by_kills({**good, "others": {"told to stop": good, "wrong clock": bad}})
    assert {test.partition("::")[0] for test in shown} == {"tests/resilience/test_kills.py"}
    assert shown < set(names_of_tests(HARNESS / "test_kills.py")) and len(shown) == 2
    assert not any("clock" in test for test in shown) and shown_by_kills({}) == set()
    assert shown_by_kills({**good, "tried": 0, "identical": 0}) == shown_by_kills({**good, "left_behind": 1}) == set()
