"""The trainer's options, each against a plain loop, a formula or an uninterrupted run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dreambooth3d.artifacts import BaseModelRef, CheckpointSet, SubjectPhotos
from dreambooth3d.config.finetuning import FinetuneConfig, MultiviewConfig, TrainerConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.finetuning.batches import step_generator
from dreambooth3d.diffusion.finetuning.dreambooth import finetune
from dreambooth3d.diffusion.finetuning.plan import CheckpointSchedule, ImageGroup, TrainingPlan
from dreambooth3d.diffusion.finetuning.training import DreamBoothTrainer
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.errors import ConfigError
from dreambooth3d.runtime import ResumePoint, Runtime
from tests.tiny_models import write_tiny_base_model

MakeRuntime = Callable[..., Runtime]
PROMPTS = ["a photo of a sks dog", "a photo of a sks dog front view", "a photo of a dog"]
CONFIG = FinetuneConfig(
    steps=12,
    checkpoint_every=3,
    batch_size=1,
    class_images=2,
    class_inference_steps=1,
    sample_every_checkpoint=False,
    learning_rate=1e-3,
    warmup_steps=4,
)


def groups() -> tuple[ImageGroup, ...]:
    """Two images per step of the subject, one of the class, which counts half."""
    latents = torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return (
        ImageGroup("instance", latents[:3], [PROMPTS[0], PROMPTS[1], PROMPTS[0]], 2, 1.0),
        ImageGroup("prior", latents[3:], [PROMPTS[2]] * 2, 1, 0.5),
    )


def make_trainer(
    base: BaseModelRef, runtime: Runtime, schedule: CheckpointSchedule = CheckpointSchedule(), **changes: object
) -> DreamBoothTrainer:
    """A trainer of the tiny model on `groups`."""
    config = FinetuneConfig(**{"steps": 4, "learning_rate": 1e-3, "warmup_steps": 3} | changes)
    components = load_components(base, "cpu", trainable=True)
    return DreamBoothTrainer(components, TrainingPlan(groups(), config, 7, schedule), runtime)


def draw(components: Components, number: int) -> tuple[Tensor, list[str], Tensor, Tensor]:
    """A batch by the documented recipe: images, prompts, timesteps and noise from the batch's own generator."""
    generator = step_generator(7, number)
    latents, prompts = [], []
    for group in groups():
        chosen = torch.randint(len(group.latents), (group.count,), generator=generator)
        latents.append(group.latents[chosen])
        prompts += [group.prompts[index] for index in chosen]
    timesteps = torch.randint(0, 1000, (3,), generator=generator)
    return torch.cat(latents), prompts, timesteps, torch.randn(3, 4, 16, 16, generator=generator)


def plain_loss(parts: Components, number: int, snr_gamma: float | None = None) -> Tensor:
    """A batch's loss, written with diffusers' scheduler."""
    latents, prompts, timesteps, noise = draw(parts, number)
    velocity = parts.scheduler.config.prediction_type == "v_prediction"
    noisy = parts.scheduler.add_noise(latents, noise, timesteps)
    target = parts.scheduler.get_velocity(latents, noise, timesteps) if velocity else noise
    distinct = list(dict.fromkeys(PROMPTS[index] for index in (0, 1, 2)))
    embeddings = parts.text_encoder(parts.tokenize(distinct))[0]
    rows = torch.tensor([distinct.index(prompt) for prompt in prompts])
    output = parts.unet(noisy, timesteps, encoder_hidden_states=embeddings[rows]).sample
    errors = (output - target).square().mean(dim=(1, 2, 3))
    if snr_gamma is not None:
        alphas = parts.scheduler.alphas_cumprod[timesteps]
        snr = alphas / (1 - alphas)
        errors = errors * torch.minimum(snr, torch.tensor(snr_gamma)) / (snr + 1 if velocity else snr)
    return (errors * torch.tensor([0.5, 0.5, 0.5])).sum()


def plain_loop(
    base: BaseModelRef,
    steps: int,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    snr_gamma: float | None = None,
) -> Components:
    """The whole training written down without options: AdamW, warm-up, clipping, no decay on vectors and embeddings."""
    parts = load_components(base, "cpu", trainable=True)
    parts.unet.train(), parts.text_encoder.train()
    named = [*parts.unet.named_parameters(), *parts.text_encoder.named_parameters()]
    free = [weight for name, weight in named if weight.ndim < 2 or "embedding" in name]
    decayed = [weight for name, weight in named if not (weight.ndim < 2 or "embedding" in name)]
    both = [{"params": decayed, "weight_decay": 0.01}, {"params": free, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(both, betas=betas, eps=eps, fused=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 3)
        plain_loss(parts, step, snr_gamma).backward()
        torch.nn.utils.clip_grad_norm_([weight for _, weight in named], 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return parts


def weights(parts: Components) -> dict[str, Tensor]:
    """All trained weights of a model."""
    both = (("unet", parts.unet), ("text", parts.text_encoder))
    return {f"{kind} {name}": value.detach() for kind, network in both for name, value in network.named_parameters()}


def test_defaults_are_the_plain_loop(base: BaseModelRef, make_runtime: MakeRuntime) -> None:
    trainer = make_trainer(base, make_runtime())
    trainer.run()
    expected, result = weights(plain_loop(base, 4)), weights(trainer.components)
    assert all(torch.equal(result[name], expected[name]) for name in expected)


def test_the_multi_view_continuation_has_the_same_defaults() -> None:
    options = set(TrainerConfig.model_fields) - {"steps", "learning_rate", "warmup_steps"}
    assert FinetuneConfig().model_dump(include=options) == MultiviewConfig().model_dump(include=options)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_and_adam_s_constants_reach_the_weights(
    prediction_type: str, tmp_path: Path, make_runtime: MakeRuntime
) -> None:
    folder = write_tiny_base_model(tmp_path / "model", prediction_type=prediction_type)
    base = resolve(BaseModelConfig(path=str(folder)))
    constants = {"adam_betas": (0.8, 0.95), "adam_epsilon": 1e-4}
    trainer = make_trainer(base, make_runtime(), snr_gamma=0.05, **constants)
    trainer.run()
    expected, result = weights(plain_loop(base, 4, (0.8, 0.95), 1e-4, 0.05)), weights(trainer.components)
    without = weights(plain_loop(base, 4, (0.8, 0.95), 1e-4))
    for name in expected:
        assert torch.allclose(result[name], expected[name], atol=2e-5), name
    key = "unet conv_in.weight"
    assert (result[key] - without[key]).abs().max() > 1e-4


def test_accumulated_batches_are_one_big_batch(base: BaseModelRef, make_runtime: MakeRuntime) -> None:
    trainer = make_trainer(base, make_runtime(), gradient_accumulation_steps=3)
    losses = [trainer.backward(index, index == 2)["loss"] for index in range(3)]
    parts = load_components(base, "cpu", trainable=True)
    big = torch.stack([plain_loss(parts, index) for index in range(3)]).mean()
    big.backward()
    assert torch.stack(losses).mean().item() == pytest.approx(big.item(), rel=1e-5)
    expected = weights(parts)
    for name, weight in zip(expected, trainer.networks.parameters, strict=True):
        gradient = dict(parts.unet.named_parameters(), **dict(parts.text_encoder.named_parameters()))
        theirs = gradient[name.split(" ")[1]].grad
        assert torch.allclose(weight.grad, theirs, atol=1e-6, rtol=1e-3), name


def test_an_accumulating_step_is_one_optimiser_step(base: BaseModelRef, make_runtime: MakeRuntime) -> None:
    trainer = make_trainer(base, make_runtime(), gradient_accumulation_steps=2, steps=1, warmup_steps=0)
    before = {name: weight.clone() for name, weight in weights(trainer.components).items()}
    result = trainer.run()
    after = weights(trainer.components)
    # Adam's first step moves a weight without decay by the learning rate, however many batches there were.
    moved = (after["unet conv_in.bias"] - before["unet conv_in.bias"]).abs()
    assert moved.max().item() == pytest.approx(1e-3, rel=1e-2)
    assert result.steps_done == 1


def test_noise_offset_shifts_whole_channels(base: BaseModelRef, make_runtime: MakeRuntime) -> None:
    plain = make_trainer(base, make_runtime())
    shifted = make_trainer(base, make_runtime(), noise_offset=0.5)
    shifts = []
    for number in range(150):
        batch, same = plain.batches.draw(number), shifted.batches.draw(number)
        for name in ("latents", "prompt_rows", "timesteps"):
            assert torch.equal(getattr(batch, name), getattr(same, name))
        difference = same.noise - batch.noise
        assert difference.std(dim=(2, 3)).max() < 1e-5
        shifts.append(difference.mean(dim=(2, 3)).flatten())
    values = torch.cat(shifts)
    assert len(values) == 150 * 3 * 4
    # Standard errors are 0.012 and 0.008.
    assert values.mean().abs() < 0.05 and values.std().item() == pytest.approx(0.5, abs=0.035)


def test_average_is_the_hand_computed_one(
    base: BaseModelRef, make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    history: list[dict[str, Tensor]] = []
    step = DreamBoothTrainer.train_step

    def record(self: DreamBoothTrainer, index: int) -> dict[str, Tensor]:
        losses = step(self, index)
        history.append({name: value.clone() for name, value in weights(self.components).items()})
        return losses

    monkeypatch.setattr(DreamBoothTrainer, "train_step", record)
    without = make_trainer(base, make_runtime(folder="a"), steps=6)
    without.run()
    unaveraged, history[:] = list(history), []
    trainer = make_trainer(base, make_runtime(folder="b"), steps=6, ema_decay=0.4, schedule=CheckpointSchedule(every=3))
    result = trainer.run()
    averages, average = [], history[0]
    for number in range(2, 7):
        decay = min(0.4, number / (9 + number))
        average = {name: decay * average[name] + (1 - decay) * history[number - 1][name] for name in average}
        averages.append(average)
    for live, expected in zip(history, unaveraged, strict=True):
        assert all(torch.equal(live[name], expected[name]) for name in live)
    for done, average in ((3, averages[1]), (6, averages[4])):
        loaded = weights(load_components(base, "cpu", result.checkpoints[done]))
        for name, value in average.items():
            assert torch.allclose(loaded[name], value.half().float(), atol=2e-3, rtol=1e-3), name
    final = weights(trainer.components)
    assert all(torch.allclose(final[name], averages[4][name], atol=1e-6) for name in final)
    assert not torch.allclose(final["unet conv_in.weight"], history[-1]["unet conv_in.weight"], atol=1e-5)


def test_text_encoder_has_a_learning_rate_of_its_own(base: BaseModelRef, make_runtime: MakeRuntime) -> None:
    trainer = make_trainer(
        base, make_runtime(), steps=1, warmup_steps=0, weight_decay=0.0, text_encoder_learning_rate=1e-4
    )
    before = {name: weight.clone() for name, weight in weights(trainer.components).items()}
    trainer.run()
    # Adam's first step moves a weight by the learning rate, as far as its gradient is not tiny.
    moved = {name: (value - before[name]).abs().max().item() for name, value in weights(trainer.components).items()}
    for kind, rate in (("unet", 1e-3), ("text", 1e-4)):
        assert max(change for name, change in moved.items() if name.startswith(kind)) == pytest.approx(rate, rel=1e-2)


def test_text_encoder_learning_rate_needs_a_trained_text_encoder() -> None:
    with pytest.raises(ValueError, match="needs train_text_encoder=true"):
        FinetuneConfig(train_text_encoder=False, text_encoder_learning_rate=1e-5)


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_checkpointed_activations_change_no_gradient(
    lora_rank: int, base: BaseModelRef, make_runtime: MakeRuntime
) -> None:
    gradients, calls = [], []
    for checkpointing in (False, True):
        trainer = make_trainer(base, make_runtime(), gradient_checkpointing=checkpointing, lora_rank=lora_rank)
        trainer.components.unet.train(), trainer.components.text_encoder.train()
        counted: list[str] = []
        for module in (trainer.components.unet.up_blocks[-1].resnets[0], _first_layer(trainer.components)):
            module.register_forward_pre_hook(lambda module, _, counted=counted: counted.append(str(type(module))))
        trainer.backward(0, True)
        gradients.append([weight.grad for weight in trainer.networks.parameters])
        calls.append(len(counted))
    assert calls == [2, 4]
    # With a LoRA the matrices that come after one of zeros get no gradient yet.
    assert any(gradient.abs().max() > 0 for gradient in gradients[0])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-7)


def _first_layer(parts: Components) -> torch.nn.Module:
    encoder = parts.text_encoder
    return getattr(encoder, "text_model", encoder).encoder.layers[0].mlp


def run(photos: SubjectPhotos, base: BaseModelRef, runtime: Runtime, **changes: object) -> CheckpointSet:
    """Fine-tune with the small configuration."""
    return finetune(photos, base, CONFIG.model_copy(update=changes), 0, runtime)


def sums(checkpoints: CheckpointSet) -> dict[int, tuple[str, str]]:
    """File hashes by step."""
    pairs = checkpoints.checkpoints
    return {step: (pairs[step].unet.sha256, pairs[step].text_encoder.sha256) for step in checkpoints.steps}


def stored(runtime: Runtime) -> dict[str, list[str]]:
    """The checkpoint folders on disk, and their files."""
    folders = sorted((runtime.folder / "checkpoints").iterdir())
    return {folder.name: sorted(file.name for file in folder.iterdir()) for folder in folders}


class Killed(BaseException):
    """Stands for a kill: nothing in the library catches it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, last: int, seen: list[Any], look: Callable[[], Any]) -> None:
    """Have training die in a step, with its state saved whenever it can be, and note what `look` sees in each."""
    monkeypatch.setattr(ResumePoint, "due", lambda self: True)
    step = DreamBoothTrainer.train_step

    def limited(self: DreamBoothTrainer, index: int) -> dict[str, Tensor]:
        seen.append(look())
        if index == last:
            raise Killed
        return step(self, index)

    monkeypatch.setattr(DreamBoothTrainer, "train_step", limited)


def test_old_checkpoints_are_deleted_as_training_goes_on(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = run(photos, base, make_runtime(folder="all"))
    runtime, seen = make_runtime(folder="kept"), []
    kill_at(monkeypatch, 11, seen, lambda: stored(runtime))
    with pytest.raises(Killed):
        run(photos, base, runtime, checkpoints_kept=2)
    # In the steps after 0, 3, 6 and 9 are done.
    assert [list(seen[step]) for step in (0, 3, 6, 9)] == [
        ["000000"],
        ["000000", "000003"],
        ["000000", "000003", "000006"],
        ["000000", "000006", "000009"],
    ]
    monkeypatch.undo()
    result = run(photos, base, runtime, checkpoints_kept=2)
    assert result.steps == [0, 9, 12]
    assert list(stored(runtime)) == ["000000", "000009", "000012"]
    assert sums(result) == {step: pair for step, pair in sums(everything).items() if step in result.steps}


def test_a_shared_text_encoder_outlives_its_checkpoint(base: BaseModelRef, make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    trainer = make_trainer(base, runtime, CheckpointSchedule(every=1, kept=1), train_text_encoder=False)
    result = trainer.run()
    assert sorted(result.checkpoints) == [0, 4]
    assert stored(runtime) == {
        "000000": ["text_encoder.safetensors", "unet.safetensors"],
        "000004": ["unet.safetensors"],
    }
    assert load_components(base, "cpu", result.checkpoints[4]).unet is not None


@pytest.mark.parametrize(
    "options",
    [
        {"lora_rank": 2, "ema_decay": 0.9},
        {"ema_decay": 0.9, "noise_offset": 0.1, "gradient_accumulation_steps": 2, "checkpoints_kept": 1},
    ],
    ids=["lora", "full"],
)
def test_a_killed_run_with_options_ends_as_an_uninterrupted_one(
    options: dict[str, Any],
    photos: SubjectPhotos,
    base: BaseModelRef,
    make_runtime: MakeRuntime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = run(photos, base, make_runtime(folder="whole"), **options)
    kill_at(monkeypatch, 8, [], lambda: None)
    with pytest.raises(Killed):
        run(photos, base, make_runtime(folder="killed"), **options)
    monkeypatch.undo()
    resumed = run(photos, base, make_runtime(folder="killed"), **options)
    assert sums(resumed) == sums(whole) and resumed.steps == whole.steps
    assert resumed.record.series.equals(whole.record.series)


def test_missing_8_bit_optimiser_stops_before_anything_is_made(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    runtime = make_runtime()
    with pytest.raises(ConfigError, match=r"^finetune_dreambooth.optimizer: adamw_8bit .*pip install bitsandbytes"):
        run(photos, base, runtime, optimizer="adamw_8bit")
    assert not runtime.folder.exists() and not (runtime.folder.parent / "work").exists()


def test_8_bit_optimiser_trains_and_resumes(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    options = {"optimizer": "adamw_8bit", "steps": 40, "checkpoint_every": 20}
    whole = run(photos, base, make_runtime(folder="whole"), **options)
    loss = whole.record.series.query("name == 'instance_loss'").value
    assert loss.iloc[-3:].mean() < 0.95 * loss.iloc[:3].mean()
    kill_at(monkeypatch, 25, [], lambda: None)
    with pytest.raises(Killed):
        run(photos, base, make_runtime(folder="killed"), **options)
    monkeypatch.undo()
    assert sums(run(photos, base, make_runtime(folder="killed"), **options)) == sums(whole)
