"""Does the asset have one front? View accuracy, front recall and the Janus rate, as a scorer sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.evaluation.clip import ClipScorer, view_captions
from dreambooth3d.nerf.cameras import VIEW_WORDS, Cameras, orbit_cameras, turntable_cameras, wrap_degrees

FRONT = VIEW_WORDS.index("front")
JANUS_MIN_AZIMUTH_DEG = 60.0
JANUS_MAX_ELEVATION_DEG = 60.0
FRONT_MAX_AZIMUTH_DEG = 30.0
UPPER_RING_ELEVATION_DEG = 40.0
UPPER_RING_STEP_DEG = 20.0


def upper_ring() -> Cameras:
    """18 cameras at 40 degrees elevation, which together with the turntable are the views of the Janus rate."""
    return orbit_cameras(torch.arange(0.0, 360.0, UPPER_RING_STEP_DEG), elevation_deg=UPPER_RING_ELEVATION_DEG)


def judged_cameras() -> Cameras:
    """The 36 turntable cameras, then the upper ring."""
    parts = (turntable_cameras(), upper_ring())
    names = ("azimuth_deg", "elevation_deg", "distance", "fov_y_deg")
    return Cameras(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class ViewVerdict:
    """What a scorer makes of views.

    Attributes:
        judged: (n,) index into `VIEW_WORDS` of the view that each image is taken for.
        accuracy: share of views taken for what they are.
        janus_rate: share of views away from the front that are taken for the front.
        front_recall: share of front views that are taken for the front.
    """

    judged: Tensor
    accuracy: float
    janus_rate: float
    front_recall: float


def judge_views(features: Tensor, cameras: Cameras, class_noun: str, scorer: ClipScorer) -> ViewVerdict:
    """Let a scorer name the view of each image, and count fronts where there is none.

    Args:
        features: (n, d) unit-length image features by the same scorer.
        cameras: the n cameras that the images were taken by.
        class_noun: such as `dog`; the four view captions of the class are what the scorer chooses from.
        scorer: the judge.
    """
    judged = (features @ scorer.text_features(view_captions(class_noun)).T).argmax(dim=-1)
    return verdict(judged, cameras)


def verdict(judged: Tensor, cameras: Cameras) -> ViewVerdict:
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


def name_photo_views(photos: SubjectPhotos, scorer: ClipScorer) -> SubjectPhotos:
    """The photos with the view of each in `facts`, as a scorer that may steer (the selector) sees it."""
    features = torch.cat([scorer.image_features(image[None]) for image in photos.images])
    seen = (features @ scorer.text_features(view_captions(photos.class_noun)).T).argmax(dim=-1)
    return replace(photos, facts=photos.facts.assign(view=[VIEW_WORDS[index] for index in seen.tolist()]))
