"""The caption grammar, its vocabulary and the retrieval sets."""

from random import Random

import pytest

from dreambooth3d.toybox.captions import (
    IDENTIFIERS,
    VOCABULARY,
    caption,
    published_captions,
    random_caption,
    tokens,
)
from dreambooth3d.toybox.recipes import Recipe, random_recipe
from dreambooth3d.toybox.subjects import SUBJECTS

DOG = Recipe("dog", "red", "white", "striped", "hat", "blue")


def test_full_caption():
    assert caption(DOG, "front") == "a photo of a red and white striped dog wearing a blue hat, front view"
    assert caption(DOG, colours=0, pattern=False, accessory=False, identifier="sks") == "a photo of a sks dog"


def test_every_word_is_in_the_vocabulary_once():
    random = Random(0)
    captions = [random_caption(random_recipe(random), "back", random) for _ in range(3000)]
    captions += [line for recipe in SUBJECTS.values() for line in published_captions(recipe)]
    assert {word for text in captions for word in tokens(text)} <= set(VOCABULARY)
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    assert not {"backpack", "sneaker"} & set(VOCABULARY)


def test_random_captions_leave_parts_out_at_the_stated_rates():
    random = Random(1)
    captions = [random_caption(DOG, "side", random) for _ in range(8000)]
    share = {
        "empty": sum(text == "" for text in captions) / 8000,
        "view": sum("side view" in text for text in captions) / 8000,
        "identifier": sum(any(name in text for name in IDENTIFIERS) for text in captions) / 8000,
    }
    assert share["empty"] == pytest.approx(0.08, abs=0.015)
    assert share["view"] == pytest.approx(0.92 * 0.85, abs=0.02)
    assert share["identifier"] == pytest.approx(0.92 * 0.03, abs=0.01)


@pytest.mark.parametrize("name", SUBJECTS)
def test_published_captions(name: str):
    recipe = SUBJECTS[name]
    captions = published_captions(recipe)
    truth = caption(recipe)
    others = [text for text in captions if text != truth]
    assert len(captions) == len(set(captions)) == 200
    assert len(others) == 199
    assert sum(recipe.class_noun in tokens(text) for text in others) >= 60
    assert sum(f"a {recipe.main} and {recipe.second} " in text for text in others) >= 60
    assert captions == published_captions(recipe)
