"""Held-out subjects never appear in training, and recipes survive YAML."""

from random import Random

import pytest
import yaml

from dreambooth3d.errors import ConfigError
from dreambooth3d.toybox.classes import CLASSES
from dreambooth3d.toybox.recipes import (
    COLOUR_NAMES,
    HELD_OUT_ACCESSORIES,
    HELD_OUT_COLOUR_PAIRS,
    NO_SCARF,
    RESERVED,
    TRAINING_CLASSES,
    Recipe,
    is_held_out,
    random_recipe,
)
from dreambooth3d.toybox.subjects import DEVELOPMENT_SUBJECTS, SHIPPED_SUBJECTS, SUBJECTS, TEST_SUBJECTS


def test_random_recipes_avoid_everything_held_out():
    random = Random(0)
    recipes = [random_recipe(random) for _ in range(20_000)]
    pairs = {frozenset((recipe.main, recipe.second)) for recipe in recipes}
    accessories = {(recipe.accessory, recipe.accessory_colour) for recipe in recipes}
    assert not pairs & HELD_OUT_COLOUR_PAIRS
    assert not accessories & HELD_OUT_ACCESSORIES
    assert not RESERVED & {word for r in recipes for word in (r.class_noun, r.pattern, r.accessory)}
    assert not {recipe.seed for recipe in recipes} & {recipe.seed for recipe in SUBJECTS.values()}
    assert {recipe.class_noun for recipe in recipes} == set(TRAINING_CLASSES)
    assert {recipe.main for recipe in recipes} == {recipe.second for recipe in recipes} == set(COLOUR_NAMES)


@pytest.mark.parametrize("name", SUBJECTS)
def test_subjects_are_held_out_by_colours_and_by_accessory(name: str):
    recipe = SUBJECTS[name]
    assert is_held_out(recipe)
    assert frozenset((recipe.main, recipe.second)) in HELD_OUT_COLOUR_PAIRS
    reserved_accessory = recipe.accessory in RESERVED
    assert reserved_accessory or (recipe.accessory, recipe.accessory_colour) in HELD_OUT_ACCESSORIES


def test_subject_tables_have_the_agreed_sizes():
    assert (len(SHIPPED_SUBJECTS), len(DEVELOPMENT_SUBJECTS), len(TEST_SUBJECTS)) == (6, 6, 8)
    assert len({recipe.class_noun for recipe in TEST_SUBJECTS.values()}) >= 6
    assert len({recipe.seed for recipe in SUBJECTS.values()}) == len(SUBJECTS)


def test_the_public_photo_sets_class_nouns_are_there():
    assert {"dog", "cat", "clock", "can", "duck", "vase", "teapot"} <= set(TRAINING_CLASSES)
    assert len(TRAINING_CLASSES) >= 16


def test_scarves_are_refused_exactly_where_a_class_has_no_neck():
    assert {noun for noun, program in CLASSES.items() if program(Random(0)).neck is None} == NO_SCARF
    with pytest.raises(ConfigError, match="cannot wear a scarf"):
        Recipe("house", "red", "white", "plain", "scarf", "blue")


def test_yaml_round_trip():
    for recipe in SUBJECTS.values():
        assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    "values", [{"class_noun": "dragon", "main": "red", "second": "blue"}, {"class_noun": "dog", "colour": "red"}]
)
def test_unknown_values_and_keys_are_named(values: dict[str, str]):
    with pytest.raises(ConfigError, match="toybox recipe"):
        Recipe.from_dict(values)
