"""Which photos, and how strictly they are checked."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from dreambooth3d.config.base import Choice, Count, Filled, Positive, RisingRange, Section, Share


def _one_line(noun: str) -> str:
    if noun != " ".join(noun.split()):
        raise ValueError("has spaces around it, or a line break: remove them")
    return noun


def _one_word(token: str) -> str:
    if len(token.split()) != 1 or token != token.strip():
        raise ValueError("is not one word: remove the spaces")
    return token


def _folder_name(name: str) -> str:
    if name in (".", "..") or "/" in name:
        raise ValueError("is not the name of a folder under data/. Use photos.dir for other folders")
    return name


def _count_or_names(value: object) -> object:
    """A count, or names; the lone text of a list of digits is a count, as photos' names end in a suffix."""
    if isinstance(value, list | tuple) and len(value) == 1 and str(value[0]).isdecimal():
        value = int(value[0])
    if isinstance(value, list | tuple) and all(isinstance(name, str) and name.strip() for name in value):
        return tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("is neither a number of photos, 0 or more, nor a list of their file names")


HoldOut = Annotated[Count | tuple[Filled, ...], BeforeValidator(_count_or_names)]
ClassNoun = Annotated[Filled, AfterValidator(_one_line)]
Identifier = Annotated[Filled, AfterValidator(_one_word)]
FolderName = Annotated[Filled, AfterValidator(_folder_name)]


_SSH = re.compile(r"(?P<login>[^/\s]+@)(?P<host>[^/:@\s]+):(?P<path>.*)")
# As GitHub, GitLab, Hugging Face, AWS, Slack and Google begin theirs, and JSON Web Tokens.
_TOKEN = re.compile(
    r"gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}|(AKIA|ASIA)[A-Z0-9]{16}|"
    r"xox[abprs]-[\w-]{10,}|AIza[\w-]{30,}|ya29\.[\w-]{20,}|eyJ[\w-]{10,}\.[\w-]{10,}\."
)


class DatasetConfig(Section):
    """Photo sets that DVC tracks, found when a run needs them, not when it is scheduled."""

    url: Filled | None = None
    """Git URL or folder of the DVC repository; None is the checkout that runs, with its data.dvc."""
    rev: Filled | None = None
    """Branch, tag or commit; None is the default branch of a URL, and the files as they are of a folder."""
    path: Annotated[str, Field(pattern=r"^[^/].*[^/]$|^[^/]$")] = "data"
    """The tracked folder there, with one folder per subject."""

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Self:
        if _holds_secret(self.url or ""):
            raise ValueError(
                "url holds a password or token, which would be logged: leave it to Git's credential helper, and in a "
                "pod give it as a ZenML secret to the step's environment"
            )
        return self


def _holds_secret(url: str) -> bool:
    """Whether an address holds what lets somebody in, or may: in front of the host, behind it, or as part of a path."""
    # As ssh has it, user@host:path, there is no scheme; what lies in front of @ may be user:token.
    short = None if "://" in url or os.path.isdir(url) else _SSH.fullmatch(url)
    parts = urlsplit(f"ssh://{short['login']}{short['host']}/{quote(short['path'])}" if short else url)
    userinfo = parts.netloc.rpartition("@")[0]
    # Over HTTP a user's name alone is how access tokens are given.
    named = ":" in userinfo or (userinfo and parts.scheme in ("http", "https"))
    behind = bool(parts.scheme) and bool(parts.query or parts.fragment)
    return bool(named or behind or any(_TOKEN.search(part) for part in (userinfo, *parts.path.split("/"))))


class PhotoModels(Section):
    """The networks that look at photos, pinned: steps take them as one value, and other weights are another input."""

    rembg: str = ""
    """`sha256:<digest>` of rembg's ONNX file; empty where it takes no part."""
    learned: str = ""
    """`sha256:<digest>` of the weights of the bundled network for masks; empty where it takes no part."""
    views: str = ""
    """The same of the bundled network for cameras; empty where it is missing."""


MaskSourceName = Literal["auto", "alpha", "files", "rembg", "learned", "smooth_background"]


class PhotosConfig(Section):
    """Which photos, and how strictly they are checked. `subject`, or `dir` with `class_noun`; `dir` wins."""

    subject: Annotated[FolderName | None, Choice()] = None
    """A folder name under data/, described by its subject.yaml."""
    dataset: DatasetConfig | None = None
    """Where `subject` comes from when not from this checkout's data/: it is fetched when it is needed."""
    dir: Annotated[Filled | None, Choice()] = None
    """A folder of photos outside data/, relative to the current directory; needs class_noun or a subject.yaml there. A
    `file:` URI will do as well, for names that are not UTF-8."""
    class_noun: Annotated[ClassNoun | None, Choice()] = None
    """What the subject is, for example dog; overrides subject.yaml."""
    identifier: Identifier | None = None
    """A rare token that will stand for the subject; overrides subject.yaml. Default sks."""
    description: str | None = None
    """The subject's caption without identifier, for R-precision."""
    masks: MaskSourceName = "auto"
    """Where masks of the subject come from. files: NAME_mask.png beside a photo, or masks/NAME.png. alpha: the photo's
    transparency. rembg: a network of the package rembg. learned: the bundled network. smooth_background: whatever
    differs from a plain background. auto takes the first that serves, photo by photo: files, alpha, rembg where it and
    its model are here, smooth_background where that is certain, learned."""
    rembg_model: Filled = "isnet-general-use"
    """A model of rembg that `dreambooth3d models fetch` has brought, or an ONNX file."""
    captions: bool = True
    """Fine-tune on a photo under the caption in NAME.txt beside it, where that names identifier and class noun."""
    hold_out: HoldOut = 0
    """Photos that no stage learns from, to be compared with the finished asset: how many, evenly spread over the sorted
    names, or their file names. At least min_count others must remain."""
    min_count: Positive = 3
    """Fewer photos are an error."""
    max_count: Positive = 20
    """More photos are an error."""
    min_side_px: Positive = 64
    """A shorter side below this is an error."""
    duplicate_distance_bits: Annotated[int, Field(ge=0, le=64)] = 4
    """Perceptual hashes (64 bits) that differ by at most this many bits are near-duplicates."""
    min_sharpness: Annotated[float, Field(ge=0)] = 5.0e-4
    """Variance of the Laplacian at 128 px below which a photo counts as blurred."""
    exposure_range: RisingRange = (0.08, 0.96)
    """Mean luminance outside this range gives a warning."""
    min_subject_share: Share = 0.02
    """Estimated share of the frame below which the subject counts as small."""

    @model_validator(mode="after")
    def _counts_leave_room(self) -> Self:
        if self.min_count > self.max_count:
            raise ValueError(f"min_count={self.min_count} is above max_count={self.max_count}: no photo set could pass")
        return self
