"""Training of the bundled models: losses against slow references, the loop, and all stages on a few renders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPProcessor, CLIPTokenizer

from dreambooth3d.cameras import VIEW_WORDS, view_word
from dreambooth3d.errors import BaseModelError, ConfigError
from dreambooth3d.toybox.captions import KIND_OF, random_caption
from dreambooth3d.toybox.pretraining import dataset, folders, loop, networks, scorers, stages, unet, vae
from dreambooth3d.toybox.pretraining.dataset import ATTRIBUTES, NOUNS, STATEMENTS, UNKNOWN, Probes, Renders
from dreambooth3d.toybox.pretraining.loop import PretrainingLoop, Schedule, one_cycle
from dreambooth3d.toybox.pretraining.measure import away_from_borders
from dreambooth3d.toybox.recipes import COLOUR_NAMES, HELD_OUT_ACCESSORIES, HELD_OUT_COLOUR_PAIRS, random_recipe
from dreambooth3d.toybox.sampling import CLASS_NAMES

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return folders.toybox_tokenizer()


# Captions and what they state.


def test_one_caption_line_per_statement_says_what_is_stated() -> None:
    random = Random(0)
    for _ in range(50):
        recipe = random_recipe(random)
        lines = dataset.statement_captions(recipe, "back", random).split("\n")
        assert len(lines) == len(STATEMENTS)
        for line, stated in zip(lines, STATEMENTS, strict=True):
            words = line.replace(",", " ,").split()
            assert recipe.class_noun in words
            assert ("view" in words) == ("view" in stated)
            assert any(word in COLOUR_NAMES for word in words) == ("main" in stated)
            assert ("and" in words) == ("second" in stated)
            assert (recipe.pattern in words) == ("pattern" in stated and recipe.pattern != "plain")
            assert ("wearing" in words) == ("accessory" in stated and recipe.accessory is not None)


def test_scorer_captions_are_all_statements_then_rivals_that_are_near_misses() -> None:
    random = Random(0)
    for _ in range(50):
        recipe = random_recipe(random, reserved=True)
        lines = dataset.scorer_captions(recipe, "back", random).split("\n")
        statements, rivals = lines[: len(STATEMENTS)], lines[len(STATEMENTS) :]
        assert statements == dataset.statement_captions(recipe, "back", random).split("\n")
        truth = statements[dataset.FULL_STATEMENT].split()
        assert len(rivals) == dataset.RIVALS and " ".join(truth) not in rivals
        for rival in rivals:
            words = rival.split()
            assert "view" not in words and words[:5] == "a photo of a".split() + words[4:5]
            # Two edits change at most both colours and the four words of an accessory.
            assert len(set(words) ^ set(truth)) <= 8
            main, second = words[4], words[6]
            assert frozenset((main, second)) not in HELD_OUT_COLOUR_PAIRS
            assert "wearing" not in words or (words[-1], words[-2]) not in HELD_OUT_ACCESSORIES


def test_caption_variants_are_captions_of_the_denoisers_language() -> None:
    recipe = random_recipe(Random(1))
    expected_from = Random(2)
    expected = [random_caption(recipe, "side", expected_from) for _ in range(dataset.CAPTION_VARIANTS)]
    assert dataset.caption_variants(recipe, "side", Random(2)).split("\n") == expected


def test_statement_matrix_against_a_loop() -> None:
    matrix = dataset.statement_matrix(CPU)
    assert matrix.shape == (len(STATEMENTS), len(ATTRIBUTES)) and matrix.dtype == torch.bool
    for row, stated in enumerate(STATEMENTS):
        assert {ATTRIBUTES[column] for column in matrix[row].nonzero().flatten().tolist()} == set(stated)


def test_true_pairs_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    # Few values, so that many pairs agree; -1 is the missing accessory.
    images = torch.randint(-1, 2, (20, 7), generator=generator)
    captions = torch.randint(-1, 2, (15, 7), generator=generator)
    kinds = torch.randint(len(STATEMENTS), (15,), generator=generator)
    pairs = dataset.true_pairs(images, captions, dataset.statement_matrix(CPU)[kinds])
    assert pairs.any() and not pairs.all()
    for image in range(20):
        for text in range(15):
            columns = [ATTRIBUTES.index(name) for name in STATEMENTS[kinds[text]]]
            holds = all(images[image, column] == captions[text, column] for column in columns)
            assert pairs[image, text] == holds


# Renders.


def test_renders_agree_with_their_attributes_and_are_read_back(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    calls = []

    def make() -> Renders:
        calls.append(1)
        return dataset.make_renders(4, 7, tokenizer, dataset.statement_captions, CPU)

    path = tmp_path / "cache" / "renders.safetensors"
    made, read = (dataset.cached_renders(path, make, CPU) for _ in range(2))
    assert len(calls) == 1 and len(made) == 4
    assert made.images.shape == (4, 3, 64, 64) and made.images.dtype == torch.uint8
    assert made.tokens.shape == (4, len(STATEMENTS), 24) and made.attributes.shape == (4, len(ATTRIBUTES))
    for name in vars(made):
        assert torch.equal(getattr(made, name), getattr(read, name))
    for index in range(4):
        shown = dict(zip(ATTRIBUTES, made.attributes[index].tolist(), strict=True))
        text = tokenizer.decode(made.tokens[index, 3], skip_special_tokens=True)
        view = view_word(made.azimuth_deg[index].item(), made.elevation_deg[index].item())
        assert VIEW_WORDS[shown["view"]] == view
        noun, colour = CLASS_NAMES[shown["class_index"]], COLOUR_NAMES[shown["main"]]
        assert text.split() == f"a photo of a {colour} {noun} , {view} view".split()


def test_renders_of_several_batches_take_one_seed_each(
    tokenizer: CLIPTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_BATCH", 2)
    both = dataset.make_renders(3, 7, tokenizer, dataset.caption_variants, CPU)
    second = dataset.make_renders(1, 8, tokenizer, dataset.caption_variants, CPU)
    assert torch.equal(both.images[2:], second.images) and torch.equal(both.tokens[2:], second.tokens)
    assert torch.equal(both.attributes[2:], second.attributes)


# Probes.


def test_probes_ask_in_the_order_of_classes_colours_and_views(tokenizer: CLIPTokenizer) -> None:
    probes = Probes.build(tokenizer, CPU)
    texts = tokenizer.batch_decode(probes.tokens, skip_special_tokens=True)
    scores = torch.arange(len(texts)).float().expand(len(NOUNS), -1)
    asked = torch.arange(len(NOUNS))
    classes, colours, views = probes.answers(scores, asked)
    for row, noun in enumerate(NOUNS):
        assert [texts[int(i)].split()[-1] for i in classes[row]] == list(NOUNS)
        assert [texts[int(i)].split()[-2:] for i in colours[row]] == [[colour, noun] for colour in COLOUR_NAMES]
        assert [texts[int(i)].split()[-4:] for i in views[row]] == [[noun, ",", view, "view"] for view in VIEW_WORDS]


def test_probe_loss_is_the_sum_of_cross_entropies_of_what_is_known(tokenizer: CLIPTokenizer) -> None:
    generator = torch.Generator().manual_seed(0)
    probes = Probes.build(tokenizer, CPU)
    scores = torch.randn(5, len(probes.tokens), generator=generator)
    attributes = torch.stack([torch.randint(4, (5,), generator=generator) for _ in ATTRIBUTES], dim=1)
    attributes[0, 0], attributes[3, 0] = NOUNS.index("vehicle"), NOUNS.index("duck")
    attributes[0, 1] = attributes[0, -1] = attributes[2, -1] = UNKNOWN
    asked = torch.tensor([NOUNS.index(noun) for noun in ("object", "cat", "animal", "duck", "object")])
    classes, nouns, colours = len(CLASS_NAMES), len(NOUNS), len(COLOUR_NAMES)
    by_class, by_kind, by_colour, by_view = [], [], [], []
    for row, told, noun in zip(scores, attributes.tolist(), asked.tolist(), strict=True):
        first_colour = nouns + noun * colours
        first_view = nouns + nouns * colours + noun * len(VIEW_WORDS)
        kind = NOUNS.index(KIND_OF.get(NOUNS[told[0]], NOUNS[told[0]])) - classes
        by_kind.append((0.25 if told[0] < classes else 1.0) * -row[classes:nouns].log_softmax(0)[kind])
        if told[0] < classes:
            by_class.append(-row[:classes].log_softmax(0)[told[0]])
        if told[1] != UNKNOWN:
            by_colour.append(-row[first_colour : first_colour + colours].log_softmax(0)[told[1]])
        if told[-1] != UNKNOWN:
            by_view.append(-row[first_view : first_view + len(VIEW_WORDS)].log_softmax(0)[told[-1]])
    assert [len(each) for each in (by_class, by_kind, by_colour, by_view)] == [4, 5, 4, 3]
    expected = sum(torch.stack(each).mean() for each in (by_class, by_kind, by_colour, by_view))
    torch.testing.assert_close(dataset.probe_loss(probes, scores, attributes, asked), expected)


# Losses.


def test_multi_positive_loss_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randn(6, 8, generator=generator)
    positive = torch.rand(6, 8, generator=generator) < 0.3
    positive[:, 0] = positive[0] = True
    exp = similarity.exp().tolist()

    def direction(probability: Callable[[int, int], float], rows: int, columns: int, true: Tensor) -> float:
        losses = []
        for row in range(rows):
            targets = [column for column in range(columns) if true[row, column]]
            losses.append(-sum(math.log(probability(row, column)) for column in targets) / len(targets))
        return sum(losses) / rows

    by_image = direction(lambda i, t: exp[i][t] / sum(exp[i]), 6, 8, positive)
    by_text = direction(lambda t, i: exp[i][t] / sum(row[t] for row in exp), 8, 6, positive.T)
    loss = scorers.multi_positive_loss(similarity, positive).item()
    assert loss == pytest.approx((by_image + by_text) / 2, rel=1e-5)


def test_rival_loss_is_the_cross_entropy_of_the_first_caption() -> None:
    generator = torch.Generator().manual_seed(0)
    image, texts = torch.randn(3, 5, generator=generator), torch.randn(3, 4, 5, generator=generator)
    expected = 0.0
    for own, rivals in zip(image.tolist(), texts.tolist(), strict=True):
        scores = [10 * sum(a * b for a, b in zip(own, text, strict=True)) for text in rivals]
        expected -= scores[0] - math.log(sum(map(math.exp, scores)))
    assert dataset.rival_loss(image, texts, torch.tensor(10.0)).item() == pytest.approx(expected / 3, rel=1e-4)


def test_multi_positive_loss_of_the_diagonal_is_clips() -> None:
    similarity = torch.randn(7, 7, generator=torch.Generator().manual_seed(1))
    own = torch.arange(7)
    clip = (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
    torch.testing.assert_close(scorers.multi_positive_loss(similarity, torch.eye(7, dtype=torch.bool)), clip)


def test_snr_weights_are_the_truncated_ratio() -> None:
    alphas = networks.new_scheduler().alphas_cumprod
    weights = unet.snr_weights(alphas, gamma=5.0)
    for alpha, weight in zip(alphas.tolist(), weights.tolist(), strict=True):
        ratio = alpha / (1 - alpha)
        assert weight == pytest.approx(min(ratio, 5.0) / ratio, rel=1e-3)
    assert weights[0] < 0.01 and weights[-1] == 1


def test_reconstruction_loss_is_zero_only_for_equal_images_and_sees_lost_edges() -> None:
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert vae.reconstruction_loss(image, image) == 0
    shifted = vae.reconstruction_loss(image + 0.1, image)
    assert shifted.item() == pytest.approx(0.1 + 2 * 0.01, rel=1e-4)  # a constant offset changes no gradient
    checkers = torch.tensor([[0.1, -0.1], [-0.1, 0.1]]).repeat(4, 4)
    assert vae.reconstruction_loss(image + checkers, image).item() == pytest.approx(0.12 + 0.5 * 0.4, rel=1e-4)


def test_augmentation_keeps_shape_and_range_and_changes_pictures() -> None:
    torch.manual_seed(0)
    images = torch.rand(5, 3, 64, 64)
    augmented = scorers.augment(images)
    assert augmented.shape == images.shape
    assert augmented.min() >= 0 and augmented.max() <= 1
    assert ((augmented - images).abs().amax(dim=(1, 2, 3)) > 0.05).all()
    grey = scorers.augment(torch.full((64, 3, 16, 16), 0.5))
    assert (grey.mean() - 0.5).abs() < 0.02


def test_away_from_borders() -> None:
    cases = {
        (0, 0): True, (44, 0): False, (46, 0): False, (29, 0): True, (31, 0): False, (90, 0): True, (-90, 0): True,
        (125, 0): False, (-140, 0): False, (180, 0): True, (350, 0): True, (315, 0): False, (-225, 0): False,
        (0, 50): True, (0, 55): False, (0, 65): False, (0, 70): True, (45, 80): True, (45, 50): False,
    }  # fmt: skip
    azimuth, elevation = (torch.tensor(values, dtype=torch.float32) for values in zip(*cases, strict=True))
    assert away_from_borders(azimuth, elevation).tolist() == list(cases.values())


# The training loop.


def test_one_cycle_warms_up_to_one_and_falls_to_the_floor() -> None:
    assert one_cycle(0.0) == pytest.approx(0.01)
    assert one_cycle(0.02) == pytest.approx(0.5)
    assert one_cycle(0.04) == pytest.approx(1.0)
    assert one_cycle(0.52) == pytest.approx((1 + 0.01) / 2, abs=1e-6)
    assert one_cycle(1.0) == pytest.approx(0.01, abs=1e-6)
    rates = [one_cycle(step / 1000) for step in range(1001)]
    assert rates[:41] == sorted(rates[:41])
    assert rates[40:] == sorted(rates[40:], reverse=True)


class Regression:
    """A linear layer that learns y = w x + b from all points at once."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = torch.nn.Linear(3, 1)
        self.inputs = torch.randn(32, 3)
        self.weight, self.bias = torch.tensor([[0.5, -1.0, 2.0]]), 0.3
        self.outputs = self.inputs @ self.weight.T + self.bias
        self.calls = 0

    def trainer(self, work: Path, steps: int, **options: float) -> PretrainingLoop:
        schedule = Schedule(steps=steps, learning_rate=0.05, weight_decay=0.0, **options)
        trainer = PretrainingLoop([self.module], schedule, work, "regression")
        trainer.resume.interval_s = 0
        return trainer

    def loss(self) -> Tensor:
        self.calls += 1
        return (self.module(self.inputs) - self.outputs).square().mean()

    def state(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.module.parameters()])


@pytest.fixture
def no_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.ResumePoint, "due", lambda self: False)


@pytest.mark.usefixtures("no_saving")
def test_trainer_learns_and_leaves_the_moving_average_in_the_weights(tmp_path: Path) -> None:
    problem, seen = Regression(), []
    trainer = problem.trainer(tmp_path, 500)
    trainer.optimizer.register_step_post_hook(lambda *_: seen.append(problem.state()))
    trainer.run(problem.loss)
    assert len(seen) == problem.calls == 500
    torch.testing.assert_close(problem.module.weight.detach(), problem.weight, atol=0.02, rtol=0)
    assert problem.module.bias.item() == pytest.approx(problem.bias, abs=0.02)
    # The mean of a weight's path lies inside the path's range, not at its end.
    average, path = problem.state(), torch.stack(seen)
    assert not torch.equal(average, seen[-1])
    assert ((average >= path.min(0).values) & (average <= path.max(0).values)).all()


@pytest.mark.usefixtures("no_saving")
def test_average_that_takes_each_new_value_whole_is_the_last_weights(tmp_path: Path) -> None:
    problem, seen = Regression(), []
    trainer = problem.trainer(tmp_path, 200, ema=1.0)
    trainer.optimizer.register_step_post_hook(lambda *_: seen.append(problem.state()))
    trainer.run(problem.loss)
    torch.testing.assert_close(problem.state(), seen[-1])


def test_trainer_resumes_where_it_was_killed_and_ends_as_if_never_stopped(tmp_path: Path) -> None:
    whole = Regression()
    whole.trainer(tmp_path / "whole", 60).run(whole.loss)

    killed = Regression()

    def fails_in_step_25() -> Tensor:
        if killed.calls == 25:
            raise KeyboardInterrupt
        return killed.loss()

    with pytest.raises(KeyboardInterrupt):
        killed.trainer(tmp_path, 60).run(fails_in_step_25)
    assert len(list(tmp_path.glob("regression-*/state.safetensors"))) == 1

    resumed = Regression()
    with torch.no_grad():
        resumed.module.weight.zero_()
    trainer = resumed.trainer(tmp_path, 60)
    assert trainer.start == 25
    assert torch.equal(resumed.state(), killed.state())
    trainer.run(resumed.loss)
    assert resumed.calls == 35
    torch.testing.assert_close(resumed.state(), whole.state())
    assert not list(tmp_path.glob("regression-*"))


@pytest.mark.usefixtures("no_saving")
@pytest.mark.parametrize(("minutes", "steps"), [(10, 600), (1000, 900), (1, 201)])
def test_minutes_shorten_the_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, steps: int
) -> None:
    problem = Regression()
    # A clock by which each step takes one second.
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(problem.calls)))
    trainer = problem.trainer(tmp_path, 900, minutes=minutes)
    trainer.run(problem.loss)
    assert problem.calls == steps
    # The schedule is compressed, not cut off: the last step is at the end of the cycle.
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * one_cycle((steps - 1) / steps))


# Networks and stages.


def test_networks_stay_small_enough_to_ship(tokenizer: CLIPTokenizer) -> None:
    count = networks.parameter_count
    assert count(networks.new_unet()) <= 5.5e6
    assert count(networks.new_vae()) <= 2e6
    assert count(networks.new_text_encoder(tokenizer)) <= 1e6
    assert sum(count(networks.new_scorer(name, tokenizer)) for name in networks.SCORER_NAMES) <= 1.8e6


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All models after ten steps each on six renders."""
    work, models = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMBOOTH3D_WORK", str(work))
        for module in (vae, unet, scorers):
            patch.setattr(module, "_BATCH", 2)
        stages.pretrain(("vae", "unet", *networks.SCORER_NAMES), models, renders=6, steps=10, device="cpu")
    yield models
    stages._base_renders.cache_clear()


def test_base_model_loads_as_stable_diffusion(trained: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(trained / "toybox", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline("a photo of a red dog, front view", num_inference_steps=2, output_type="pt").images
    assert images.shape == (1, 3, 64, 64) and images.isfinite().all()
    assert next(folders.load_vae(trained, CPU).parameters()).dtype == torch.float32


def test_no_configuration_names_the_folder_that_its_model_came_from(trained: Path) -> None:
    loaded = folders.load_vae(trained, CPU)
    folders.save_vae(loaded, trained)
    for part in ("vae", "unet"):
        assert str(trained) not in (trained / "toybox" / part / "config.json").read_text()


def test_what_is_saved_lies_between_the_start_and_the_trained_weights() -> None:
    start, trained = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    expected = 0.3 * start.weight.detach() + 0.7 * trained.weight.detach()
    torch.testing.assert_close(stages.averaged(trained, start, 0.3).weight.detach(), expected)
    kept = trained.weight.detach().clone()
    assert torch.equal(stages.averaged(trained, None, 0.3).weight, kept), "without a start nothing is averaged"


def test_training_moves_the_weights(trained: Path) -> None:
    torch.manual_seed(2)
    start = networks.new_unet().state_dict()
    end = folders.load_base_model(trained, CPU).unet.state_dict()
    assert any((end[name] - start[name]).abs().max() > 1e-3 for name in start)


def test_scaling_factor_gives_latents_unit_spread(trained: Path) -> None:
    model = folders.load_vae(trained, CPU)
    renders = dataset.make_renders(6, 0, folders.toybox_tokenizer(), dataset.caption_variants, CPU)
    latents = vae.encode(model, renders.images, batch=4)
    assert latents.shape == (6, 4, 16, 16)
    assert (latents * model.config.scaling_factor).std().item() == pytest.approx(1, abs=0.01)


def test_reconstruction_psnr_against_a_loop(trained: Path) -> None:
    model = folders.load_vae(trained, CPU)
    images = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values = []
    for image in images:
        target = image[None].float() / 255
        with torch.no_grad():
            output = model(target * 2 - 1, sample_posterior=False).sample
        error = ((output / 2 + 0.5).clamp(0, 1) - target).square().mean().item()
        values.append(-10 * math.log10(error))
    assert vae.reconstruction_psnr(model, images) == pytest.approx(sum(values) / 3, abs=1e-3)


@pytest.mark.parametrize("name", networks.SCORER_NAMES)
def test_scorers_load_with_a_processor_that_prepares_images_as_in_training(trained: Path, name: str) -> None:
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    processor = CLIPProcessor.from_pretrained(trained / name)
    pictures = [image.permute(1, 2, 0).numpy() for image in images]
    texts = ["a photo of a dog", "a photo of a red cat, back view"]
    inputs = processor(text=texts, images=pictures, return_tensors="pt", padding="max_length")
    torch.testing.assert_close(inputs["pixel_values"].float(), scorers.normalise(images.float() / 255))
    model = CLIPModel.from_pretrained(trained / name, torch_dtype=torch.float32)
    with torch.no_grad():
        output = model(**inputs)
        ours = folders.load_scorer(name, trained, CPU)
        image, text = scorers.image_features(ours, images / 255), scorers.text_features(ours, inputs["input_ids"])
    torch.testing.assert_close(output.image_embeds, image, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.text_embeds, text, atol=1e-5, rtol=0)


def test_wrong_order_and_unknown_stages_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="Run the stage vae first"):
        folders.load_vae(tmp_path, CPU)
    with pytest.raises(ConfigError, match="'vea'.*vae, unet, selector, judge, card"):
        stages.pretrain(("vae", "vea"), tmp_path)
