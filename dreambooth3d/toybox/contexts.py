"""What a context prompt asks for, in the words of the toybox's captions, and the true subject as it wants it.

Grammar, all parts but the noun optional; the identifier may stand anywhere:

    [a photo of] [a] [colour [and colour]] [pattern word] class [wearing|with a colour accessory]
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace

from dreambooth3d.errors import ConfigError
from dreambooth3d.toybox.accessories import ACCESSORIES
from dreambooth3d.toybox.captions import PREFIX
from dreambooth3d.toybox.recipes import COLOUR_NAMES, NO_SCARF, Recipe
from dreambooth3d.toybox.shapes import PATTERNS

_ARTICLE = "(?:an?|the)"
_COLOUR, _PATTERN, _ACCESSORY = ("|".join(words) for words in (COLOUR_NAMES, PATTERNS, ACCESSORIES))


@dataclass(frozen=True)
class Attributes:
    """How a subject looks, or what a prompt asks for: there None where it leaves the subject as it is.

    Attributes:
        colour, second_colour: main and second colour.
        pattern: on the body.
        accessory, accessory_colour: what it wears, both or neither.
    """

    colour: str | None = None
    second_colour: str | None = None
    pattern: str | None = None
    accessory: str | None = None
    accessory_colour: str | None = None

    @staticmethod
    def of_recipe(recipe: Recipe) -> Attributes:
        """All that a caption says of a toybox subject."""
        return Attributes(recipe.main, recipe.second, recipe.pattern, recipe.accessory, recipe.accessory_colour)

    @property
    def named(self) -> dict[str, str]:
        """The words that are known, by attribute."""
        return {name: word for name, word in asdict(self).items() if word is not None}

    def caption(self, class_noun: str) -> str:
        """A caption without identifier that says just this; a plain body has no pattern word there."""
        second = self.second_colour and f"and {self.second_colour}"
        pattern = None if self.pattern == "plain" else self.pattern
        worn = self.accessory and f"wearing a {self.accessory_colour} {self.accessory}"
        return " ".join(word for word in (PREFIX, self.colour, second, pattern, class_noun, worn) if word)

    def rival_captions(self, attribute: str, class_noun: str) -> dict[str, str]:
        """Captions that differ in one attribute only, by the word that they name for it; the own one is among them."""
        taken = {"colour": self.second_colour, "second_colour": self.colour}.get(attribute)
        words = {"pattern": PATTERNS, "accessory": tuple(ACCESSORIES)}.get(attribute, COLOUR_NAMES)
        possible = [word for word in words if word != taken and not (word == "scarf" and class_noun in NO_SCARF)]
        return {word: replace(self, **{attribute: word}).caption(class_noun) for word in possible}

    def applied_to(self, recipe: Recipe) -> Recipe | None:
        """The subject as the prompt wants it, or None where no such subject can be.

        It wears one thing, so that an accessory takes the place of what it wore.
        """
        fields = {"colour": "main", "second_colour": "second"}
        try:
            return replace(recipe, **{fields.get(name, name): word for name, word in self.named.items()})
        except ConfigError:
            return None  # such as a clock that wears a scarf


def parse_prompt(prompt: str, identifier: str, class_noun: str) -> Attributes | None:
    """Read a context prompt; None where it has a word that the toybox cannot express.

    Args:
        prompt: such as `a photo of a red sks duck wearing a blue hat`, in upper or lower case.
        identifier: the rare token, `sks`.
        class_noun: `duck`.
    """
    words = [word for word in prompt.lower().split() if word != identifier.lower()]
    look = rf"(?:(?P<colour>{_COLOUR}) (?:and (?P<second_colour>{_COLOUR}) )?)?(?:(?P<pattern>{_PATTERN}) )?"
    worn = rf"(?: (?:wearing|with) {_ARTICLE} (?P<accessory_colour>{_COLOUR}) (?P<accessory>{_ACCESSORY}))?"
    grammar = rf"(?:a photo of )?(?:{_ARTICLE} )?{look}{re.escape(class_noun.lower())}{worn}"
    found = re.fullmatch(grammar, " ".join(words))
    return Attributes(**found.groupdict()) if found else None
