"""ZenML's own formatter, as a file and as a terminal get it."""

from __future__ import annotations

import logging
import sys

import pytest
from zenml.logger import ZenMLConsoleFormatter

from operations.zenml_start import plain_logs_in_files

DISABLED = "ZENML_LOGGING_COLORS_DISABLED"


@pytest.mark.parametrize(
    ("terminal", "users", "coloured"), [(True, None, True), (False, None, False), (False, "false", True)]
)
def test_colours_are_for_terminals_unless_the_user_wants_them(
    terminal: bool, users: str | None, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DISABLED, users or "")  # so that it is put back
    if users is None:
        monkeypatch.delenv(DISABLED)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    plain_logs_in_files()
    record = logging.LogRecord("zenml", logging.INFO, __file__, 1, "Step `evaluate` has started.", None, None)
    assert ("\x1b[" in ZenMLConsoleFormatter().format(record)) == coloured
