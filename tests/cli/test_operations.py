"""The commands of docs/operations.md as a shell sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.table import Table

from dreambooth3d.environment import console
from tests.product import Product


def test_tables_in_a_pipe_are_not_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Rich takes a pipe for 80 columns wide, in which the name of a run leaves nothing for its figures."""
    monkeypatch.delenv("COLUMNS", raising=False)
    table, cells = Table(), [letter * 30 for letter in "abcdef"]
    for cell in cells:
        table.add_column(cell[0])
    table.add_row(*cells)
    console().print(table)
    printed = capsys.readouterr().out
    assert all(cell in printed for cell in cells)


def test_there_is_nothing_to_do_yet(product: Product, tmp_path: Path) -> None:
    # Other processes' temporary folder may hold what killed ones have left.
    cleaned = product.run("-m", "dreambooth3d.cli", "runs", "clean", "--dry-run", TMPDIR=str(tmp_path))
    assert (cleaned.returncode, cleaned.stdout) == (0, "Nothing to clean.\n"), cleaned.stderr
    pruned = product.dreambooth3d("prune", "--keep-runs", "0", "--older-than", "0", "--json")
    assert pruned.returncode == 0, pruned.stderr
    assert json.loads(pruned.stdout)[-1] == "Nothing to prune."
    listed = product.dreambooth3d("schedules", "list", "--json")
    assert (listed.returncode, json.loads(listed.stdout)) == (0, []), listed.stderr


def test_errors_are_one_sentence(product: Product) -> None:
    for command, expected in (
        (("schedules", "pause", "nightly"), "Error: nightly: there is no such schedule. Known are: none.\n"),
        (("runs", "clean", "--older-than", "-1"), "Error: runs clean: --older-than is -1.0. Give a number of hours"),
        (("prune", "--keep-runs", "-1"), "Error: prune: --keep-runs and --older-than cannot be negative."),
    ):
        result = product.dreambooth3d(*command)
        assert result.returncode == 1
        assert result.stderr.startswith(expected), result.stderr
        assert len(result.stderr.splitlines()) == 1
