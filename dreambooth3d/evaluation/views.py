"""Does the asset have one front? View accuracy, front recall and the Janus rate, as a scorer sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.cameras import VIEW_WORDS, Cameras, orbit_cameras, turntable_cameras, wrap_degrees
from dreambooth3d.evaluation.clip import ClipScorer, view_captions

FRONT = VIEW_WORDS.index("front")
JANUS_MIN_AZIMUTH_DEG = 60.0
JANUS_MAX_ELEVATION_DEG = 60.0
FRONT_MAX_AZIMUTH_DEG = 30.0
UPPER_RING_ELEVATION_DEG = 40.0
UPPER_RING_STEP_DEG = 20.0
ODDS_SOFTNESS = 6.0
"""Logits in which the odds of two neighbouring words change by e over the angle between them."""


def upper_ring() -> Cameras:
    """18 cameras at 40 degrees elevation, which together with the turntable are the views of the Janus rate."""
    return orbit_cameras(torch.arange(0.0, 360.0, UPPER_RING_STEP_DEG), elevation_deg=UPPER_RING_ELEVATION_DEG)


def judged_cameras() -> Cameras:
    """The 36 turntable cameras, then the upper ring."""
    return Cameras.cat((turntable_cameras(), upper_ring()))


@dataclass(frozen=True)
class ViewVerdict:
    """What a scorer makes of views.

    Attributes:
        judged: (n,) index into `VIEW_WORDS` of the view that each image is taken for.
        accuracy: share of views taken for what they are.
        janus_rate: share of views away from the front that are taken for the front.
        front_recall: share of front views that are taken for the front.
    """

    judged: Int[Tensor, " n"]
    accuracy: float
    janus_rate: float
    front_recall: float


def judge_views(
    features: Float[Tensor, "n features"], cameras: Cameras, class_noun: str, scorer: ClipScorer
) -> ViewVerdict:
    """Let a scorer name the view of each image, and count fronts where there is none.

    Args:
        features: (n, d) unit-length image features by the same scorer.
        cameras: the n cameras that the images were taken by.
        class_noun: such as `dog`; the four view captions of the class are what the scorer chooses from.
        scorer: the judge.
    """
    judged = (features @ scorer.text_features(view_captions(class_noun)).T).argmax(dim=-1)
    return verdict(judged, cameras)


def verdict(judged: Int[Tensor, " n"], cameras: Cameras) -> ViewVerdict:
    """Shares over the named views `judged` (n,) of n cameras; NaN where no camera is of that kind."""
    azimuth = wrap_degrees(cameras.azimuth_deg).abs().cpu()
    low = cameras.elevation_deg.cpu() < JANUS_MAX_ELEVATION_DEG
    expected = torch.tensor([VIEW_WORDS.index(word) for word in cameras.view_words()])
    # Half a millidegree of slack keeps views at exactly the bound on their side in spite of rounding.
    away = low & (azimuth >= JANUS_MIN_AZIMUTH_DEG - 5e-4)
    ahead = low & (azimuth <= FRONT_MAX_AZIMUTH_DEG + 5e-4)
    taken_for_front = (judged == FRONT).float()
    return ViewVerdict(
        judged=judged,
        accuracy=(judged == expected).float().mean().item(),
        janus_rate=taken_for_front[away].mean().item(),
        front_recall=taken_for_front[ahead].mean().item(),
    )


@dataclass(frozen=True)
class ViewScores:
    """How a scorer that may steer (the selector) sees the views of one class, and of one subject of it.

    Attributes:
        scorer: the selector.
        class_noun: such as `dog`.
        photos: the subject's photos, each (3, height, width) in [0, 1], that `likeness` compares with.
    """

    scorer: ClipScorer
    class_noun: str
    photos: tuple[Tensor, ...] = ()

    @staticmethod
    def load(
        path: str, class_noun: str, device: torch.device | str = "cpu", photos: tuple[Tensor, ...] = ()
    ) -> ViewScores:
        """With the scorer at a hub id, which may have an `@revision`, or in a local folder.

        Raises:
            BaseModelError: the scorer is missing or damaged.
        """
        return ViewScores(ClipScorer.load(path, device), class_noun, photos)

    @cached_property
    def _texts(self) -> Tensor:
        """(words, d) features of the view captions."""
        return self.scorer.text_features(view_captions(self.class_noun))

    def __call__(self, images: Tensor) -> Tensor:
        """(n, words) logits of `VIEW_WORDS`, on the CPU, of square images (n, 3, h, w) in [0, 1]."""
        return self.scorer.logit_scale * (self.scorer.image_features(images) @ self._texts.T)

    @cached_property
    def _photo_features(self) -> Tensor:
        """(photos, d) features of the photos."""
        return torch.cat([self.scorer.image_features(photo[None]) for photo in self.photos])

    def likeness(self, images: Float[Tensor, "n 3 size size"]) -> Float[Tensor, " n"]:
        """(n,) mean cosine of each image's features and the photos', of square images (n, 3, h, w) in [0, 1].

        Raises:
            ValueError: there are no photos.
        """
        if not self.photos:
            raise ValueError("ViewScores.likeness needs photos: give them when the scores are loaded.")
        return (self.scorer.image_features(images) @ self._photo_features.T).mean(dim=1)


def degrees_off_front(logits: Float[Tensor, "n words"]) -> Float[Tensor, " n"]:
    """(n,) estimated angle between a camera and the front, in [0, 180], of its view logits (n, words).

    Where two neighbouring words are equally likely, the camera is at the border between them; towards the middle of a
    word its odds grow. To which side of the front the camera is, they do not say.
    """
    front, side, back = (logits[:, VIEW_WORDS.index(word)] / ODDS_SOFTNESS for word in ("front", "side", "back"))
    ahead, behind = torch.sigmoid(front - side), torch.sigmoid(back - side)
    nearest = torch.stack([side, front, back]).argmax(dim=0)
    between = 90 - 90 * ahead + 90 * behind
    return torch.where(nearest == 1, 90 - 90 * ahead, torch.where(nearest == 2, 90 + 90 * behind, between))


def name_photo_views(photos: SubjectPhotos, scorer: ClipScorer) -> SubjectPhotos:
    """The photos with the view of each in `facts`, as a scorer that may steer (the selector) sees it."""
    scores = ViewScores(scorer, photos.class_noun)
    logits = torch.cat([scores(image[None]) for image in photos.images])
    words = [VIEW_WORDS[index] for index in logits.argmax(dim=-1).tolist()]
    off_front = [round(angle, 1) for angle in degrees_off_front(logits).tolist()]
    return replace(photos, facts=photos.facts.assign(view=words, off_front_deg=off_front))
