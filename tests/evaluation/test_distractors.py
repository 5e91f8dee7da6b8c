"""The captions that a user's description competes with."""

from __future__ import annotations

import pytest

from dreambooth3d.evaluation.distractors import competing_captions


@pytest.mark.parametrize(
    ("description", "noun"),
    [("a red and white can with a gold lid", "can"), ("a photo of a fluffy dog", "dog"), ("fluffy corgi", "dog")],
)
def test_two_hundred_of_which_sixty_share_class_or_look(description, noun):
    captions = competing_captions(description, noun)
    assert len(captions) == len(set(captions)) == 200
    assert description in captions[0] and noun in captions[0].split()
    assert sum(noun in caption.split() for caption in captions[1:]) >= 60
    before, after = captions[0].split(noun)
    before = before.removesuffix(" ").removesuffix(" a").removesuffix("a")
    same_look = [c for c in captions[1:] if c.startswith(before) and c.endswith(after) and noun not in c.split()]
    assert len(same_look) >= 60


def test_no_rival_is_as_true_as_the_description():
    captions = competing_captions("a black dog", "dog")
    assert not [caption for caption in captions[1:] if "black" in caption and "dog" in caption.split()]


def test_articles_fit():
    captions = competing_captions("a can", "can")
    assert "an apple" in captions and "a ball" in captions
