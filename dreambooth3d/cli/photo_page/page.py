"""The page that `dreambooth3d photos check --html` writes: one file without scripts, which needs no network."""

from __future__ import annotations

import html
from importlib.resources import files

from PIL import Image

from dreambooth3d.cli.photo_page.circle import circle
from dreambooth3d.cli.photo_page.diagnosis import Diagnosis, PhotoCard, Said
from dreambooth3d.export.page import filled, jpeg_address, style
from dreambooth3d.photos.showing import outlined

THUMBNAIL_PX = 360
_JPEG_QUALITY = 80


def photo_page(diagnosis: Diagnosis, command: str) -> str:
    """The page's HTML.

    Args:
        diagnosis: what is said.
        command: what to type when the photos are as they should be.
    """
    good, learned = diagnosis.usable
    figures = (
        (f"{good} of {learned}", "can be targets"),
        (f"{diagnosis.located} of {learned}", "places found"),
        (f"{diagnosis.seen:.0%}", "of all sides shown"),
    )
    azimuths = [card.azimuth_deg for card in diagnosis.cards]
    parts = {
        "title": html.escape(f"Photos of {diagnosis.subject}"),
        "noun": html.escape(f"{len(diagnosis.cards)} photos of a {diagnosis.class_noun}"),
        "style": style(),
        "weight": diagnosis.verdict.weight,
        "verdict": html.escape(diagnosis.verdict.text),
        "figures": "".join(f"<li><b>{figure}</b>{what}</li>" for figure, what in figures),
        "next": _next(diagnosis, command),
        "whole": _list(diagnosis.said),
        "circle": circle(azimuths, [each.azimuth_deg for each in diagnosis.next], html.escape(_label(diagnosis))),
        "caption": html.escape(_caption(diagnosis)),
        "photos": "".join(_card(number, card) for number, card in enumerate(diagnosis.cards, start=1)),
    }
    return filled(files("dreambooth3d.cli.photo_page").joinpath("page.html").read_text(encoding="utf-8"), parts)


def _next(diagnosis: Diagnosis, command: str) -> str:
    """What to do, the most useful first, and what to type then."""
    steps = [html.escape(diagnosis.next_place(each)) for each in diagnosis.next]
    warned = [
        f'<a href="#photo-{number}">{html.escape(card.file)}</a>'
        for number, card in enumerate(diagnosis.cards, start=1)
        if card.warned
    ]
    if warned:
        steps.append(f"See what is said of {', '.join(warned)}, and take {'it' if len(warned) == 1 else 'them'} again.")
    if any(said.weight == "warning" for said in diagnosis.said):
        steps.append("See what is said of all photos together.")
    start = f"Start a run: <pre><code>{html.escape(command)}</code></pre>"
    steps.append(f"Then check again, or start a run as it is: <pre><code>{html.escape(command)}</code></pre>"
                 if steps else start)  # fmt: skip
    return f"<ol>{''.join(f'<li>{step}</li>' for step in steps)}</ol>"


def _label(diagnosis: Diagnosis) -> str:
    """The drawing in words."""
    taken = [f"{card.azimuth_deg:.0f}" for card in diagnosis.cards if card.azimuth_deg == card.azimuth_deg]
    missing = [f"{each.azimuth_deg:.0f}" for each in diagnosis.next]
    said = f"Seen from above. Photos were taken at {', '.join(taken) or 'no known'} degrees from the front"
    return f"{said}; the next ones would help at {', '.join(missing)} degrees." if missing else f"{said}."


def _caption(diagnosis: Diagnosis) -> str:
    unknown = [card.file for card in diagnosis.cards if card.azimuth_deg != card.azimuth_deg and not card.held_out]
    said = "From above, as far as the photos tell; which side is the front is a guess. Numbers are those of the photos"
    said += ", + is where one more helps the most." if diagnosis.next else "."
    return f"{said} Not told: {', '.join(unknown)}." if unknown else said


def _list(said: tuple[Said, ...]) -> str:
    items = (f'<li class="{each.weight}">{html.escape(each.text)}</li>' for each in said)
    return f'<ul class="said">{"".join(items)}</ul>'


def _card(number: int, card: PhotoCard) -> str:
    name = html.escape(card.file)
    state = ("held out", "note") if card.held_out else ("can be a target", "good")
    state = state if card.trusted else ("no target", "warning")
    mask = f"mask by {card.source}, {card.confidence:.0%} sure" if card.source else "no mask"
    return (
        f'<article class="card" id="photo-{number}"><img src="{_picture(card)}" alt="{name} with its mask’s outline">'
        f'<div><h3><span class="number">{number}</span>{name}</h3>'
        f'<p class="mask"><span class="state {state[1]}">{state[0]}</span> · {html.escape(mask)}</p>'
        f"{_list(card.said)}</div></article>"
    )


def _picture(card: PhotoCard) -> str:
    height, width = card.image.shape[:2]
    scale = THUMBNAIL_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = outlined(card.image, card.mask, size, card.trusted, card.held_out)
    return jpeg_address(Image.fromarray(shown), _JPEG_QUALITY)
