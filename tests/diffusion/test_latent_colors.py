"""How latents look, fitted to a VAE whose decoder is known, and to the bundled one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.diffusion.sampling.latent_colors import latent_colors
from dreambooth3d.diffusion.sampling.text_to_image import Sampling, sample
from dreambooth3d.representation.latents import affine

PROMPT = "a photo of a red snowman"


@pytest.fixture(scope="module")
def toybox() -> Components:
    return load_components(resolve(BaseModelConfig()), "cpu")


def test_an_affine_decoder_is_recovered(toybox: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of 4 pixels are decoded to mix @ latents + offset, with detail that has no mean; encoding undoes that."""
    mix, offset = torch.tensor([[0.1, 0.2, 0, 0], [0, 0.1, -0.2, 0], [0.3, 0, 0, 0.1]]), torch.tensor([0.5, 0.4, 0.6])
    detail = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(32, 32)

    def decode(self: Components, latents: Tensor) -> Tensor:
        cells = torch.einsum("dc,nchw->ndhw", mix, latents) + offset.view(3, 1, 1)
        return cells.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3) + 0.3 * detail

    def encode(self: Components, images: Tensor) -> Tensor:
        cells = torch.nn.functional.avg_pool2d(images, 4) - offset.view(3, 1, 1)
        return torch.einsum("cd,ndhw->nchw", torch.linalg.pinv(mix), cells)

    monkeypatch.setattr(Components, "decode_latents", decode)
    monkeypatch.setattr(Components, "encode_all", encode)
    colors, explained = latent_colors(toybox, PROMPT, 0)
    assert colors.channels == 4 and explained == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(colors.decoder, torch.cat([mix, offset[:, None]], dim=1), atol=1e-3, rtol=1e-3)
    plain = torch.rand(5, 3)
    torch.testing.assert_close(affine(colors.decoder, affine(colors.encoder, plain)), plain, atol=1e-3, rtol=1e-3)


def test_it_tells_the_colours_of_images_that_it_was_not_fitted_to(toybox: Components) -> None:
    """Of the bundled model: other noise, by the VAE's own decoder and averaged over each cell's pixels."""
    colors, explained = latent_colors(toybox, PROMPT, 0)
    assert explained > 0.85
    images = sample(toybox, ["a photo of a red snowman, front view"] * 3, Sampling(4.0, 8, seed=77))
    latents = toybox.encode_all(images)
    wanted = torch.nn.functional.avg_pool2d(images, 4)
    found = affine(colors.decoder, latents.permute(0, 2, 3, 1).flatten(0, 2)).view(3, 16, 16, 3).permute(0, 3, 1, 2)
    error = (found - wanted).square().mean()
    assert error < 0.2 * (wanted - wanted.mean(dim=(0, 2, 3), keepdim=True)).square().mean()
    white = affine(colors.decoder, affine(colors.encoder, torch.ones(1, 3)))
    assert white.min() > 0.75
