"""The photos as targets of reconstruction."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dreambooth3d.config.base import Positive, RisingRange, Section, Share


class PhotoTargetsConfig(Section):
    """The photos as targets of reconstruction, once their cameras have been found by comparison with the field."""

    weight: Annotated[float, Field(ge=0)] = 6.0e4
    """Weight of the reconstruction loss on the photos: Huber, mean over pixels and colour channels; 0 turns it off."""
    silhouette_weight: Annotated[float, Field(ge=0)] = 2.0e3
    """Weight of the binary cross entropy of opacity against the subject's mask in a photo."""
    random_backgrounds: bool = False
    """Compare the subjects before random colours, drawn for each ray, so that a part that has the background's colour
    is not left out."""
    hold_out: bool = False
    """Between two searches leave one photo out in turn, so that its camera is searched without what it taught."""
    anchor_weight: Annotated[float, Field(ge=0)] = 0.2
    """Factor on both weights while a fresh field has no camera yet: until the first search, the most frontal photo
    stands for a view from the front; 0 leaves that out."""
    start: Share = 0.0
    """Share of the stage after which the cameras are searched for the first time."""
    search_every: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the stage after which they are searched again."""
    search_until: Share = 0.9
    """Share of the stage after which they are not searched any more, and all that were found are used."""
    searches_until_all: Positive = 1
    """Searches until all photos are used; before, those whose cameras are surest."""
    subject_radius: Annotated[float, Field(gt=0, le=1)] = 0.845
    """Usual radius of a subject's outline in world units, by which the photos' distances get their scale."""
    usual_distance: Annotated[float, Field(gt=0)] = 2.58
    """Usual distance of a photo in world units, the other guess at their scale."""
    camera_learning_rate: Annotated[float, Field(ge=0)] = 0.2
    """Adam's learning rate of the cameras between searches: degrees of azimuth and elevation, of which one stands for
    1.7 % of distance and of focal length."""
    exposure_learning_rate: Annotated[float, Field(ge=0)] = 0.01
    """Adam's learning rate of the logarithm of each photo's exposure; 0 takes all photos for equally exposed."""
    views_per_step: Positive = 2
    """Photos per step."""
    mirror_weight: Annotated[float, Field(ge=0)] = 1.0
    """Factor on both weights for the photos as a mirror shows them, which tell the other side of a symmetric subject;
    they count after the first search, as far as they fit. 0 turns it off."""
    mirror_error: RisingRange = (2.2, 3.2)
    """Error of mirrored photos as a multiple of that of the photos: up to the first value their colours count in full,
    from the second on not at all."""
    stand_up: bool = True
    """In the end turn the field to its mirror plane, if it has a clear one; where the photos do not all look at one
    point, also put it in the middle of the box around what they see, and scale it to the usual ball."""
    min_overlap: Share = 0.8
    """A fresh field whose renders overlap with the photos' subjects by less, in the mean, is tried again with another
    seed, as after a collapse; the last attempt is kept as it is."""


class InitPhotoTargetsConfig(PhotoTargetsConfig):
    """The same for a fresh field, which first needs a shape to compare the photos with."""

    start: Share = 0.4
    """Share of the stage after which the cameras are searched for the first time."""
    search_every: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the stage after which they are searched again."""
    searches_until_all: Positive = 2
    """Searches until all photos are used; before, those whose cameras are surest."""
    hold_out: bool = True
    """Between two searches leave one photo out in turn, so that its camera is searched without what it taught."""
    stand_up: bool = False
    """The field stays where the photos' cameras have it, since the next stage begins with both."""


class EditPhotoTargetsConfig(PhotoTargetsConfig):
    """The same for a context: off, since the photos show the subject as it was."""

    weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the reconstruction loss on the photos: Huber, mean over pixels and colour channels; 0 turns it off."""
