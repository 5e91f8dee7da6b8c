"""The contact sheet shows every class."""

from PIL import Image

from dreambooth3d.toybox.classes import CLASSES
from dreambooth3d.toybox.sheet import contact_sheet


def test_contact_sheet_has_eight_pictures_per_class(tmp_path):
    contact_sheet(tmp_path / "sheet.png", size=8)
    width, height = Image.open(tmp_path / "sheet.png").size
    assert (width - 2) * (height - 2) == len(CLASSES) * 8 * 10 * 10
