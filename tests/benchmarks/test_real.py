"""The benchmark of real subjects around its runs: what a folder says, scores, what is told of the truth, the report."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.quality.results import Results
from benchmarks.quality.stages import Outcome
from benchmarks.real import layout, plan, report
from benchmarks.real import photos as photos_module
from benchmarks.real.__main__ import main
from benchmarks.real.layout import LayoutError, PhotoSet, photo_sets
from benchmarks.real.photos import Measured, overlaps, true_mask
from benchmarks.real.score import SCALES, aligned_score, all_scores, scaled, score, turned
from dreambooth3d.artifacts import SubjectPhotos
from dreambooth3d.evaluation.pixels import Views
from dreambooth3d.photos.cameras.placement import placed_cameras, rectify
from dreambooth3d.photos.check import inspect_folder, with_masks
from dreambooth3d.photos.dataset import ground_truth
from dreambooth3d.photos.models import photo_models

SIDE = 72
SHOTS = tuple(
    {"azimuth_deg": azimuth, "elevation_deg": elevation, "distance": distance, "fov_y_deg": fov, "roll_deg": roll}
    | {"shift": shift}
    for azimuth, elevation, distance, fov, roll, shift in (
        (-40.0, 20.0, 2.4, 44.0, 5.0, (0.05, -0.03)),
        (30.0, 10.0, 2.6, 41.0, -6.0, (-0.06, 0.04)),
        (200.0, 30.0, 2.3, 45.0, 2.0, (0.02, 0.07)),
    )
)
POINTS = ((0.5, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, 0.0, 0.4), (-0.3, -0.2, -0.3))
"""Centres of the balls that a subject consists of, in the world."""
RADIUS = 0.12


def shown_points(shot: dict) -> np.ndarray:
    """(k, 3): pixel position (x, y) and radius of each ball, by the pinhole model written out for one camera at a time.

    The camera is rolled counter-clockwise about its own axis, and then the picture is moved within the frame by shares
    of its side, to the right and down.
    """
    azimuth, elevation, roll = (math.radians(shot[name]) for name in ("azimuth_deg", "elevation_deg", "roll_deg"))
    back = np.array(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    )
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    up = np.cross(back, right)
    rolled_right = math.cos(roll) * right + math.sin(roll) * up
    rolled_up = math.cos(roll) * up - math.sin(roll) * right
    focal = SIDE / 2 / math.tan(math.radians(shot["fov_y_deg"]) / 2)
    found = []
    for point in np.array(POINTS):
        ray = point - shot["distance"] * back
        depth = -ray @ back
        x = SIDE / 2 + focal * (ray @ rolled_right) / depth + shot["shift"][0] * SIDE
        y = SIDE / 2 - focal * (ray @ rolled_up) / depth + shot["shift"][1] * SIDE
        found.append((x, y, focal * RADIUS / depth))
    return np.array(found)


def discs(points: np.ndarray) -> np.ndarray:
    """(side, side) uint8 picture of white discs."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    inside = [(x - px) ** 2 + (y - py) ** 2 <= radius**2 for px, py, radius in points]
    return np.any(inside, axis=0).astype(np.uint8) * 255


def write_set(folder: Path, kind: str = "casual", name: str = "thing") -> PhotoSet:
    """A photo set of three photos with a truth that is one blob."""
    own = folder / kind / name
    for part in ("photos", "masks", "truth"):
        (own / part).mkdir(parents=True)
    for index, shot in enumerate(SHOTS):
        mask = discs(shown_points(shot))
        noise = np.random.default_rng(index).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(own / "photos" / f"{index}.png")
        Image.fromarray(mask).save(own / "masks" / f"{index}.png")
    truth = blob_views()
    for index in range(36):
        Image.fromarray((truth.images[index].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(
            own / "truth" / f"{index:03d}.png"
        )
        Image.fromarray((truth.masks[index].numpy() * 255).astype(np.uint8)).save(
            own / "truth" / f"mask_{index:03d}.png"
        )
    shots = [{"shift_of_frame" if key == "shift" else key: value for key, value in shot.items()} for shot in SHOTS]
    (own / "subject.json").write_text(json.dumps({"class_noun": "dog", "shots": shots}))
    return PhotoSet(own, kind, name)


def blob_views(turn_deg: float = 0.0, size: float = 1.0, side: int = 40) -> Views:
    """36 views of a ball that circles the axis, on white: red seen from one half, green from the other."""
    y, x = torch.meshgrid(torch.arange(side) + 0.5 - side / 2, torch.arange(side) + 0.5 - side / 2, indexing="ij")
    images, masks = [], []
    for index in range(36):
        angle = math.radians(10 * index - turn_deg)
        inside = (x - size * 10 * math.sin(angle)) ** 2 + y**2 <= (size * 6) ** 2
        color = torch.tensor([1.0, 0.0, 0.0] if math.cos(angle) > 0 else [0.0, 1.0, 0.0])
        images.append(torch.where(inside, color[:, None, None], torch.tensor(1.0)))
        masks.append(inside.float())
    return Views(torch.stack(images), torch.stack(masks))


def test_score_is_what_is_computed_by_hand() -> None:
    """Two views of two pixels: errors, unions and overlaps can be counted."""
    white, grey = torch.ones(3, 1, 2), torch.ones(3, 1, 2)
    grey[:, 0, 0] = 0.5
    asset = Views(torch.stack([grey, white]), torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]]))
    truth = Views(torch.stack([white, grey]), torch.tensor([[[1.0, 1.0]], [[1.0, 0.4]]]))
    found = score(asset, truth)
    # Squared errors: 0.25 at one of two pixels of each view; the union covers both pixels of one, one of the other.
    assert found["psnr"] == pytest.approx(-10 * math.log10(0.125), abs=1e-4)
    expected = (-10 * math.log10(0.125) - 10 * math.log10(0.25)) / 2
    assert found["psnr_fg"] == pytest.approx(expected, abs=1e-4)
    assert found["mask_iou"] == pytest.approx((1 / 2 + 0) / 2)


@pytest.mark.parametrize(("turn_deg", "size"), [(30.0, 1 / 0.9), (-50.0, 1 / 1.15), (180.0, 1.0)])
def test_a_turn_and_a_scale_are_found_back(turn_deg: float, size: float) -> None:
    truth = blob_views()
    found = all_scores(blob_views(turn_deg, size), truth)
    assert found["heading_deg"] == pytest.approx(abs(turn_deg))
    assert (found["turn_deg"] + turn_deg) % 360 == pytest.approx(0), "turned back"
    assert found["scale"] == pytest.approx(1 / size, abs=0.051)
    assert found["psnr_fg_aligned"] > found["psnr_fg"] + 3 and found["mask_iou_aligned"] > 0.85
    itself = aligned_score(truth, truth)
    assert (itself["scale"], itself["turn_deg"], itself["psnr_fg_aligned"]) == (1.0, 0.0, pytest.approx(100.0))


def test_images_are_scaled_about_their_middle_and_before_white() -> None:
    row = torch.arange(8.0) / 8
    views = Views(row.expand(1, 3, 8, 8).clone(), row.expand(1, 8, 8).clone())
    half, double = scaled(views, 0.5), scaled(views, 2.0)
    assert half.masks[0, 4].tolist() == pytest.approx([0, 0, 0, 2 / 8, 4 / 8, 6 / 8, 0, 0], abs=0.26)
    assert half.images[0, :, 0].eq(1).all() and half.images[0, 0, 4, 0] == 1 and not half.masks[0, 0].any()
    assert double.masks[0, 0, 0] >= 1.5 / 8 and double.masks[0, 0, -1] <= 6 / 8
    assert torch.equal(scaled(views, 1.0).images, views.images) and 1.0 in SCALES
    assert torch.equal(turned(blob_views(), 3).masks, blob_views(30.0).masks)


def test_true_cameras_turn_photos_to_where_upright_cameras_see_the_subject(tmp_path: Path) -> None:
    """Against the pinhole model: discs of rolled and shifted photos come to lie where unrolled cameras project them.

    Other signs of roll or shift leave overlaps below one half.
    """
    photos = write_set(tmp_path)
    masks = torch.stack([layout.read_grey(path) for path in photos.masks])[:, None]
    whole, _ = rectify(masks, photos.cameras, 50.0, SIDE)
    straight = [shot | {"roll_deg": 0.0, "shift": (0.0, 0.0), "fov_y_deg": 50.0} for shot in SHOTS]
    expected = torch.stack([torch.from_numpy(discs(shown_points(shot))).float() / 255 for shot in straight])
    overlap = overlaps(list(whole[:, 0]), list(expected))
    assert min(overlap) > 0.8
    mirrored = replace(photos.cameras, roll_deg=-photos.cameras.roll_deg)
    other = replace(photos.cameras, centre=photos.cameras.centre * torch.tensor([1.0, -1.0]))
    for wrong in (mirrored, other):
        found, _ = rectify(masks, wrong, 50.0, SIDE)
        assert min(overlaps(list(found[:, 0]), list(expected))) < 0.6
    assert photos.cameras.cameras.fov_y_deg.tolist() == pytest.approx([44.0, 41.0, 45.0])


def checked(photos: PhotoSet) -> SubjectPhotos:
    """A photo set without masks or cameras."""
    images = tuple(torch.rand(3, SIDE, SIDE) for _ in SHOTS)
    facts = pd.DataFrame({"file": [path.name for path in photos.photos], "azimuth_deg": [math.nan] * 3})
    facts["not_located"] = ["its outline does not fit"] * 3
    return SubjectPhotos(images, facts, (), "thing", "sks", "dog", "", "untracked:1")


def test_what_is_given_is_told_and_nothing_else(tmp_path: Path) -> None:
    source = plan.Real(write_set(tmp_path))
    photos = checked(source.set)
    assert source.told(photos, ("masks",)) is photos
    told = placed_cameras(source.told(photos, ("masks", "cameras")))
    assert told is not None
    assert told.cameras.azimuth_deg.tolist() == pytest.approx([-40.0, 30.0, -160.0])
    torch.testing.assert_close(told.centre, torch.tensor([[0.1, 0.06], [-0.12, -0.08], [0.04, -0.14]]))
    assert list(source.told(photos, ("cameras",)).facts["not_located"]) == [""] * 3


def test_true_masks_are_given_as_files_and_else_kept_from_the_run(tmp_path: Path) -> None:
    source = plan.Real(write_set(tmp_path / "sets"))
    config = source.photos(tmp_path / "work", ("masks",))
    report_ = with_masks(inspect_folder(Path(config.dir or ""), config), config, photo_models(config))
    assert set(report_.facts["mask_source"]) == {"files"} and config.class_noun == "dog"
    for found, path in zip(report_.masks, source.set.masks, strict=True):
        assert np.array_equal(found >= 128, np.asarray(Image.open(path)) >= 128)
    plain = source.photos(tmp_path / "work", ())
    assert plain.masks == "auto" and not ground_truth(plain).known
    assert all(photo.given is None for photo in inspect_folder(Path(plain.dir or ""), plain).sources)


def test_every_method_runs_on_every_set_with_every_seed(tmp_path: Path) -> None:
    for kind in ("casual", "studio", "mine"):
        write_set(tmp_path, kind)
    sets = photo_sets(tmp_path)
    assert [each.kind for each in sets] == ["studio", "casual", "mine"]
    runs = plan.all_runs(sets, (), plan.SEEDS)
    assert len({run.key for run in runs}) == len(runs) == 3 * 4 * 2
    assert {run.method.name: run.method.given for run in runs} == {
        "dreambooth3d": (), "naive": (), "true_masks": ("masks",), "true_cameras": ("masks", "cameras"),
    }  # fmt: skip
    assert {run.subject for run in plan.all_runs(photo_sets(tmp_path, ["casual"]), ["naive"], [1])} == {"casual-thing"}
    assert layout.photo_set(tmp_path, "mine-thing").folder == tmp_path / "mine" / "thing"


def test_a_folder_that_is_not_as_it_must_be_gets_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_set(tmp_path)
    (photos.folder / "truth" / "mask_035.png").unlink()
    for arguments, wanted in (
        ([str(tmp_path)], "mask_035.png"),
        ([str(tmp_path / "nowhere")], "no such folder"),
        ([str(tmp_path), "--subjects", "cat"], "no photo sets cat"),
    ):
        monkeypatch.setattr("sys.argv", ["real", *arguments, "--results", str(tmp_path / "results"), "--only-report"])
        assert main() == 1
        said = capsys.readouterr().err
        assert wanted in said and said.count("\n") == 1
    shots = json.loads((photos.folder / "subject.json").read_text())
    del shots["shots"][1]["roll_deg"]
    (photos.folder / "subject.json").write_text(json.dumps(shots))
    with pytest.raises(LayoutError, match="roll_deg"):
        PhotoSet(photos.folder, "casual", "thing").check()


def test_a_folder_that_renders_its_photos_is_asked_once(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "make.py").write_text(
        "import pathlib, sys\n"
        "out, kind = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
        "(out / 'thing').mkdir(parents=True)\n"
        "(out / 'thing' / 'subject.json').write_text(kind)\n"
    )
    for _ in range(2):
        real = layout.rendered(own, tmp_path / "rendered")
        assert [path.read_text() for path in sorted(real.glob("*/thing/subject.json"))] == ["casual", "studio"]
    (own / "make.py").write_text("import a_package_that_is_not_there\n")
    with pytest.raises(LayoutError, match="a_package_that_is_not_there"):
        layout.rendered(own, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere" / "studio").exists()
    assert layout.rendered(tmp_path, tmp_path / "rendered") == tmp_path, "nothing to render there"


def outcome(aligned: float, mean_image: float = 11.0) -> Outcome:
    metrics = dict.fromkeys(report.SCORES, 0.5) | {"psnr_fg_aligned": aligned, "heading_deg": 20.0}
    metrics |= {f"mean_image/{name}": mean_image for name in report.SCORES}
    return Outcome(metrics, {"init_nerf": 1.0}, {"init_nerf": 1.0}, {}, torch.rand(4, 3, 16, 16))


def mask_row(iou: float, trusted: bool) -> dict[str, object]:
    return {"file": "0.png", "iou": iou, "source": "learned", "confidence": 0.7, "trusted": trusted}


def test_the_report_averages_subjects_and_tells_masks_and_cameras(tmp_path: Path) -> None:
    sets = [write_set(tmp_path / "sets", "casual", name) for name in ("one", "two")]
    results, measured = Results(tmp_path / "results"), Measured(tmp_path / "results")
    runs = plan.all_runs(sets, ("dreambooth3d", "naive"), (0, 1))
    about = {"commit": "abc", "machine": "a machine", "date": "2026-01-01"}
    values = {"dreambooth3d-casual-one-0": 10.0, "dreambooth3d-casual-one-1": 14.0, "dreambooth3d-casual-two-0": 18.0}
    for run in runs:
        if run.key in values:
            results.save(run, outcome(values[run.key]), about)
    camera = {"located": 1.0, "azimuth_off_deg": [1.0, 3.0, 30.0], "turn_deg": -90.0, "seconds": 1.0}
    nowhere = {"located": 0.0, "azimuth_off_deg": [], "seconds": 1.0}
    masks = {"embedded": [mask_row(0.9, True), mask_row(0.5, False)], "auto": [mask_row(0.9, True)]}
    measured.save("casual-one", {"masks": masks, "cameras": {"found_masks": camera, "true_masks": camera}})
    measured.save("casual-two", {"masks": masks, "cameras": {"found_masks": nowhere, "true_masks": camera}})
    report.write(report.Finished(sets, (), runs, results, measured), tmp_path / "report")
    found = json.loads((tmp_path / "report" / "real.json").read_text())
    assert found["casual"]["dreambooth3d"]["psnr_fg_aligned"] == pytest.approx(15.0), "one: 12, two: 18"
    assert found["casual"]["mean_image"]["psnr_fg"] == pytest.approx(11.0) and "naive" not in found["casual"]
    assert found["subjects"]["casual"]["one"]["dreambooth3d"]["psnr_fg_aligned"] == pytest.approx(12.0)
    embedded = found["masks"]["embedded"]
    assert (embedded["iou"], embedded["above_0.85"], embedded["worst"]) == (pytest.approx(0.7), 0.5, 0.5)
    assert embedded["worst_trusted"] == pytest.approx(0.9) and embedded["casual"]["photos"] == 4
    cameras = found["cameras"]["found_masks"]
    assert (cameras["located"], cameras["median_deg"], cameras["heading_deg"]) == (0.5, 3.0, 90.0)
    assert cameras["within_20"] == pytest.approx(2 / 3, abs=1e-4)
    text = (tmp_path / "report" / "real.md").read_text()
    assert "| dreambooth3d | 15.00 |" in text and "| casual | found_masks | two | 0% |" in text
    assert {path.name for path in (tmp_path / "report").glob("*.webp")} == {"real_one.webp", "real_two.webp"}


def test_photos_that_fail_stop_no_others_and_what_is_measured_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(photos: PhotoSet) -> dict[str, object]:
        if photos.name == "broken":
            raise ValueError("damaged")
        return {"masks": {"auto": [mask_row(0.5, True)]}}

    monkeypatch.setattr(photos_module, "measure", measure)
    sets = [PhotoSet(tmp_path, "casual", name) for name in ("broken", "fine")]
    measured, later = Measured(tmp_path), math.inf
    lines = list(photos_module.measure_pending(sets, measured, 1, 1, later))
    assert "FAILED" in lines[0] and "damaged" in lines[0] and "0.500" in lines[1]
    again = list(photos_module.measure_pending(sets, measured, 1, 1, 0.0))
    assert len(again) == 1 and "left for the next call" in again[0], "only what failed, and only in time"
    monkeypatch.setattr(photos_module, "models_now", lambda: {"learned": "another network"})
    assert measured.load("casual-fine") is None


def test_masks_are_compared_as_the_pipeline_pads_and_shrinks_photos(tmp_path: Path) -> None:
    mask = np.zeros((600, 1200), np.uint8)
    mask[100:500, 200:700] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    found = true_mask(tmp_path / "mask.png")
    assert found.shape == (512, 512)
    square: Tensor = torch.zeros(512, 512)
    square[128 + 43 : 128 + 213, 85:299] = 1
    assert overlaps([found], [square])[0] > 0.98
    assert overlaps([square], [square.roll(214, dims=1)])[0] == 0
