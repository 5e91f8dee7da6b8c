"""The toybox language: captions of recipes, the complete vocabulary, and captions for retrieval.

Grammar, all parts but the noun optional; the noun is a class or a generic one:

    a photo of a [main [and second]] [pattern word] [identifier] noun [wearing a colour accessory][, view word view]
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from dreambooth3d.cameras import VIEW_WORDS
from dreambooth3d.toybox.accessories import ACCESSORIES
from dreambooth3d.toybox.classes import CLASSES
from dreambooth3d.toybox.recipes import COLOUR_NAMES, NO_SCARF, TRAINING_ACCESSORIES, TRAINING_CLASSES, Recipe
from dreambooth3d.toybox.shapes import PATTERNS

PREFIX = "a photo of a"
IDENTIFIERS = ("sks", "zwx", "ohwx", "xjy", "qlv")
KINDS = {
    "object": ("clock",),
    "toy": (),
    "animal": ("dog", "cat", "duck", "fish", "rabbit", "whale"),
    "vehicle": ("car", "boat", "rocket"),
    "container": ("can", "vase", "teapot", "mug"),
    "furniture": ("chair", "lamp"),
    "character": ("snowman", "robot"),
    "building": ("house",),
    "plant": ("mushroom",),
    "food": (),
}
"""Generic nouns, which name things of any shape, and the toybox's classes that each names; every class has one."""
GENERIC_NOUNS = tuple(KINDS)
KIND_OF = {class_noun: kind for kind, classes in KINDS.items() for class_noun in classes}
VOCABULARY = (
    *("a", "photo", "of", "and", "wearing", "view", ","),
    *VIEW_WORDS,
    *COLOUR_NAMES,
    *PATTERNS,
    *ACCESSORIES,
    *CLASSES,
    *GENERIC_NOUNS,
    *IDENTIFIERS,
)
PUBLISHED_CAPTIONS = 200
_SHARING_CLASS = 70
_SHARING_COLOURS = 70
GENERIC_SHARE = 0.08


def tokens(text: str) -> list[str]:
    """The words of a caption; a comma is a word of its own."""
    return text.replace(",", " , ").split()


def caption(
    recipe: Recipe,
    view: str | None = None,
    *,
    colours: int = 2,
    pattern: bool = True,
    accessory: bool = True,
    identifier: str | None = None,
    noun: str | None = None,
) -> str:
    """Describe a recipe.

    Args:
        recipe: the subject.
        view: one of the view words, or None.
        colours: how many colours are named, 0 to 2.
        pattern: name the pattern (a plain body has none).
        accessory: name the accessory, where there is one.
        identifier: a rare token before the class noun.
        noun: in place of the class noun.

    Returns:
        For example "a photo of a red and white striped dog wearing a blue hat, front view".
    """
    named = (recipe.main, f"and {recipe.second}")[:colours]
    pattern_word = recipe.pattern if pattern and recipe.pattern != "plain" else None
    words = [PREFIX, *named, pattern_word, identifier, noun or recipe.class_noun]
    if accessory and recipe.accessory is not None:
        words.append(f"wearing a {recipe.accessory_colour} {recipe.accessory}")
    text = " ".join(word for word in words if word)
    return f"{text}, {view} view" if view else text


def random_caption(recipe: Recipe, view: str, random: Random) -> str:
    """A caption with parts left out at random.

    8 % are empty, for classifier-free guidance; 3 % hold a random identifier, so that the identifiers' embeddings
    are trained to mean nothing; `GENERIC_SHARE` name a generic noun in place of the class.
    """
    if random.random() < 0.08:
        return ""
    return caption(
        recipe,
        view if random.random() < 0.85 else None,
        colours=random.choices((0, 1, 2), (0.2, 0.25, 0.55))[0],
        pattern=random.random() < 0.7,
        accessory=random.random() < 0.75,
        identifier=random.choice(IDENTIFIERS) if random.random() < 0.03 else None,
        noun=generic_noun(recipe, random) if random.random() < GENERIC_SHARE else None,
    )


def generic_noun(recipe: Recipe, random: Random) -> str:
    """The kind that a recipe's class is of, or at times `toy` or `object`, which all subjects of the toybox are."""
    return random.choices((KIND_OF[recipe.class_noun], "toy", "object"), (0.7, 0.15, 0.15))[0]


def published_captions(recipe: Recipe) -> list[str]:
    """The retrieval set of one subject, the same on every call.

    Returns:
        200 distinct captions without view words: the true one, at least 60 others that share the class, at least 60
        that share both colours. Their order says nothing about which is true.
    """
    truth = caption(recipe)
    random = Random(zlib.crc32(truth.encode()))
    chosen = dict.fromkeys([truth])
    for distractors, limit in (
        (_distractors(recipe, random, keep="class"), 1 + _SHARING_CLASS),
        (_distractors(recipe, random, keep="colours"), 1 + _SHARING_CLASS + _SHARING_COLOURS),
        (_distractors(recipe, random, keep="nothing"), PUBLISHED_CAPTIONS),
    ):
        while len(chosen) < limit:
            chosen.setdefault(caption(next(distractors)))
    captions = list(chosen)
    random.shuffle(captions)
    return captions


def _distractors(recipe: Recipe, random: Random, keep: str) -> Iterator[Recipe]:
    """Endless random recipes that keep the class, both colours, or nothing of `recipe`."""
    while True:
        class_noun = recipe.class_noun if keep == "class" else random.choice(TRAINING_CLASSES)
        main, second = (recipe.main, recipe.second) if keep == "colours" else random.sample(COLOUR_NAMES, 2)
        other = Recipe(class_noun, main, second, random.choice((recipe.pattern, *PATTERNS[:4])))
        yield replace(other, **_random_accessory(recipe, class_noun, random))


def _random_accessory(recipe: Recipe, class_noun: str, random: Random) -> dict[str, str | None]:
    """No accessory, the recipe's own kind or any other; the recipe's own colour in a third of the cases."""
    choices = [kind for kind in (*TRAINING_ACCESSORIES, recipe.accessory) if kind]
    kind = random.choice(choices)
    if random.random() < 0.3 or (kind == "scarf" and class_noun in NO_SCARF):
        return {"accessory": None, "accessory_colour": None}
    own = recipe.accessory_colour if random.random() < 0.33 else None
    return {"accessory": kind, "accessory_colour": own or random.choice(COLOUR_NAMES)}
