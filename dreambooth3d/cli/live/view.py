"""`python -m dreambooth3d.cli.live.view FOLDER HOST PORT`: shows what a run's stages write, until it is ended.

It is a process of its own: whatever happens to it, the run goes on.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from http import HTTPStatus
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import viser  # pyright: ignore[reportMissingImports]  # an extra
from viser import uplot  # pyright: ignore[reportMissingImports]  # an extra
from websockets.asyncio import server
from websockets.http11 import Request

from dreambooth3d.cli.live import shown
from dreambooth3d.cli.server import REFUSAL, is_own_request
from dreambooth3d.live import ASSET, PICTURE, STATUS, Series, read_growth, read_picture, read_status

LOOK_S = 1.0
POINT_SIZE = 0.02
EYE = (2.6, 0.9, 0.9)
BACKGROUND = 200
BLANK = np.full((8, 16, 3), 255, np.uint8)


class View:
    """A browser's view of a live folder.

    Args:
        folder: that stages write.
        host, port: to listen at.
    """

    def __init__(self, folder: Path, host: str, port: int) -> None:
        self.folder, self._loss = folder, Series(folder, "loss")
        # Its banner says again what the command has said.
        with redirect_stdout(StringIO()), _own_requests_only(host):
            self.server = viser.ViserServer(host=host, port=port, label="DreamBooth3D", verbose=False)
        # Sharing would let a server elsewhere see the run.
        self.server.gui.configure_theme(show_share_button=False, show_logo=False, control_width="large")
        self.server.scene.set_up_direction("+z")
        self.server.initial_camera.position = EYE
        self.server.initial_camera.look_at = (0.0, 0.0, 0.0)
        # White parts would not be seen on white.
        self.server.scene.set_background_image(np.full((2, 2, 3), BACKGROUND, np.uint8))
        gui = self.server.gui
        self._heading = gui.add_markdown(shown.WAITING)
        self._sides = gui.add_image(BLANK, label="The asset", visible=False)
        self._picture = gui.add_image(BLANK, label="Picture", visible=False)
        self._table = gui.add_markdown("")
        self._plot: viser.GuiUplotHandle | None = None
        self._seen: dict[str, int] = {}

    def look(self) -> None:
        """Show what has changed."""
        if self._changed(STATUS):
            self._show_status()
        if self._changed(ASSET):
            self._show_asset()
        if self._changed(PICTURE):
            self._show_picture()

    def _changed(self, name: str) -> bool:
        now = shown.version(self.folder, name)
        before, self._seen[name] = self._seen.get(name, 0), now
        return now != before

    def _show_status(self) -> None:
        status = read_status(self.folder)
        self._heading.content = shown.heading(status)
        if status is None:
            return
        self._table.content = shown.table(status.values)
        if not status.picture:  # of the stage before
            self._picture.visible = False
        if status.grown is not None:
            self._sides.label = shown.caption(status)
        curve = shown.curve(*self._loss.of(status.stage))
        if self._plot is None and curve is not None:
            series = (uplot.Series(label="step"), uplot.Series(label="loss", stroke="#2864c8", width=2))
            axes = uplot.Scale(time=False)
            self._plot = self.server.gui.add_uplot(curve, series, scales={"x": axes}, title="loss", height=220)
        elif self._plot is not None:
            self._plot.visible = curve is not None
            self._plot.data = self._plot.data if curve is None else curve

    def _show_asset(self) -> None:
        grown = read_growth(self.folder)
        if grown is None:
            return
        self._sides.image, self._sides.visible = shown.four_sides(grown), True
        if len(grown.points):
            self.server.scene.add_point_cloud("/asset", grown.points, grown.colors, point_size=POINT_SIZE,
                                              point_shape="circle", point_shading="flat")  # fmt: skip

    def _show_picture(self) -> None:
        status, picture = read_status(self.folder), read_picture(self.folder)
        self._picture.visible = False
        if status is not None and picture is not None and status.picture != shown.ASSET_PREVIEWS:
            self._picture.label, self._picture.image, self._picture.visible = status.picture, picture, True


@contextmanager
def _own_requests_only(host: str) -> Iterator[None]:
    """Servers that viser starts meanwhile refuse other sites' pages, which viser itself has no setting for."""
    module: Any = server
    serve = module.serve

    def guarded(*arguments: Any, process_request: Callable[..., Any], **options: Any) -> Any:
        def guard(connection: server.ServerConnection, request: Request) -> Any:
            if is_own_request(host, request.headers.get("Host", ""), request.headers.get("Origin")):
                return process_request(connection, request)
            return connection.respond(HTTPStatus.FORBIDDEN, f"{REFUSAL}\n")

        return serve(*arguments, process_request=guard, **options)

    module.serve = guarded
    try:
        yield
    finally:
        module.serve = serve


def main() -> None:
    """Show a folder until this process is ended."""
    folder, host, port = sys.argv[1:]
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    view = View(Path(folder), host, int(port))
    while True:
        try:
            view.look()
        # A file that is half there, a browser that has gone: the next look may do better.
        except Exception as error:
            print(f"live view: {error}", file=sys.stderr, flush=True)
        time.sleep(LOOK_S)


if __name__ == "__main__":
    main()
