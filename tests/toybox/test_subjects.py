"""Photo sets as a user would have them."""

import pytest
import torch
import yaml
from PIL import Image

from dreambooth3d.cameras import wrap_degrees
from dreambooth3d.errors import ConfigError
from dreambooth3d.toybox import subjects
from dreambooth3d.toybox.captions import IDENTIFIERS, tokens
from dreambooth3d.toybox.recipes import Recipe
from dreambooth3d.toybox.subjects import SUBJECTS, photo_cameras, write_subject


def test_written_photo_set(tmp_path, monkeypatch):
    monkeypatch.setattr(subjects, "PHOTO_SIZE", 32)
    folder = write_subject("mallard", tmp_path)
    photos = sorted(folder.glob("*.jpg"))
    assert [photo.name for photo in photos] == ["00.jpg", "01.jpg", "02.jpg", "03.jpg", "04.jpg"]
    assert all(Image.open(photo).size == (32, 32) for photo in photos)
    described = yaml.safe_load((folder / "subject.yaml").read_text())
    assert described["class_noun"] == "duck" and described["identifier"] == "sks"
    assert not set(IDENTIFIERS) & set(tokens(described["description"]))
    truth = yaml.safe_load((folder / "ground_truth.yaml").read_text())
    azimuths = torch.tensor(truth.pop("photo_azimuths_deg"))
    assert Recipe.from_dict(truth) == SUBJECTS["mallard"]
    assert wrap_degrees(azimuths - photo_cameras("mallard").azimuth_deg).abs().max() <= 0.05


def test_photos_are_mostly_of_the_front_half_with_one_of_the_back():
    for name in SUBJECTS:
        azimuth = photo_cameras(name).azimuth_deg.abs()
        assert (azimuth < 90).sum() >= 3 and (azimuth > 120).sum() == 1


def test_unknown_subject_is_named(tmp_path):
    with pytest.raises(ConfigError, match="'dragon' is unknown"):
        write_subject("dragon", tmp_path)
