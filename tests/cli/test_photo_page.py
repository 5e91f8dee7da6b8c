"""The page of `photos check --html`: that it says all, is safe and valid, and how a browser shows it."""

from __future__ import annotations

import math
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dreambooth3d.cli.photo_page.diagnosis import Diagnosis, diagnose
from dreambooth3d.cli.photo_page.page import photo_page
from dreambooth3d.config.photos import PhotosConfig
from dreambooth3d.photos.check import as_photos, check_folder
from dreambooth3d.photos.report import PhotoReport
from dreambooth3d.photos.subject import SubjectInfo
from tests.browser import OnPhone, in_a_phone, needs_browser
from tests.photos.photo_sets import photo

PAYLOAD = "<img src=x onerror=top.ran=1>'{{title}}.png"
AZIMUTHS = (0.0, 40.0, 80.0, math.nan, -40.0)
VOID = ("meta", "img", "circle", "path", "input")


def draw(folder: Path) -> Path:
    """Five photos: one whose name is a payload, one blurred, one a copy, one cut by the frame."""
    folder.mkdir()
    photo(0).save(folder / PAYLOAD)
    photo(1, (160, 120)).save(folder / "b.png")
    photo(2).resize((12, 12)).resize((160, 160)).save(folder / "c.png")
    shutil.copy(folder / "b.png", folder / "d.png")
    photo(4, centre=(0.1, 0.5), radius=0.25).save(folder / "e.png")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[PhotoReport, Diagnosis, str]:
    """Report, diagnosis and page of these photos, with cameras as if they had been found."""
    folder = draw(tmp_path_factory.mktemp("page") / "</title><script>top.ran=1</script>".replace("/", "∕"))
    info = SubjectInfo(class_noun="dog")
    report = check_folder(folder, PhotosConfig(masks="smooth_background"), info)
    photos = as_photos(report, folder, info, "")
    reasons = ["it looks alike from several sides" if math.isnan(angle) else "" for angle in AZIMUTHS]
    facts = photos.facts.assign(azimuth_deg=AZIMUTHS, elevation_deg=10.0, view="side", not_located=reasons)
    object.__setattr__(photos, "facts", facts)
    diagnosis = diagnose(report, photos)
    return report, diagnosis, photo_page(diagnosis, "dreambooth3d train 'a&b'")


class Checker(HTMLParser):
    """Elements, attributes and text, with what is open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if self.open[-1:] != ["style"] else ""


def test_the_page_is_whole_and_holds_nothing_foreign(made: tuple[PhotoReport, Diagnosis, str]) -> None:
    checker = Checker()
    checker.feed(made[2])
    checker.close()
    assert checker.open == [] and checker.names.count("main") == 1 and checker.names.count("h1") == 1
    assert checker.names.count("img") == 5 and not {"script", "link", "iframe", "object"} & set(checker.names)
    for tag, name, value in checker.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "href") or value.startswith(("data:image/jpeg;base64,", "#photo-")), (tag, value)
        assert name != "alt" or value.strip()
    identifiers = [value for _, name, value in checker.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    referred = {value for _, name, value in checker.attributes if name == "aria-labelledby"}
    assert referred <= set(identifiers)
    assert "url(" not in made[2] and "@import" not in made[2]
    assert PAYLOAD in checker.text and "{{title}}" in checker.text
    assert len(made[2]) < 5 * 40_000


def test_the_page_says_every_finding_of_the_check(made: tuple[PhotoReport, Diagnosis, str]) -> None:
    report, diagnosis, page = made
    text = unescape(re.sub(r"<[^>]*>", "", page))
    assert len(report.findings) == 4
    for finding in report.findings:
        said = next((finding.removeprefix(f"{card.file}: ") for card in diagnosis.cards
                     if finding.startswith(f"{card.file}: ")), finding)  # fmt: skip
        assert said[1:] in text, finding
    good, learned = report.usable_as_targets
    assert f"{good} of {learned}" in text and "4 of 5" in text
    cards = {card.file: card for card in diagnosis.cards}
    assert cards["c.png"].warned and "looks blurred" in " ".join(report.facts["findings"])
    assert any("The frame cuts the subject" in said.text for said in cards["e.png"].said) or not cards["e.png"].trusted
    assert any("exact copy of b.png" in said.text for said in cards["d.png"].said)
    # Photos were taken from -40 to 80 degrees: what is missing is behind.
    assert [round(each.azimuth_deg) for each in diagnosis.next] == [200, 140, 260]
    assert "Photograph it from behind: about midway between c.png and e.png." in text


@needs_browser
def test_a_phone_shows_it_without_sideways_scrolling(made: tuple[PhotoReport, Diagnosis, str], tmp_path: Path) -> None:
    """In a frame as wide as a phone, and without the policy that would keep a payload from running anyway."""
    assert in_a_phone(made[2], tmp_path) == OnPhone(beyond=0, pictures=5, ran=False, films=0)
