"""What the page does: one check and one run at a time, as processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreambooth3d import places
from dreambooth3d.cli.live.shown import caption, four_sides, heading
from dreambooth3d.cli.web.order import (
    Order,
    check_command,
    finished_asset,
    last_sentence,
    tail,
    take_order,
    train_command,
    write_config,
)
from dreambooth3d.errors import ConfigError
from dreambooth3d.live import LIVE_VARIABLE, read_growth, read_status


@dataclass(frozen=True)
class Standing:
    """How a run stands.

    Attributes:
        text: in Markdown.
        log: its last lines.
        views: four sides of the asset, uint8 (height, width, 3); None before there are any.
        under_way: whether it goes on.
        glb: its result, None before.
    """

    text: str
    log: str
    views: object
    under_way: bool
    glb: Path | None


class Desk:
    """Takes orders. A run goes on when the page's server ends; it is a command like any other."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starting = threading.Lock()

    def check(self, files: Sequence[str], noun: str, name: str, identifier: str) -> Order:
        """Take photos, and look at them as `photos check` does.

        Raises:
            ConfigError: they cannot be used.
        """
        order = take_order(files, noun, name, identifier)
        ended = subprocess.run(check_command(order), cwd=places.home(), capture_output=True, text=True,
                               errors="replace", stdin=subprocess.DEVNULL)  # fmt: skip
        if ended.returncode:
            raise ConfigError(last_sentence(ended.stderr or ended.stdout))
        self.orders[order.folder.name] = order
        return order

    def start(self, order: Order, preset: str) -> None:
        """Start a run in the background.

        Raises:
            ConfigError: another one of this page is under way.
        """
        with self._starting:
            if any(process.poll() is None for process in self._running.values()):
                raise ConfigError("A run of this page is under way: wait for its end, or stop it first.")
            write_config(order, preset)
            order.live.mkdir(exist_ok=True)
            with order.log.open("wb") as log:
                process = subprocess.Popen(
                    train_command(order), cwd=places.home(), stdout=log, stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL, start_new_session=True,
                    env=os.environ | {LIVE_VARIABLE: str(order.live), "COLUMNS": "100"},
                )  # fmt: skip
            self._running[order.folder.name] = process

    def stop(self, order: Order) -> None:
        """Ask a run to end: the first time after the present stage's step, the second time at once."""
        process = self._running.get(order.folder.name)
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)

    def standing(self, order: Order) -> Standing:
        """How an order's run stands."""
        process, log = self._running.get(order.folder.name), tail(order)
        if process is None:
            return Standing("", log, None, False, None)
        code, status, grown = process.poll(), read_status(order.live), read_growth(order.live)
        views = None if grown is None else four_sides(grown)
        if code is None:
            seen = "" if status is None or status.grown is None else f"\n\nPictures: {caption(status)}"
            return Standing(heading(status) + seen, log, views, True, None)
        glb = finished_asset(order)
        if code == 0 and glb is not None:
            return Standing("**Done.**", log, views, False, glb)
        return Standing(f"**The run has ended without an asset.** {last_sentence(log)}", log, views, False, None)

    def under_way(self) -> list[Order]:
        """The orders whose runs go on."""
        return [self.orders[name] for name, process in self._running.items() if process.poll() is None]
