"""Which source's mask a photo gets, against true masks; networks are stand-ins that know or deny the truth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from dreambooth3d.config.photos import PhotoModels, PhotosConfig
from dreambooth3d.errors import ConfigError
from dreambooth3d.photos.masks import bundled, choose, learned, rembg
from dreambooth3d.photos.masks.choose import choose_masks, mask_models
from dreambooth3d.photos.masks.source import Mask, PhotoMask, SourcePhoto, cut_share, overlap
from dreambooth3d.photos.networks.weights import WEIGHTS
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import casual_photos, photo_cameras, subject_recipe

SIZE = 128


@cache
def toy(name: str) -> tuple[list[SourcePhoto], list[Mask]]:
    """A subject's photos, and its true masks."""
    images = (casual_photos(name, SIZE).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    truth = render_views(subject_recipe(name), photo_cameras(name), None, SIZE).mask
    masks = (truth.float() * 255).round().byte().numpy()
    return [SourcePhoto(Path(f"{index}.png"), image) for index, image in enumerate(images)], list(masks)


def cluttered(photos: Sequence[SourcePhoto], masks: Sequence[Mask]) -> list[SourcePhoto]:
    """The same subjects before noise."""
    rng = np.random.default_rng(0)
    shares = [mask[..., None] / 255.0 for mask in masks]
    noise = [rng.integers(0, 256, (SIZE, SIZE, 3)) for _ in photos]
    pixels = [
        (photo.pixels * share + behind * (1 - share)).astype(np.uint8)
        for photo, share, behind in zip(photos, shares, noise, strict=True)
    ]
    return [SourcePhoto(photo.path, each) for photo, each in zip(photos, pixels, strict=True)]


class Says:
    """A network that returns given masks."""

    def __init__(self, masks: Sequence[Mask], confidence: float = 0.8) -> None:
        self.found = [PhotoMask(mask, confidence, trusted=confidence > 0.6) for mask in masks]

    def masks(self, photos: Sequence[SourcePhoto]) -> list[PhotoMask | None]:
        return list(self.found[: len(photos)])


def with_networks(monkeypatch: pytest.MonkeyPatch, **networks: Says) -> PhotoModels:
    monkeypatch.setattr(choose, "_network", lambda name, config, models: networks[name])
    return PhotoModels(**dict.fromkeys(networks, "sha256:0"))


@pytest.mark.parametrize("name", ["android", "bunny", "taxi"])
def test_plain_backdrops_are_told_by_themselves_and_their_masks_are_true(name: str) -> None:
    photos, truth = toy(name)
    chosen = choose_masks(photos, PhotosConfig(), PhotoModels())
    assert {each.source for each in chosen} == {"smooth_background"}
    assert all(each.mask.trusted for each in chosen)
    cut = ["the frame cuts the subject" in " ".join(each.findings) for each in chosen]
    assert cut == [cut_share(mask) > 0.03 for mask in truth] and any(cut) == (name == "bunny")
    assert all(len(each.findings) == said for each, said in zip(chosen, cut, strict=True))
    assert min(overlap(each.mask.mask, mask) for each, mask in zip(chosen, truth, strict=True)) > 0.85


def test_what_is_behind_a_handle_is_not_the_subject() -> None:
    """A ring as wide as a chair's legs; its hole shows the backdrop."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5
    radius = np.hypot(x, y)
    ring = (radius < 50) & (radius > 30)
    pixels = np.where(ring[..., None], (200, 40, 30), (120, 140, 160)).astype(np.uint8)
    (chosen,) = choose_masks([SourcePhoto(Path("ring.png"), pixels)], PhotosConfig(), PhotoModels())
    assert chosen.source == "smooth_background"
    assert overlap(chosen.mask.mask, ring.astype(np.uint8) * 255) > 0.9, "with its hole filled it would be 0.64"


def test_the_first_source_that_serves_is_taken_photo_by_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, truth = toy("bunny")
    messy = cluttered(plain, truth)
    brought = SourcePhoto(messy[0].path, messy[0].pixels, given=truth[0])
    clear = SourcePhoto(messy[1].path, messy[1].pixels, alpha=truth[1])
    photos = [brought, clear, plain[2], messy[3], messy[4]]

    def sources(models: PhotoModels) -> list[str]:
        return [each.source for each in choose_masks(photos, PhotosConfig(), models)]

    assert sources(PhotoModels()) == ["files", "alpha", "smooth_background", "none", "none"]
    learned_only = with_networks(monkeypatch, learned=Says(truth))
    assert sources(learned_only) == ["files", "alpha", "smooth_background", "learned", "learned"]
    both = with_networks(monkeypatch, rembg=Says(truth[2:]), learned=Says(truth))
    assert sources(both) == ["files", "alpha", "rembg", "rembg", "rembg"]
    assert choose_masks([brought, clear], PhotosConfig(), both)[1].mask.confidence == 1


def test_networks_that_are_not_sure_and_do_not_agree_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, truth = toy("bunny")
    photos, elsewhere = cluttered(plain, truth), [np.roll(mask, 45, axis=1) for mask in truth]
    agreeing = with_networks(monkeypatch, rembg=Says(truth), learned=Says(truth))
    assert all(each.mask.trusted for each in choose_masks(photos, PhotosConfig(), agreeing))
    quarrelling = with_networks(monkeypatch, rembg=Says(truth), learned=Says(elsewhere))
    chosen = choose_masks(photos, PhotosConfig(), quarrelling)
    assert not any(each.mask.trusted for each in chosen) and "do not agree" in chosen[0].findings[0]
    sure = with_networks(monkeypatch, rembg=Says(truth, 0.95), learned=Says(elsewhere))
    assert all(each.mask.trusted for each in choose_masks(photos, PhotosConfig(), sure))


def test_a_network_that_is_unsure_leaves_it_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, truth = toy("bunny")
    photos = cluttered(plain, truth)
    models = with_networks(monkeypatch, rembg=Says(truth, 0.3), learned=Says(truth, 0.7))
    assert {each.source for each in choose_masks(photos, PhotosConfig(), models)} == {"learned"}
    models = with_networks(monkeypatch, rembg=Says(truth, 0.3), learned=Says(truth, 0.2))
    chosen = choose_masks(photos, PhotosConfig(), models)
    assert {each.source for each in chosen} == {"rembg"} and not any(each.mask.trusted for each in chosen)
    assert chosen[0].findings[0].startswith("rembg is only 30% sure where the subject is")


def test_a_subject_that_the_frame_cuts_is_usable_and_one_that_it_cuts_all_around_is_not() -> None:
    pixels, mask = np.zeros((100, 100, 3), np.uint8), np.zeros((100, 100), np.uint8)
    mask[40:, 30:70] = 255
    assert cut_share(mask) == pytest.approx(40 / (2 * 40 + 2 * 60 - 4))
    (chosen,) = choose_masks([SourcePhoto(Path("a.png"), pixels, given=mask)], PhotosConfig(), PhotoModels())
    assert chosen.mask.trusted and chosen.cut == cut_share(mask)
    mask[5:, :] = 255
    (chosen,) = choose_masks([SourcePhoto(Path("a.png"), pixels, given=mask)], PhotosConfig(), PhotoModels())
    assert not chosen.mask.trusted and "lies on the frame" in chosen.findings[0]


def test_overlap_of_masks_is_that_of_sets() -> None:
    first, second = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    assert overlap(first, second) == 1
    first[:2], second[1:] = 255, 255
    assert overlap(first, second) == 4 / 16


def test_networks_are_pinned_by_their_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rembg, "installed", lambda: True)
    monkeypatch.setattr(bundled, "FOLDER", str(tmp_path / "none"))
    file, network = tmp_path / "a.onnx", tmp_path / "network" / WEIGHTS
    file.write_bytes(b"a")
    network.parent.mkdir()
    network.write_bytes(b"w")
    auto, named = PhotosConfig(), PhotosConfig(rembg_model=str(file))
    assert mask_models(auto) == PhotoModels()
    pinned = mask_models(named)
    assert pinned.rembg.startswith("sha256:") and pinned.learned == ""
    monkeypatch.setattr(bundled, "FOLDER", str(network.parent))
    assert mask_models(auto).learned.startswith("sha256:")
    assert mask_models(PhotosConfig(masks="files", rembg_model=str(file))) == PhotoModels()
    photos = [SourcePhoto(Path("a.png"), np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))]
    file.write_bytes(b"b")
    assert mask_models(named).rembg != pinned.rembg
    with pytest.raises(ConfigError, match=r"a\.onnx: has changed since the run was started"):
        choose_masks(photos, named, pinned)


def test_what_is_asked_for_and_not_here_says_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "FOLDER", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"learned is asked for, but .*model\.safetensors is not there"):
        mask_models(PhotosConfig(masks="learned"))
    monkeypatch.setattr(rembg, "installed", lambda: False)
    bring = r"pip install 'dreambooth3d\[masks\]'` and `dreambooth3d models fetch "
    with pytest.raises(ConfigError, match=f"{bring}isnet-general-use"):
        mask_models(PhotosConfig(masks="rembg"))
    with pytest.raises(ConfigError, match=f"{bring}u2net"):
        mask_models(PhotosConfig(rembg_model="u2net"))
    assert mask_models(PhotosConfig()).rembg == ""
    monkeypatch.setattr(rembg, "installed", lambda: True)
    with pytest.raises(ConfigError, match="dreambooth3d models fetch u2net"):
        mask_models(PhotosConfig(masks="rembg", rembg_model="u2net"))
    with pytest.raises(ConfigError, match="dreambooth3d models fetch u2net"):
        mask_models(PhotosConfig(rembg_model="u2net"))
    with pytest.raises(ConfigError, match=r"nowhere\.onnx is neither an ONNX file nor a known model"):
        mask_models(PhotosConfig(rembg_model="nowhere.onnx"))


def test_the_bundled_network_sees_square_photos_and_its_masks_are_cut_to_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network to which all that is red is the subject."""
    (tmp_path / WEIGHTS).write_bytes(b"w")
    monkeypatch.setattr(bundled, "FOLDER", str(tmp_path))
    seen = []

    class Red:
        def masks(self, images: torch.Tensor, frame: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append((images.shape, frame.mean().item()))
            return (images[:, 0] - images[:, 1] > 0.3).float(), torch.tensor([0.9, 0.4])

    monkeypatch.setattr(learned.SubjectMaskNetwork, "load", staticmethod(lambda folder: Red()))
    rng, photos, truth = np.random.default_rng(0), [], np.zeros((100, 200), np.uint8)
    truth[20:70, 30:130] = 255
    for index in range(2):
        pixels = np.repeat(rng.integers(0, 256, (100, 200, 1), np.uint8), 3, axis=-1)
        pixels[truth > 0] = (220, 20, 30)
        photos.append(SourcePhoto(Path(f"{index}.png"), pixels))
    config = PhotosConfig(masks="learned")
    first, second = choose_masks(photos, config, mask_models(config))
    assert seen == [((2, 3, 256, 256), 0.5)]
    assert first.mask.mask.shape == (100, 200) and overlap(first.mask.mask, truth) > 0.95
    assert first.mask.trusted and not second.mask.trusted and second.mask.confidence == pytest.approx(0.4)
