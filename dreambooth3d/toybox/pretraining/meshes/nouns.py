"""Generic nouns of things, from the words of their names and folders."""

from __future__ import annotations

import re
from itertools import pairwise

from dreambooth3d.toybox.captions import GENERIC_NOUNS

NOUNS = GENERIC_NOUNS

_WORDS = {
    "toy": (
        "rockinghorse toy teddy teddybear doll puzzle rocking xylophone rubik basketball soccer football ball snowman "
        "tricycle trampoline skateboard seesaw chess chessboard cards game nesting woodtoy traintoy lego "
        "gift plush kart karts"
    ),
    "food": (
        "butter bread burger hamburger hotdog icecream cake cupcake apples apple fruit fruits salad "
        "roasted sushi sugar banana pizza pumpkin melon mushroom mushrooms candy donut cheese cookie egg "
        "berry yogurt muffin cocoa bonus fig berries"
    ),
    "animal": (
        "sow hog horse dog cat bulldog deer rabbit chicken animal animals fauna bear elephant camel sheep "
        "goat pig boar wolf lion tiger zebra giraffe rhino hippo crocodile fish whale shark bird eagle "
        "seal walrus donkey bull cattle pony monkey snake spider dragon penguin puffy kiki tux turtle "
        "crab dolphin hen rooster sanglier bee bees griffin scorpion behemoth drakerider tarantula "
        "wildebeest gazelle muskox peacock ostrich zebu alligator siamese kitten hound cavalry"
    ),
    "vehicle": (
        "trijet jet car cars truck trucks bus van scooter motorbike bike bicycle vehicle vehicles "
        "aircraft plane biplane airplane heli helicopter ship boat rowboat tank train tram sedan suv "
        "beetle ford renault peugeot smart chevrolet yamaha forklift locomotive tanker lorry jeep "
        "bulldozer dozer cart chariot trireme ferry yacht tug sailboat wagon tractor harvester "
        "combineharvester airship ornithopter ufo dropship interceptor balloon camper pickup quinquereme "
        "catapult ballista ram siege hovercraft railcar abrams drop inter transporter maritime pushback "
        "transport geometry wheelchair stroller merchant galley longboat canoe raft minecart"
    ),
    "container": (
        "box boxes barrel barrels crate crates bottle jar vase vases can cup mug glass bowl pot pottery "
        "basket bin trash trashcan dustbin garbage suitcase briefcase backpack handbag chest trunk safe "
        "mailbox container containers bucket flacon kettle potty aquarium bag tin jug amphora amphorae "
        "urn pallet wheelbarrow sack keg drum cardboard milk tub drums oiltank gastank"
    ),
    "furniture": (
        "bed chair table sofa couch bench stool desk shelf shelves bookcase wardrobe cupboard cabinet "
        "drawers dresser seat crib lamp lounge futon bathtub bath toilet toilets washbasin sink oven "
        "stove refrigerator fridge radiator vanity furniture bidet urinal fireplace piano ottoman mirror "
        "chandelier furnace tatami deckchair lavatory hammock bedside nightstand workbench bank bunk "
        "throne"
    ),
    "building": (
        "house hut castle tower barracks temple wall gate building buildings factory church shed stable "
        "barn windmill bridge lighthouse fortress farm market library hangar school skyscraper "
        "residential commercial industrial structures structural structs structure bunker tent garage "
        "chapel pagoda ruin ruins well fountain storehouse mausoleum pyramid obelisk monument stoa "
        "theatre shrine dock arsenal forge academy gymnasium tavern villa palace apartment terrace "
        "immeuble tour townhouse airport agriculture power armory tomb townhall silo lab laboratories"
    ),
    "plant": (
        "farn baum phoenix kaktusbusch ferntree bushtree deadtree deadfern plant tree trees flower "
        "flowers bush cactus palm fern ficus bonsai bamboo orchids tulips yucca acacia hedge lily flora "
        "poplar pine oak birch birke reeds grass succulent spathiphyllum shrub cypress tanne baobab "
        "willow vegi leaves autumntree palmtree pinetree bushes bananaplant weed ivy lavender"
    ),
    "character": (
        "monster security character characters male female man woman boy girl mannequin unit units worker "
        "archer swordman guard initiate soldier civilian civilians alien aliens golem daemon knight "
        "warrior player players priest wizard general gladiator slave technician thrall shaman princess "
        "statue statues skeleton konqi sara amanda gavroche nolok pidgin wilber emule adiumy xue hexley"
    ),
    "object": (
        "brush dispenser extinguisher guitar headphones camera phone laptop keyboard imac ibook pc iphone "
        "spotlight socket switch plug clock candle stone rock cannon antlers paper bat racket net speaker "
        "radio tv hook rope"
    ),
}
_NOUN_OF = {word: noun for noun, words in _WORDS.items() for word in words.split()}

BENCHMARK_MESHES = frozenset(
    "bob cow spot avocado armchair fuze duck boombox waterbottle lantern damagedhelmet bunny teapot suzanne corset fox "
    "stanford buddha armadillo utah".split()
)
"""Words in the names of meshes that others test with: none of them may be trained on."""


def words_of(name: str) -> list[str]:
    """The words of a file's name or path, in small letters, without endings of number and plural signs."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [word for word in re.split(r"[^a-z]+", spaced.lower()) if word]


def generic_noun(*names: str) -> str:
    """The noun of the first name, most telling first, that has a word known here; `object` otherwise.

    Of one name the last known word counts, as a horse box is a container; before it two words that make one, as a hot
    dog is food.
    """
    for name in names:
        words = words_of(name)
        pairs = [first + second for first, second in pairwise(words)]
        known = [word for word in words if word in _NOUN_OF] + [pair for pair in pairs if pair in _NOUN_OF]
        if known:
            return _NOUN_OF[known[-1]]
    return "object"


def is_benchmark(name: str) -> bool:
    """Whether a mesh of this name is one that others test with."""
    joined = "".join(words_of(name))
    return not BENCHMARK_MESHES.isdisjoint(words_of(name)) or any(
        word in joined
        for word in ("boombox", "waterbottle", "damagedhelmet", "suzanne", "avocado", "teapot", "armchair")
    )
