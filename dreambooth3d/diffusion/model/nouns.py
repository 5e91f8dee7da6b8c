"""Nouns in place of one that a base model does not know: what is built or shaped alike, and generic ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches

_LIKE = {
    "dog": (
        "puppy hound corgi poodle terrier bulldog dachshund husky labrador retriever beagle pug wolf fox coyote cow "
        "bull calf horse pony foal donkey mule goat sheep lamb pig boar deer elk moose camel llama alpaca zebra "
        "giraffe lion tiger elephant rhino hippo bear hedgehog animal"
    ),
    "cat": (
        "kitten kitty lion tiger leopard cheetah panther lynx fox raccoon squirrel owl monkey ape gorilla panda koala "
        "bear animal pet"
    ),
    "rabbit": (
        "bunny hare kangaroo squirrel mouse rat hamster chipmunk beaver plush teddy teddybear bear koala panda doll "
        "toy animal pet"
    ),
    "duck": (
        "duckling goose swan chicken hen rooster chick bird parrot pigeon dove sparrow eagle owl penguin flamingo "
        "turkey peacock ostrich pelican seagull dinosaur dragon animal"
    ),
    "fish": (
        "goldfish koi shark dolphin seal salmon trout turtle crab lobster octopus shrimp snake lizard crocodile "
        "alligator frog toad whale animal banana"
    ),
    "car": (
        "taxi cab truck lorry van bus suv jeep pickup sedan limousine ambulance tractor bulldozer excavator digger "
        "train locomotive tram wagon cart trolley bike bicycle motorbike motorcycle scooter tricycle skateboard "
        "stroller pram tank vehicle shoe sneaker boot sandal slipper trainer toy iron"
    ),
    "boat": (
        "ship yacht canoe kayak sailboat ferry tugboat raft submarine vehicle shoe sneaker boot sandal slipper heel "
        "clog trainer banana bathtub sink sled violin guitar plane airplane aeroplane aircraft"
    ),
    "rocket": (
        "spaceship spacecraft shuttle missile plane airplane aeroplane aircraft jet helicopter drone vehicle pen "
        "pencil marker lighthouse tower umbrella carrot knife sword hammer screwdriver toothbrush brush "
        "corkscrew"
    ),
    "house": (
        "cottage cabin hut barn shed castle palace church temple tower building skyscraper lighthouse windmill garage "
        "tent birdhouse dollhouse box crate chest mailbox cupboard cabinet bookcase wardrobe dresser fridge "
        "refrigerator oven stove microwave toaster television tv monitor radio speaker suitcase printer cake bread"
    ),
    "chair": (
        "armchair sofa couch seat stool bench throne recliner table desk bed cot crib swing wheelchair furniture "
        "ottoman shelf ladder piano"
    ),
    "lamp": (
        "lantern light lightbulb bulb candle candlestick torch flashlight chandelier spotlight umbrella parasol "
        "mushroom tree plant flower rose tulip cactus palm bonsai fan microphone telescope trumpet"
    ),
    "vase": (
        "urn jar jug pitcher bottle flask amphora pot planter flowerpot bowl bucket basket pottery decanter carafe "
        "goblet chalice trophy sculpture statue bust egg fruit apple pear orange lemon avocado pineapple pumpkin "
        "tomato onion pepper wineglass bell hat helmet container"
    ),
    "mug": (
        "cup glass tumbler beaker bowl bucket tankard jug pitcher saucer pot pan saucepan basket bag handbag purse "
        "backpack rucksack coffee tea container"
    ),
    "can": (
        "tin bottle barrel drum keg cylinder battery canister thermos jar tube roll cup candle bin trashcan carton "
        "box soda cola beer spray shampoo shaker backpack rucksack bag suitcase extinguisher camera container burger "
        "sandwich cushion pillow"
    ),
    "teapot": "kettle coffeepot pot jug pitcher tureen pump tap faucet",
    "clock": (
        "watch alarm timer stopwatch compass gauge plate dish coin medal wheel tire tyre ball football basketball "
        "globe mirror frame picture painting badge phone smartphone cellphone radio camera book keyboard laptop "
        "computer drum pizza donut cookie"
    ),
    "robot": (
        "android droid cyborg figurine figure doll toy soldier knight man woman person boy girl child human character "
        "astronaut monster dinosaur dragon mannequin statue superhero jacket dress shirt"
    ),
    "snowman": "doll figurine figure teddy penguin santa gnome baby buddha person character statue bust pawn pineapple",
}
"""Nouns of the embedded base model, and what is most like each."""
_GENERIC = {
    "animal": "dog cat rabbit duck fish",
    "vehicle": "car boat rocket",
    "container": "can mug vase teapot",
    "furniture": "chair lamp",
    "building": "house",
    "character": "robot snowman",
    "toy": "robot rabbit",
    "plant": "tree plant flower rose tulip cactus palm bonsai",
    "food": (
        "food egg fruit apple pear orange lemon banana avocado pineapple pumpkin tomato onion pepper carrot mushroom "
        "cake bread burger sandwich pizza donut cookie"
    ),
    "object": "",
}
"""Generic nouns, which a base model of a broader world knows, and what is one; the last fits anything."""
_ANYTHING = list(_GENERIC)[-1]
_PLENTY = 4


def nearest_nouns(noun: str, is_known: Callable[[str], bool]) -> list[str]:
    """Known nouns in place of an unknown one, nearest first; empty where nothing is known of it.

    At most four, and then `object`, which fits anything, where that is known.

    Args:
        noun: one or several words, the last of which says what the thing is (`garden gnome`); typing errors are
            forgiven.
        is_known: whether the base model knows a word.
    """
    words = list(reversed(noun.lower().split()))
    found = [word for word in words if word in _LIKE]
    for word in words:
        if meant := _meant(word):
            found += [meant, *(near for near, like in _LIKE.items() if meant in like.split())]
    found += [generic for generic, kinds in _GENERIC.items() if not set(kinds.split()).isdisjoint(found)]
    near = [each for each in dict.fromkeys(found) if is_known(each)][:_PLENTY]
    return [*near, _ANYTHING] if near and is_known(_ANYTHING) else near


def noun_of_prompt(prompt: str, is_known: Callable[[str], bool] | None = None) -> str:
    """What kind of thing a prompt is about: its first word that is a noun of the table, else its first part's last.

    Args:
        prompt: such as `a photo of a red snowman wearing a blue hat`.
        is_known: whether the model that is to draw it knows a word; None where its vocabulary is open. Where it is not,
            only a noun that the embedded base model has learned will do.

    Returns:
        The noun; with `is_known` it may be one that is not known, for want of a better one.
    """
    words = re.findall(r"[\w'-]+", prompt.lower())
    learned = {*_LIKE, *_GENERIC} if is_known is None else {word for word in (*_LIKE, *_GENERIC) if is_known(word)}
    if found := [word for word in words if word in learned]:
        return found[0]
    subject = re.split(r"[,.;:]| (?:wearing|with|on|in|at|under|over|that|which|made|holding) ", prompt.lower())[0]
    last = re.findall(r"[\w'-]+", subject)
    return last[-1] if last else ""


def common_nouns(is_known: Callable[[str], bool]) -> list[str]:
    """The nouns of the embedded base model, and generic ones, that a base model knows."""
    return [each for each in (*_LIKE, *_GENERIC) if is_known(each)]


def _meant(word: str) -> str | None:
    """The noun of the table that a word is, in the singular and spelled correctly; None where it is none."""
    known = {*_LIKE, *_GENERIC, *(word for like in _LIKE.values() for word in like.split())}
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        if form in known:
            return form
    close = get_close_matches(word, sorted(known), n=1, cutoff=0.85)
    return close[0] if close else None
