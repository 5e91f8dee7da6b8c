"""`dreambooth3d photos`: photo sets, checked, added and fetched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from dreambooth3d.cli.commands.options import Json, answer, told

if TYPE_CHECKING:
    from dreambooth3d.photos.masks.kept import KeptMasks

app = typer.Typer(no_args_is_help=True, help="Photo sets.")
PHOTO_PAGE = "photos.html"


class _HtmlFile(TyperCommand):
    """Takes `--html` without a file as well."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the usual file where `--html` is last, or another option follows."""
        following = [*args[1:], "--"]
        bare = [each == "--html" and other.startswith("-") for each, other in zip(args, following, strict=True)]
        given = [f"--html={PHOTO_PAGE}" if missing else each for each, missing in zip(args, bare, strict=True)]
        return super().parse_args(ctx, given)


@app.command("check", cls=_HtmlFile)
def photos_check(
    folder: Annotated[str, typer.Argument(help="A folder of photos.")],
    class_noun: Annotated[str | None, typer.Option(help="What the subject is, where there is no subject.yaml.")] = None,
    masks: Annotated[str, typer.Option(help="As photos.masks of a configuration.")] = "auto",
    rembg_model: Annotated[str | None, typer.Option(help="As photos.rembg_model.")] = None,
    hold_out: Annotated[int, typer.Option(help="As photos.hold_out: how many photos nothing is to learn from.")] = 0,
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of the photos and their masks.")] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="[FILE]", help=f"Write a page that says what to do better; {PHOTO_PAGE} without a name."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a photo set as the pipeline would, and say whose masks can be trusted."""
    if html is not None:
        from dreambooth3d.cli.files import require_writable

        require_writable(html, PHOTO_PAGE)
    from dreambooth3d.config.photos import PhotosConfig
    from dreambooth3d.naming import printable
    from dreambooth3d.photos.check import check_folder
    from dreambooth3d.photos.dataset import dataset_hash
    from dreambooth3d.photos.showing import report_lines, values, write_sheet
    from dreambooth3d.photos.subject import folder_setting, resolve_folder
    from operations.launch.sentences import checked_section

    given = {"masks": masks, "hold_out": hold_out} | ({} if rembg_model is None else {"rembg_model": rembg_model})
    config = checked_section("photos", PhotosConfig, dir=folder_setting(folder), class_noun=class_noun, **given)
    path, info = resolve_folder(config)
    report = check_folder(path, config, info, _kept_masks())
    data_md5 = dataset_hash(config)
    if not as_json:
        typer.echo("\n".join([f"{printable(folder)}: {info.class_noun}, {data_md5}", *report_lines(report)]))
    written = []
    if sheet is not None:
        write_sheet(report, sheet)
        written.append(f"{sheet}")
    if html is not None:
        from dreambooth3d.cli.photo_page.writing import write_page

        write_page(html, path, info, config, data_md5, report, lambda line: typer.echo(line, err=True))
        written.append(printable(str(html)))
    if as_json:
        answer({"folder": f"{path}", "dataset_hash": data_md5, **info.model_dump(), **values(report), "files": written})
    else:
        told(False, written)


def _kept_masks() -> KeptMasks | None:
    """Where masks are kept from one check to the next; None where no folder is set up: a check makes no state."""
    from dreambooth3d.photos.masks.kept import KeptMasks
    from dreambooth3d.places import home, is_set_up
    from dreambooth3d.sources import library_digest

    return KeptMasks(home() / ".dreambooth3d" / "masks", library_digest()) if is_set_up(home()) else None


@app.command("add")
def photos_add(
    subject: Annotated[str, typer.Argument(help="The name of the new folder under data/.")],
    files: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos; masks beside them come along.")],
    noun: Annotated[str | None, typer.Option(help="What the subject is, for example dog; asked for without.")] = None,
    as_json: Json = False,
) -> None:
    """Make a subject under data/ of your photos, and let DVC record it."""
    from dreambooth3d.cli.photo_adding import add_photos

    told(as_json, add_photos(subject, files, noun))


@app.command("fetch")
def photos_fetch(
    name: Annotated[str, typer.Argument(help="dog, cat, clock or can.")],
    target: Annotated[Path | None, typer.Option(help="The folder to make; default data/NAME.")] = None,
    as_json: Json = False,
) -> None:
    """Download one of four public subjects of the DreamBooth dataset (needs a network)."""
    from dreambooth3d.photos.fetch import fetch

    told(as_json, [f"{fetch(name, target)}"])
