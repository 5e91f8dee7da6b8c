"""Context prompts, and the subjects that they ask for."""

from dataclasses import replace

import pytest

from dreambooth3d.toybox.captions import caption
from dreambooth3d.toybox.contexts import Attributes, parse_prompt
from dreambooth3d.toybox.recipes import Recipe
from dreambooth3d.toybox.subjects import SUBJECTS

DUCK = Recipe("duck", "yellow", "white", "spotted", "scarf", "blue", seed=5)


def edited(prompt: str, recipe: Recipe = DUCK) -> Recipe | None:
    asked = parse_prompt(prompt, "sks", recipe.class_noun)
    return asked and asked.applied_to(recipe)


@pytest.mark.parametrize(
    ("prompt", "changes"),
    [
        ("a photo of a sks duck", {}),
        ("a photo of a red sks duck", {"main": "red"}),
        ("A photo of a Red sks duck", {"main": "red"}),
        ("a red and green sks duck", {"main": "red", "second": "green"}),
        ("a photo of an orange striped sks duck", {"main": "orange", "pattern": "striped"}),
        ("a photo of a plain sks duck", {"pattern": "plain"}),
        ("a sks duck wearing a blue hat", {"accessory": "hat", "accessory_colour": "blue"}),
        ("a photo of a sks red duck", {"main": "red"}),
        (
            "a photo of a pink sks duck with a green bow",
            {"main": "pink", "accessory": "bow", "accessory_colour": "green"},
        ),
    ],
)
def test_words_change_what_they_name(prompt: str, changes: dict[str, str]) -> None:
    assert edited(prompt) == replace(DUCK, **changes)


@pytest.mark.parametrize(
    "prompt",
    [
        "a photo of a sks duck on the moon",
        "a photo of a turquoise sks duck",
        "a photo of a sks duck wearing a hat",
        "a photo of a sks duck wearing a blue monocle",
        "a photo of a sks dog",
        "a photo of a sleeping sks duck",
    ],
)
def test_other_words_have_no_truth(prompt: str) -> None:
    assert edited(prompt) is None


def test_what_a_class_cannot_wear_has_no_truth() -> None:
    assert edited("a sks clock wearing a red scarf", SUBJECTS["alarm_clock"]) is None


@pytest.mark.parametrize("recipe", SUBJECTS.values(), ids=SUBJECTS)
def test_captions_are_the_toybox_s(recipe: Recipe) -> None:
    attributes = Attributes.of_recipe(recipe)
    assert attributes.caption(recipe.class_noun) == caption(recipe)
    parsed = parse_prompt(caption(recipe, identifier="sks"), "sks", recipe.class_noun)
    assert parsed.applied_to(recipe) == recipe


def test_rivals_differ_in_one_word() -> None:
    attributes = Attributes.of_recipe(DUCK)
    own = caption(DUCK).split()
    for name, word in attributes.named.items():
        rivals = attributes.rival_captions(name, "duck")
        assert rivals[word] == caption(DUCK)
        assert len(set(rivals.values())) == len(rivals)
        for rival, text in rivals.items():
            if rival not in (word, "plain"):
                assert sum(mine != other for mine, other in zip(own, text.split(), strict=True)) == 1
    assert "white" not in attributes.rival_captions("colour", "duck"), "two of the same colour are no caption"
    assert len(attributes.rival_captions("accessory_colour", "duck")) == 10
    assert "scarf" not in Attributes(accessory="hat", accessory_colour="red").rival_captions("accessory", "clock")
