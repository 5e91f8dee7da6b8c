"""Score distillation against autograd and hand-computed cases."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from dreambooth3d.cameras import Cameras, orbit_cameras
from dreambooth3d.config.guidance import GuidanceConfig, ViewPromptsConfig
from dreambooth3d.diffusion.guidance.score_distillation import ScoreDistillation
from dreambooth3d.diffusion.model.components import Components
from dreambooth3d.diffusion.model.scores import classifier_free, perp_neg, rescaled
from dreambooth3d.prompts import perp_neg_views

PROMPT = "a photo of a sks dog"
CAMERAS = orbit_cameras(torch.tensor([0.0, 90.0, 180.0]))


class PointDenoiser(torch.nn.Module):
    """The exact noise predictor of a data distribution that is one point: eps = (x_t - sqrt(a) point) / sqrt(1 - a)."""

    def __init__(self, point: Tensor, alphas: Tensor) -> None:
        super().__init__()
        self.point, self.alphas = point, alphas
        self.config = SimpleNamespace(sample_size=16, in_channels=4)

    def forward(self, noisy: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> SimpleNamespace:
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        return SimpleNamespace(sample=(noisy - alpha.sqrt() * self.point) / (1 - alpha).sqrt())


@pytest.fixture
def point_components(components: Components) -> Components:
    """The tiny model with an analytic denoiser whose data is one fixed latent."""
    point = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    parts = {name: getattr(components, name) for name in ("tokenizer", "text_encoder", "vae", "scheduler", "base")}
    unet = PointDenoiser(point, components.alphas_cumprod)
    return Components(**parts, unet=unet, device=components.device, dtype=components.dtype)


@pytest.mark.parametrize("weighting", ["sds", "uniform"])
def test_gradient_of_an_analytic_denoiser(point_components: Components, weighting: str) -> None:
    """There eps_hat - eps = sqrt(a / (1 - a)) (z - point), whatever the noise: known without the implementation."""
    config = GuidanceConfig(weighting=weighting, min_timestep=(0.4, 0.4), max_timestep=(0.4, 0.4))
    guidance = ScoreDistillation(point_components, PROMPT, config, seed=0)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    guidance(images, CAMERAS, 0.0).loss.backward()

    alpha = point_components.alphas_cumprod[400]
    weight = (1 - alpha) if weighting == "sds" else 1.0
    reference = images.detach().clone().requires_grad_()
    latents = point_components.encode_images(reference)
    distance = (latents - point_components.unet.point).square().sum() / 2
    (weight * (alpha / (1 - alpha)).sqrt() * distance / 3).backward()
    assert torch.allclose(images.grad, reference.grad, rtol=1e-3, atol=1e-6 * reference.grad.abs().max().item())


def test_sds_written_out(point_components: Components) -> None:
    """By default nothing but DreamFusion's formula, to the last bit: timesteps are drawn first, then the noise."""
    point_components.encode_images = lambda images: images
    latents = torch.rand(4, 4, 16, 16, generator=torch.Generator().manual_seed(2), requires_grad=True)
    cameras = orbit_cameras(torch.tensor([0.0, 90.0, 180.0, 270.0]))
    ScoreDistillation(point_components, PROMPT, GuidanceConfig(), seed=5)(latents, cameras, 0.0).loss.backward()

    generator, clean = torch.Generator().manual_seed(5), latents.detach()
    timesteps = torch.randint(20, 981, (4,), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    alpha = point_components.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    predicted = point_components.unet(noisy, timesteps, torch.empty(0)).sample
    guided = predicted + 7.5 * (predicted - predicted)
    assert torch.equal(latents.grad, (1 - alpha) * (guided - noise) / 4)


def test_descent_reaches_the_denoisers_point(point_components: Components) -> None:
    """Without the VAE in between, following the loss leads to the only image that the model knows."""
    point_components.encode_images = lambda images: images
    guidance = ScoreDistillation(point_components, PROMPT, GuidanceConfig(weighting="sds"), seed=0)
    latents = torch.zeros(3, 4, 16, 16, requires_grad=True)
    optimizer = torch.optim.SGD([latents], lr=1.0)
    for step in range(60):
        optimizer.zero_grad()
        guidance(latents, CAMERAS, step / 60).loss.backward()
        optimizer.step()
    assert (latents - point_components.unet.point).abs().max() < 0.05


def test_value_is_half_the_squared_gradient(components: Components) -> None:
    components_latents: list[Tensor] = []
    guidance = ScoreDistillation(components, PROMPT, GuidanceConfig(), seed=0)
    encode = components.encode_images

    def spy(images: Tensor) -> Tensor:
        latents = encode(images)
        latents.retain_grad()
        components_latents.append(latents)
        return latents

    components.encode_images = spy
    try:
        result = guidance(torch.rand(3, 3, 64, 64, requires_grad=True), CAMERAS, 0.5)
        result.loss.backward()
    finally:
        del components.encode_images
    gradient = components_latents[0].grad * 3
    assert result.loss.item() == pytest.approx(0.5 * gradient.square().sum().item() / 3, rel=1e-4)
    assert float(result.metrics["gradient_norm"]) == pytest.approx(gradient.flatten(1).norm(dim=1).mean().item(), 1e-4)


def test_annealing_and_clip(point_components: Components) -> None:
    config = GuidanceConfig(
        guidance_scale=(100.0, 20.0), max_timestep=(0.9, 0.5), min_timestep=(0.1, 0.5), gradient_clip=(0.01, 0.01)
    )
    guidance = ScoreDistillation(point_components, PROMPT, config, seed=0)
    images = torch.rand(3, 3, 64, 64)
    assert guidance(images, CAMERAS, 0.5).metrics["guidance_scale"] == pytest.approx(60.0)
    end = guidance(images, CAMERAS, 1.0).metrics
    assert end["timestep"] == pytest.approx(0.5)
    assert float(end["gradient_norm"]) <= 0.01 * math.sqrt(4 * 16 * 16) + 1e-6


def test_resumed_guidance_draws_the_same(components: Components) -> None:
    images = torch.rand(3, 3, 64, 64)
    first = ScoreDistillation(components, PROMPT, GuidanceConfig(), seed=4)
    first(images, CAMERAS, 0.0)
    second = ScoreDistillation(components, PROMPT, GuidanceConfig(), seed=5)
    second.restore(first.state())
    assert first(images, CAMERAS, 0.1).loss == second(images, CAMERAS, 0.1).loss


def test_prompts_follow_the_cameras(components: Components) -> None:
    """A view's embedding, the text's own, and one row of the batch at a time give the same as the whole batch."""
    guidance = ScoreDistillation(components, PROMPT, GuidanceConfig(guidance_scale=(7.0, 7.0)), seed=0)
    noisy, timesteps = torch.randn(3, 4, 16, 16), torch.tensor([100, 500, 900])
    guided = guidance._predictions(noisy, timesteps, CAMERAS, 7.0, 0.0).guided
    for index, word in enumerate(["front", "side", "back"]):
        one, at = noisy[index : index + 1], timesteps[index : index + 1]
        texts = [components.encode_prompts([text]) for text in (f"{PROMPT}, {word} view", "")]
        with torch.no_grad():
            wanted, plain = (components.unet(one, at, encoder_hidden_states=text).sample for text in texts)
        assert torch.allclose(guided[index], (plain + 7 * (wanted - plain))[0], atol=1e-4)


def test_perp_neg_in_front_equals_plain_guidance_minus_the_side(components: Components) -> None:
    """Straight in front the wanted view is purely the front's, and the front is not pushed away."""
    config = GuidanceConfig(perp_neg=True, perp_neg_weight=0.0)
    off = ScoreDistillation(components, PROMPT, config, seed=0)
    plain = ScoreDistillation(components, PROMPT, GuidanceConfig(), seed=0)
    noisy, timesteps, front = torch.randn(1, 4, 16, 16), torch.tensor([300]), CAMERAS[:1]
    expected = plain._predictions(noisy, timesteps, front, 5.0, 0.0).guided
    assert torch.allclose(off._predictions(noisy, timesteps, front, 5.0, 0.0).guided, expected, atol=1e-5)
    on = ScoreDistillation(components, PROMPT, GuidanceConfig(perp_neg=True), seed=0)
    assert not torch.allclose(on._predictions(noisy, timesteps, front, 5.0, 0.0).guided, expected, atol=1e-5)


def test_perp_neg_pushes_each_view_of_a_batch_by_its_own_prompts(components: Components) -> None:
    """Alone, a view gets what it gets in a batch."""
    guidance = ScoreDistillation(components, PROMPT, GuidanceConfig(perp_neg=True), seed=0)
    cameras = orbit_cameras(torch.tensor([30.0, 70.0, 160.0]))
    noisy, timesteps = torch.randn(3, 4, 16, 16), torch.tensor([100, 500, 900])
    batch = guidance._predictions(noisy, timesteps, cameras, 7.0, 0.0).guided
    for index in range(3):
        one = slice(index, index + 1)
        alone = guidance._predictions(noisy[one], timesteps[one], cameras[one], 7.0, 0.0).guided
        torch.testing.assert_close(batch[one], alone, atol=1e-4, rtol=1e-3)


def test_perp_neg_views() -> None:
    cameras = Cameras(
        torch.tensor([0.0, -45.0, 90.0, 180.0, 30.0]), torch.tensor([0.0, 0, 0, 0, 75.0]), *[torch.ones(5)] * 2
    )
    views = perp_neg_views(cameras)
    assert torch.allclose(views.positive.sum(1), torch.ones(5))
    assert torch.allclose(views.positive[1], torch.tensor([0.5, 0.5, 0.0, 0.0]))
    assert views.positive[2].argmax() == 1 and views.positive[3].argmax() == 2 and views.positive[4].argmax() == 3
    assert views.weight[0].tolist() == pytest.approx([0.0, -(4 - 2.426)], abs=2e-3)
    assert views.weight[3].tolist() == pytest.approx([-(1 - 0.606), -(1 + 0.967)], abs=1e-6)
    assert views.weight[4].tolist() == [0.0, 0.0]


def small(values: list[float]) -> Tensor:
    """(1, 1, 1, n) from plain numbers."""
    return torch.tensor(values).view(1, 1, 1, -1)


def test_scores_by_hand() -> None:
    unconditional, conditional = small([1.0, 1.0]), small([2.0, 1.0])
    assert torch.equal(classifier_free(unconditional, conditional, 3.0), small([4.0, 1.0]))
    # The negative differs by (5, 2); only (0, 2) is perpendicular to the wanted (1, 0).
    negatives = small([6.0, 3.0])[:, None]
    guided = perp_neg(unconditional, conditional, negatives, torch.tensor([[-0.5]]), 3.0)
    assert torch.allclose(guided, small([4.0, -2.0]))


def test_rescaling_restores_the_spread() -> None:
    guided, conditional = torch.randn(2, 4, 8, 8) * 5, torch.randn(2, 4, 8, 8)
    assert torch.equal(rescaled(guided, conditional, 0.0), guided)
    full = rescaled(guided, conditional, 1.0)
    assert torch.allclose(full.flatten(1).std(1), conditional.flatten(1).std(1), rtol=1e-4)


def test_velocity_is_turned_into_noise(components: Components) -> None:
    """For a velocity model v = sqrt(a) eps - sqrt(1 - a) x: recover eps from a clean x and its noise."""
    clean, noise = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16)
    timesteps = torch.tensor([10, 800])
    parts = {name: getattr(components, name) for name in ("tokenizer", "text_encoder", "vae", "base")}
    scheduler = type(components.scheduler).from_config(components.scheduler.config, prediction_type="v_prediction")
    velocity = scheduler.get_velocity(clean, noise, timesteps)

    def unet(noisy: Tensor, steps: Tensor, encoder_hidden_states: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=velocity)

    model = Components(**parts, scheduler=scheduler, unet=unet, device=components.device, dtype=torch.float32)
    noisy = scheduler.add_noise(clean, noise, timesteps)
    assert torch.allclose(model.predict_noise(noisy, timesteps, torch.zeros(2, 1, 1)), noise, atol=1e-4)


def pulled(components: Components, images: Tensor, progress: float = 0.0, **settings: object) -> tuple[Tensor, dict]:
    """The gradient of the loss with respect to images, and the loss' metrics."""
    images = images.clone().requires_grad_()
    result = ScoreDistillation(components, PROMPT, GuidanceConfig(**settings), seed=3)(images, CAMERAS, progress)
    result.loss.backward()
    return images.grad, dict(result.metrics)


@pytest.mark.parametrize("loss", ["sds", "sdi"])
def test_where_images_are_latents_the_pull_on_images_is_that_on_latents(
    point_components: Components, loss: str
) -> None:
    """With neither encoder nor decoder in between both gradients are one, so that half a weight adds half of it."""
    point_components.encode_images = point_components.decode_latents = lambda values: values
    latents = torch.rand(3, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    plain, _ = pulled(point_components, latents, loss=loss, inversion_steps=2)
    both, _ = pulled(point_components, latents, loss=loss, inversion_steps=2, image_weight=0.5)
    torch.testing.assert_close(both, 1.5 * plain, rtol=1e-3, atol=1e-5)


def test_pictures_of_what_is_denoised_pull_images(components: Components) -> None:
    """Written out with the decoder, which has been set aside, for one timestep."""
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    at = {"min_timestep": (0.4, 0.4), "max_timestep": (0.4, 0.4)}
    components.set_aside()
    plain, _ = pulled(components, images, **at)
    both, _ = pulled(components, images, image_weight=0.1, **at)
    guidance = ScoreDistillation(components, PROMPT, GuidanceConfig(**at), seed=3)
    alpha = components.alphas_cumprod[400]
    with torch.no_grad():
        latents = components.encode_images(images)
        timesteps, noise = guidance._draw(latents, 0.0)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        guided = guidance._predictions(noisy, timesteps, CAMERAS, 7.5, 0.0).guided
        clean = components.decode_latents((noisy - (1 - alpha).sqrt() * guided) / alpha.sqrt())
        expected = 0.1 * (1 - alpha) * (alpha / (1 - alpha)).sqrt() * (images - clean) / 3
    torch.testing.assert_close(both - plain, expected, rtol=1e-3, atol=1e-5)


def test_the_loss_by_denoised_is_the_squared_distance_to_it(point_components: Components) -> None:
    """Of a model that knows one image, whatever the timestep and the noise."""
    point_components.encode_images = lambda images: images
    latents = torch.rand(3, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    gradient, _ = pulled(point_components, latents, weighting="denoised", max_timestep=(0.8, 0.8))
    torch.testing.assert_close(gradient, (latents - point_components.unet.point) / 3, rtol=1e-3, atol=1e-4)
    at = {"min_timestep": (0.4, 0.4), "max_timestep": (0.4, 0.4)}
    fantasia, _ = pulled(point_components, latents, weighting="fantasia3d", **at)
    alpha = point_components.alphas_cumprod[400]
    expected = alpha.sqrt() * (1 - alpha) * (alpha / (1 - alpha)).sqrt() * (latents - point_components.unet.point) / 3
    torch.testing.assert_close(fantasia, expected, rtol=1e-3, atol=1e-5)


def test_timesteps_anneal_by_the_square_root(components: Components) -> None:
    images = torch.rand(3, 3, 64, 64)
    at = {"min_timestep": (0.9, 0.1), "max_timestep": (0.9, 0.1)}
    for progress, linear, root in ((0.0, 0.9, 0.9), (0.25, 0.7, 0.5), (1.0, 0.1, 0.1)):
        _, evenly = pulled(components, images, progress, **at)
        _, sqrt = pulled(components, images, progress, timestep_annealing="sqrt", **at)
        assert evenly["timestep"] == pytest.approx(linear, abs=2e-3)
        assert sqrt["timestep"] == pytest.approx(root, abs=2e-3)


def test_the_bound_of_the_gradient_rises(point_components: Components) -> None:
    point_components.encode_images = lambda images: images
    latents = 5 * torch.ones(3, 4, 16, 16)
    for progress, bound in ((0.0, 0.1), (0.5, 0.2), (1.0, 0.3)):
        gradient, _ = pulled(point_components, latents, progress, gradient_clip=(0.1, 0.3))
        assert gradient.abs().max().item() == pytest.approx(bound / 3, rel=1e-5)


def test_views_have_prompts_of_their_own_or_none(components: Components) -> None:
    noisy, timesteps = torch.randn(3, 4, 16, 16), torch.tensor([100, 500, 900])
    cases = (
        (ViewPromptsConfig(words=False), [PROMPT] * 3),
        (ViewPromptsConfig(back="a dog"), [f"{PROMPT}, front view", f"{PROMPT}, side view", "a dog"]),
        (ViewPromptsConfig(words=False, front="a dog"), ["a dog", PROMPT, PROMPT]),
    )
    for config, prompts in cases:
        guidance = ScoreDistillation(components, PROMPT, GuidanceConfig(view_prompts=config), seed=0)
        found = guidance._predictions(noisy, timesteps, CAMERAS, 7.0, 0.0).conditional
        with torch.no_grad():
            expected = components.unet(noisy, timesteps, components.encode_prompts(prompts)).sample
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_an_image_loss_needs_a_denoised_image() -> None:
    with pytest.raises(ValueError, match=r"loss=csd knows nothing: set image_weight=0, or loss to sds or sdi"):
        GuidanceConfig(loss="csd", image_weight=0.1)
