"""Recipes: everything that determines a toybox subject, and which of them no training may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from random import Random
from typing import Any

from dreambooth3d.errors import ConfigError
from dreambooth3d.toybox.accessories import ACCESSORIES
from dreambooth3d.toybox.classes import CLASSES
from dreambooth3d.toybox.shapes import PATTERNS
from dreambooth3d.toybox.solids import COLOURS

RESERVED_CLASSES = ("mushroom", "whale")
RESERVED_PATTERNS = ("zigzag",)
RESERVED_ACCESSORIES = ("crown", "propeller")
RESERVED = frozenset((*RESERVED_CLASSES, *RESERVED_PATTERNS, *RESERVED_ACCESSORIES))

COLOUR_NAMES = tuple(COLOURS)
TRAINING_CLASSES = tuple(name for name in CLASSES if name not in RESERVED)
TRAINING_PATTERNS = tuple(name for name in PATTERNS if name not in RESERVED)
TRAINING_ACCESSORIES = tuple(name for name in ACCESSORIES if name not in RESERVED)
NO_SCARF = frozenset({"clock", "chair", "car", "house", "boat", "fish", "whale"})

HELD_OUT_COLOUR_PAIRS = frozenset(
    frozenset(pair)
    for pair in (
        ("orange", "white"), ("purple", "yellow"), ("green", "pink"), ("red", "blue"), ("brown", "yellow"),
        ("blue", "white"), ("black", "pink"), ("green", "orange"), ("red", "black"), ("purple", "white"),
        ("brown", "green"), ("blue", "orange"), ("red", "yellow"), ("purple", "pink"),
    )
)  # fmt: skip
HELD_OUT_ACCESSORIES = frozenset(
    {
        ("scarf", "blue"), ("hat", "green"), ("bow", "red"), ("flag", "yellow"), ("flower", "purple"),
        ("hat", "purple"), ("scarf", "yellow"), ("bow", "white"), ("flag", "black"), ("flower", "orange"),
        ("hat", "red"), ("scarf", "green"),
    }
)  # fmt: skip
HELD_OUT_SEEDS = range(2**31, 2**31 + 1000)


@dataclass(frozen=True)
class Recipe:
    """A toybox subject.

    Attributes:
        class_noun: a key of `CLASSES`.
        main, second: keys of `COLOURS`.
        pattern: one of `PATTERNS`, on the body, in the second colour.
        accessory, accessory_colour: a key of `ACCESSORIES` and a key of `COLOURS`, or both None.
        seed: seed of the proportions.
    """

    class_noun: str
    main: str
    second: str
    pattern: str = "plain"
    accessory: str | None = None
    accessory_colour: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        known = (
            ("class_noun", self.class_noun, CLASSES),
            ("main", self.main, COLOURS),
            ("second", self.second, COLOURS),
            ("pattern", self.pattern, PATTERNS),
            ("accessory", self.accessory, (None, *ACCESSORIES)),
            ("accessory_colour", self.accessory_colour, (None, *COLOURS)),
        )
        for name, value, choices in known:
            if value not in choices:
                raise ConfigError(f"toybox recipe: {name} {value!r} is unknown. Choose one of {list(choices)}.")
        if (self.accessory is None) != (self.accessory_colour is None):
            raise ConfigError("toybox recipe: give accessory and accessory_colour together, or neither.")
        if self.accessory == "scarf" and self.class_noun in NO_SCARF:
            raise ConfigError(f"toybox recipe: a {self.class_noun} cannot wear a scarf. Choose another accessory.")

    def to_dict(self) -> dict[str, object]:
        """Plain values for YAML."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Recipe:
        """Inverse of `to_dict`.

        Raises:
            ConfigError: a key or value is unknown.
        """
        try:
            return Recipe(**values)
        except TypeError as error:
            raise ConfigError(f"toybox recipe: {error}. The keys are {list(Recipe.__dataclass_fields__)}.") from error


def is_held_out(recipe: Recipe) -> bool:
    """Whether training must not see this recipe: its colours, accessory, seed or a reserved word is held out."""
    return (
        frozenset((recipe.main, recipe.second)) in HELD_OUT_COLOUR_PAIRS
        or (recipe.accessory, recipe.accessory_colour) in HELD_OUT_ACCESSORIES
        or recipe.seed in HELD_OUT_SEEDS
        or not RESERVED.isdisjoint((recipe.class_noun, recipe.pattern, recipe.accessory))
    )


def random_recipe(random: Random, reserved: bool = False) -> Recipe:
    """A random recipe that is not held out: half of them patterned, half with an accessory.

    Args:
        random: source of randomness.
        reserved: also draw the reserved classes, patterns and accessories, which the base model never sees but the
            scorers must know; colour pairs, accessories in their colours, and seeds stay held out.
    """
    class_noun = random.choice(_ALL_CLASSES if reserved else TRAINING_CLASSES)
    patterns = _ALL_PATTERNS if reserved else TRAINING_PATTERNS
    pattern = random.choice(patterns[1:]) if random.random() < 0.5 else "plain"
    main, second = random.choice(_TRAINING_PAIRS)
    accessory = colour = None
    if random.random() < 0.5:
        pairs = accessory_pairs(class_noun, reserved)
        accessory, colour = random.choice(pairs)
        while colour in (main, second):
            accessory, colour = random.choice(pairs)
    return Recipe(class_noun, main, second, pattern, accessory, colour, random.getrandbits(31))


_ALL_CLASSES = tuple(CLASSES)
_ALL_PATTERNS = tuple(PATTERNS)
_TRAINING_PAIRS = tuple(
    (main, second)
    for main in COLOUR_NAMES
    for second in COLOUR_NAMES
    if main != second and frozenset((main, second)) not in HELD_OUT_COLOUR_PAIRS
)


@cache
def accessory_pairs(class_noun: str, reserved: bool = False) -> tuple[tuple[str, str], ...]:
    """All (accessory, colour) that a class may wear in training, with the reserved accessories where asked for."""
    return tuple(
        (kind, colour)
        for kind in (ACCESSORIES if reserved else TRAINING_ACCESSORIES)
        for colour in COLOUR_NAMES
        if (kind, colour) not in HELD_OUT_ACCESSORIES and not (kind == "scarf" and class_noun in NO_SCARF)
    )


def rival_recipe(recipe: Recipe, random: Random) -> Recipe:
    """A recipe that differs from `recipe` in one or two things that a caption states, with nothing held out in it."""
    while True:
        rival = recipe
        for _ in range(random.choice((1, 1, 2))):
            rival = _edited(rival, random)
        pair = (rival.accessory, rival.accessory_colour)
        colours = frozenset((rival.main, rival.second))
        held_out = colours in HELD_OUT_COLOUR_PAIRS or pair in HELD_OUT_ACCESSORIES
        if rival != recipe and len(colours) == 2 and not held_out:
            return rival


def _edited(recipe: Recipe, random: Random) -> Recipe:
    """`recipe` with one thing drawn anew: main, second, both swapped, pattern, accessory, its colour, or the class."""
    edit = random.choice(("main", "second", "swap", "pattern", "pattern", "accessory", "accessory", "colour", "class"))
    if edit in ("main", "second"):
        return replace(recipe, **{edit: random.choice(COLOUR_NAMES)})
    if edit == "swap":
        return replace(recipe, main=recipe.second, second=recipe.main)
    if edit == "pattern":
        return replace(recipe, pattern=random.choice(_ALL_PATTERNS))
    if edit == "colour" and recipe.accessory is not None:
        return replace(recipe, accessory_colour=random.choice(COLOUR_NAMES))
    if edit == "class":
        nouns = [noun for noun in _ALL_CLASSES if recipe.accessory != "scarf" or noun not in NO_SCARF]
        return replace(recipe, class_noun=random.choice(nouns))
    if recipe.accessory is not None and random.random() < 0.3:
        return replace(recipe, accessory=None, accessory_colour=None)
    kind, colour = random.choice(accessory_pairs(recipe.class_noun, reserved=True))
    return replace(recipe, accessory=kind, accessory_colour=recipe.accessory_colour or colour)
