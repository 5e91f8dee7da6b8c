"""Training of the bundled models: the base model in Stable Diffusion's layout, two scorers, what sees photos."""

STAGES = ("vae", "unet", "selector", "judge", "card")
PACK_STAGES = ("masks", "views")
"""Those that need a pack of training data (docs/pretraining.md)."""
