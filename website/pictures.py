"""Pictures of the site: strips of the benchmarks' sheets, and what a run has logged.

`python -m website.pictures` cuts the strips into docs/images/strips; `--run RUN` also takes the pictures of a finished
run of the demo, for the page "How it works", into docs/images/run, and makes the moving picture of the README of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image

from website.pages import ROOT
from website.turning import turning, write_turning

DOCS = ROOT / "docs"
STRIPS = DOCS / "images" / "strips"
RUN = DOCS / "images" / "run"
TURNING = "turning.webp"
Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels of the sheet."""
_FAMILY = "benchmarks/family.webp"
_ROW = 132
_SYSTEMS = ("sds", "sjc", "latent", "mesh", "gaussians", "fantasia3d")
SHEETS: dict[str, tuple[str, tuple[int, int], tuple[Box, ...]]] = {
    "demo": ("images/demo.png", (1118, 985), ((78, 0, 728, 132), (78, 132, 1118, 396))),
    "toybox": ("benchmarks/quality_koi.webp", (755, 1056), ((104, 0, 755, 132), (104, 264, 624, 396))),
    "real_studio": ("benchmarks/real_bob.webp", (640, 1100), ((149, 100, 640, 300),)),
    "real_casual": ("benchmarks/real_bob.webp", (640, 1100), ((149, 600, 640, 800),)),
    "real_casual_cow": ("benchmarks/real_cow.webp", (640, 1100), ((149, 600, 640, 800),)),
    "photographs": ("benchmarks/heldout_robot.webp", (1128, 396), ((92, 0, 1128, 264),)),
    **{name: (_FAMILY, (1638, 792), ((104, _ROW * row, 1638, _ROW * (row + 1)),)) for row, name in enumerate(_SYSTEMS)},
}
"""By the strip's name: the sheet below docs/, its size, and the boxes that are put below one another."""
LOGGED = {
    "photos": ("validate_photos", "photos"),
    "samples_before": ("finetune_dreambooth", "samples/000000"),
    "samples_after": ("finetune_dreambooth", "samples/"),
    "checkpoints": ("select_checkpoints", "scores"),
    "first_field": ("init_nerf", "previews"),
    "pseudo_views": ("generate_pseudo_views", "before_after"),
    "refined_field": ("refine_nerf", "previews"),
    "photo_cameras": ("refine_nerf", "photo_cameras"),
    "comparison": ("evaluate", "comparison"),
    "turntable": ("export_asset", "turntable"),
}
"""By the picture's name: the step that has reported it, and the name that it has there; the last one that begins so."""


def strip(name: str) -> Image.Image:
    """A strip of a sheet.

    Raises:
        ValueError: the sheet has another size than the boxes are for.
    """
    sheet, size, boxes = SHEETS[name]
    with Image.open(DOCS / sheet) as opened:
        image = opened.convert("RGB")
    if image.size != size:
        raise ValueError(f"{sheet} is {image.width}x{image.height} pixels, and the boxes of {name} are for {size}")
    parts = [image.crop(box) for box in boxes]
    whole = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return whole


def write_logged(name: str, folder: Path) -> None:
    """Write a run's pictures into a folder.

    Raises:
        LookupError: the run has not reported one of them.
    """
    from zenml.client import Client

    from dreambooth3d.images import save_image, to_pil
    from operations.records.publishing import finished_stages
    from operations.records.reading import Reader
    from operations.records.row import row_name

    run = row_name(Reader.of_active_state().find(name))
    finished = Client().get_pipeline_run(run)
    records = {stage.name: stage.record for stage in finished_stages(finished.id)}
    images = {}
    for file, (step, key) in LOGGED.items():
        found = records[step].images if step in records else {}
        if not (named := sorted(name for name in found if name.startswith(key))):
            raise LookupError(f"{run}: {step} has reported no picture {key}. Take a run of configs/demo.yaml.")
        images[file] = found[named[-1]]
    folder.mkdir(parents=True, exist_ok=True)
    for file, image in images.items():
        save_image(image, folder / f"{file}.webp")
    photos, bundle = (finished.steps[step].output.load() for step in ("validate_photos", "export_asset"))
    views = [Image.open(bundle.folder / name) for name in bundle.files if name.startswith("frames/")]
    write_turning(turning(list(map(to_pil, photos.images)), views), folder / TURNING)


def main() -> None:
    """Write the strips, and the pictures of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a finished run's name, its beginning, or latest")
    given = parser.parse_args()
    STRIPS.mkdir(parents=True, exist_ok=True)
    try:
        for name in SHEETS:
            strip(name).save(STRIPS / f"{name}.webp", quality=85)
        if given.run:
            write_logged(given.run, RUN)
    except (LookupError, OSError, ValueError) as error:
        sys.exit(str(error))
    print(*(folder.relative_to(ROOT) for folder in (STRIPS, RUN)[: 2 if given.run else 1]), sep="\n")


if __name__ == "__main__":
    main()
