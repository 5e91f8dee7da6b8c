"""`python -m dreambooth3d.cli.web.page HOST PORT`: the page itself, by gradio."""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

# Read when gradio is imported: nothing is reported to anybody.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}

import gradio  # pyright: ignore[reportMissingImports]  # an extra
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response

from dreambooth3d.cli.server import REFUSAL, is_own_request
from dreambooth3d.cli.web.desk import Desk
from dreambooth3d.cli.web.order import PRESETS, Order
from dreambooth3d.errors import DreamBooth3DError
from dreambooth3d.temporary import temporary_folder

LOOK_S = 2.0
GRACE_S = 2
SUFFIXES = [".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif", ".tif", ".tiff", ".bmp"]
# Whatever gradio's pages would fetch from elsewhere, fonts for instance, the browser does not.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
CSS = "footer {display: none !important} .log textarea {font-family: monospace; font-size: 12px}"
INTRODUCTION = """# From photos to 3D
Four to six photos of one thing, from all sides, in the same light; a plain background helps."""


def make_blocks(desk: Desk) -> gradio.Blocks:
    """The page's parts, and what they do."""
    with gradio.Blocks(title="DreamBooth3D", analytics_enabled=False) as blocks:
        ordered = gradio.State(None)
        gradio.Markdown(INTRODUCTION)
        with gradio.Row():
            with gradio.Column():
                files = gradio.File(label="Photos", file_count="multiple", file_types=SUFFIXES, height=180)
            with gradio.Column():
                noun = gradio.Textbox(label="What is it?", placeholder="dog", max_lines=1)
                name = gradio.Textbox(label="Its name in lists", placeholder="as above", max_lines=1)
                identifier = gradio.Textbox(label="Identifier, a rare word for prompts", value="sks", max_lines=1)
        check = gradio.Button("Check the photos", variant="primary")
        said = gradio.Markdown()
        shown = gradio.HTML()
        with gradio.Group(visible=False) as running:
            preset = gradio.Dropdown(list(PRESETS.items()), label="How", value="demo.yaml")
            with gradio.Row():
                start = gradio.Button("Start the run", variant="primary")
                stop = gradio.Button("Stop it")
        standing = gradio.Markdown()
        with gradio.Row():
            views = gradio.Image(label="Front, left, back, right", visible=False, height=400, buttons=[])
            log = gradio.Textbox(label="Log", lines=14, max_lines=14, visible=False, elem_classes="log")
        results = gradio.HTML()
        timer = gradio.Timer(LOOK_S, active=False)

        def look_at_photos(files: list[str] | None, noun: str, name: str, identifier: str) -> tuple[Any, ...]:
            try:
                order = desk.check(files or [], noun, name, identifier)
            except DreamBooth3DError as error:
                return None, f"⚠ {html.escape(str(error))}", "", gradio.update(visible=False)
            return order.folder.name, "", _frame(f"/orders/{order.folder.name}/photos"), gradio.update(visible=True)

        def begin(ordered: str | None, preset: str) -> tuple[Any, ...]:
            try:
                desk.start(desk.orders[ordered or ""], preset)
            except DreamBooth3DError as error:
                return f"⚠ {html.escape(str(error))}", gradio.update()
            return "The run starts.", gradio.Timer(active=True)

        def look(ordered: str | None) -> tuple[Any, ...]:
            if ordered not in desk.orders:
                return "", gradio.update(), gradio.update(), "", gradio.Timer(active=False)
            now = desk.standing(desk.orders[ordered])
            links = "" if now.glb is None else _links(desk.orders[ordered])
            return (now.text, gradio.update(value=now.views, visible=now.views is not None),
                    gradio.update(value=now.log, visible=bool(now.log)), links,
                    gradio.Timer(active=now.under_way))  # fmt: skip

        check.click(lambda: "Looking at the photos: a minute or two, longer on a busy computer.", None, said).then(
            look_at_photos, [files, noun, name, identifier], [ordered, said, shown, running]
        )
        start.click(begin, [ordered, preset], [standing, timer])
        stop.click(lambda ordered: desk.stop(desk.orders[ordered]) if ordered else None, ordered, None)
        timer.tick(look, ordered, [standing, views, log, results, timer], show_progress="hidden")
    return blocks


def _frame(address: str) -> str:
    style = "width: 100%; height: 640px; border: 1px solid #ccc; border-radius: 8px; background: white"
    return f'<iframe src="{address}" title="What the check says of the photos" style="{style}"></iframe>'


def _links(order: Order) -> str:
    address = f"/orders/{order.folder.name}"
    return (
        f'<p><a href="{address}/asset.glb" download>Download the GLB</a> · '
        f'<a href="{address}/asset" target="_blank">Open the run’s page</a></p>{_frame(f"{address}/asset")}'
    )


def make_app(desk: Desk, host: str, port: int) -> FastAPI:
    """The page, and beside it the files of its orders."""
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, following: Callable[[Request], Awaitable[Response]]) -> Response:
        """Other sites' pages, which the same browser shows, can ask for nothing here."""
        if not is_own_request(host, request.headers.get("host", ""), request.headers.get("origin")):
            return PlainTextResponse(REFUSAL, 403)
        answer = await following(request)
        answer.headers["Content-Security-Policy"] = POLICY
        return answer

    @app.get("/orders/{name}/{what}")
    def file(name: str, what: str) -> FileResponse:
        """A file of an order: what the check says, the asset, or its page."""
        order = desk.orders.get(name)
        path = None
        if order is not None and what == "photos":
            path = order.page
        elif order is not None and what in ("asset.glb", "asset"):
            glb = desk.standing(order).glb
            path = glb if glb is None or what == "asset.glb" else glb.with_suffix(".html")
        if path is None or not path.is_file():
            raise HTTPException(404)
        return FileResponse(path, media_type="model/gltf-binary" if what == "asset.glb" else "text/html")

    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    blocks = make_blocks(desk).queue(api_open=False)
    return gradio.mount_gradio_app(
        app, blocks, "/", server_name=host, server_port=port, footer_links=[], run_history=False, ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, max_file_size="200mb", theme=theme, css=CSS,
    )  # fmt: skip


def main() -> None:
    """Serve until told to end."""
    host, port = sys.argv[1], int(sys.argv[2])
    desk = Desk()
    with temporary_folder() as uploads:
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)
        uvicorn.run(make_app(desk, host, port), host=host, port=port, log_level="error",
                    timeout_graceful_shutdown=GRACE_S)  # fmt: skip
    for order in desk.under_way():
        print(f"The run goes on: `dreambooth3d runs list` shows it, its log is {order.log}.", flush=True)


if __name__ == "__main__":
    main()
