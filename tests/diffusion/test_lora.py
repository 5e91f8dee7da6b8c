"""LoRA against peft's own forward and diffusers' own loader; what checkpoints hold, and what they lead to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from diffusers.utils import convert_state_dict_to_diffusers
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from dreambooth3d.artifacts import BaseModelRef, CheckpointSet, DreamBoothCheckpoint, PseudoViews, SubjectPhotos
from dreambooth3d.cameras import turntable_cameras
from dreambooth3d.config.finetuning import FinetuneConfig, MultiviewConfig
from dreambooth3d.diffusion.finetuning.dreambooth import finetune, finetune_multiview
from dreambooth3d.diffusion.finetuning.plan import CheckpointSchedule, ImageGroup, TrainingPlan
from dreambooth3d.diffusion.finetuning.training import DreamBoothTrainer
from dreambooth3d.diffusion.model import lora
from dreambooth3d.diffusion.model.components import Components, load_components, load_weights
from dreambooth3d.diffusion.model.export import export_pipeline
from dreambooth3d.diffusion.model.lora import KOHYA_FILE, LORA_FILE, export_kohya_lora, export_lora, is_lora
from dreambooth3d.diffusion.sampling.text_to_image import Sampling, initial_noise, sample
from dreambooth3d.errors import BaseModelError, ConfigError
from dreambooth3d.runtime import Runtime
from dreambooth3d.weights import save_weights

MakeRuntime = Callable[..., Runtime]
KINDS = ("unet", "text_encoder")
CONFIG = FinetuneConfig(
    steps=4,
    checkpoint_every=2,
    batch_size=1,
    class_images=2,
    class_inference_steps=1,
    sample_inference_steps=2,
    learning_rate=3e-3,
    warmup_steps=0,
    lora_rank=2,
)


def run(photos: SubjectPhotos, base: BaseModelRef, runtime: Runtime, **changes: object) -> CheckpointSet:
    """Fine-tune with the small configuration."""
    return finetune(photos, base, CONFIG.model_copy(update=changes), 0, runtime)


def with_adapters(base: BaseModelRef, rank: int, seed: int) -> Components:
    """The tiny model with a LoRA by peft that changes a lot."""
    parts, generator = load_components(base, "cpu", trainable=True), torch.Generator().manual_seed(seed)
    for kind in KINDS:
        lora.add_adapters(getattr(parts, kind), kind, rank, generator)
        for name, weight in getattr(parts, kind).named_parameters():
            if "lora_B" in name:
                weight.data = torch.randn(weight.shape, generator=generator) / 2
    return parts


@torch.no_grad()
def outputs(parts: Components) -> tuple[Tensor, Tensor]:
    """Text embeddings of two prompts, and the UNet's output under them."""
    noisy = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    embeddings = parts.text_encoder(parts.tokenize(["a photo of a sks dog", "a cat"]))[0].float()
    output = parts.unet(noisy.to(parts.dtype), torch.tensor([10, 700]), embeddings.to(parts.dtype)).sample
    return embeddings, output.float()


def assert_same(ours: Components, theirs: Components, atol: float = 1e-4) -> None:
    """Both models give the same outputs."""
    for one, other in zip(outputs(ours), outputs(theirs), strict=True):
        assert torch.allclose(one, other, atol=atol)


def frozen(network: nn.Module) -> dict[str, Tensor]:
    """A network's weights below its LoRA, under their usual names."""
    state = network.state_dict().items()
    return {name.replace(".base_layer", ""): value for name, value in state if "lora_" not in name}


def test_merged_weights_do_what_peft_does(base: BaseModelRef, components: Components) -> None:
    theirs, ours = with_adapters(base, 3, 0), load_components(base, "cpu")
    for kind in KINDS:
        load_weights(getattr(ours, kind), lora.adapter_weights(getattr(theirs, kind), kind))
    assert_same(ours, theirs)
    for one, other in zip(outputs(ours), outputs(components), strict=True):
        assert (one - other).abs().max() > 0.05


def test_names_are_those_of_diffusers(base: BaseModelRef, tmp_path: Path) -> None:
    parts = with_adapters(base, 2, 0)
    layers = {kind: convert_state_dict_to_diffusers(get_peft_model_state_dict(getattr(parts, kind))) for kind in KINDS}
    StableDiffusionPipeline.save_lora_weights(tmp_path, layers["unet"], layers["text_encoder"])
    theirs = load_file(tmp_path / LORA_FILE)
    ours = {
        f"{kind}.{name}": weight
        for kind in KINDS
        for name, weight in lora.adapter_weights(getattr(parts, kind), kind).items()
    }
    # The text encoder's prefix depends on the version of transformers; without it older ones find nothing.
    assert any(name.startswith("text_encoder.text_model.encoder.layers.") for name in ours)
    plain = {name.replace("text_encoder.text_model.", "text_encoder."): weight for name, weight in ours.items()}
    theirs = {name.replace("text_encoder.text_model.", "text_encoder."): weight for name, weight in theirs.items()}
    assert plain.keys() == theirs.keys()
    assert all(torch.equal(plain[name], theirs[name]) for name in plain)


def test_two_loras_make_one(base: BaseModelRef) -> None:
    first, second = with_adapters(base, 2, 0), with_adapters(base, 3, 1)
    for kind in KINDS:
        both = [lora.adapter_weights(getattr(parts, kind), kind) for parts in (first, second)]
        network = load_components(base, "cpu").unet if kind == "unet" else load_components(base, "cpu").text_encoder
        full = lora.merged(lora.merged(network.state_dict(), both[0]), both[1])
        one = lora.combined(*both)
        assert is_lora(one) and {min(weight.shape) for weight in one.values()} == {5}
        merged = lora.merged(network.state_dict(), one)
        assert all(torch.allclose(merged[name], full[name], atol=1e-5) for name in full)
        on_full = lora.combined(lora.merged(network.state_dict(), both[0]), both[1])
        assert all(torch.equal(on_full[name], full[name]) for name in full)


def test_only_adapters_change_and_only_they_are_stored(
    photos: SubjectPhotos, base: BaseModelRef, components: Components, make_runtime: MakeRuntime
) -> None:
    parts = load_components(base, "cpu", trainable=True)
    group = ImageGroup("instance", torch.randn(2, *parts.latent_shape), ["a dog", "a cat"], 1, 1.0)
    config = FinetuneConfig(steps=3, learning_rate=1e-2, warmup_steps=0, weight_decay=0.1, lora_rank=2)
    plan = TrainingPlan((group,), config, 0, CheckpointSchedule(every=3))
    result = DreamBoothTrainer(parts, plan, make_runtime()).run()
    for kind in KINDS:
        before, after = getattr(components, kind).state_dict(), frozen(getattr(parts, kind))
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
        start, end = (getattr(result.checkpoints[step], kind).load() for step in (0, 3))
        assert is_lora(start) and start.keys() == end.keys()
        assert {weight.dtype for weight in end.values()} == {torch.float32}
        assert all(bool((start[name] == 0).all()) == (".up." in name) for name in start)
        assert all(not torch.equal(start[name], end[name]) for name in start)
    assert_same(load_components(base, "cpu", result.checkpoints[0]), components, atol=0.0)
    assert_same(load_components(base, "cpu", result.checkpoints[3]), parts)
    again = DreamBoothTrainer(load_components(base, "cpu", trainable=True), plan, make_runtime(folder="again"))
    assert again.run().checkpoints[0].unet.sha256 == result.checkpoints[0].unet.sha256


def test_a_text_encoder_that_is_not_trained_stays_the_base_model_s(
    photos: SubjectPhotos, base: BaseModelRef, components: Components, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    checkpoint = run(photos, base, make_runtime(), train_text_encoder=False).checkpoints[4]
    assert checkpoint.text_encoder.load() == {}
    loaded = load_components(base, "cpu", checkpoint)
    assert torch.equal(outputs(loaded)[0], outputs(components)[0])
    assert (outputs(loaded)[1] - outputs(components)[1]).abs().max() > 1e-3
    assert set(load_file(export_lora(checkpoint, tmp_path / LORA_FILE).uri)) == {
        f"unet.{name}" for name in checkpoint.unet.load()
    }


def test_resumable_state_holds_adapters_only(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime
) -> None:
    calls, runtime = iter(range(100)), make_runtime(should_stop=lambda: next(calls) >= 3)
    assert run(photos, base, runtime).record.params["interrupted"] is True
    state = runtime.resume_point().load()
    for kind in KINDS:
        assert state[kind] and all("lora_" in name for name in state[kind])
    shapes = sorted(tuple(weight.shape) for kind in KINDS for weight in state[kind].values())
    assert sorted(tuple(entry["exp_avg"].shape) for entry in state["optimizer"].values()) == shapes


def test_diffusers_opens_the_exported_file(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, tiny_base_model: Path, tmp_path: Path
) -> None:
    checkpoint = run(photos, base, make_runtime(), steps=12).checkpoints[12]
    export_lora(checkpoint, tmp_path / "lora" / LORA_FILE)
    prompts = [photos.instance_prompt, "a photo of a cat"]
    components = load_components(base, "cpu", checkpoint)
    ours = sample(components, prompts, Sampling(4.0, 4, seed=3))

    def theirs(pipeline: StableDiffusionPipeline) -> Tensor:
        pipeline.set_progress_bar_config(disable=True)
        noise = initial_noise(components, 2, 3)
        options = {"guidance_scale": 4.0, "num_inference_steps": 4, "output_type": "pt"}
        return pipeline(prompts, latents=noise, **options).images

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base_model)
    without = theirs(pipeline)
    pipeline.load_lora_weights(tmp_path / "lora")
    assert (theirs(pipeline) - without).abs().max() > 0.01
    assert torch.allclose(ours, theirs(pipeline), atol=1e-3)
    whole = StableDiffusionPipeline.from_pretrained(export_pipeline(checkpoint, tmp_path / "whole"))
    assert torch.allclose(ours, theirs(whole), atol=1e-3)


# As LoRAs of Stable Diffusion 1.5 by kohya-ss' sd-scripts name them, which both programs read.
KOHYA_LAYERS = (
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_out_0",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
    "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn1_to_v",
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
    "lora_te_text_model_encoder_layers_1_self_attn_out_proj",
)


def test_comfyui_and_the_web_ui_find_their_names(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, tiny_base_model: Path, tmp_path: Path
) -> None:
    checkpoint = run(photos, base, make_runtime(), steps=12).checkpoints[12]
    ours = load_file(export_kohya_lora(checkpoint, tmp_path / "kohya" / KOHYA_FILE).uri)
    layers = {name.split(".")[0] for name in ours}
    assert set(KOHYA_LAYERS) <= layers
    parts = ("lora_down.weight", "lora_up.weight", "alpha")
    assert ours.keys() == {f"{layer}.{part}" for layer in layers for part in parts}
    for layer in layers:
        down, up, alpha = (ours[f"{layer}.{part}"] for part in parts)
        assert down.shape[0] == up.shape[1] == alpha.item() == 2 and alpha.shape == ()
    theirs, alphas = _convert_non_diffusers_lora_to_diffusers(dict(ours))
    plain = load_file(export_lora(checkpoint, tmp_path / LORA_FILE).uri)
    # Names by peft of older versions, which diffusers converts once more when it loads them.
    assert len(theirs) == len(plain) and set(alphas.values()) == {2.0}
    prompts, components = [photos.instance_prompt], load_components(base, "cpu", checkpoint)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base_model)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(tmp_path / "kohya", weight_name=KOHYA_FILE)
    options = {"guidance_scale": 4.0, "num_inference_steps": 4, "output_type": "pt"}
    drawn = pipeline(prompts, latents=initial_noise(components, 1, 3), **options).images
    assert torch.allclose(sample(components, prompts, Sampling(4.0, 4, seed=3)), drawn, atol=1e-3)


def test_full_weights_are_no_lora(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    checkpoint = run(photos, base, make_runtime(), lora_rank=0).checkpoints[4]
    with pytest.raises(ConfigError, match="step 4 holds full weights and no LoRA"):
        export_lora(checkpoint, tmp_path / "lora" / LORA_FILE)
    with pytest.raises(ConfigError, match="step 4 holds full weights and no LoRA"):
        export_kohya_lora(checkpoint, tmp_path / "lora" / KOHYA_FILE)
    assert not (tmp_path / "lora").exists()


def test_a_lora_of_another_model_is_refused(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    checkpoint = run(photos, base, make_runtime(), steps=2).checkpoints[2]
    for damage in (lambda name: name.replace("attn1", "attn7"), lambda name: name.replace("to_v", "to_q")):
        weights = {damage(name): weight[..., :3] for name, weight in checkpoint.unet.load().items()}
        ref = save_weights(weights, tmp_path / "wrong.safetensors")
        wrong = DreamBoothCheckpoint(2, ref, checkpoint.text_encoder, base)
        with pytest.raises(BaseModelError, match="damaged or does not fit"):
            load_components(base, "cpu", wrong)


@pytest.mark.parametrize(
    ("first_rank", "then_rank", "rank"),
    [(2, 2, 4), (2, 0, None), (0, 2, None)],
    ids=["lora-lora", "lora-full", "full-lora"],
)
def test_training_goes_on_from_any_checkpoint(
    first_rank: int,
    then_rank: int,
    rank: int | None,
    photos: SubjectPhotos,
    base: BaseModelRef,
    make_runtime: MakeRuntime,
) -> None:
    partial = run(photos, base, make_runtime(), lora_rank=first_rank).checkpoints[4]
    parts = load_components(base, "cpu", partial, trainable=True)
    assert_same(parts, load_components(base, "cpu", partial))
    group = ImageGroup("instance", torch.randn(2, *parts.latent_shape), ["a dog", "a cat"], 1, 1.0)
    config = FinetuneConfig(steps=3, learning_rate=3e-3, warmup_steps=0, weight_decay=0.0, lora_rank=then_rank)
    plan = TrainingPlan((group,), config, 0, CheckpointSchedule(first_step=4))
    (end,) = DreamBoothTrainer(parts, plan, make_runtime(folder="b")).run().checkpoints.values()
    loaded = load_components(base, "cpu", end)
    # Full weights are stored in half precision.
    assert_same(loaded, parts, atol=1e-4 if rank else 5e-3)
    for kind in KINDS:
        weights = getattr(end, kind).load()
        assert is_lora(weights) == (rank is not None)
        if rank is not None:
            assert {min(weight.shape) for weight in weights.values()} == {rank}


def test_multiview_makes_one_lora_of_two(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    partial = run(photos, base, make_runtime()).checkpoints[2]
    views = torch.rand(4, 3, 64, 64)
    pseudo = PseudoViews(views, views, views[:, 0], turntable_cameras(4), 0.4)
    config = MultiviewConfig(steps=3, learning_rate=1e-3, lora_rank=1, train_text_encoder=False)
    runtime = make_runtime("finetune_multiview", folder="multiview")
    result = finetune_multiview(partial, pseudo, photos, config, 0, runtime)
    assert result.step == 5
    assert {min(weight.shape) for weight in result.unet.load().values()} == {3}
    text_encoder, before = result.text_encoder.load(), partial.text_encoder.load()
    assert all(torch.equal(text_encoder[name], before[name]) for name in before)
    assert len(load_file(export_lora(result, tmp_path / LORA_FILE).uri)) == len(result.unet.load()) + len(before)


def test_frozen_weights_are_in_half_precision(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[bool, set[torch.dtype]]] = []
    step = DreamBoothTrainer.train_step

    def look(self: DreamBoothTrainer, index: int) -> dict[str, Tensor]:
        both = [*self.components.unet.parameters(), *self.components.text_encoder.parameters()]
        seen.append(
            {trained: {weight.dtype for weight in both if weight.requires_grad == trained} for trained in (True, False)}
        )
        return step(self, index)

    monkeypatch.setattr(DreamBoothTrainer, "train_step", look)
    options = {"gradient_checkpointing": True, "sample_every_checkpoint": False, "steps": 10, "checkpoint_every": 10}
    result = run(photos, base, make_runtime(), mixed_precision="bf16", **options)
    assert seen[0] == seen[-1] == {True: {torch.float32}, False: {torch.bfloat16}}
    exact = run(photos, base, make_runtime(folder="exact"), **options)
    assert seen[-1] == {True: {torch.float32}, False: {torch.float32}}
    losses = [end.record.series.query("name == 'loss'").value.to_numpy() for end in (result, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
    ours, theirs = (end.checkpoints[10].unet.load() for end in (result, exact))
    assert {weight.dtype for weight in ours.values()} == {torch.float32}
    changes = [torch.cat([weights[name].flatten() for name in ours if ".up." in name]) for weights in (ours, theirs)]
    assert torch.cosine_similarity(*changes, dim=0) > 0.9
