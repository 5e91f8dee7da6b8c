"""What the page is asked for, as files and commands: the same ones that somebody would write and type."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dreambooth3d import places
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.strict_yaml import dump
from operations.launch.sentences import checked_section

PRESETS = {
    "On this computer, in minutes: the bundled small models (demo)": "demo.yaml",
    "On this computer, as 3D Gaussians (gaussians)": "gaussians.yaml",
    "On a GPU, until it converges: the bundled small models (toybox_gpu)": "toybox_gpu.yaml",
    "On a GPU of 20 GiB: Stable Diffusion 1.5 (sd15_dog)": "sd15_dog.yaml",
    "On a GPU of 6 GiB: Stable Diffusion 1.5 as a LoRA (sd_6gib)": "sd_6gib.yaml",
}
"""Files in configs/ by what the page calls them."""
MOST_PHOTOS = 20
LOG = "log.txt"
DAY_S = 86400.0
UNUSED_DAYS, KEPT_DAYS = 1, 30
"""How old an order without and with a run becomes: a run that failed can be given again by its config.yaml."""
_ASSET = re.compile(r"^Asset {7}(?P<glb>.+/asset\.glb)$", re.MULTILINE)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Order:
    """One subject's photos, taken from the page.

    Attributes:
        folder: of all its files.
        photos: the folder of the photos, which has the subject's name.
        noun: what it is.
        identifier: the token that stands for it.
    """

    folder: Path
    photos: Path
    noun: str
    identifier: str

    @property
    def config(self) -> Path:
        """The file that a run takes."""
        return self.folder / "config.yaml"

    @property
    def page(self) -> Path:
        """What the check says of the photos."""
        return self.folder / "photos.html"

    @property
    def log(self) -> Path:
        """What the run prints."""
        return self.folder / LOG

    @property
    def live(self) -> Path:
        """What the run's stages show."""
        return self.folder / "live"


def orders_folder() -> Path:
    """Where orders are kept, one folder each."""
    return places.home() / ".dreambooth3d" / "web"


def take_order(files: Sequence[str], noun: str, name: str, identifier: str) -> Order:
    """Check what was filled in, and copy the photos to a folder of their own.

    Args:
        files: uploaded photos.
        noun: what the subject is, for example dog.
        name: of the subject in lists; the noun where it is empty.
        identifier: a rare token that will stand for it.

    Raises:
        ConfigError: something is missing, or cannot be a name.
    """
    noun, identifier = noun.strip(), identifier.strip() or "sks"
    name = name.strip() or noun
    if not files:
        raise ConfigError("There are no photos yet: drop 4 to 6 of them, from all sides.")
    if len(files) > MOST_PHOTOS:
        raise ConfigError(f"{len(files)} photos are too many: leave at most {MOST_PHOTOS}, 4 to 6 are enough.")
    if not noun:
        raise ConfigError("Say what it is, in one word such as dog.")
    checked_section("photos", PhotosConfig, subject=name, class_noun=noun, identifier=identifier)
    folder = orders_folder() / f"{datetime.now():%Y_%m_%d-%H_%M_%S_%f}"
    photos = folder / name
    photos.mkdir(parents=True)
    for number, file in enumerate(files):
        shutil.copyfile(file, photos / f"{number:02d}{Path(file).suffix.lower()}")
    return Order(folder, photos, noun, identifier)


def write_config(order: Order, preset: str) -> None:
    """Write the configuration file of a run: a preset with these photos.

    Args:
        order: whose photos.
        preset: a file in configs/.

    Raises:
        ConfigError: there is no such preset.
    """
    if preset not in PRESETS.values():
        raise ConfigError(f"{preset}: is none of this page's presets. Choose one of {', '.join(PRESETS.values())}.")
    if not order.photos.is_dir():
        raise ConfigError("These photos are no longer kept: drop them again, and check them.")
    photos = {"dir": str(order.photos), "class_noun": order.noun, "identifier": order.identifier}
    values = {"base": str(places.repository() / "configs" / preset), "parameters": {"photos": photos}}
    order.config.write_text(dump(values, ascii_only=False), encoding="utf-8")


def check_command(order: Order) -> list[str]:
    """What looks at the photos, and writes the page about them."""
    return _command("photos", "check", str(order.photos), "--class-noun", order.noun, "--html", str(order.page))


def train_command(order: Order) -> list[str]:
    """What runs the main job."""
    return _command("train", str(order.config))


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dreambooth3d.cli", *arguments]


def last_sentence(output: str) -> str:
    """The sentence with which a command has failed."""
    lines = [line.strip() for line in readable(output).splitlines() if line.strip()]
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return (errors or lines or ["The command ended without a word."])[-1]


def readable(output: str) -> str:
    """What a terminal would show at last of what a command has printed."""
    lines = _CONTROL.sub("", output).split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def tail(order: Order, lines: int = 14) -> str:
    """The last lines of a run's log."""
    try:
        with order.log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 2**14))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(readable(text).splitlines()[-lines:])


def finished_asset(order: Order) -> Path | None:
    """The GLB that a run's log names, None while there is none."""
    try:
        found = _ASSET.findall(readable(order.log.read_text(errors="replace")))
    except OSError:
        return None
    glb = places.home() / found[-1] if found else None
    return glb if glb is not None and glb.is_file() else None


def old_orders(alive: bool) -> Iterator[tuple[Path, str]]:
    """Orders that nobody goes on from any more, each with the reason.

    Args:
        alive: whether a run may be going on: it reads its order's photos, and writes its log.
    """
    folders = sorted(orders_folder().iterdir()) if orders_folder().is_dir() else []
    for folder in folders:
        if not folder.is_dir():
            continue
        started = (folder / LOG).exists()
        days = (time.time() - max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))) / DAY_S
        if not started and days > UNUSED_DAYS:
            yield folder, f"its photos were checked {days:.0f} days ago, and no run was started"
        elif started and not alive and days > KEPT_DAYS:
            yield folder, f"its run wrote last {days:.0f} days ago; what it made is elsewhere"
