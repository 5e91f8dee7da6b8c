"""The benchmark of masked fine-tuning: its distance by known values, its samples' masks, and a whole run in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import masked_finetuning as benchmark
from benchmarks.masked_finetuning import Job, PhotoFolder, color_distance, find_sets, finetuning_config, sample_masks
from dreambooth3d.errors import ConfigError
from dreambooth3d.toybox.render import render_views
from dreambooth3d.toybox.subjects import casual_photos, photo_cameras, subject_recipe, write_subject


def test_the_distance_of_shifted_colours_is_the_shift() -> None:
    rng = np.random.default_rng(1)
    colors = rng.normal(size=(3000, 3)) * 10 + 50
    assert color_distance(colors, rng.permutation(colors)) == pytest.approx(0, abs=1e-9)
    for shift in ([12.0, 0, 0], [0, -5.0, 0], [3.0, 4.0, 0]):
        found = color_distance(colors, colors + shift)
        assert found == pytest.approx(np.linalg.norm(shift), rel=0.15), shift
    halves = np.concatenate([np.zeros((50, 3)), np.full((50, 3), 10.0)])
    assert color_distance(halves, np.full((100, 3), 5.0)) > 5, "means are the same, colours are not"
    assert np.isnan(color_distance(colors, np.empty((0, 3))))


def test_the_colours_of_images_count_alike_whatever_their_subjects_sizes() -> None:
    small, large = np.zeros((10, 3)), np.ones((5000, 3))
    assert benchmark.together([small, large]).mean() == pytest.approx(0.5)
    assert benchmark.together([np.empty((0, 3))]).shape == (0, 3)


def test_subjects_of_samples_are_found_and_plain_backgrounds_told_from_others() -> None:
    plain = casual_photos("taxi", 64)[:4]
    truth = render_views(subject_recipe("taxi"), photo_cameras("taxi"), None, 64).mask[:4]
    masks, smooth = sample_masks(plain)
    assert smooth == [True] * 4
    overlap = ((masks > 0.5) & (truth > 0.5)).sum() / ((masks > 0.5) | (truth > 0.5)).sum()
    assert overlap > 0.8
    noise = torch.rand(plain.shape, generator=torch.Generator().manual_seed(0))
    assert sample_masks(torch.where(truth[:, None] > 0.5, plain, noise))[1] == [False] * 4


def test_sets_are_found_by_what_describes_them(tmp_path: Path) -> None:
    write_subject("taxi", tmp_path / "all")
    other = tmp_path / "all" / "toy"
    (other / "masks").mkdir(parents=True)
    (other / "subject.json").write_text('{"class_noun": "robot"}')
    found = list(find_sets(tmp_path / "all"))
    assert found == [
        PhotoFolder("all/taxi", tmp_path / "all" / "taxi"),
        PhotoFolder("all/toy", other / "photos", "robot", other / "masks"),
    ]
    with pytest.raises(ConfigError, match="is no photo set, and holds none"):
        list(find_sets(other / "masks"))


def test_variants_differ_in_what_they_are_named_for() -> None:
    config = finetuning_config(quick=True)
    changed = {name: config.model_copy(update=dict(values)) for name, values in benchmark.VARIANTS.items()}
    assert {(each.background_augmentation, each.loss_outside_mask < 1) for each in changed.values()} == {
        (False, False), (True, False), (False, True), (True, True),
    }  # fmt: skip
    assert finetuning_config(quick=False).steps == 400 == finetuning_config(quick=False).checkpoint_every


@pytest.mark.slow
def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos of a car before noise: all four variants are measured; after one step none is as near as the photos."""
    monkeypatch.setenv("DREAMBOOTH3D_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(benchmark, "SHOWN", 2)
    folder = write_subject("taxi", tmp_path)
    truth = render_views(subject_recipe("taxi"), photo_cameras("taxi"), None, 256).mask
    for index, mask in enumerate(truth):
        _before_noise(folder, index, mask)
    config = finetuning_config(quick=True, steps=1).model_copy(update={"class_images": 2, "class_view_prompts": False})
    job = Job(PhotoFolder("taxi", folder), 0, config, 2, "cpu", 1, tmp_path)
    (found,) = benchmark.run_all([job], workers=1, device="cpu")
    rows = {row["variant"]: row for row in found.rows}
    assert list(rows) == [benchmark.PHOTOS, benchmark.BASE, *benchmark.VARIANTS]
    assert all(rows[name]["masked"] for name in benchmark.VARIANTS)
    drawn = [row["colour"] for name, row in rows.items() if name != benchmark.PHOTOS]
    assert rows[benchmark.PHOTOS]["colour"] < min(drawn)
    assert found.shown.shape == (6, 4, 64, 64, 3)
    text = benchmark.report([found], "here")
    assert "## Before anything, masks trusted: 1 sets" in text and "smooth" not in text.split("## Each set")[1]
    benchmark.write_pictures([found], tmp_path)
    assert (tmp_path / "taxi-0.png").stat().st_size > 1000


def _before_noise(folder: Path, index: int, mask: torch.Tensor) -> None:
    """Put a photo's subject before noise, with its mask beside it."""
    from PIL import Image

    path = folder / f"{index:02d}.jpg"
    pixels = np.asarray(Image.open(path))
    values = (mask.float().numpy() * 255).round().astype(np.uint8)
    noise = np.random.default_rng(index).integers(0, 256, pixels.shape, np.uint8)
    Image.fromarray(np.where(values[..., None] > 127, pixels, noise)).save(path, quality=92)
    Image.fromarray(values).save(folder / f"{index:02d}_mask.png")


def test_no_orchestrator_and_no_tracker_is_imported() -> None:
    code = "import sys, benchmarks.masked_finetuning; print(sorted({'zenml', 'mlflow'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
