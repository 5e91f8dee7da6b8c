"""Composed photo sets: what the random changes do to things and backgrounds whose looks are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dreambooth3d.errors import ConfigError
from dreambooth3d.photos.networks.layers import save_int8
from dreambooth3d.photos.networks.subject_masks import SIZE, SubjectMaskNetwork
from dreambooth3d.toybox.pretraining import backdrops, composites, stages
from dreambooth3d.toybox.pretraining.backdrops import Backdrops
from dreambooth3d.toybox.pretraining.composites import PHOTOS, Composer
from dreambooth3d.toybox.pretraining.draws import Draws
from dreambooth3d.toybox.pretraining.view_sets import VIEWS, ViewSets

CPU = torch.device("cpu")
THING_PX = 96


def discs(things: int = 3, radius: float = 0.7, colour: tuple[float, float, float] = (0.8, 0.3, 0.2)) -> ViewSets:
    """Things that are an even disc from every side."""
    line = torch.linspace(-1, 1, THING_PX)
    alpha = ((line[:, None].square() + line.square()).sqrt() < radius).float()[None]
    layer = (255 * torch.cat([torch.tensor(colour).view(3, 1, 1) * alpha, alpha])).round().to(torch.uint8)
    angles = torch.zeros(things, VIEWS)
    return ViewSets(layer.expand(things, VIEWS, -1, -1, -1), angles, angles, torch.ones(things, dtype=torch.bool))


def pictures(count: int = 4) -> Tensor:
    """Smooth noise of all colours."""
    return (255 * F.interpolate(torch.rand(count, 3, 6, 6), size=(256, 256), mode="bilinear")).to(torch.uint8)


def only(monkeypatch: pytest.MonkeyPatch, **shares: float) -> Composer:
    """A composer of discs in which only these changes occur, in this share of the cases."""
    for module in (backdrops, composites):
        for name in vars(module):
            if name.endswith("_SHARE"):
                monkeypatch.setattr(module, name, shares.get(name, 0.0))
    torch.manual_seed(0)
    return Composer(discs(), pictures(), SIZE)


def outline_px(masks: Tensor) -> Tensor:
    """(n,) pixels on the outlines of (n, h, w) masks, for each that a circle of their area has."""
    inside = (masks > 0.5).float()
    edge = (F.max_pool2d(inside[:, None], 3, 1, 1)[:, 0] - inside).sum((1, 2))
    return edge / (torch.pi * inside.sum((1, 2)).clamp(min=1)).sqrt()


def whole(masks: Tensor) -> Tensor:
    """Those of (n, h, w) masks that the frame does not cut, and of some size."""
    rim = torch.cat([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], dim=1).amax(1)
    return masks[(rim < 0.01) & (masks.sum((1, 2)) > 800)]


def test_photos_are_pictures_and_nothing_is_the_subject_beyond_the_frame() -> None:
    torch.manual_seed(0)
    photos = Composer(discs(), pictures(), SIZE).compose(6)
    assert photos.images.shape == (6, PHOTOS, 3, SIZE, SIZE) and photos.masks.shape == photos.frame.shape
    for values in (photos.images, photos.masks):
        assert values.isfinite().all() and values.min() >= 0 and values.max() <= 1
    assert (photos.frame == 0).any() and photos.masks[photos.frame == 0].max() == 0


def test_a_plain_composite_is_the_background_around_the_masks_and_the_subject_in_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without any change but the camera's blur and exposure an even disc is even, and its mask is a disc."""
    photos = only(monkeypatch).compose(8)
    images, masks = photos.images.flatten(0, 1), photos.masks.flatten(0, 1)
    assert outline_px(whole(masks)).sub(8 / torch.pi).abs().max() < 0.25, (
        "8 r of a disc, which may be stretched a little"
    )
    core = F.avg_pool2d((masks > 0.999).float()[:, None], 9, 1, 4)[:, 0] > 0.999
    smooth = F.avg_pool2d(images, 9, 1, 4)
    spread = [smooth[index, 0][core[index]].std() for index in range(len(images)) if core[index].sum() > 200]
    behind = [smooth[index, 0][masks[index] == 0].std() for index in range(len(images))]
    assert torch.stack(behind).mean() > 0.05 and torch.stack(spread).mean() < 0.4 * torch.stack(behind).mean()


def test_hair_frays_outlines(monkeypatch: pytest.MonkeyPatch) -> None:
    sleek = outline_px(whole(only(monkeypatch).compose(8).masks.flatten(0, 1))).mean()
    furry = outline_px(whole(only(monkeypatch, FURRY_SHARE=1.0).compose(8).masks.flatten(0, 1))).mean()
    assert furry > 1.15 * sleek


def test_strands_are_drawn_out_along_their_own_direction() -> None:
    """Going on in its direction a vector changes less than across it, so that divergence is small against rotation.

    Of white noise both are equal, and both are the same however the field is turned.
    """
    torch.manual_seed(0)
    strands = Draws(CPU).strands(64, 64)
    assert strands.std().item() == pytest.approx(0.85, abs=0.15)
    down, right = torch.gradient(strands, dim=(2, 3))
    divergence, curl = right[:, 0] + down[:, 1], right[:, 1] - down[:, 0]
    assert divergence.square().mean() < 0.5 * curl.square().mean()


def test_subjects_may_have_the_colour_of_what_is_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def contrast(share: float) -> float:
        composer = only(monkeypatch, LIKE_BACKGROUND_SHARE=share, SAME_PLACE_SHARE=1.0, PLAIN_SHARE=1.0)
        photos = composer.compose(24)
        images, masks = photos.images, photos.masks[:, :, None]
        inside = (images * masks).sum((1, 3, 4)) / masks.sum((1, 3, 4))
        outside = (images * (1 - masks)).sum((1, 3, 4)) / (1 - masks).sum((1, 3, 4))
        return (inside - outside).norm(dim=1).mean().item()

    assert contrast(1.0) < 0.7 * contrast(0.0)


def test_a_surface_begins_near_the_feet_and_is_the_same_in_all_photos_of_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, SURFACE_SHARE=1.0, PLAIN_SHARE=1.0)
    made = Backdrops(torch.full((2, 3, 64, 64), 255, dtype=torch.uint8), SIZE, PHOTOS)
    monkeypatch.setattr(made, "_walls", lambda count: torch.zeros(count, 3, SIZE, SIZE))
    scenes = made.of_sets(6, torch.full((6 * PHOTOS,), 0.5))
    assert scenes[:, :, : SIZE // 5].max() == 0, "above the subject's foot by more than 0.8 plus the lean"
    floors = scenes[:, :, -4:].mean((2, 3)).unflatten(0, (6, PHOTOS))
    assert floors.min() > 0 and floors.std(1).max() < 0.02


@pytest.mark.parametrize("kind", ["REFLECTED_SHARE", "CONTACT_SHARE", "SHADOW_SHARE"])
def test_what_lies_below_a_subject_is_not_the_subject(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shadows and reflections change what is around the masks and leave the masks alone."""
    photos = []
    for share in (0.0, 1.0):
        composer = only(monkeypatch, **{kind: share})
        monkeypatch.setattr(composer, "_taken", lambda images: images)
        photos.append(composer.compose(6))
    without, with_it = photos
    torch.testing.assert_close(without.masks, with_it.masks)
    changed = (without.images - with_it.images).abs().amax(2)
    assert changed[without.masks == 0].max() > 0.05 and changed[without.masks == 1].max() < 1e-6


def test_training_goes_on_from_trained_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMBOOTH3D_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(stages, "_things", lambda job: discs())
    monkeypatch.setattr(stages, "pack_view_sets", lambda *of: discs())
    monkeypatch.setattr(stages, "cutout_view_sets", lambda *of: discs())
    monkeypatch.setattr(stages, "pack_backgrounds", lambda *of: pictures())
    monkeypatch.setattr(stages, "mask_figures", lambda *of: {})
    torch.manual_seed(3)
    trained = SubjectMaskNetwork()
    save_int8(trained, tmp_path / "models" / "masks" / "model.safetensors")
    (tmp_path / "models" / "toybox").mkdir()
    stages.pretrain(["masks"], tmp_path / "more", steps=2, device="cpu", start=tmp_path / "models")
    found = SubjectMaskNetwork.load(tmp_path / "more" / "masks")
    off = torch.cat([(a - b).flatten() for a, b in zip(found.parameters(), trained.parameters(), strict=True)])
    assert 0 < off.abs().max() < 0.01, "two steps' worth"


def test_what_training_cannot_go_on_from_is_said(tmp_path: Path) -> None:
    (tmp_path / "models" / "toybox").mkdir(parents=True)
    for stage in ("masks", "views"):
        with pytest.raises(ConfigError, match=rf"{stage}.model\.safetensors is not there, from which {stage} was to"):
            stages.pretrain([stage], tmp_path / "more", device="cpu", start=tmp_path / "models")
