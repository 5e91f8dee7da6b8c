"""The bundled networks' layers and weights: attention within a set, rounding, and what they say of unseen subjects."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreambooth3d.photos.masks.color_models import guided_filter, sharpen
from dreambooth3d.photos.networks.layers import SetAttention, load_int8, save_int8
from dreambooth3d.photos.networks.relative_views import BINS, MARGIN, RelativeViewNetwork, centred_cutouts
from dreambooth3d.photos.networks.subject_masks import SIZE, SubjectMaskNetwork, outline_box

BUNDLED = Path(__file__).parents[2] / "models" / "masks"


def overlap(masks: Tensor, truth: Tensor) -> Tensor:
    """(n,) intersection over union of bool masks."""
    return (masks & truth).sum((1, 2)) / (masks | truth).sum((1, 2))


def striped_set(seed: int) -> tuple[Tensor, Tensor]:
    """Five photos of a striped disc or bar before smooth noise, and where it is."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 256), torch.linspace(-1, 1, 256), indexing="ij")
    stripes = torch.rand(2, 3, 1, 1, generator=generator)
    images, masks = [], []
    for _ in range(5):
        noise = torch.rand(1, 3, 9, 9, generator=generator)
        behind = torch.nn.functional.interpolate(noise, size=(256, 256), mode="bicubic")[0].clamp(0, 1)
        left, up = (0.5 * torch.rand(2, generator=generator) - 0.25).tolist()
        mask = ((x - left).square() + ((y - up) * 0.8).square()) < 0.3
        which = (torch.sin(14 * (x - left)) > 0).float()
        images.append(torch.where(mask, stripes[0] * which + stripes[1] * (1 - which), behind))
        masks.append(mask)
    return torch.stack(images), torch.stack(masks)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_bundled_weights_find_what_photos_share(seed: int) -> None:
    """Discs of stripes are in none of the training's models."""
    images, truth = striped_set(seed)
    network = SubjectMaskNetwork.load(BUNDLED)
    first, sure = network.masks(images, torch.ones(5, 256, 256))
    assert first.shape == (5, 256, 256) and sure.shape == (5,)
    assert overlap(first > 0.5, truth).mean() > 0.85
    assert overlap(sharpen(images, first) > 0.5, truth).mean() > 0.9


def test_nothing_is_found_beyond_the_frame() -> None:
    images, _ = striped_set(3)
    frame = torch.ones(5, 256, 256)
    frame[:, :100] = 0
    masks, _ = SubjectMaskNetwork.load(BUNDLED).masks(images, frame)
    assert masks[:, :100].max() == 0


def test_weights_survive_rounding_to_eight_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    written, read = RelativeViewNetwork(), RelativeViewNetwork()
    path = tmp_path / "views" / "model.safetensors"
    save_int8(written, path)
    load_int8(read, path)
    assert path.stat().st_size < 1.1 * sum(each.numel() for each in written.parameters())
    for name, value in written.state_dict().items():
        step = value.flatten(1).abs().amax(1).max() / 127 if value.dim() > 1 else value.abs().max() * 2**-10
        assert (read.state_dict()[name] - value).abs().max() <= step * 0.51 + 1e-7, name


def test_photos_of_a_set_see_each_other_and_other_sets_do_not() -> None:
    torch.manual_seed(0)
    layer = SetAttention(32, 4)
    features = torch.randn(2, 3, 4, 32)
    before = layer(features)
    features[0, 2] = torch.randn(4, 32)
    after = layer(features)
    assert (after[0, 0] - before[0, 0]).abs().max() > 1e-6
    assert torch.equal(after[1], before[1])


def test_views_are_told_of_pairs_and_of_single_photos() -> None:
    pairs, single, elevation = RelativeViewNetwork()(torch.rand(2, 4, 4, 64, 64))
    assert pairs.shape == (2, 4, 4, BINS) and single.shape == (2, 4, BINS) and elevation.shape == (2, 4)


def test_cut_outs_have_the_subject_in_the_middle_and_nothing_around_it() -> None:
    mask = torch.zeros(1, 256, 256)
    mask[0, 20:120, 150:190] = 1
    cut = centred_cutouts(torch.full((1, 3, 256, 256), 0.7), mask)[0]
    rows, columns = (cut[3] > 0.5).any(1).nonzero(), (cut[3] > 0.5).any(0).nonzero()
    assert (rows.min() + rows.max()).item() == (columns.min() + columns.max()).item() == 63
    assert len(rows) == pytest.approx(64 / MARGIN, abs=1.1) and len(columns) == pytest.approx(25.6 / MARGIN, abs=1.1)
    torch.testing.assert_close(cut[:3], 0.7 * cut[3:].expand(3, -1, -1))


def test_box_of_an_outline() -> None:
    mask = torch.zeros(2, SIZE, SIZE)
    mask[0, 32:64, 64:96] = 1
    middle, half = outline_box(mask)
    torch.testing.assert_close(middle[0], torch.tensor([0.25, -0.25]), atol=1e-6, rtol=0)
    assert half[0].item() == pytest.approx(0.25 - 1 / SIZE, abs=1e-6) and half[1] == 1.0


def test_a_guided_filter_reproduces_what_is_linear_in_the_colours() -> None:
    """Then its local model holds exactly but for the regularisation; others are averaged."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 40, 40, generator=generator)
    linear = 0.2 + 0.3 * image[0] - 0.1 * image[2]
    assert (guided_filter(image, linear) - linear).abs().max() < 0.01
    flat = torch.full((3, 40, 40), 0.5)
    noise = torch.rand(40, 40, generator=generator)
    assert guided_filter(flat, noise).std() < 0.2 * noise.std()


def test_colours_complete_a_mask_that_misses_a_part() -> None:
    images, truth = striped_set(4)
    partial = truth.float()
    partial[:, :, 150:] *= 0.3
    before, after = overlap(partial > 0.5, truth).mean(), overlap(sharpen(images, partial) > 0.5, truth).mean()
    assert before < 0.85 and after > before + 0.1
    assert torch.equal(sharpen(images, partial), sharpen(images, partial))
