"""Progress in a file: a line per tenth, and times left that previews do not move."""

from __future__ import annotations

import io
import re

from transformers.utils import logging

from dreambooth3d.progress import LoopProgress, no_bars_of_transformers


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A terminal that keeps what it is shown."""

    def isatty(self) -> bool:
        return True


def test_a_file_gets_a_line_per_tenth_and_a_steady_time_left() -> None:
    """Steps of a second; previews at every 35th take a minute, and the first step compiles for another."""
    stream, clock = io.StringIO(), Clock()
    with LoopProgress(100, "refine_nerf", stream=stream, clock=clock) as bar:
        for step in range(1, 101):
            clock.now += 61 if step == 1 else 1
            bar.update()
            bar.note(loss=f"{step / 100:.2f}")
            if step % 35 == 0:
                with bar.aside():
                    clock.now += 60
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10 and "\r" not in stream.getvalue()
    assert lines[2] == "refine_nerf: 30 %, step 30 of 100, 01:10 left, loss 0.29"
    assert [re.search(r"\d\d:\d\d", line)[0] for line in lines[:9]] == [
        "01:30", "01:20", "01:10", "01:00", "00:50", "00:40", "00:30", "00:20", "00:10",
    ]  # fmt: skip
    assert lines[9] == "refine_nerf: 100 %, step 100 of 100, loss 0.99"


def test_a_resumed_loop_counts_on() -> None:
    stream, clock = io.StringIO(), Clock()
    with LoopProgress(10, "a", done=7, unit="image", stream=stream, clock=clock) as bar:
        for _ in range(3):
            clock.now += 2
            bar.update()
    assert stream.getvalue().splitlines() == [
        "a: 80 %, image 8 of 10", "a: 90 %, image 9 of 10, 00:02 left", "a: 100 %, image 10 of 10",
    ]  # fmt: skip


def test_several_steps_at_once_and_none_at_all() -> None:
    stream = io.StringIO()
    with LoopProgress(8, "images", stream=stream) as bar:
        bar.update(8)
    with LoopProgress(0, "nothing", stream=stream), LoopProgress(5, "hidden", shown=False, stream=stream) as bar:
        bar.update(5)
    assert stream.getvalue() == "images: 100 %, step 8 of 8\n"


def test_a_terminal_gets_a_bar_whose_time_previews_do_not_move() -> None:
    stream = Terminal()
    with LoopProgress(100, "init_nerf", stream=stream) as bar:
        bar.update(10)
        before = bar._bar.format_dict["elapsed"]
        clock, bar._clock = bar._clock, Clock()
        with bar.aside():
            bar._clock.now += 60
        bar._clock = clock
        assert bar._bar.format_dict["elapsed"] < before - 59
    assert "\r" in stream.getvalue() and "init_nerf" in stream.getvalue()


def test_transformers_draws_no_bars_meanwhile() -> None:
    logging.enable_progress_bar()
    with no_bars_of_transformers():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled()
