"""What a whole training is made of: what a retraining compares, and what a run notes of the code that ran it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from dreambooth3d.config.training import TrainingConfig
from dreambooth3d.diffusion.model.base_model import base_model_identity
from dreambooth3d.diffusion.model.pretrained import pretrained_identity
from dreambooth3d.evaluation.clip import scorer_ref
from dreambooth3d.photos.models import photo_models
from dreambooth3d.places import repository
from dreambooth3d.surface.files import with_mesh_digests

ROOT = repository()


def training_identity(config: TrainingConfig, data: str) -> dict[str, str]:
    """What a training of one subject is made of: equal identities need no second training.

    Args:
        config: of the training.
        data: hash of the subject's photos.

    Returns:
        data, config, code, base_model, selector, judge and photo_networks, each a hash or a commit, or empty without
        networks.

    Raises:
        BaseModelError: base model, fine-tuned weights or a scorer are missing or damaged.
    """
    # Needs ZenML, which the benchmarks, that only ask for the commit, do without.
    from operations.launch.sources import training_digest

    return {
        "data": data,
        "config": config_digest(config),
        "code": f"sha256:{training_digest()}",
        "base_model": base_model_identity(config.base_model),
        "selector": scorer_ref(config.scorers.selector).digest,
        "judge": scorer_ref(config.scorers.judge).digest,
        "photo_networks": " ".join(f"{name}:{digest}" for name, digest in photo_models(config.photos) if digest),
    }


def config_digest(config: TrainingConfig) -> str:
    """`sha256:<digest>` of all settings but those that other parts of the identity stand for, and the device."""
    stages = {name: with_mesh_digests(getattr(config, name)) for name in ("init_nerf", "refine_nerf", "edit_nerf")}
    values = config.model_copy(update=stages).model_dump(
        mode="json",
        exclude={
            "device": True,
            "photos": {"subject", "dir", "dataset", "rembg_model"},
            "base_model": True,
            "scorers": True,
            "finetune_dreambooth": {"pretrained"},
        },
    )
    values["pretrained"] = pretrained_identity(config.finetune_dreambooth)
    return f"sha256:{hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()}"


def git_commit(root: Path = ROOT) -> str:
    """The checked-out commit, with `-dirty` where tracked files differ from it; `unknown` outside a git checkout."""
    try:
        # An unpacked archive may lie inside someone else's checkout.
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return "unknown"
        commit = _git(root, "rev-parse", "HEAD")
        return f"{commit}-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return result.stdout.strip()
