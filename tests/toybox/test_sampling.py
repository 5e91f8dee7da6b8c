"""Training batches are deterministic and say what they show."""

import torch

from dreambooth3d.cameras import VIEW_WORDS, view_word
from dreambooth3d.toybox.captions import caption
from dreambooth3d.toybox.recipes import COLOUR_NAMES
from dreambooth3d.toybox.sampling import CLASS_NAMES, TRAINING_SEEDS, UNSEEN_SEEDS, plan_batch, sample_batch


def test_same_seed_same_batch_other_seed_other_batch():
    first, again, other = sample_batch(6, 1, size=16), sample_batch(6, 1, size=16), sample_batch(6, 2, size=16)
    assert torch.equal(first.images, again.images) and first.captions == again.captions
    assert not torch.equal(first.images, other.images)
    assert first.images.dtype == torch.uint8 and first.images.shape == (6, 3, 16, 16)


def test_attributes_agree_with_full_captions_and_cameras():
    plan = plan_batch(300, 3, captioner=lambda recipe, view, random: caption(recipe, view))
    shown = plan.attributes
    for index, text in enumerate(plan.captions):
        assert f" {CLASS_NAMES[shown.class_index[index]]}" in text
        assert f"a {COLOUR_NAMES[shown.main[index]]} and {COLOUR_NAMES[shown.second[index]]}" in text
        view = VIEW_WORDS[shown.view[index]]
        assert view == view_word(float(shown.azimuth_deg[index]), float(shown.elevation_deg[index]))
        assert text.endswith(f", {view} view")
        assert ("wearing" in text) == (shown.accessory[index] >= 0)


def test_every_view_is_common_and_a_fifth_is_on_white():
    plan = plan_batch(3000, 4)
    shares = torch.bincount(plan.attributes.view, minlength=4) / 3000
    assert shares.min() > 0.12
    white = (plan.background == 1).flatten(1).all(1).float().mean()
    assert 0.16 < white < 0.24


def test_training_and_unseen_seeds_are_disjoint():
    assert TRAINING_SEEDS.stop <= UNSEEN_SEEDS.start
