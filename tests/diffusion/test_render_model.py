"""The LoRA that learns the renders, against the same training written out, and variational score distillation by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dreambooth3d.artifacts import BaseModelRef
from dreambooth3d.cameras import orbit_cameras
from dreambooth3d.config.guidance import GuidanceConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.guidance.render_model import RenderModel
from dreambooth3d.diffusion.guidance.score_distillation import ScoreDistillation
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.runtime import ResumePoint
from tests.tiny_models import write_tiny_base_model

PROMPT = "a photo of a sks dog"
CAMERAS = orbit_cameras(torch.tensor([0.0, 90.0, 180.0]))
RATE = 1e-2
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module")
def velocity_components(tmp_path_factory: pytest.TempPathFactory) -> Components:
    """The tiny model with velocity for noise."""
    folder = write_tiny_base_model(tmp_path_factory.mktemp("velocity"), prediction_type="v_prediction")
    return load_components(resolve(BaseModelConfig(path=str(folder))), "cpu")


@pytest.fixture(params=["epsilon", "v_prediction"])
def model(request: pytest.FixtureRequest, components: Components, velocity_components: Components) -> Components:
    """Both kinds of tiny model in turn."""
    return components if request.param == "epsilon" else velocity_components


def batch(components: Components, seed: int, count: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents of renders that stay the same, and timesteps, noise and embeddings."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.full((count, 4, 16, 16), 0.7)
    latents[:, :, 4:12] = -1.0
    timesteps = torch.randint(1000, (count,), generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    embeddings = components.encode_prompts([f"{PROMPT}, front view"] * count)
    return *(tensor.to(components.device) for tensor in (latents, timesteps, noise)), embeddings


def written_out(components: Components, first: dict[str, Tensor], steps: int) -> tuple[dict[str, Tensor], list[float]]:
    """The LoRA after some steps of training, and its losses, with plain matrices on the original UNet.

    Args:
        first: the LoRA's first weights by peft's names.
    """
    unet, weights = components.unet, {name: weight.clone().requires_grad_() for name, weight in first.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=RATE)
    scheduler, losses = components.scheduler, []
    for step in range(steps):
        latents, timesteps, noise, embeddings = batch(components, step)
        alpha = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = scheduler.config.prediction_type == "v_prediction"
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents if velocity else noise
        inputs = (noisy, timesteps), {"encoder_hidden_states": embeddings}
        loss = (torch.func.functional_call(unet, merged(unet, weights), *inputs).sample - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return {name: weight.detach() for name, weight in weights.items()}, losses


def merged(unet: torch.nn.Module, lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """The UNet's adapted weights W + B A."""
    down = {name.split(".lora_A")[0]: weight for name, weight in lora.items() if "lora_A" in name}
    up = {name.split(".lora_B")[0]: weight for name, weight in lora.items() if "lora_B" in name}
    weights = dict(unet.named_parameters())
    return {f"{name}.weight": weights[f"{name}.weight"] + up[name] @ down[name] for name in down}


def new_model(components: Components, rank: int = 2, rate: float = RATE) -> RenderModel:
    return RenderModel(components, rank, rate, torch.Generator().manual_seed(0))


def test_training_is_that_of_matrices_written_out(model: Components) -> None:
    """Several steps, for noise and for velocity: the same losses and the same LoRA, which starts as no change."""
    renders = new_model(model)
    first = {name: weight.clone() for name, weight in renders.state()["weights"].items()}
    latents, timesteps, _, embeddings = batch(model, 0)
    with torch.no_grad():
        frozen = model.predict_noise(latents, timesteps, embeddings)
    assert torch.equal(renders.predict_noise(latents, timesteps, embeddings), frozen)

    expected, expected_losses = written_out(model, first, steps=3)
    assert [float(renders.learn(*batch(model, step))) for step in range(3)] == pytest.approx(expected_losses, rel=1e-4)
    # AdamW divides by the gradients' size, so that where this is all but zero rounding decides.
    for name, weight in renders.state()["weights"].items():
        assert (weight - expected[name]).abs().mean() < 0.02 * (expected[name] - first[name]).abs().mean(), name
    after = renders.predict_noise(latents, timesteps, embeddings)
    with torch.no_grad():
        by_hand = torch.func.functional_call(
            model.unet, merged(model.unet, expected), (latents, timesteps), {"encoder_hidden_states": embeddings}
        ).sample
        if model.scheduler.config.prediction_type == "v_prediction":
            alpha = model.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
            by_hand = alpha.sqrt() * by_hand + (1 - alpha).sqrt() * latents
    torch.testing.assert_close(after, by_hand, rtol=1e-2, atol=1e-2)
    assert (after - frozen).abs().max() > 0.05


def error(renders: RenderModel, components: Components) -> float:
    """Mean squared error of the predicted noise on draws that were not trained on."""
    latents, timesteps, noise, embeddings = batch(components, seed=999, count=16)
    alpha = components.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    return float((renders.predict_noise(noisy, timesteps, embeddings) - noise).square().mean())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_learns_the_renders(base: BaseModelRef, dtype: torch.dtype, device: str) -> None:
    """Also under a float16 UNet, with float32 weights of its own, and gradients that do not vanish."""
    components = load_components(base, device, dtype=dtype)
    renders = new_model(components, rank=4)
    before = error(renders, components)
    for step in range(25):
        renders.learn(*batch(components, step))
    state = renders.state()
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in state["weights"].values())
    assert error(renders, components) < before - 0.1
    assert all(float(entry["step"]) == 25 for entry in state["optimizer"].values())


def gradient_of(guidance: ScoreDistillation, progress: float = 0.0) -> tuple[Tensor, float]:
    """Gradient of fixed images, and the LoRA's loss."""
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    result = guidance(images, CAMERAS, progress)
    result.loss.backward()
    return images.grad, float(result.metrics["lora_loss"])


def vsd(components: Components, seed: int = 0, **settings: Any) -> ScoreDistillation:
    return ScoreDistillation(components, PROMPT, GuidanceConfig(loss="vsd", lora_learning_rate=RATE, **settings), seed)


@pytest.mark.parametrize("perp_neg", [False, True])
def test_first_step_is_a_difference_of_frozen_predictions(model: Components, perp_neg: bool) -> None:
    """The LoRA starts as no change: guided - view-conditional prediction, both of the frozen model."""
    guidance = vsd(model, perp_neg=perp_neg)
    plain = ScoreDistillation(model, PROMPT, GuidanceConfig(perp_neg=perp_neg), seed=0)
    latents, timesteps, noise, _ = batch(model, 0)
    gradient = guidance._gradients(latents, timesteps, noise, CAMERAS, 0.0)[0]
    alpha = model.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    views = model.encode_prompts([f"{PROMPT}, {word} view" for word in ("front", "side", "back")])
    with torch.no_grad():
        conditional = model.predict_noise(noisy, timesteps, views)
    sds = plain._gradients(latents, timesteps, noise, CAMERAS, 0.0)[0]
    torch.testing.assert_close(gradient, sds - (1 - alpha) * (conditional - noise), rtol=1e-4, atol=1e-4)


def test_no_guidance_is_left_once_the_renders_are_what_the_model_makes(components: Components) -> None:
    """With scale 1 and a LoRA that has not moved, both predictions agree at every noise."""
    gradient, _ = gradient_of(vsd(components, guidance_scale=(1.0, 1.0)))
    # Both see the same, one of them in a batch with the unconditional prompt.
    assert gradient.abs().max() < 1e-5


def test_the_frozen_model_stays_as_it_was(components: Components) -> None:
    """The LoRA neither changes nor reaches it, nor does it draw from the global generator."""
    before = {name: value.clone() for name, value in components.unet.state_dict().items()}
    latents, timesteps, _, embeddings = batch(components, 0)
    with torch.no_grad():
        prediction = components.predict_noise(latents, timesteps, embeddings)
    random = torch.get_rng_state()
    guidance = vsd(components)
    for _ in range(3):
        gradient_of(guidance)
    assert torch.equal(torch.get_rng_state(), random)
    after = components.unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in components.unet.parameters())
    with torch.no_grad():
        assert torch.equal(components.predict_noise(latents, timesteps, embeddings), prediction)
    assert not torch.equal(guidance._renders.predict_noise(latents, timesteps, embeddings), prediction)


def test_the_lora_shares_the_frozen_weights(components: Components) -> None:
    """No second UNet in memory: but for the LoRA, the very same tensors."""
    renders = new_model(components)
    own = {parameter.data_ptr() for parameter in renders._model.unet.parameters()}
    assert own >= {parameter.data_ptr() for parameter in components.unet.parameters()}
    assert len(own) == len(list(components.unet.parameters())) + len(renders.state()["weights"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("device", DEVICES)
def test_resumed_run_continues_exactly(base: BaseModelRef, tmp_path: Path, dtype: torch.dtype, device: str) -> None:
    """To the last bit on the CPU; on CUDA as exactly as its own sums, whose order varies, repeat themselves."""
    tolerance = {"rtol": 0.0, "atol": 0.0} if device == "cpu" else {"rtol": 1e-2, "atol": 1e-3}
    components = load_components(base, device, dtype=dtype)
    first = vsd(components, seed=4)
    for _ in range(2):
        gradient_of(first)
    point = ResumePoint(tmp_path / "state")
    point.save({"guidance": first.state()})
    second = vsd(components, seed=5)
    second.restore(point.load()["guidance"])
    for _ in range(2):
        gradient, loss = gradient_of(first, 0.1)
        again, loss_again = gradient_of(second, 0.1)
        torch.testing.assert_close((again, loss_again), (gradient, loss), **tolerance)
    mine, other = first.state()["renders"], second.state()["renders"]
    torch.testing.assert_close(other["weights"], mine["weights"], **tolerance)
    assert json.dumps(mine["scaler"]) == json.dumps(other["scaler"])
    assert bool(mine["scaler"]) == (dtype == torch.float16)
