"""Enlarging the vocabulary of trained models: known words keep their embeddings, new ones start from related ones."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from dreambooth3d.toybox.captions import KINDS
from dreambooth3d.toybox.recipes import TRAINING_CLASSES
from dreambooth3d.toybox.tokenizer import WORD_END

TextModel = TypeVar("TextModel", CLIPModel, CLIPTextModel)
_RELATED = {"toy": ("robot", "snowman", "rabbit", "duck"), "plant": ("vase", "lamp"), "food": ("can", "mug")}
"""For generic nouns that are the kind of no class that the base model is trained on; `object` is related to all."""


def carried_embeddings(embeddings: Tensor, known: CLIPTokenizer, wanted: CLIPTokenizer) -> Tensor:
    """Token embeddings for a larger vocabulary.

    Args:
        embeddings: (tokens, width) of the tokenizer `known`.
        known: the tokenizer that the model was trained with.
        wanted: the tokenizer that it is to have.

    Returns:
        (wanted tokens, width): the same row for the same token; for a generic noun the mean of its classes, for any
        other new token the mean of all.
    """
    old = known.get_vocab()
    mean = embeddings.mean(0)
    rows = embeddings.new_empty(len(wanted), embeddings.shape[1])
    for token, index in wanted.get_vocab().items():
        related = [old[word + WORD_END] for word in _related(token) if word + WORD_END in old]
        rows[index] = embeddings[old[token]] if token in old else embeddings[related].mean(0) if related else mean
    return rows


def _related(token: str) -> tuple[str, ...]:
    noun = token.removesuffix(WORD_END) if token.endswith(WORD_END) else ""
    if noun == "object":
        return TRAINING_CLASSES
    return _RELATED.get(noun) or KINDS.get(noun, ())


def with_vocabulary(trained: TextModel, known: CLIPTokenizer, new: TextModel, wanted: CLIPTokenizer) -> TextModel:
    """`new` with all weights of `trained`, whose architecture differs in the size of the vocabulary only.

    Texts of words that `known` has as tokens get the same features from both.
    """
    state = trained.state_dict()
    (name,) = (name for name in state if name.endswith("token_embedding.weight"))
    with torch.no_grad():
        state[name] = carried_embeddings(state[name], known, wanted)
    new.load_state_dict(state)
    return new
