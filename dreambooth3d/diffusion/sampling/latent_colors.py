"""How the latents of a model at hand look, by least squares over images that it has drawn itself."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dreambooth3d.cameras import VIEW_WORDS
from dreambooth3d.diffusion.model.components import Components
from dreambooth3d.diffusion.sampling.text_to_image import Sampling, denoise, initial_noise, make_schedule
from dreambooth3d.prompts import view_prompt
from dreambooth3d.representation.latents import LatentColors, affine

IMAGES_PER_VIEW = 2
SAMPLING_STEPS = 15
GUIDANCE_SCALE = 4.0
LEVELS = 3
"""Per channel, of the colours of plain images."""
PLAIN_WEIGHT = 0.05
"""Of a cell of a plain image against one of a drawn one: it says how colours look that the prompt does not name."""


@torch.no_grad()
def latent_colors(components: Components, prompt: str, seed: int) -> tuple[LatentColors, float]:
    """How latents look: of images that the model draws for a prompt, and a little of plain ones in all colours.

    Args:
        components: with the VAE's decoder on the device.
        prompt: the subject's, without a view.
        seed: of the images.

    Returns:
        The maps, and the share of the variance of the drawn images' mean colours that the decoder's explains.
    """
    latents, images = _drawn(components, prompt, seed)
    colors = _plain_colors(components.device)
    size = components.image_size
    plain_latents = components.encode_all(colors[:, :, None, None].expand(-1, -1, size, size))
    seen, shown = _cells(latents), _cells(_mean_colors(images, latents.shape[-1]))
    plain, plain_shown = _cells(plain_latents), colors.repeat_interleave(plain_latents[0, 0].numel(), dim=0)
    weights = torch.cat([torch.ones(len(seen)), torch.full((len(plain),), PLAIN_WEIGHT)]).to(seen)
    decoder = _least_squares(torch.cat([seen, plain]), torch.cat([shown, plain_shown]), weights)
    encoder = _least_squares(colors, plain_latents.mean(dim=(2, 3)), torch.ones(len(colors)).to(colors))
    left = (affine(decoder, seen) - shown).square().mean() / (shown - shown.mean(dim=0)).square().mean()
    return LatentColors(decoder, encoder), 1 - left.item()


def _drawn(components: Components, prompt: str, seed: int) -> tuple[Tensor, Tensor]:
    """Latents (n, channels, cells, cells) of images of the prompt from all sides, and the images decoded."""
    prompts = [view_prompt(prompt, word) for word in VIEW_WORDS for _ in range(IMAGES_PER_VIEW)]
    sampling, scheduler = Sampling(GUIDANCE_SCALE, SAMPLING_STEPS, seed), make_schedule(components, SAMPLING_STEPS)
    noise = initial_noise(components, len(prompts), seed).to(components.device) * scheduler.init_noise_sigma
    latents = denoise(components, noise, prompts, sampling, scheduler, scheduler.timesteps)
    return latents, components.decode_latents(latents)


def _plain_colors(device: torch.device) -> Float[Tensor, "n 3"]:
    """(n, 3) colours evenly through the cube."""
    levels = torch.linspace(0, 1, LEVELS, device=device)
    return torch.cartesian_prod(levels, levels, levels)


def _mean_colors(images: Float[Tensor, "n 3 pixels pixels"], cells: int) -> Float[Tensor, "n 3 cells cells"]:
    """The mean colour of each latent cell's pixels."""
    return torch.nn.functional.adaptive_avg_pool2d(images, (cells, cells))


def _cells(images: Float[Tensor, "n channels cells cells"]) -> Float[Tensor, "rows channels"]:
    """One row per cell."""
    return images.permute(0, 2, 3, 1).flatten(0, 2)


def _least_squares(
    values: Float[Tensor, "rows in"], wanted: Float[Tensor, "rows out"], weights: Float[Tensor, " rows"]
) -> Float[Tensor, "out columns"]:
    """The affine map (see `representation.latents.affine`) with the least weighted squared error."""
    factor = weights.sqrt()[:, None]
    columns = torch.cat([values, torch.ones_like(values[:, :1])], dim=1)
    return torch.linalg.lstsq((factor * columns).cpu(), (factor * wanted).cpu()).solution.T.to(values)
