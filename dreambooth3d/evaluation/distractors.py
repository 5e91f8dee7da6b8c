"""Captions that a user's description competes with in R-precision, where no published set is known."""

from __future__ import annotations

import re

CAPTIONS = 200
SAME_CLASS = 70
SAME_LOOK = 70

COLORS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "black", "brown", "pink", "gray", "golden")
PATTERNS = ("", "striped ", "spotted ", "checked ", "small ", "old ", "shiny ")
NOUNS = (
    "airplane", "apple", "backpack", "bag", "ball", "banana", "basket", "bear", "bed", "bench", "bicycle", "bird",
    "boat", "book", "boot", "bottle", "bowl", "box", "bus", "cake", "camera", "can", "candle", "car", "cat", "chair",
    "clock", "couch", "cow", "cup", "desk", "dinosaur", "dog", "doll", "drum", "duck", "elephant", "fish", "flower",
    "fork", "frog", "glass", "glasses", "guitar", "hat", "helmet", "horse", "house", "jar", "kettle", "key", "knife",
    "lamp", "laptop", "lion", "monster", "mouse", "mug", "penguin", "phone", "piano", "pig", "plant", "rabbit",
    "robot", "sandal", "sheep", "shirt", "shoe", "sloth", "sneaker", "snowman", "spoon", "table", "teapot", "tiger",
    "toy", "train", "tree", "truck", "turtle", "umbrella", "vase", "violin", "watch", "whale", "wolf", "zebra",
)  # fmt: skip


def competing_captions(description: str, class_noun: str) -> list[str]:
    """200 different captions, the true one first.

    70 others keep its class but not its look (fewer only where the description names four colours or more), 70 keep its
    look, the words around the class noun, but are of another class, and the rest differ in both.

    Args:
        description: the subject's caption without identifier, such as `a red and white can with a gold lid`; a class
            noun that it lacks is appended to it.
        class_noun: such as `can`.
    """
    noun = re.compile(rf"\b{re.escape(class_noun)}\b", re.IGNORECASE)
    query = description if noun.search(description) else f"{description} {class_noun}"
    template = noun.sub("{}", query)
    prefix = "a photo of " if query.lower().startswith("a photo of ") else ""
    others = [other for other in NOUNS if other != class_noun.lower()]
    looks = [f"{prefix}{_article(look)} {look}" for look in _looks()]
    same_class = _unlike([f"{look} {class_noun}" for look in looks], query)
    same_look = [_fill(template, other) for other in others]
    # 7 shares no factor with the number of nouns, so that looks and nouns pair up without repeating early.
    neither = [f"{look} {others[7 * index % len(others)]}" for index, look in enumerate(looks)]
    captions = [query, *same_class[:SAME_CLASS], *same_look[:SAME_LOOK], *_unlike(neither, query), *neither]
    return list(dict.fromkeys(captions))[:CAPTIONS]


def _looks() -> list[str]:
    """Colours with patterns, the plain colours first."""
    return [f"{pattern}{color}" for pattern in PATTERNS for color in COLORS]


def _unlike(captions: list[str], description: str) -> list[str]:
    """Leave out captions whose colour the description names too: they could be just as true."""
    words = set(re.findall(r"\w+", description.lower()))
    return [caption for caption in captions if not words & set(caption.split()) & set(COLORS)]


def _fill(template: str, noun: str) -> str:
    """Put a noun into a template and mend the article before it."""
    return re.sub(r"\b[Aa]n? \{\}", f"{_article(noun)} {{}}", template).replace("{}", noun)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
