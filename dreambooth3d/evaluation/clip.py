"""CLIP scoring: unit-length features of images and texts, whatever CLIP model they come from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dreambooth3d import hub
from dreambooth3d.cameras import VIEW_WORDS
from dreambooth3d.config.models import ScorerRef
from dreambooth3d.diffusion.model.base_model import folder_digest, local_folder, weight_files
from dreambooth3d.errors import BaseModelError
from dreambooth3d.progress import no_bars_of_transformers
from dreambooth3d.prompts import view_prompt
from dreambooth3d.weights import require_as_shipped

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

_BATCH = 64
_BICUBIC = Image.Resampling.BICUBIC.value
_WEIGHTS, _OLD_WEIGHTS = "model.safetensors", "pytorch_model.bin"
_TOKENIZER = ("tokenizer.json", "vocab.json")
_PREPROCESSING = ("preprocessor_config.json", "processor_config.json")
_HUB_SUFFIXES = (".json", ".txt")


@dataclass(frozen=True)
class Preprocessing:
    """What a CLIP model expects of its images.

    Attributes:
        size: side in pixels.
        mean, std: per channel.
        mode: interpolation of `torch.nn.functional.interpolate`.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str

    def __call__(self, images: Tensor) -> Tensor:
        """(n, 3, size, size) normalised, of square images (n, 3, h, w) in [0, 1]; nothing is cropped."""
        if images.shape[-2:] != (self.size, self.size):
            images = torch.nn.functional.interpolate(
                images, size=(self.size, self.size), mode=self.mode, antialias=True, align_corners=False
            ).clamp(0, 1)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (images - mean) / std


def _pooled(output: Any) -> Tensor:
    """The projected features: transformers 4 returns them, transformers 5 an output object that holds them."""
    return output if isinstance(output, Tensor) else output.pooler_output


@dataclass(frozen=True)
class ClipScorer:
    """A frozen CLIP model that compares images with images and with texts.

    Attributes:
        model: the CLIP model, in evaluation mode.
        tokenizer: of its text tower.
        preprocessing: of its image tower.
    """

    model: CLIPModel
    tokenizer: CLIPTokenizer
    preprocessing: Preprocessing

    @staticmethod
    def load(path: str | Path, device: torch.device | str = "cpu") -> ClipScorer:
        """Load a `CLIPModel` with its `CLIPProcessor` files.

        Args:
            path: a local folder, or a hub id with or without `@revision`.
            device: where the model will live.

        Raises:
            BaseModelError: the model is missing, damaged, or not a CLIP model.
        """
        from transformers import CLIPModel, CLIPTokenizer  # loads for seconds

        folder = scorer_folder(str(path))
        require_as_shipped(folder)
        try:
            # Without safetensors transformers reads a .bin file as weights only: tensors, and no other objects.
            with no_bars_of_transformers():
                model, loading = CLIPModel.from_pretrained(folder, torch_dtype=torch.float32, output_loading_info=True)
            tokenizer = CLIPTokenizer.from_pretrained(folder)
            preprocessing = _read_preprocessing(folder, model.config.vision_config.image_size)
        except Exception as error:
            # transformers, safetensors and the hub client raise many unrelated types for a missing or damaged model.
            raise BaseModelError(
                f"{path}: this CLIP scorer cannot be loaded ({_first_line(error)}). Give a hub id or a folder with a"
                " complete CLIPModel and CLIPProcessor in scorers.selector and scorers.judge."
            ) from error
        if missing := sorted(loading["missing_keys"]):
            raise BaseModelError(
                f"{path}: {len(missing)} CLIP weights are missing, such as {missing[0]}. Fetch the model again."
            )
        return ClipScorer(model.to(device).eval().requires_grad_(False), tokenizer, preprocessing)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.model.device

    @property
    def logit_scale(self) -> float:
        """Factor that turns cosines into logits."""
        return self.model.logit_scale.exp().item()

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """Unit-length features (n, d), float32 on the CPU, of square images (n, 3, h, w) in [0, 1]."""
        parts = []
        for batch in images.split(_BATCH):
            pixels = self.preprocessing(batch.to(self.device, torch.float32)).to(self.model.dtype)
            parts.append(_pooled(self.model.get_image_features(pixel_values=pixels)))
        return torch.nn.functional.normalize(torch.cat(parts).float(), dim=-1).cpu()

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Unit-length features (n, d), float32 on the CPU, of n texts; longer ones than the model knows are cut."""
        length = self.model.config.text_config.max_position_embeddings
        parts = []
        for start in range(0, len(texts), _BATCH):
            tokens = self.tokenizer(
                list(texts[start : start + _BATCH]),
                padding="max_length", truncation=True, max_length=length, return_tensors="pt",
            ).to(self.device)  # fmt: skip
            parts.append(_pooled(self.model.get_text_features(**tokens)))
        return torch.nn.functional.normalize(torch.cat(parts).float(), dim=-1).cpu()

    def similarity(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """Cosines (images, texts) of images (n, 3, h, w) in [0, 1] and texts."""
        return self.image_features(images) @ self.text_features(texts).T

    def classify(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Index (n,) of the caption that fits each image (n, 3, h, w) best."""
        return self.similarity(images, captions).argmax(dim=-1)


def view_captions(class_noun: str) -> list[str]:
    """The four captions by which a scorer tells the views of a class apart, in the order of `VIEW_WORDS`."""
    return [view_prompt(f"a photo of a {class_noun}", word) for word in VIEW_WORDS]


def _first_line(error: Exception) -> str:
    """The gist of a long foreign message."""
    return str(error).strip().split("\n")[0][:160] or type(error).__name__


def scorer_folder(path: str, setting: str = "scorers") -> Path:
    """The local folder of a scorer; one on the hub comes from the hub's cache where that is enough, else it is fetched.

    Args:
        path: a folder, `owner/name` or `owner/name@revision`.
        setting: the configuration's key that names it, for errors.

    Returns:
        The folder; for a hub model its name is the commit.

    Raises:
        BaseModelError: no such folder, neither cached nor reachable, or not complete.
    """
    hub_id, revision = hub.split_revision(path)
    folder = local_folder(path if revision is None else hub_id, setting)
    if folder is None:
        return hub.snapshot(setting, hub_id, revision, _wanted_files, check_scorer_folder)
    if revision is not None:
        raise BaseModelError(f"{setting}: {hub_id} is a local folder, which has no revision. Leave @{revision} out.")
    return folder


def scorer_ref(path: str) -> ScorerRef:
    """A scorer with `sha256:<digest>` of a local folder, or with `commit:<revision>` of a hub model.

    Raises:
        BaseModelError: missing, not complete, or not reachable.
    """
    folder = local_folder(hub.split_revision(path)[0], "scorers")
    digest = f"commit:{scorer_folder(path).name}" if folder is None else f"sha256:{folder_digest(folder)}"
    return ScorerRef(path=path, digest=digest)


def pinned(scorer: ScorerRef) -> str:
    """What `ClipScorer.load` takes: a hub model's id with the commit that was resolved, a local scorer's path."""
    kind, _, commit = scorer.digest.partition(":")
    return f"{hub.split_revision(scorer.path)[0]}@{commit}" if kind == "commit" else scorer.path


def check_scorer_folder(folder: Path) -> None:
    """Check that a scorer's folder is complete and its safetensors are whole, without loading weights.

    Raises:
        BaseModelError: names what is missing or damaged; of a bundled scorer also by its SHA-256.
    """
    require_as_shipped(folder)
    if not (folder / "config.json").is_file():
        raise BaseModelError(f"{folder}: config.json is missing")
    for names in (_TOKENIZER, _PREPROCESSING):
        if not any((folder / name).is_file() for name in names):
            raise BaseModelError(f"{folder}: neither {names[0]} nor {names[1]} is there")
    if (folder / _OLD_WEIGHTS).is_file() and not (folder / _WEIGHTS).is_file():
        return
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise BaseModelError(f"{file}: damaged or truncated ({error})") from error


def _wanted_files(files: Sequence[str]) -> list[str]:
    """Of a model repository's files, those that are loaded; some public CLIP models have no safetensors."""
    texts = [file for file in files if "/" not in file and file.endswith(_HUB_SUFFIXES)]
    return [*texts, _WEIGHTS if _WEIGHTS in files else _OLD_WEIGHTS]


def _read_preprocessing(folder: Path, size: int) -> Preprocessing:
    """Read the image processor's settings from its JSON: the processor class itself may need torchvision."""
    for name in _PREPROCESSING:
        if (folder / name).is_file():
            settings = json.loads((folder / name).read_text())
            settings = settings.get("image_processor", settings)
            mode = "bicubic" if settings.get("resample", _BICUBIC) == _BICUBIC else "bilinear"
            return Preprocessing(size, tuple(settings["image_mean"]), tuple(settings["image_std"]), mode)
    raise FileNotFoundError("neither preprocessor_config.json nor processor_config.json")
