"""The four public subjects that `dreambooth3d.photos.fetch` can bring."""

from __future__ import annotations

PHOTOGRAPHERS = {"dog": "@alvannee", "cat": "@alvannee", "clock": "@laurachouette", "can": "@zn35pjqq"}
"""On Unsplash, by subject."""
