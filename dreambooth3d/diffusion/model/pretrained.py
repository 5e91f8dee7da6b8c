"""Fine-tuned models that somebody has already, in diffusers' layout, as checkpoints in place of training."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dreambooth3d.artifacts import DreamBoothCheckpoint
from dreambooth3d.config.finetuning import FinetuneConfig
from dreambooth3d.diffusion.model.base_model import REPOSITORY, select_weights, weight_files
from dreambooth3d.diffusion.model.components import Components, half, load_weights
from dreambooth3d.errors import BaseModelError
from dreambooth3d.weights import save_weights, sha256_file

_WHERE = "finetune_dreambooth.pretrained"
_WHAT_TO_DO = (
    "Name a folder with unet/ and, where it was trained, text_encoder/, or one with sub-folders of these such as "
    "checkpoint-150."
)
_STEP = re.compile(r"^(?:(?:checkpoint|step)[-_])?(\d+)$")


def pretrained_folders(path: str, default_step: int, setting: str = _WHERE) -> dict[int, Path]:
    """Model folders by their step, ascending.

    Args:
        path: of one model, or of a folder with several in sub-folders such as checkpoint-150, step_150 or 150, beside
            which a model in the folder itself counts if its step is a later one. Seen from the working directory or the
            repository.
        default_step: of a model whose folder names no step.
        setting: the configuration's key that names it, for errors.

    Raises:
        BaseModelError: there is no such folder, no model in it, only .bin weights, or one step twice.
    """
    given = Path(path).expanduser()
    root = next((folder for folder in (given, REPOSITORY / given) if folder.is_dir()), None)
    if root is None:
        raise BaseModelError(f"{setting}: {path} is not a folder. {_WHAT_TO_DO}")
    found: dict[int, Path] = {}
    for folder in sorted(root.iterdir()):
        step = _STEP.search(folder.name)
        if step is None or not (folder / "unet").is_dir():
            continue
        if int(step[1]) in found:
            raise BaseModelError(
                f"{setting}: {found[int(step[1])]} and {folder} are both of step {int(step[1])}. Rename or remove one."
            )
        found[int(step[1])] = folder
    if (root / "unet").is_dir():
        step = _STEP.search(root.resolve().name)
        last = int(step[1]) if step else default_step
        if not found or last > max(found):
            found[last] = root
    if not found:
        raise BaseModelError(f"{setting}: {path} holds no model (a LoRA alone is none). {_WHAT_TO_DO}")
    for folder in found.values():
        for network in _networks(folder):
            _weight_files(network)
    return dict(sorted(found.items()))


def pretrained_digest(folders: Mapping[int, Path]) -> str:
    """SHA-256 over steps, and names and contents of the weights that are taken; optimiser states do not count."""
    digest = hashlib.sha256()
    for step, folder in folders.items():
        for network in _networks(folder):
            for file in _weight_files(network):
                digest.update(f"{step}\0{network.name}/{file.name}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def pretrained_identity(config: FinetuneConfig) -> str:
    """`sha256:<digest>` of the weights that are taken in place of fine-tuning, `none` where it trains.

    Raises:
        BaseModelError: missing, or without safetensors.
    """
    if config.pretrained is None:
        return "none"
    return f"sha256:{pretrained_digest(pretrained_folders(config.pretrained, config.steps))}"


def import_checkpoints(
    folders: Mapping[int, Path], components: Components, work: Path
) -> dict[int, DreamBoothCheckpoint]:
    """Convert fine-tuned models to checkpoints of the base model, in half precision.

    Args:
        folders: by step, see `pretrained_folders`; one without a text encoder has the base model's.
        components: the base model as it is, float32 on the CPU; changed in place.
        work: folder for the files.

    Raises:
        BaseModelError: weights are damaged or do not fit the base model.
    """
    own = save_weights(half(components.text_encoder), work / "checkpoints" / "text_encoder.safetensors")
    result = {}
    for step, folder in folders.items():
        refs = {"text_encoder": own}
        for network in _networks(folder):
            _load(getattr(components, network.name), network)
            file = work / "checkpoints" / f"{step:06d}" / f"{network.name}.safetensors"
            refs[network.name] = save_weights(half(getattr(components, network.name)), file)
        result[step] = DreamBoothCheckpoint(step, refs["unet"], refs["text_encoder"], components.base)
    return result


def _networks(folder: Path) -> list[Path]:
    """The sub-folders of a model that count."""
    return [folder / name for name in ("unet", "text_encoder") if (folder / name).is_dir()]


def _weight_files(network: Path) -> list[Path]:
    """A network's safetensors: those without a variant where there are any, else those in half precision."""
    names = [path.name for path in network.glob("*.*")]
    chosen = select_weights(names) or select_weights(names, "fp16")
    return [network / name for name in chosen] or weight_files(network)


def _load(network: nn.Module, folder: Path) -> None:
    """Give a network the weights of a folder."""
    weights: dict[str, Tensor] = {}
    try:
        for file in _weight_files(folder):
            weights |= load_file(file)
        # A buffer that older versions of transformers stored.
        load_weights(network, {name: value for name, value in weights.items() if not name.endswith("position_ids")})
    except (RuntimeError, KeyError, SafetensorError, OSError) as error:
        raise BaseModelError(
            f"{folder}: these weights are damaged or do not fit the base model. Set base_model.path to the model that "
            "they were fine-tuned from, or restore the folder."
        ) from error
