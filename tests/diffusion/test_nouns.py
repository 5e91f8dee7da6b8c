"""Nouns in place of those that a base model does not know."""

from __future__ import annotations

import pytest
from transformers import CLIPTokenizer

from dreambooth3d.diffusion.model.base_model import require_known_words
from dreambooth3d.diffusion.model.nouns import common_nouns, nearest_nouns
from dreambooth3d.errors import BaseModelError
from dreambooth3d.toybox.captions import GENERIC_NOUNS, VOCABULARY
from dreambooth3d.toybox.recipes import TRAINING_CLASSES
from dreambooth3d.toybox.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer(list(VOCABULARY), max_length=77)


@pytest.mark.parametrize(
    ("noun", "nearest"),
    [
        ("puppy", "dog"), ("horse", "dog"), ("sneakers", "car, boat"), ("backpack", "mug, can"), ("bike", "car"),
        ("cup", "mug, can"), ("alarm clock", "clock"), ("fire truck", "car"),
        ("sofa", "chair"), ("plane", "boat, rocket, vehicle, object"), ("tulip", "lamp, furniture, plant, object"),
        ("teapott", "teapot"), ("Toaster", "house"), ("teddy bear", "dog, cat, rabbit, snowman, object"),
        ("avocado", "vase"), ("kettle", "teapot"), ("bottle", "vase, can"), ("spaceship", "rocket, vehicle, object"),
    ],
)  # fmt: skip
def test_what_people_photograph_is_refused_with_the_nearest_nouns(
    tokenizer: CLIPTokenizer, noun: str, nearest: str
) -> None:
    with pytest.raises(BaseModelError, match=f"Nearest to it: {nearest}"):
        require_known_words(tokenizer, noun)


def test_a_word_that_nobody_knows_is_refused_with_all_nouns(tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(BaseModelError) as refused:
        require_known_words(tokenizer, "zyxwvut")
    named = str(refused.value).partition("It knows ")[2].partition(". Set photos.class_noun")[0].split(", ")
    assert sorted(named) == sorted((*TRAINING_CLASSES, *GENERIC_NOUNS))
    assert named[-1] == "object"


def test_generic_nouns_are_named_only_where_the_model_knows_them(tokenizer: CLIPTokenizer) -> None:
    narrow = build_tokenizer([word for word in VOCABULARY if word not in GENERIC_NOUNS], max_length=77)
    for noun, nearest, generic in (("lion", "dog, cat", "animal, object"), ("bus", "car", "vehicle, object")):
        with pytest.raises(BaseModelError, match=rf"Nearest to it: {nearest}, {generic}\."):
            require_known_words(tokenizer, noun)
        with pytest.raises(BaseModelError, match=rf"Nearest to it: {nearest}\."):
            require_known_words(narrow, noun)


def test_only_what_is_known_is_named() -> None:
    assert nearest_nouns("sneaker", {"boat"}.__contains__) == ["boat"]
    assert nearest_nouns("sneaker", lambda word: False) == common_nouns(lambda word: False) == []
