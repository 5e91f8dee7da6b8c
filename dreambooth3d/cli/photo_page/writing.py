"""`dreambooth3d photos check --html`: finds the cameras as a run does, and writes the page."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from dreambooth3d.cli.files import write_file
from dreambooth3d.cli.photo_page.diagnosis import diagnose
from dreambooth3d.cli.photo_page.page import photo_page
from dreambooth3d.config.models import ScorersConfig
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.evaluation.clip import scorer_ref
from dreambooth3d.evaluation.viewpoints import with_viewpoints
from dreambooth3d.naming import printable
from dreambooth3d.photos.check import as_photos
from dreambooth3d.photos.models import photo_models
from dreambooth3d.photos.report import PhotoReport
from dreambooth3d.photos.subject import SubjectInfo
from dreambooth3d.photos.tracking import DATA, repository_root


def write_page(
    path: Path, folder: Path, info: SubjectInfo, config: PhotosConfig, data_md5: str, report: PhotoReport,
    tell: Callable[[str], None],
) -> None:  # fmt: skip
    """Write the page of a checked photo set, completely or not at all.

    Args:
        path: the file.
        folder, info, config, data_md5: whose photos, and their hash.
        report: of the check.
        tell: gets what takes long.

    Raises:
        ConfigError: it cannot be written, or a model is another than the one pinned.
        BaseModelError: the bundled scorer is missing or damaged.
    """
    tell("From where each photo was taken is found out as in a run: one to two minutes of computing on a CPU core.")
    photos = as_photos(report, folder, info, data_md5)
    photos = with_viewpoints(photos, scorer_ref(ScorersConfig().selector), photo_models(config))
    page = photo_page(diagnose(report, photos), train_command(folder, config))
    write_file(path, page, "the page")


def train_command(folder: Path, config: PhotosConfig) -> str:
    """What starts a run on these photos."""
    if folder.absolute().parent == (repository_root() / DATA).absolute():
        settings = [f"photos.subject={folder.name}"]
    else:
        settings = [f"photos.dir={config.dir}"]
    if config.class_noun is not None:
        settings.append(f"photos.class_noun={config.class_noun}")
    return shlex.join(["dreambooth3d", "train", "configs/demo.yaml", *map(printable, settings)])
