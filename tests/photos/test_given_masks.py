"""Masks that the user brings, as transparency and in files: what is taken, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.config.photos import PhotoModels, PhotosConfig
from dreambooth3d.errors import PhotoSetError
from dreambooth3d.photos.check import check_photos, inspect_folder
from dreambooth3d.photos.dataset import content_digest
from dreambooth3d.photos.showing import report_lines
from dreambooth3d.photos.subject import photo_files
from dreambooth3d.record import StepLog
from dreambooth3d.runtime import Runtime
from tests.photos.photo_sets import photo, write_set


def checked(folder: Path, **settings: object) -> SubjectPhotos:
    runtime = Runtime(StepLog("validate_photos"), folder.parent / "work")
    return check_photos(PhotosConfig(dir=str(folder), **settings), "untracked:0", PhotoModels(), runtime)


def box(size: tuple[int, int] = (160, 160), place: tuple[int, int, int, int] = (40, 60, 120, 140)) -> Image.Image:
    """A white box on black; width and height, and left, top, right, bottom."""
    mask = Image.new("L", size, 0)
    mask.paste(255, place)
    return mask


def test_files_beside_the_photos_are_their_masks_and_no_photos(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", count=3)
    box().save(folder / "00_mask.png")
    (folder / "masks").mkdir()
    box(place=(10, 10, 50, 50)).save(folder / "masks" / "01.png")
    box(place=(100, 100, 150, 150)).save(folder / "masks" / "02_mask.png")
    photos = checked(folder)
    assert photos.facts["file"].tolist() == ["00.png", "01.png", "02.png"]
    assert photos.mask_sources == ("files",) * 3 and photos.trusted.all()
    truth = torch.zeros(160, 160)
    truth[60:140, 40:120] = 1
    assert torch.equal(photos.masks[0], truth)
    assert [mask.sum().item() for mask in photos.masks] == [6400, 1600, 2500]
    assert photos.record.metrics["photos_usable_as_targets"] == 3
    assert "usable as targets: 3 of 3" in report_lines(photos)


def test_a_photo_whose_name_ends_like_a_masks_is_a_photo_where_nothing_else_has_its_name(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", count=3)
    photo(7).save(folder / "gas_mask.png")
    assert [path.name for path in photo_files(folder)] == ["00.png", "01.png", "02.png", "gas_mask.png"]


def test_masks_of_some_photos_are_said_and_the_others_found(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", count=3)
    box().save(folder / "01_mask.png")
    photos = checked(folder)
    assert photos.mask_sources == ("smooth_background", "files", "smooth_background")
    assert any("1 of 3 photos" in text and "00.png, 02.png" in text for text in photos.findings)
    with pytest.raises(PhotoSetError, match=r"masks=files .* 2 of 3 photos lack \(00\.png, 02\.png\)"):
        inspect_folder(folder, PhotosConfig(masks="files"))


def test_a_mask_is_shrunk_and_padded_as_its_photo_is(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", count=2)
    photo(5, size=(1024, 512)).save(folder / "wide.jpg")
    box((1024, 512), (0, 100, 400, 300)).save(folder / "wide_mask.png")
    photos = checked(folder)
    mask, frame = photos.masks[-1], photos.frame(512)[-1]
    assert mask.shape == photos.images[-1].shape[-2:] == (512, 512)
    assert mask.mean().item() == pytest.approx(200 * 100 / 512**2, rel=0.02)
    assert mask[:128].sum() == 0 and mask[178 + 4 : 278 - 4, :196].min() > 0.99
    assert torch.equal(frame.bool(), torch.arange(512)[:, None].expand(512, 512).sub(255.5).abs() < 128)
    outline, at_frame = 2 * (200 + 100) - 4, 100
    assert photos.cut[-1].item() == pytest.approx(at_frame / outline, rel=0.05)


def test_a_white_subject_before_nothing_has_a_silhouette(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", count=2)
    cut_out = Image.new("RGBA", (160, 160), (255, 255, 255, 255))
    cut_out.putalpha(box())
    cut_out.save(folder / "white.png")
    photos = checked(folder)
    image, mask = photos.images[-1], photos.masks[-1].bool()
    assert photos.mask_sources[-1] == "alpha" and mask.sum() == 6400
    assert (image[:, mask] == 1).all() and (image[:, ~mask] < 0.7).all()
    dark = Image.new("RGBA", (160, 160), (10, 30, 60, 255))
    dark.putalpha(box())
    dark.save(folder / "white.png")
    assert (checked(folder).images[-1][:, ~mask] == 1).all(), "what is transparent stays white where that tells"


def test_transparency_that_is_none(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", count=2)
    opaque = photo(4).convert("RGBA")
    opaque.save(folder / "opaque.png")
    assert checked(folder).mask_sources == ("smooth_background",) * 3
    with pytest.raises(PhotoSetError, match=r"masks=alpha asks for transparency.*opaque\.png"):
        checked(folder, masks="alpha")
    opaque.putalpha(0)
    opaque.save(folder / "opaque.png")
    with pytest.raises(PhotoSetError, match=r"opaque\.png: is transparent throughout"):
        checked(folder)


def test_masks_as_tools_write_them(tmp_path: Path) -> None:
    folder, values = write_set(tmp_path / "rex", count=5), np.array(box())
    Image.fromarray(values // 255).save(folder / "00_mask.png")
    box().convert("1").save(folder / "01_mask.png")
    cut_out = photo(2).convert("RGBA")
    cut_out.putalpha(box())
    cut_out.save(folder / "02_mask.png")
    Image.fromarray(values.astype(np.uint16) * 257).save(folder / "03_mask.png")
    box().convert("RGB").save(folder / "04_mask.png")
    assert all(torch.equal(mask, torch.from_numpy(values) / 255) for mask in checked(folder).masks)


def test_an_upright_mask_of_a_photo_that_was_stored_turned(tmp_path: Path) -> None:
    folder, exif = write_set(tmp_path / "rex", count=2), Image.Exif()
    exif[0x0112] = 6
    photo(7, size=(200, 120)).transpose(Image.Transpose.ROTATE_90).save(folder / "zz.jpg", exif=exif)
    box((200, 120), (20, 30, 60, 90)).save(folder / "zz_mask.png")
    mask = checked(folder).masks[-1]
    assert mask[40 + 30 : 40 + 90, 20:60].min() == 1 and mask.sum() == 40 * 60


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (box((80, 80)), "80 x 80 pixels, its photo 00.png 160 x 160"),
        (Image.new("L", (160, 160), 0), "is empty"),
        (Image.new("L", (160, 160), 255), "is full"),
        (b"no image", "is not an image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "the mask cannot be read (damaged at its start)"),
    ],
)
def test_masks_that_cannot_be_are_refused_by_name(tmp_path: Path, mask: Image.Image | bytes, said: str) -> None:
    folder = write_set(tmp_path / "rex", count=3)
    path = folder / "00_mask.png"
    path.write_bytes(mask) if isinstance(mask, bytes) else mask.save(path)
    with pytest.raises(PhotoSetError) as error:
        inspect_folder(folder)
    text = str(error.value)
    assert "00_mask.png: " in text and said in text and "\n" not in text and text.endswith(".")


def test_masks_that_are_no_photos_are_said(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", count=3)
    (folder / "masks").mkdir()
    box().save(folder / "masks" / "09.png")
    assert any("09.png" in text and "masks/" in text for text in checked(folder).findings)


def test_masks_and_captions_are_part_of_what_the_photos_are(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", count=3)
    digests = [content_digest(folder)]
    (folder / "masks").mkdir()
    for name, content in (("masks/00.png", b"a"), ("masks/00.png", b"b"), ("01_mask.png", b"a"), ("01.txt", b"a")):
        (folder / name).write_bytes(content)
        digests.append(content_digest(folder))
    assert len(set(digests)) == 5
    (folder / "notes.txt").write_text("of no photo")
    assert content_digest(folder) == digests[-1]


def test_captions_that_name_the_subject_are_prompts_and_others_are_said_to_be_ignored(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", count=3)
    (folder / "00.txt").write_text("a photo of a sks dog,\n  on grass\n")
    (folder / "01.txt").write_text("my dog on grass")
    photos = checked(folder)
    assert photos.prompts == ("a photo of a sks dog, on grass", "a photo of a sks dog", "a photo of a sks dog")
    assert any("01.png: the caption in 01.txt is ignored" in text and "'sks dog'" in text for text in photos.findings)
    ignored = checked(folder, captions=False)
    assert set(ignored.prompts) == {"a photo of a sks dog"} and sum("ignored" in text for text in ignored.findings) == 2
    (folder / "02.txt").write_bytes(b"\xff\xfe\x00d")
    with pytest.raises(PhotoSetError, match=r"02\.txt: the caption is no UTF-8 text"):
        checked(folder)
    (folder / "02.txt").write_bytes(b"a sks dog \x1b[2J")
    with pytest.raises(PhotoSetError, match=r"02\.txt: the caption holds control characters"):
        checked(folder)


@pytest.mark.parametrize(
    ("name", "caption", "said"),
    [
        ("00.txt", b"", "is empty. Name the subject in it as 'sks dog'"),
        ("00.txt", b"a photo of a sks dog, " + b"very " * 2000 + b"red", "has 2007 words, and models read at most 75"),
        ("notes.txt", b"a photo of a sks dog", "a caption ends in .txt and has its photo's name: notes.txt."),
        ("00.caption", b"a photo of a sks dog", "a caption ends in .txt and has its photo's name: 00.caption."),
    ],
)
def test_captions_that_are_not_used_are_said(tmp_path: Path, name: str, caption: bytes, said: str) -> None:
    folder = write_set(tmp_path / "rex", count=3)
    (folder / name).write_bytes(caption)
    photos = checked(folder)
    assert set(photos.prompts) == {"a photo of a sks dog"}
    assert len([text for text in photos.findings if said in text]) == 1


def test_a_caption_as_windows_writes_it(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", count=3)
    (folder / "00.TXT").write_bytes("\ufeffa sks dog\r\non grass".encode())
    photos = checked(folder)
    assert photos.prompts[0] == "a sks dog on grass" and not photos.findings
    before = content_digest(folder)
    (folder / "00.TXT").write_text("a sks dog on sand")
    assert content_digest(folder) != before


def test_a_mask_that_is_no_png_is_not_taken_for_a_photo(tmp_path: Path) -> None:
    """Half of such a set were masks, fine-tuned on and usable as targets."""
    folder = write_set(tmp_path / "rex", count=3)
    box().save(folder / "01_mask.jpg")
    with pytest.raises(PhotoSetError, match=r"01_mask\.jpg: has the name of a mask, .* Save it as 01_mask\.png"):
        inspect_folder(folder)
    (folder / "01_mask.jpg").unlink()
    (folder / "masks").mkdir()
    box().save(folder / "masks" / "01.jpg")
    assert any("Left out of masks/" in text and "no PNG: 01.jpg" in text for text in checked(folder).findings)


def test_transparency_that_is_opaque_throughout_is_said(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "rex", count=3)
    photo(1).convert("RGBA").save(folder / "01.png")
    photos = checked(folder)
    assert photos.mask_sources == ("smooth_background",) * 3
    assert [text for text in photos.findings if text.startswith("The transparency of 1 of 3 photos is opaque")]
    with pytest.raises(PhotoSetError, match=r"masks=alpha asks for transparency that is not opaque throughout"):
        inspect_folder(folder, PhotosConfig(masks="alpha"))
