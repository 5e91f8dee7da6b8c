"""Training of the bundled toybox models: the base model in Stable Diffusion's layout, and the two scorers."""

STAGES = ("vae", "unet", "selector", "judge", "card")
