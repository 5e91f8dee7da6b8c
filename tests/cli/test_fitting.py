"""Tables in terminals of several widths, read as a person would: whole names, or none."""

from __future__ import annotations

import pytest

from dreambooth3d.cli.fitting import print_table

COLUMNS = ("run", "subject", "status", "started", "psnr", "psnr_fg")
ROWS = [
    [
        f"dreambooth3d-2026_11_30-19_19_13_40158{last}",
        "corgi [old]",
        "completed",
        "2026-11-30 19:19",
        "25.890",
        "21.094",
    ]
    for last in range(3)
]
SPARE = ("started", "psnr", "psnr_fg")


@pytest.mark.parametrize(
    ("width", "left_out"),
    [
        (107, ()),
        (106, ("started",)),
        (88, ("started",)),
        (87, ("started", "psnr")),
        (79, ("started", "psnr")),
        (78, ("started", "psnr", "psnr_fg")),
    ],
)
def test_a_narrow_terminal_shows_fewer_columns_and_these_whole(
    width: int, left_out: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Letters of the longest cells, and three more a column and one, come to 107, 88 and 79."""
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(COLUMNS, ROWS, SPARE)
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert max(map(len, lines)) <= width and len(lines) == len(ROWS) + 4
    kept = [index for index, name in enumerate(COLUMNS) if name not in left_out]
    assert [cell.strip() for cell in lines[1].strip("┃").split("┃")] == [COLUMNS[index] for index in kept]
    for line, row in zip(lines[3:-1], ROWS, strict=True):
        assert [cell.strip() for cell in line.strip("│").split("│")] == [row[index] for index in kept]
    named = f"Left out, as the terminal is narrow: {', '.join(left_out)}. --json has all.\n" if left_out else ""
    assert shown.err == named


def test_where_not_even_that_fits_nothing_is_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table(COLUMNS, ROWS, SPARE)
    cells = "".join(line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("│"))
    assert cells == "".join(row[0] for row in ROWS)
