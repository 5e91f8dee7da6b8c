"""Small stand-ins for the evaluation tests: a random CLIP model on disk, a scorer with known judgement, photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.cameras import VIEW_WORDS
from dreambooth3d.toybox.tokenizer import build_tokenizer
from tests.photos.photo_sets import masked
from tests.tiny_models import MAX_TOKENS, WORDS

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def write_tiny_clip(folder: Path, size: int = 32) -> Path:
    """A random-weight CLIP model with its processor files."""
    tokenizer = build_tokenizer(WORDS, max_length=MAX_TOKENS)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(
            CLIPConfig(
                text_config={"vocab_size": len(tokenizer), "max_position_embeddings": MAX_TOKENS} | tower | special,
                vision_config={"image_size": size, "patch_size": 8} | tower,
                projection_dim=24,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"image_mean": MEAN, "image_std": STD, "size": {"shortest_edge": size}, "crop_size": size}
    CLIPImageProcessor(**settings).save_pretrained(folder)
    return folder


class ColorScorer:
    """Judges by the mean colour: red is the front, green the side, blue the back, grey overhead.

    Texts mean nothing to it but for the view that they name.
    """

    logit_scale = 100.0

    def image_features(self, images: Tensor) -> Tensor:
        mean = images.mean(dim=(2, 3))
        grey = mean.min(dim=1, keepdim=True).values
        return torch.nn.functional.normalize(torch.cat([mean - grey, grey], dim=1) + 1e-6, dim=-1)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        rows = [[float(f"{word} view" in text) for word in VIEW_WORDS] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(rows) + 1e-6, dim=-1)


def photos_of(*images: Tensor, class_noun: str = "dog", description: str = "") -> SubjectPhotos:
    """A photo set of the given images, with the masks that smooth backgrounds tell."""
    return masked(SubjectPhotos(images, pd.DataFrame(), (), "rex", "sks", class_noun, description, "untracked:0"))


class PaletteScorer:
    """Judges by the colour of the pixels that are not white: an image's features are the shares of each colour.

    A text's features are the colours that it names, the first of them, the main one, most of all. It sees no views.
    """

    def __init__(self, palette: Mapping[str, tuple[float, float, float]]) -> None:
        self.names, self.colors = list(palette), torch.tensor(list(palette.values()))

    def image_features(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 2, 3, 1)[..., None, :]
        shades = torch.stack([self.colors * light for light in (1.0, 0.8, 0.6)])
        distance = (pixels[..., None, :, :] - shades).norm(dim=-1).amin(dim=-2)
        nearest = torch.nn.functional.one_hot(distance.argmin(dim=-1), len(self.names)).float()
        subject = (images.amin(dim=1) < 0.9)[..., None].float()
        return torch.nn.functional.normalize((nearest * subject).sum(dim=(1, 2)) + 1e-6, dim=-1)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        rows = torch.zeros(len(texts), len(self.names))
        for row, text in zip(rows, texts, strict=True):
            named = [word for word in text.replace(",", " ").split() if word in self.names]
            for place, word in enumerate(named):
                row[self.names.index(word)] += 0.25**place
        return torch.nn.functional.normalize(rows + 1e-6, dim=-1)
