"""Every artifact comes back as it was, from a local store and from a remote one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from zenml.io.filesystem import BaseFilesystem
from zenml.io.filesystem_registry import default_filesystem_registry
from zenml.io.local_filesystem import LocalFilesystem
from zenml.materializers.materializer_registry import materializer_registry

import materializers
from dreambooth3d.artifacts import (
    BESIDE,
    POSE_FACTS,
    AssetBundle,
    BaseModelRef,
    CheckpointChoice,
    CheckpointSet,
    DreamBoothCheckpoint,
    EvaluationReport,
    GroundTruth,
    PseudoViews,
    RadianceField,
    SubjectPhotos,
)
from dreambooth3d.cameras import spread_cameras
from dreambooth3d.errors import ArtifactError
from dreambooth3d.images import save_image
from dreambooth3d.record import StepLog, StepRecord
from dreambooth3d.runtime import work_root
from dreambooth3d.weights import WeightsRef, save_weights
from materializers.files import FolderMaterializer, load_record
from materializers.hashing import content_hash

BASE = BaseModelRef("models/toybox", "abc", None, "fp16")


class FarAway(BaseFilesystem):
    """A remote file system: local files behind an address that no local function understands."""

    SUPPORTED_SCHEMES: ClassVar[set[str]] = {"far://"}


def _strip(path: Any) -> Any:
    return path.removeprefix("far:/") if isinstance(path, str) else path


def _forward(name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        return getattr(LocalFilesystem, name)(*map(_strip, arguments), **options)

    return staticmethod(call)


_CALLS = "copyfile exists glob isdir listdir makedirs mkdir open remove rename rmtree size stat walk"
for _name in _CALLS.split():
    setattr(FarAway, _name, _forward(_name))


default_filesystem_registry.register(FarAway)


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SimpleNamespace:
    """What a materializer needs of an artifact store."""
    root = tmp_path / "store"
    root.mkdir()
    return SimpleNamespace(path=str(root) if request.param == "local" else f"far:/{root}")


def record(name: str) -> StepRecord:
    """A record with something of everything."""
    log = StepLog(name)
    log.params(text="ä", count=3, share=0.5, flag=True)
    log.metrics(**{"seconds": 1.25, "coarse/psnr": 3.5})
    log.scalars(0, loss=2.0)
    log.scalars(5, loss=1.0, **{"guidance/norm": 0.125})
    log.image("sheet/a b", torch.rand(3, 5, 7))
    return log.record()


def photos() -> SubjectPhotos:
    images = tuple(torch.randint(0, 256, (3, side, side)).float() / 255 for side in (8, 16))
    masks = tuple(torch.randint(0, 256, (side, side)).float() / 255 for side in (8, 16))
    facts = pd.DataFrame({"file": ["a.jpg", "b.jpg"], "width": [8, 16], "blur": [0.5, 0.25]})
    facts = facts.assign(mask_source="rembg", mask_confidence=[0.75, 0.5], mask_trusted=[True, False], mask_cut=0.0)
    findings = ("b.jpg: is blurred.",)
    who = ("rex", "sks", "dog", "a red dog", "ab.dir", record("validate_photos"))
    return SubjectPhotos(images, facts, findings, *who, masks=masks)


def photos_with_held_out() -> SubjectPhotos:
    return dataclasses.replace(photos(), held_out=dataclasses.replace(photos(), record=StepRecord("validate_photos")))


def weights(name: str) -> WeightsRef:
    return save_weights({"w": torch.rand(3, 4)}, work_root() / "finetune" / f"{name}.safetensors")


def checkpoint(step: int = 40) -> DreamBoothCheckpoint:
    pair = (weights(f"unet_{step}"), weights(f"text_{step}"))
    return DreamBoothCheckpoint(step, *pair, BASE, record("finetune_multiview"))


def checkpoints() -> CheckpointSet:
    pairs = {step: dataclasses.replace(checkpoint(step), record=None) for step in (0, 40, 80)}
    return CheckpointSet(pairs, BASE, record("finetune_dreambooth"))


def choice() -> CheckpointChoice:
    scores = pd.DataFrame({"step": [40, 80], "subject_similarity": [0.5, 0.75], "partial": [True, False]})
    return CheckpointChoice(scores, 40, 80, "since so", record("select_checkpoints"))


def truth() -> GroundTruth:
    return GroundTruth({"class_noun": "dog", "colours": ["red", "blue"], "seed": 3}, (-50.5, 10.0))


def field() -> RadianceField:
    state = {"volume": torch.rand(2, 3, 3, 3), "occupancy": torch.rand(4) > 0.5, "half": torch.rand(3).half()}
    return RadianceField(state, {"encoding": "dense", "levels": 3}, torch.rand(4, 3, 6, 6), 12, record("init_nerf"))


def pseudo() -> PseudoViews:
    images, renders, opacity = torch.rand(3, 3, 6, 6), torch.rand(3, 3, 6, 6), torch.rand(3, 6, 6)
    return PseudoViews(images, renders, opacity, spread_cameras(3), 0.4, record("generate_pseudo_views"))


def bundle() -> AssetBundle:
    folder = work_root() / "export" / "bundle"
    (folder / "frames").mkdir(parents=True)
    save_image(torch.rand(3, 8, 8), folder / "frames" / "000.png")
    for name in ("asset.glb", "turntable.mp4", "asset.html", "cameras.json"):
        (folder / name).write_text(name)
    files = ("asset.glb", "asset.html", "cameras.json", "frames/000.png", "turntable.mp4")
    return AssetBundle(folder, files, record("export_asset"))


def report() -> EvaluationReport:
    metrics = {"psnr": 20.5, "coarse/psnr": 18.0}
    views = pd.DataFrame({"asset": ["refined"], "azimuth_deg": [10.0], "psnr": [20.5]})
    return EvaluationReport(metrics, {"psnr": "in dB"}, views, torch.rand(3, 8, 24), record("evaluate"))


MAKERS = [photos, photos_with_held_out, checkpoint, checkpoints, choice, truth, field, pseudo, bundle, report]


def materializer_of(value: object, store: SimpleNamespace, name: str = "artifact") -> FolderMaterializer:
    """The registered materializer, on a folder of the store."""
    kind = materializer_registry[type(value)]
    assert kind.__name__ in materializers.__all__
    return kind(uri=f"{store.path}/{name}", artifact_store=store)


def assert_same(left: Any, right: Any) -> None:
    """Deep equality, exact to the bit."""
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, pd.DataFrame):
        pd.testing.assert_frame_equal(left.reset_index(drop=True), right, check_dtype=False)
    elif isinstance(left, WeightsRef):
        assert (left.sha256, left.size_bytes) == (right.sha256, right.size_bytes)
    elif isinstance(left, Path):
        assert right.is_dir()
    elif dataclasses.is_dataclass(left):
        for entry in dataclasses.fields(left):
            assert_same(getattr(left, entry.name), getattr(right, entry.name))
    elif isinstance(left, dict):
        assert set(left) == set(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


@pytest.mark.parametrize("make", MAKERS)
def test_round_trip(make: Callable[[], Any], store: SimpleNamespace) -> None:
    value = make()
    materializer = materializer_of(value, store)
    hashed = materializer.compute_content_hash(value)
    materializer.save(value)
    loaded = materializer_of(value, store).load(type(value))
    assert_same(value, loaded)
    assert content_hash(loaded) == hashed


@pytest.mark.parametrize("make", MAKERS)
def test_visualizations_and_figures(make: Callable[[], Any], store: SimpleNamespace) -> None:
    value = make()
    materializer = materializer_of(value, store)
    materializer.save(value)
    for uri in materializer.save_visualizations(value):
        assert FarAway.exists(uri)
    assert materializer.save_visualizations(value) or isinstance(value, GroundTruth)
    assert materializer.extract_metadata(value)


def test_no_pickle_in_any_artifact(store: SimpleNamespace) -> None:
    for make in MAKERS:
        value = make()
        materializer_of(value, store, make.__name__).save(value)
    root = Path(_strip(store.path))
    suffixes = {path.suffix for path in root.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".png", ".parquet", ".json", ".glb", ".mp4", ".html"}


def test_hash_is_of_the_content_alone() -> None:
    value = photos()
    other = dataclasses.replace(value, record=StepRecord("validate_photos", metrics={"seconds": 9.0}), findings=())
    assert content_hash(other) == content_hash(value)
    changed = dataclasses.replace(value, images=(value.images[0], value.images[1] * 0.5))
    assert content_hash(changed) != content_hash(value)


def changed(value: Any) -> Any:
    """Another value of the same kind, but for its smallest detail."""
    if isinstance(value, torch.Tensor):
        flat = value.clone().flatten()
        flat[-1] = ~flat[-1] if flat.dtype == torch.bool else flat[-1] + 1
        return flat.reshape(value.shape)
    if isinstance(value, pd.DataFrame):
        return value.assign(azimuth_deg=float(len(value)))
    if isinstance(value, WeightsRef):
        return weights(f"other_{value.sha256[:8]}")
    if isinstance(value, BaseModelRef):
        return dataclasses.replace(value, path=f"{value.path}-other", digest=f"{value.digest}0")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        first = dataclasses.fields(value)[0].name
        return dataclasses.replace(value, **{first: changed(getattr(value, first))})
    if isinstance(value, dict):
        last = max(value, key=str)
        return {**value, last: changed(value[last])}
    if isinstance(value, tuple | list):
        return type(value)([*value[:-1], changed(value[-1])])
    return True if value is None else value + ("x" if isinstance(value, str) else 1)


@pytest.mark.parametrize("make", MAKERS)
def test_every_field_is_part_of_the_hash_or_marked_beside_it(make: Callable[[], Any]) -> None:
    """The cameras that silhouettes tell, for one, teach the field: found otherwise, it is trained anew."""
    value = make()
    for entry in dataclasses.fields(value):
        if entry.metadata.get(BESIDE):
            continue
        other = dataclasses.replace(value, **{entry.name: changed(getattr(value, entry.name))})
        if isinstance(value, AssetBundle):
            (value.folder / other.files[-1]).write_text("a file more")
        assert content_hash(other) != content_hash(value), entry.name


def test_cameras_from_silhouettes_change_the_photos_hash() -> None:
    value = photos()
    poses = {name: [1.0, 2.0] for name in POSE_FACTS}
    found = dataclasses.replace(value, facts=value.facts.assign(**poses))
    moved = dataclasses.replace(value, facts=value.facts.assign(**poses | {"azimuth_deg": [1.0, 2.5]}))
    assert len({content_hash(value), content_hash(found), content_hash(moved)}) == 3


def test_record_is_read_without_the_artifact(store: SimpleNamespace) -> None:
    value = field()
    materializer_of(value, store).save(value)
    FarAway.remove(f"{store.path}/artifact/field.safetensors")
    assert_same(value.record, load_record(f"{store.path}/artifact"))
    assert load_record(f"{store.path}/nothing", ours=False) is None
    with pytest.raises(ArtifactError, match="nothing: this artifact is gone"):
        load_record(f"{store.path}/nothing")


def test_stored_weights_are_referenced_not_copied(store: SimpleNamespace) -> None:
    value = checkpoints()
    materializer_of(value, store, "set").save(value)
    loaded = materializer_of(value, store, "set").load(CheckpointSet)
    partial = loaded.checkpoints[40]
    assert partial.unet.uri.startswith(f"{store.path}/set/")
    materializer_of(partial, store, "partial").save(partial)
    again = materializer_of(partial, store, "partial").load(DreamBoothCheckpoint)
    assert again.unet == partial.unet
    assert not list(Path(_strip(store.path)).joinpath("partial").rglob("*.safetensors"))


def test_weights_outlive_the_work_folder(store: SimpleNamespace) -> None:
    value = checkpoint()
    expected = value.unet.load()
    materializer_of(value, store).save(value)
    Path(value.unet.uri).unlink()
    loaded = materializer_of(value, store).load(DreamBoothCheckpoint)
    np.testing.assert_array_equal(loaded.unet.load()["w"], expected["w"])


def test_named_views_change_the_photos_hash() -> None:
    """Prompts are made of them: with other views, fine-tuning must not come from the cache."""
    value = photos()

    def named(*words: str) -> SubjectPhotos:
        views = [words[index % len(words)] for index in range(len(value.facts))]
        return dataclasses.replace(value, facts=value.facts.assign(view=views))

    hashes = {content_hash(value), content_hash(named("front")), content_hash(named("side"))}
    assert len(hashes) == 3 and content_hash(named("front")) in hashes


def test_the_hash_minds_values_and_no_strides() -> None:
    """A tensor with one value may have any stride, as a picture of one pixel has."""
    pixel = torch.tensor([[1.0, 2.0, 3.0]]).t()[:1]
    assert pixel.flatten().stride() != (1,)
    assert content_hash(pixel) == content_hash(torch.tensor([[1.0]]))
