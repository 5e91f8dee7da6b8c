"""Sampling and img2img against diffusers' own pipelines on the tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.cameras import turntable_cameras
from dreambooth3d.config.finetuning import FinetuneConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.config.pseudo_views import PseudoViewsConfig
from dreambooth3d.diffusion.finetuning.plan import ImageGroup, TrainingPlan
from dreambooth3d.diffusion.finetuning.training import DreamBoothTrainer
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.diffusion.sampling.img2img import RenderedViews, img2img, pseudo_views
from dreambooth3d.diffusion.sampling.text_to_image import Sampling, initial_noise, sample
from tests.tiny_models import write_tiny_base_model

PROMPTS = ["a photo of a dog", "a photo of a red duck, back view", "a photo of a cat"]


@pytest.fixture(params=["epsilon", "v_prediction"])
def model(request: pytest.FixtureRequest, tiny_base_model: Path, tmp_path: Path) -> Path:
    """A tiny model of each prediction type."""
    if request.param == "epsilon":
        return tiny_base_model
    return write_tiny_base_model(tmp_path / "velocity", prediction_type=request.param)


def reference(kind: type, model: Path) -> StableDiffusionPipeline:
    """A diffusers pipeline, quiet."""
    pipeline = kind.from_pretrained(model, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_sampling_equals_stable_diffusion_pipeline(model: Path) -> None:
    components = load_components(resolve(BaseModelConfig(path=str(model))), "cpu")
    ours = sample(components, PROMPTS, Sampling(4.0, 6, seed=3, negative_prompt="a clock", batch_size=2))
    theirs = reference(StableDiffusionPipeline, model)(
        PROMPTS,
        negative_prompt=["a clock"] * 3,
        guidance_scale=4.0,
        num_inference_steps=6,
        latents=initial_noise(components, 3, 3),
        output_type="pt",
    ).images
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_without_guidance_the_unconditional_branch_is_off(components: Components, tiny_base_model: Path) -> None:
    ours = sample(components, PROMPTS, Sampling(1.0, 3, seed=0))
    theirs = reference(StableDiffusionPipeline, tiny_base_model)(
        PROMPTS, guidance_scale=1.0, num_inference_steps=3, latents=initial_noise(components, 3, 0), output_type="pt"
    ).images
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_img2img_equals_diffusers(components: Components, tiny_base_model: Path) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours = img2img(components, images, PROMPTS[:2], Sampling(3.0, 8, seed=5), strength=0.5)
    latents = components.encode_images(images).detach()
    theirs = reference(StableDiffusionImg2ImgPipeline, tiny_base_model)(
        PROMPTS[:2],
        image=latents,
        strength=0.5,
        guidance_scale=3.0,
        num_inference_steps=8,
        generator=torch.Generator().manual_seed(5),
        output_type="pt",
    ).images
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_img2img_of_no_strength_is_the_round_trip(components: Components) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = components.decode_latents(components.encode_images(images))
    result = img2img(components, images, PROMPTS[:2], Sampling(3.0, 20, seed=5), strength=0.01)
    assert torch.equal(result, expected)


def test_encoding_resizes_and_carries_gradients(components: Components) -> None:
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    latents = components.encode_images(images)
    assert latents.shape == (1, *components.latent_shape)
    latents.square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in components.vae.parameters())


def test_pseudo_views(components: Components, photos: SubjectPhotos, base: object, make_runtime: object) -> None:
    runtime = make_runtime("generate_pseudo_views")
    trained = load_components(base, "cpu", trainable=True)
    group = ImageGroup("instance", torch.randn(1, *components.latent_shape), ["a dog"], 1, 1.0)
    plan = TrainingPlan((group,), FinetuneConfig(steps=1), 0)
    checkpoint = DreamBoothTrainer(trained, plan, make_runtime(folder="t")).run().checkpoints[1]
    cameras = turntable_cameras(3)
    config = PseudoViewsConfig(count=3, inference_steps=5)
    renders = RenderedViews(torch.rand(3, 3, 48, 48), torch.rand(3, 48, 48), cameras)
    views = pseudo_views(renders, checkpoint, photos, config, 0, runtime)
    again = pseudo_views(renders, checkpoint, photos, config, 0, make_runtime("b"))
    assert views.images.shape == views.renders.shape == (3, 3, 64, 64)
    assert views.opacity.shape == (3, 64, 64) and views.strength == config.strength
    assert torch.equal(views.images, again.images)
    assert views.record.metrics["mean_abs_change"] == pytest.approx((views.images - views.renders).abs().mean().item())
    assert "before_after" in views.record.images
