"""DreamBooth3D: a few casual photos of one subject in, a personalised 3D asset out."""

__version__ = "0.1.0"
