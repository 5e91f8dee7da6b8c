"""Fine-tuning: it learns, its checkpoints reload, and an interrupted run ends as an uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from dreambooth3d.artifacts import BaseModelRef, CheckpointSet, PseudoViews, SubjectPhotos
from dreambooth3d.cameras import turntable_cameras
from dreambooth3d.config.finetuning import FinetuneConfig, MultiviewConfig
from dreambooth3d.config.models import BaseModelConfig
from dreambooth3d.diffusion.finetuning.backgrounds import with_random_backgrounds
from dreambooth3d.diffusion.finetuning.batches import step_generator
from dreambooth3d.diffusion.finetuning.class_images import cache_folder
from dreambooth3d.diffusion.finetuning.dreambooth import finetune, finetune_multiview
from dreambooth3d.diffusion.finetuning.image_groups import photo_group
from dreambooth3d.diffusion.finetuning.training import DreamBoothTrainer
from dreambooth3d.diffusion.model.base_model import resolve
from dreambooth3d.diffusion.model.components import Components, load_components
from dreambooth3d.diffusion.model.export import export_pipeline
from dreambooth3d.diffusion.sampling.text_to_image import Sampling
from dreambooth3d.errors import ArtifactError, BaseModelError, DreamBooth3DError
from dreambooth3d.prompts import view_prompt
from dreambooth3d.runtime import ResumePoint, Runtime
from dreambooth3d.weights import save_weights, sha256_file
from tests.tiny_models import write_tiny_base_model

CONFIG = FinetuneConfig(
    steps=12,
    checkpoint_every=6,
    batch_size=2,
    class_images=4,
    class_inference_steps=2,
    sample_inference_steps=2,
    learning_rate=1e-3,
    warmup_steps=4,
)
MakeRuntime = Callable[..., Runtime]


def run(photos: SubjectPhotos, base: BaseModelRef, runtime: Runtime, **changes: object) -> CheckpointSet:
    """Fine-tune with the small configuration."""
    return finetune(photos, base, CONFIG.model_copy(update=changes), 0, runtime)


def sums(checkpoints: CheckpointSet) -> dict[int, tuple[str, str]]:
    """File hashes by step."""
    pairs = checkpoints.checkpoints
    return {step: (pairs[step].unet.sha256, pairs[step].text_encoder.sha256) for step in checkpoints.steps}


def test_finetuning_lowers_the_loss(photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    result = run(photos, base, runtime, steps=60, checkpoint_every=60, sample_every_checkpoint=False)
    loss = result.record.series.query("name == 'instance_loss'").value
    assert loss.iloc[-3:].mean() < 0.9 * loss.iloc[:3].mean()
    names = {"loss", "instance_loss", "prior_loss", "gradient_norm", "learning_rate"}
    assert set(result.record.series.name) == names
    assert not (runtime.folder / "state").exists()


def test_checkpoints_reload(photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime) -> None:
    result = run(photos, base, make_runtime())
    assert result.steps == [0, 6, 12]
    assert set(result.record.images) >= {f"samples/{step:06d}" for step in result.steps}
    original = load_components(base, "cpu")
    start = load_components(base, "cpu", result.checkpoints[0])
    end = load_components(base, "cpu", result.checkpoints[12])
    for name in ("unet", "text_encoder"):
        first, zero, last = (getattr(parts, name).state_dict() for parts in (original, start, end))
        assert all(torch.allclose(first[key], zero[key], atol=1e-3) for key in first)
        assert any(not torch.allclose(first[key], last[key], atol=2e-3) for key in first)
        stored = getattr(result.checkpoints[12], name).load()
        assert all(torch.equal(last[key], stored[key].float()) for key in stored)
    assert not any(parameter.requires_grad for parameter in end.unet.parameters())


def test_prior_and_text_encoder_can_be_off(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime
) -> None:
    result = run(photos, base, make_runtime(), prior_weight=0.0, train_text_encoder=False, steps=6)
    assert "prior_loss" not in set(result.record.series.name)
    pairs = sums(result)
    assert pairs[0][1] == pairs[6][1] and pairs[0][0] != pairs[6][0]


def test_checkpoints_load_under_either_naming_of_the_text_encoder(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    checkpoint = run(photos, base, make_runtime(), steps=6).checkpoints[6]
    prefix, weights = "text_model.", checkpoint.text_encoder.load()
    other = {name.removeprefix(prefix) if name.startswith(prefix) else prefix + name: weights[name] for name in weights}
    renamed = replace(checkpoint, text_encoder=save_weights(other, tmp_path / "renamed.safetensors"))
    expected = load_components(base, "cpu", checkpoint).encode_prompts(["a dog"])
    assert torch.equal(load_components(base, "cpu", renamed).encode_prompts(["a dog"]), expected)


def test_a_damaged_checkpoint_is_named(photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime) -> None:
    checkpoint = run(photos, base, make_runtime(), steps=6, train_text_encoder=False).checkpoints[6]
    file = Path(checkpoint.unet.uri)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=f"{file.name}: these weights are not the ones that were saved"):
        load_components(base, "cpu", checkpoint)
    same_file = replace(checkpoint.unet, sha256=sha256_file(file))
    with pytest.raises(BaseModelError, match="damaged or does not fit"):
        load_components(base, "cpu", replace(checkpoint, unet=same_file))


class Killed(BaseException):
    """Stands for a kill: nothing in the library catches it."""


def test_a_killed_run_ends_as_an_uninterrupted_one(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(photos, base, make_runtime(folder="whole"))
    monkeypatch.setattr(ResumePoint, "due", lambda self: True)
    step = DreamBoothTrainer.train_step

    def step_until_nine(self: DreamBoothTrainer, index: int) -> dict[str, torch.Tensor]:
        if index == 9:
            raise Killed
        return step(self, index)

    monkeypatch.setattr(DreamBoothTrainer, "train_step", step_until_nine)
    with pytest.raises(Killed):
        run(photos, base, make_runtime(folder="killed"))
    steps: list[int] = []
    monkeypatch.setattr(
        DreamBoothTrainer, "train_step", lambda self, index: (steps.append(index), step(self, index))[1]
    )
    resumed = run(photos, base, make_runtime(folder="killed"))
    assert steps == [6, 7, 8, 9, 10, 11]
    assert sums(resumed) == sums(whole)
    assert resumed.record.series.equals(whole.record.series)
    assert set(resumed.record.images) == set(whole.record.images)


def test_stop_signal_keeps_what_is_there_and_can_go_on(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime
) -> None:
    calls = iter(range(100))
    stopped = run(photos, base, make_runtime(should_stop=lambda: next(calls) >= 8))
    assert stopped.record.params["interrupted"] is True and stopped.steps[0] == 0 and 0 < stopped.steps[-1] < 12
    resumed = run(photos, base, make_runtime())
    whole = run(photos, base, make_runtime(folder="whole"))
    assert sums(resumed) == sums(whole)


def test_class_images_are_made_once(
    photos: SubjectPhotos, base: BaseModelRef, components: Components, make_runtime: MakeRuntime
) -> None:
    first = run(photos, base, make_runtime(folder="a"), steps=6)
    folder = cache_folder(components, [photos.class_prompt] * 4, Sampling(3.0, 2, 0))
    files = {file: file.stat().st_mtime_ns for file in sorted(folder.glob("*.png"))}
    assert len(files) == 4
    broken, gone, *kept = files
    content = gone.read_bytes()
    broken.write_bytes(b"not an image")
    gone.unlink()
    second = run(photos, base, make_runtime(folder="b"), steps=6)
    assert all(file.stat().st_mtime_ns == files[file] for file in kept)
    assert gone.read_bytes() == content
    assert sums(first) == sums(second)


def test_unknown_noun_stops_before_anything_is_written(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime
) -> None:
    runtime = make_runtime()
    with pytest.raises(BaseModelError, match="'xylophone'"):
        run(replace(photos, class_noun="xylophone"), base, runtime)
    assert not runtime.folder.exists()


def test_multiview_continues_the_partial_checkpoint(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime
) -> None:
    partial = run(photos, base, make_runtime(), steps=6).checkpoints[6]
    views = torch.rand(4, 3, 64, 64)
    pseudo = PseudoViews(views, views, views[:, 0], turntable_cameras(4), 0.4)
    config = MultiviewConfig(steps=5, learning_rate=1e-3, background_augmentation=True)
    runtime = make_runtime("finetune_multiview", folder="multiview")
    result = finetune_multiview(partial, pseudo, photos, config, 0, runtime)
    assert result.step == 11 and result.base_model == base
    assert {"pseudo_loss", "photo_loss"} <= set(result.record.series.name)
    assert result.unet.sha256 != partial.unet.sha256 and result.text_encoder.sha256 != partial.text_encoder.sha256


def test_velocity_models_train(photos: SubjectPhotos, tmp_path: Path, make_runtime: MakeRuntime) -> None:
    folder = write_tiny_base_model(tmp_path / "velocity", prediction_type="v_prediction")
    velocity = resolve(BaseModelConfig(path=str(folder)))
    result = run(photos, velocity, make_runtime(), steps=40, checkpoint_every=40, sample_every_checkpoint=False)
    loss = result.record.series.query("name == 'loss'").value
    assert loss.iloc[-1] < loss.iloc[0]


def test_exported_folder_is_a_stable_diffusion_pipeline(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    checkpoint = run(photos, base, make_runtime(), steps=6).checkpoints[6]
    pipeline = StableDiffusionPipeline.from_pretrained(export_pipeline(checkpoint, tmp_path / "export"))
    stored = checkpoint.unet.load()
    weights = pipeline.unet.state_dict()
    assert all(torch.equal(weights[key], stored[key].float()) for key in stored)
    assert resolve(BaseModelConfig(path=str(tmp_path / "export"))).digest


def test_each_step_has_its_own_randomness() -> None:
    draws = [torch.rand(1, generator=step_generator(0, step, rank)).item() for step in range(50) for rank in (0, 1)]
    assert len(set(draws)) == 100
    assert draws[0] == torch.rand(1, generator=step_generator(0, 0)).item()


def test_random_backgrounds(photos: SubjectPhotos) -> None:
    images = torch.stack(photos.images)
    everywhere = torch.ones(3, dtype=torch.bool)
    result = with_random_backgrounds(photos, 64, 2, 1.0, everywhere, torch.Generator().manual_seed(0))
    assert result.shape == (9, 3, 64, 64) and torch.equal(result[:3], images)
    assert torch.equal(result[3:6, :, 18:36, 24:40], images[:, :, 18:36, 24:40])
    assert (result[3:6, :, 0, 0] - images[:, :, 0, 0]).abs().max() > 0.05


def before_clutter(photos: SubjectPhotos) -> SubjectPhotos:
    """The photos before noise, with their true masks, which a network has found."""
    noise = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    masks = torch.stack(photos.masks)
    images = tuple(
        torch.where(mask > 0.5, image, other) for image, mask, other in zip(photos.images, masks, noise, strict=True)
    )
    return replace(photos, images=images, facts=photos.facts.assign(mask_source="rembg"))


def test_subjects_before_anything_are_cut_out_and_put_before_other_things(photos: SubjectPhotos) -> None:
    cluttered, chosen = before_clutter(photos), torch.tensor([True, True, False])
    result = with_random_backgrounds(cluttered, 64, 8, 2 / 3, chosen, torch.Generator().manual_seed(0))
    images, masks = torch.stack(cluttered.images), torch.stack(photos.masks)
    assert torch.equal(result[:3], images)
    variants = result[3:].view(8, 3, 3, 64, 64)
    inside = (masks > 0.99)[:, None].expand(3, 3, 64, 64)
    for variant in variants:
        torch.testing.assert_close(variant[inside], images[inside], atol=1e-5, rtol=0)
    outside = ((variants - images) * (masks < 0.01)[:, None]).abs().amax(dim=(2, 3, 4))
    assert (outside[:6, :2] > 0.1).all() and (outside[6:] == 0).all() and (outside[:, 2] == 0).all()
    flat = variants[:6, 0, :, :5].std(dim=(-1, -2)).mean(dim=1)
    assert (flat < 1e-6).any() and (flat > 0.05).any(), "plain colours as well as textures"


def test_the_loss_counts_less_where_a_trusted_mask_shows_no_subject(
    photos: SubjectPhotos, components: Components
) -> None:
    config = FinetuneConfig(photo_view_prompts=False, background_augmentation=False, loss_outside_mask=0.25)

    def weights(photos: SubjectPhotos, config: FinetuneConfig = config) -> torch.Tensor | None:
        return photo_group(components, photos, config, 0, name="instance", count=2, weight=1.0).pixel_weights

    cluttered = before_clutter(photos)
    size = photo_group(components, photos, config, 0, name="i", count=2, weight=1.0).latents.shape[-1]
    truth = torch.nn.functional.interpolate(torch.stack(photos.masks)[:, None], size=(size, size), mode="area")
    torch.testing.assert_close(weights(cluttered), 0.25 + 0.75 * truth)
    untrusted = replace(cluttered, facts=cluttered.facts.assign(mask_trusted=[True, False, True]))
    assert (weights(untrusted)[1] == 1).all() and (weights(untrusted)[0] < 1).any()
    assert weights(photos) is None, "what lies before a smooth background is trained on as ever"
    assert weights(cluttered, config.model_copy(update={"loss_outside_mask": 1.0})) is None
    augmented = config.model_copy(update={"background_augmentation": None})
    assert weights(cluttered, augmented).shape == (27, 1, size, size)


def test_photos_before_smooth_backgrounds_are_trained_on_as_ever(photos: SubjectPhotos, components: Components) -> None:
    group = photo_group(components, photos, FinetuneConfig(), 0, name="instance", count=2, weight=1.0)
    assert torch.equal(group.latents, components.encode_all(photos.resized(components.image_size)))
    assert set(group.prompts) == {"a photo of a sks dog"}


def test_captions_are_the_prompts_of_their_photos(photos: SubjectPhotos, components: Components) -> None:
    captioned = replace(photos, facts=photos.facts.assign(caption=["a red sks dog", "", ""], view="side"))
    group = photo_group(components, captioned, FinetuneConfig(), 0, name="instance", count=2, weight=1.0)
    plain = "a photo of a sks dog"
    assert list(group.prompts[:3]) == ["a red sks dog", plain, plain]
    assert list(group.prompts[3:]) == [view_prompt("a red sks dog", "side"), *[view_prompt(plain, "side")] * 2]


def test_a_masked_training_is_another_training(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime
) -> None:
    """But for the weights of the pixels, both draw the same batches."""
    cluttered, losses = before_clutter(photos), {}
    for weight in (1.0, 0.1):
        changes = {"steps": 2, "checkpoint_every": 2, "prior_weight": 0, "background_augmentation": False}
        result = run(cluttered, base, make_runtime(folder=f"of_{weight}"), **changes, loss_outside_mask=weight)
        series = result.record.series
        losses[weight] = series[series["name"] == "instance_loss"]["value"].tolist()
    assert losses[1.0] != losses[0.1]


def test_weights_that_are_no_longer_finite_are_no_result(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last update can leave the numbers after a loss that was finite."""
    train_step = DreamBoothTrainer.train_step

    def last_one_explodes(trainer: DreamBoothTrainer, step: int) -> dict[str, torch.Tensor]:
        losses = train_step(trainer, step)
        if step == CONFIG.steps - 1:
            trainer.networks.parameters[0].data.fill_(torch.inf)
        return losses

    monkeypatch.setattr(DreamBoothTrainer, "train_step", last_one_explodes)
    runtime = make_runtime()
    with pytest.raises(DreamBooth3DError, match="weights were no longer finite at step 12. Lower .*learning_rate"):
        run(photos, base, runtime)
    assert not list(runtime.folder.rglob("000012/*"))


def test_a_loss_that_is_no_longer_finite_ends_the_training(
    photos: SubjectPhotos, base: BaseModelRef, make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_step = DreamBoothTrainer.train_step

    def explodes(trainer: DreamBoothTrainer, step: int) -> dict[str, torch.Tensor]:
        losses = train_step(trainer, step)
        return {name: value * torch.nan for name, value in losses.items()} if step == 2 else losses

    monkeypatch.setattr(DreamBoothTrainer, "train_step", explodes)
    with pytest.raises(DreamBooth3DError, match="loss was no longer finite at step 5. Lower .*learning_rate"):
        run(photos, base, make_runtime())
