"""Models in the layout of Stable Diffusion 1.5 and 2.1 through all that is done with a base model.

The weights are random. On the CPU the models are small; the tests marked `gpu` take the real size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from torch import Tensor

from benchmarks.speed.random_model import write_model
from dreambooth3d.artifacts import BaseModelRef, SubjectPhotos
from dreambooth3d.cameras import orbit_cameras
from dreambooth3d.config.finetuning import FinetuneConfig
from dreambooth3d.config.guidance import GuidanceConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.finetuning.dreambooth import finetune
from dreambooth3d.diffusion.guidance.score_distillation import ScoreDistillation
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.diffusion.model.export import export_pipeline
from dreambooth3d.diffusion.sampling.img2img import img2img
from dreambooth3d.diffusion.sampling.text_to_image import Sampling
from dreambooth3d.runtime import Runtime

PROMPT = "a photo of a sks dog"
MakeRuntime = Callable[..., Runtime]


@dataclass(frozen=True)
class Case:
    """One model, and where it runs.

    Attributes:
        base: the model, resolved.
        device: cpu for the small one, cuda for the one of real size.
        size: pixels per side.
    """

    base: BaseModelRef
    device: torch.device
    size: int


KINDS = [
    *((kind, 0.05) for kind in ("sd15", "sd21")),
    *(pytest.param((kind, 1.0), marks=pytest.mark.gpu) for kind in ("sd15", "sd21")),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda value: f"{value[0]}-{'small' if value[1] < 1 else 'full'}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Each model once per module; the one of real size in half precision, as it is downloaded."""
    kind, scale = request.param
    full = scale == 1
    if full and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    dtype, variant = (torch.float16, "fp16") if full else (torch.float32, None)
    folder = write_model(tmp_path_factory.mktemp(kind), kind, scale=scale, dtype=dtype, variant=variant)
    size = {"sd15": 512, "sd21": 768}[kind] if full else 64
    base = resolve(BaseModelConfig(path=str(folder), variant=variant))
    return Case(base, torch.device("cuda" if full else "cpu"), size)


@pytest.fixture(autouse=True)
def freed_memory() -> Iterator[None]:
    """What one test holds on the GPU is gone before the next."""
    yield
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@pytest.fixture
def loaded(case: Case) -> Components:
    """The model for inference: float16 on the GPU."""
    return load_components(case.base, case.device)


def pipeline_of(
    kind: type, case: Case, folder: Path | None = None, dtype: torch.dtype | None = None
) -> StableDiffusionPipeline:
    """Diffusers' own pipeline on the same weights, with the schedule that ours has."""
    folder, options = folder or Path(case.base.path), {"variant": case.base.variant} if folder is None else {}
    dtype = dtype or (torch.float16 if case.device.type == "cuda" else torch.float32)
    pipeline = kind.from_pretrained(folder, torch_dtype=dtype, **options).to(case.device)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def close(actual: Tensor, expected: Tensor, case: Case) -> None:
    """Equal but for rounding."""
    tolerance = 2e-2 if case.device.type == "cuda" else 1e-4
    torch.testing.assert_close(actual.float().cpu(), expected.float().cpu(), rtol=tolerance, atol=tolerance)


def test_prompts_are_encoded_as_by_diffusers(case: Case, loaded: Components) -> None:
    """Padding token, number of layers and final norm differ between 1.x and 2.x."""
    prompts = [f"{PROMPT}, front view", ""]
    with torch.no_grad():
        expected = torch.cat(
            [
                pipeline_of(StableDiffusionPipeline, case).encode_prompt(prompt, case.device, 1, False)[0]
                for prompt in prompts
            ]
        )
    assert loaded.image_size == case.size
    close(loaded.encode_prompts(prompts), expected, case)


def test_img2img_is_that_of_diffusers(case: Case, loaded: Components) -> None:
    """Same latents, noise and timesteps: epsilon and velocity, the schedule, the guidance and the VAE agree."""
    image = torch.rand(1, 3, case.size, case.size, generator=torch.Generator().manual_seed(0))
    ours = img2img(loaded, image, [PROMPT], Sampling(5.0, 4, seed=3), strength=0.5)
    latents = loaded.encode_images(image.to(case.device))
    noise = torch.randn(1, *loaded.latent_shape, generator=torch.Generator().manual_seed(3)).to(case.device)
    pipeline = pipeline_of(StableDiffusionImg2ImgPipeline, case)
    pipeline.scheduler.set_timesteps(4)
    first = pipeline.scheduler.timesteps[2:3]
    noisy = pipeline.scheduler.add_noise(latents, noise, first).to(pipeline.unet.dtype)
    # The pipeline takes latents for an image, but draws noise of its own: it is given noisy ones, and none to add.
    pipeline.scheduler.add_noise = lambda original, noise, timesteps: original
    theirs = pipeline(
        PROMPT,
        noisy,
        num_inference_steps=4,
        output_type="pt",
        strength=0.5,
        guidance_scale=5.0,
        generator=torch.Generator(case.device),
    ).images
    assert ours.shape == (1, 3, case.size, case.size) and ours.isfinite().all()
    close(ours, theirs, case)


def test_finetune_save_reload_export(
    case: Case, photos: SubjectPhotos, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    """Two steps change both networks, the stored pair loads again, and the exported folder is a whole model."""
    full = case.device.type == "cuda"
    config = FinetuneConfig(
        steps=2, checkpoint_every=2, batch_size=1, class_images=1, class_inference_steps=1, sample_inference_steps=1,
        sample_every_checkpoint=not full, learning_rate=1e-3, warmup_steps=0, mixed_precision="bf16" if full else "no",
    )  # fmt: skip
    result = finetune(photos, case.base, config, 0, make_runtime(device=case.device))
    assert result.record.series.value.notna().all()
    checkpoint = result.checkpoints[2]
    again = load_components(case.base, case.device, checkpoint)
    for name in ("unet", "text_encoder"):
        before, stored = (getattr(result.checkpoints[step], name).load() for step in (0, 2))
        loaded = getattr(again, name).state_dict()
        changed = [key for key in stored if not torch.equal(before[key], stored[key])]
        assert len(changed) > len(stored) / 2
        assert all(value.isfinite().all() for value in stored.values())
        assert all(torch.equal(loaded[key].half().cpu(), stored[key]) for key in stored)
    folder = export_pipeline(checkpoint, tmp_path / "export")
    with torch.no_grad():
        exported = pipeline_of(StableDiffusionPipeline, case, folder).encode_prompt(PROMPT, case.device, 1, False)[0]
    close(again.encode_prompts([PROMPT]), exported, case)


def test_score_distillation_reaches_the_images(case: Case, loaded: Components) -> None:
    guidance = ScoreDistillation(loaded, PROMPT, GuidanceConfig(guidance_scale=(100.0, 100.0)), seed=0)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)).to(case.device).requires_grad_()
    guidance(images, orbit_cameras(torch.tensor([90.0])), 0.0).loss.backward()
    assert images.grad.isfinite().all() and images.grad.abs().sum() > 0


def test_score_distillation_follows_its_formula(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of SDS is w(t) (guided prediction - noise), also where the model predicts velocity.

    In float32: guidance multiplies the difference of two predictions, and with it their rounding, by a hundred.
    """
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    loaded = load_components(case.base, case.device, dtype=torch.float32)
    guidance = ScoreDistillation(loaded, PROMPT, GuidanceConfig(guidance_scale=(100.0, 100.0)), seed=0)
    latents = torch.randn(1, *loaded.latent_shape, generator=torch.Generator().manual_seed(2)).to(case.device)
    noise, timesteps = torch.randn_like(latents), torch.tensor([400], device=case.device)
    gradient = guidance._gradients(latents, timesteps, noise, orbit_cameras(torch.tensor([90.0])), 0.0)[0]
    pipeline = pipeline_of(StableDiffusionPipeline, case, dtype=torch.float32)
    schedule, unet = pipeline.scheduler, pipeline.unet
    noisy = schedule.add_noise(latents, noise, timesteps)
    predictions = []
    for prompt in (f"{PROMPT}, side view", ""):
        with torch.no_grad():
            embedding = pipeline.encode_prompt(prompt, case.device, 1, False)[0]
            output = unet(noisy.to(unet.dtype), timesteps, encoder_hidden_states=embedding).sample.float()
        # Diffusers' own step turns either kind of prediction into clean latents, which tell the noise.
        schedule.set_timesteps(1000)
        clean = schedule.step(output, 400, noisy).pred_original_sample
        alpha = schedule.alphas_cumprod[400].to(case.device)
        predictions.append((noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt())
    conditional, unconditional = predictions
    expected = (1 - alpha) * (unconditional + 100.0 * (conditional - unconditional) - noise)
    scale = expected.abs().max()
    assert scale > 0 and (gradient - expected).abs().max() < 1e-3 * scale
