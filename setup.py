"""Where a wheel keeps what a clone has beside the library.

ZenML knows steps and materializers by the names that they have in a clone (`steps.init_nerf`). Installed under these
names they would be top-level packages, as those of anybody else's project. So a wheel keeps them, with the presets and
the bundled models, in a folder inside the library, which only this product's processes put on their path
(`dreambooth3d.places`). In a clone everything stays where it is.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info

LIBRARY = "dreambooth3d"
INSIDE = f"{LIBRARY}._product"
DATA = ("configs", "models")


def placed(package: str) -> str:
    """The name under which a wheel holds a package of the clone."""
    return package if package.partition(".")[0] == LIBRARY else f"{INSIDE}.{package}"


class Build(build_py):
    """Copies packages to their places in a wheel, unless the installation refers to the clone."""

    def run(self) -> None:
        """Build."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # files of an earlier build would come along
            names = [*(self.distribution.packages or ()), *DATA]
            self.distribution.packages = self.packages = [placed(name) for name in names]
            self.package_dir = {**self.package_dir, **{placed(name): name.replace(".", "/") for name in names}}
            self.distribution.package_dir = self.package_dir
        super().run()


class Information(egg_info):
    """Says by which names a wheel can be imported."""

    def run(self) -> None:
        """Write it."""
        super().run()
        Path(self.egg_info, "top_level.txt").write_text(f"{LIBRARY}\n")


setup(cmdclass={"build_py": Build, "egg_info": Information})
