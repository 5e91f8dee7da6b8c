"""Errors that a user can act on: one line each, whatever they quote."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy.exc import OperationalError

from dreambooth3d.cli.train import resolve
from dreambooth3d.errors import ArtifactError, DreamBooth3DError, gist


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        ("a\nb\r\n\tc", "a b   c"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\0 \x85", "\\x00  "),
        ("caf\u00e9 \u202e", "caf\u00e9 \\u202e"),
        ("\udcff", "\\udcff"),
        ("a\\nb", "a\\nb"),
    ],
)
def test_a_sentence_stays_on_one_line_and_commands_no_terminal(quoted: str, shown: str) -> None:
    assert str(DreamBooth3DError(f"{quoted}: is wrong.")) == f"{shown}: is wrong."
    assert str(ArtifactError(f"{quoted}: is wrong.", "uri")) == f"{shown}: is wrong."


def test_an_override_with_a_line_break_is_refused_in_one_line() -> None:
    with pytest.raises(DreamBooth3DError) as raised:
        resolve("configs/demo.yaml", ["\n"])
    assert "\n" not in str(raised.value)


def test_the_gist_of_a_databases_error_is_the_error() -> None:
    """While MLflow writes a row, SQLAlchemy says first what it was about to do."""
    error = OperationalError("INSERT INTO metrics", {}, sqlite3.OperationalError("database or disk is full"))
    error.add_detail("raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block")
    assert str(error).startswith("(raised as a result of")
    assert gist(error) == "(sqlite3.OperationalError) database or disk is full"
    assert gist(ValueError("\n first \nsecond")) == "first " and gist(ValueError()) == "ValueError"
