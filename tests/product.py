"""A product of its own for tests: a copied checkout with isolated state and tiny models, used as a user uses it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import yaml

from dreambooth3d.environment import ACTIVE, SETTINGS
from tests.coarse import write_coarse_searches
from tests.warm import WarmProcess

ROOT = Path(__file__).resolve().parents[1]
CODE = ("dreambooth3d", "pipelines", "steps", "materializers", "operations")
COPIED = (*CODE, "configs", ".dvc/config", ".dvcignore", "data.dvc", "data_store")
ZENML = str(Path(sys.executable).with_name("zenml"))
FRONT_DOOR = (ZENML, "pipeline", "run", "pipelines.training.dreambooth3d", "--config")

# A few steps of everything; shared by all tests that run the real pipeline.
TINY = {
    "seed": 3,
    "device": "cpu",
    "photos": {"subject": "corgi"},
    "base_model": {"path": "models/tiny"},
    "scorers": {"selector": "models/selector", "judge": "models/judge"},
    "finetune_dreambooth": {
        "steps": 4, "checkpoint_every": 2, "batch_size": 1, "class_images": 2, "class_inference_steps": 2,
        "sample_inference_steps": 2, "warmup_steps": 1,
    },
    "select_checkpoints": {"samples_per_view": 1, "inference_steps": 2},
    "init_nerf": {
        "steps": 4, "views_per_step": 1, "check_every": 100, "photos": {"search_every": 1.0},
        "field": {"encoding": "dense", "volume_resolution": 12},
        "render": {"sampler": "dense", "size": 12, "samples_per_ray": 12, "occupancy_resolution": 8},
    },
    "generate_pseudo_views": {
        "count": 3, "inference_steps": 4, "render": {"sampler": "dense", "size": 12, "samples_per_ray": 12},
    },
    "finetune_multiview": {"steps": 2, "batch_size": 2, "warmup_steps": 1},
    "refine_nerf": {
        "steps": 3, "views_per_step": 1, "reconstruction": {"views_per_step": 1}, "check_every": 100,
        "photos": {"search_every": 1.0},
        "render": {"sampler": "dense", "size": 12, "samples_per_ray": 12, "occupancy_resolution": 8},
    },
    "evaluate": {"size": 24, "samples_per_ray": 16},
    "export_asset": {
        "mesh_resolution": 24, "mesh_threshold": 1.0, "frame_size": 32, "frame_rays": 16, "samples_per_ray": 16,
        "max_triangles": 500, "texture_size": 64, "measured_size": 16,
    },
}  # fmt: skip
# The shortest recipe, for runs over many subjects.
SHORTEST = {name: section for name, section in TINY.items() if name != "photos"} | {
    "recipe": {"init_from": "full", "pseudo_views": False, "multiview": False, "refine_with": "none"},
    "init_nerf": TINY["init_nerf"] | {"steps": 2, "photos": {"weight": 0.0}},
}


_WARM: list[WarmProcess] = []
"""The one of this process, from the first command on."""


def _warm_process(environment: Mapping[str, str]) -> WarmProcess:
    if not _WARM:
        _WARM.append(WarmProcess(environment))
    return _WARM[0]


@dataclass(frozen=True)
class Product:
    """A copied checkout.

    Attributes:
        root: its folder.
        home: the user's home folder as its commands see it.
    """

    root: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables of an activated shell."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ZENML_", "MLFLOW_"))}
        own = {name: value.format(root=self.root) for name, value in SETTINGS.items()}
        return inherited | own | {
            ACTIVE: str(self.root), "DREAMBOOTH3D_HOME": str(self.root), "HOME": str(self.home),
            "DREAMBOOTH3D_ACTIVATE": str(self.root / "venv" / "bin" / "activate"),
            "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", "COLUMNS": "200",
        }  # fmt: skip

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments as an activated shell would."""
        return subprocess.run(
            [sys.executable, *command], cwd=self.root, env=self.environment | variables, capture_output=True, text=True
        )

    def run_warm(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a module or script as `run` does, in a fork of a process that has imported the large libraries."""
        return _warm_process(self.environment).run(command, self.root, self.environment)

    def dreambooth3d(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the console script."""
        return self.run_warm("-m", "dreambooth3d.cli", *arguments)

    def train(self, config: str) -> subprocess.CompletedProcess[str]:
        """Run the main job through its documented front door."""
        return self.run_warm(*FRONT_DOOR, config)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command that goes on, and whose answers are read one by one."""
        command = [sys.executable, "-m", "dreambooth3d.cli", *arguments]
        return subprocess.Popen(command, cwd=self.root, env=self.environment, stdout=subprocess.PIPE, text=True)

    def start_training(self, config: str, output: IO[str]) -> subprocess.Popen[str]:
        """Start the main job and return at once."""
        command = [sys.executable, *FRONT_DOOR, config]
        return subprocess.Popen(command, cwd=self.root, env=self.environment, stdout=output, stderr=output, text=True)

    def write_config(self, name: str = "tiny", **parameters: object) -> str:
        """Write `configs/<name>.yaml`: the tiny settings with these sections replaced."""
        path = self.root / "configs" / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"parameters": TINY | parameters}))
        return f"configs/{name}.yaml"

    def files(self) -> set[str]:
        """Every file below the root, the byte code aside."""
        return {
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }


def make_product(folder: Path) -> Product:
    """Copy what the commands need, with tiny models and coarse searches; nothing is initialised yet."""
    root, home = folder / "product", folder / "home"
    home.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignore)
        elif source.is_file():
            shutil.copyfile(source, target)
    activate = Path(sys.prefix) / "bin" / "activate"
    (root / "venv" / "bin").mkdir(parents=True)
    shutil.copyfile(activate, root / "venv" / "bin" / "activate")
    write_models(root / "models")
    write_coarse_searches(root)
    return Product(root, home)


def write_models(folder: Path) -> None:
    """Write the models that `TINY` names."""
    from tests.evaluation.stand_ins import write_tiny_clip
    from tests.tiny_models import write_tiny_base_model

    write_tiny_base_model(folder / "tiny")
    write_tiny_clip(folder / "selector", size=32)
    write_tiny_clip(folder / "judge", size=24)
