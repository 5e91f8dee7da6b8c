"""The broader world of the embedded models: generic nouns, pictures of meshes, and an enlarged vocabulary."""

from __future__ import annotations

import io
import re
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from dreambooth3d.cameras import VIEW_WORDS, view_word
from dreambooth3d.diffusion.model.base_model import require_known_words
from dreambooth3d.errors import ConfigError
from dreambooth3d.toybox.captions import (
    GENERIC_NOUNS,
    GENERIC_SHARE,
    IDENTIFIERS,
    KIND_OF,
    KINDS,
    PREFIX,
    VOCABULARY,
    caption,
    random_caption,
    tokens,
)
from dreambooth3d.toybox.classes import CLASSES
from dreambooth3d.toybox.pretraining import dataset, folders, loop, mesh_renders, networks, scorers, stages, unet, vae
from dreambooth3d.toybox.pretraining.colour_words import FARTHEST, cielab, dominant_colours
from dreambooth3d.toybox.pretraining.dataset import ATTRIBUTES, NOUNS, UNKNOWN, Renders
from dreambooth3d.toybox.pretraining.mesh_renders import MeshLook, mesh_caption, mesh_statement_captions
from dreambooth3d.toybox.pretraining.meshes.pack import encoded
from dreambooth3d.toybox.pretraining.packs import pack_views
from dreambooth3d.toybox.recipes import COLOUR_NAMES, Recipe, random_recipe
from dreambooth3d.toybox.sampling import CLASS_NAMES
from dreambooth3d.toybox.solids import COLOURS
from dreambooth3d.toybox.tokenizer import build_tokenizer

CPU = torch.device("cpu")
MODELS = Path(__file__).parents[2] / "models"
MESHES = (("vehicle", True), ("object", False), ("plant", False))
VIEWS = 8


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return folders.toybox_tokenizer()


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs of one colour in place of meshes, eight views each, and grey backgrounds, for both splits."""
    folder, rng = tmp_path_factory.mktemp("pack"), np.random.default_rng(0)
    rows, data = [], b""
    height, width = np.mgrid[:96, :96]
    disc = (height - 47.5) ** 2 + (width - 47.5) ** 2 < 30**2
    for split in ("train", "test"):
        for index, (noun, heading) in enumerate(MESHES):
            for view in range(VIEWS):
                picture = np.zeros((96, 96, 4), np.uint8)
                picture[disc] = (*rng.integers(0, 255, 3), 255)
                written = encoded(picture)
                place = {"offset": len(data), "length": len(written), "split": split, "mesh": f"{split}/{index}"}
                camera = {"azimuth_deg": 45.0 * view + 10, "elevation_deg": 15.0, "distance": 2.5, "fov_y_deg": 45.0}
                rows.append({"noun": noun, "heading_known": heading, "view": view, **camera, **place})
                data += written
    (folder / "views.bin").write_bytes(data)
    pd.DataFrame(rows).to_parquet(folder / "views.parquet")
    out = io.BytesIO()
    Image.fromarray(np.full((256, 256, 3), 128, np.uint8)).save(out, "jpeg")
    (folder / "backgrounds.bin").write_bytes(out.getvalue())
    ground = [{"split": split, "offset": 0, "length": len(out.getvalue())} for split in ("train", "test")]
    pd.DataFrame(ground).to_parquet(folder / "backgrounds.parquet")
    return folder


# Generic nouns.


def test_every_class_has_one_generic_noun() -> None:
    assert sorted(KIND_OF) == sorted(CLASSES) and set(KIND_OF.values()) <= set(GENERIC_NOUNS) == set(KINDS)
    assert set(GENERIC_NOUNS) <= set(VOCABULARY) and not set(GENERIC_NOUNS) & set(CLASSES)


@pytest.mark.parametrize("noun", GENERIC_NOUNS)
def test_a_base_model_of_this_vocabulary_knows_generic_nouns(tokenizer: CLIPTokenizer, noun: str) -> None:
    require_known_words(tokenizer, noun, "sks")


def test_a_share_of_the_toyboxs_captions_calls_the_subject_by_a_generic_noun() -> None:
    random = Random(0)
    captions = [random_caption(Recipe("dog", "red", "white"), "side", random) for _ in range(8000)]
    named = Counter(word for text in captions for word in tokens(text) if word in ("dog", *GENERIC_NOUNS))
    generic = sum(count for noun, count in named.items() if noun != "dog")
    assert generic / named.total() == pytest.approx(GENERIC_SHARE, abs=0.01)
    assert set(named) == {"dog", "animal", "toy", "object"} and named["animal"] > named["toy"] + named["object"]


# A larger vocabulary.


@pytest.fixture(scope="module")
def trained(tokenizer: CLIPTokenizer) -> tuple[CLIPTextModel, CLIPTokenizer]:
    """A text encoder that knows no generic nouns."""
    known = build_tokenizer([word for word in VOCABULARY if word not in GENERIC_NOUNS], networks.PROMPT_TOKENS)
    torch.manual_seed(0)
    return networks.new_text_encoder(known).eval(), known


TEXTS = (
    "a photo of a red and white striped sks dog wearing a blue hat, front view",
    "",
    "a photo of a whale, back view",
)


@torch.no_grad()
def test_old_prompts_get_the_very_same_features_from_the_larger_vocabulary(
    trained: tuple[CLIPTextModel, CLIPTokenizer], tokenizer: CLIPTokenizer
) -> None:
    model, known = trained
    larger = folders.with_vocabulary(model, known, networks.new_text_encoder(tokenizer), tokenizer).eval()
    before, after = (dataset.tokenize(each, list(TEXTS)) for each in (known, tokenizer))
    assert not torch.equal(before, after)  # the words have other numbers now
    features = [m(input_ids=ids).last_hidden_state for m, ids in ((model, before), (larger, after))]
    assert torch.equal(*features)


def test_new_nouns_start_from_the_classes_that_they_name(
    trained: tuple[CLIPTextModel, CLIPTokenizer], tokenizer: CLIPTokenizer
) -> None:
    model, known = trained
    larger = folders.with_vocabulary(model, known, networks.new_text_encoder(tokenizer), tokenizer)
    old, new = (each.get_input_embeddings().weight.detach() for each in (model, larger))
    cars = [old[known(word).input_ids[1]] for word in ("car", "boat", "rocket")]
    torch.testing.assert_close(new[tokenizer("vehicle").input_ids[1]], torch.stack(cars).mean(0))
    torch.testing.assert_close(new[tokenizer("building").input_ids[1]], old[known("house").input_ids[1]])


# Colour words.


def test_cielab_is_scikit_images() -> None:
    colours = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cielab(colours), torch.from_numpy(rgb2lab(colours.numpy())).float(), atol=0.05, rtol=0)


def pictures(*shares: dict[tuple[float, float, float], float]) -> tuple[Tensor, Tensor]:
    """Pictures whose opaque upper halves hold colours in the given shares."""
    colour = torch.rand(len(shares), 3, 200, generator=torch.Generator().manual_seed(0))
    for picture, parts in zip(colour, shares, strict=True):
        start = 0.0
        for value, share in parts.items():
            picture[:, round(100 * start) : round(100 * (start + share))] = torch.tensor(value)[:, None]
            start += share
    opacity = (torch.arange(200) < 100).float().expand(len(shares), -1)
    return colour.view(-1, 3, 20, 10), opacity.reshape(-1, 20, 10)


def test_only_what_clearly_dominates_is_named() -> None:
    red, white, grey = COLOURS["red"], COLOURS["white"], (0.55, 0.55, 0.55)
    shades = tuple(0.8 * value for value in COLOURS["blue"])
    main, second = dominant_colours(
        *pictures(
            {red: 0.7, white: 0.3},
            {red: 0.9, white: 0.1},
            {red: 0.4, white: 0.35, grey: 0.25},
            {grey: 1.0},
            {shades: 1.0},
        )
    )
    names = [[None if i == UNKNOWN else COLOUR_NAMES[i] for i in each.tolist()] for each in (main, second)]
    assert names == [["red", "red", None, None, "blue"], ["white", None, None, None, None]]


# Pictures of meshes.


def test_captions_of_meshes_are_of_the_toyboxs_language() -> None:
    assert (
        mesh_caption(MeshLook("vehicle", "red", "white", "front")) == "a photo of a red and white vehicle, front view"
    )
    assert mesh_caption(MeshLook("object", "red"), identifier="sks") == "a photo of a red sks object"
    assert mesh_caption(MeshLook("food", "red", "white"), colours=1) == "a photo of a red food"
    twin = caption(Recipe("dog", "red", "white"), "back", noun="animal")
    assert mesh_caption(MeshLook("animal", "red", "white", "back")) == twin


def test_random_captions_say_only_what_is_known_and_object_in_a_share() -> None:
    random, look = Random(0), MeshLook("vehicle", "red", None, None)
    texts = [text for _ in range(1500) for text in mesh_renders.mesh_caption_variants(look, random)]
    full = [text for text in texts if text]
    grammar = rf"{PREFIX}( red)?( ({'|'.join(IDENTIFIERS)}))? (vehicle|object)"
    assert all(re.fullmatch(grammar, text) for text in full)
    assert 1 - len(full) / len(texts) == pytest.approx(0.08, abs=0.015)
    assert sum("object" in text for text in full) / len(full) == pytest.approx(mesh_renders.OBJECT_SHARE, abs=0.02)


def test_pictures_of_meshes_state_what_the_pack_says(pack: Path, tokenizer: CLIPTokenizer) -> None:
    made = mesh_renders.pack_renders(pack, "test", 3, tokenizer, mesh_statement_captions, CPU)
    again = mesh_renders.pack_renders(pack, "test", 3, tokenizer, mesh_statement_captions, CPU)
    assert all(torch.equal(getattr(made, name), getattr(again, name)) for name in vars(made))
    views = pack_views(pack, "test", CPU)
    assert made.images.shape == (len(MESHES) * VIEWS, 3, 64, 64) and made.tokens.shape[1] == 6 + dataset.RIVALS
    texts = tokenizer.batch_decode(made.tokens[:, 1], skip_special_tokens=True)
    for index, (text, told) in enumerate(zip(texts, made.attributes.tolist(), strict=True)):
        noun, heading = MESHES[index // VIEWS]
        word = view_word(views.azimuth_deg[index].item(), 15.0) if heading else None
        assert NOUNS[told[0]] == noun and told[2:6] == [UNKNOWN] * 4
        assert told[6] == (UNKNOWN if word is None else VIEW_WORDS.index(word))
        assert text == (f"a photo of a {noun} , {word} view" if word else f"a photo of a {noun}")


def test_colour_words_are_those_of_the_pixels(pack: Path, tokenizer: CLIPTokenizer) -> None:
    """The discs have one colour each; the picture's middle, nearest by scikit-image, must bear the word."""
    made = mesh_renders.pack_renders(pack, "train", 5, tokenizer, mesh_statement_captions, CPU)
    known = {name: rgb2lab(np.array(value)) for name, value in COLOURS.items()}
    named = [
        (image[:, 27:37, 27:37], main) for image, main in zip(made.images, made.attributes[:, 1].tolist(), strict=True)
    ]
    assert sum(main != UNKNOWN for _, main in named) >= 5
    for middle, main in named:
        if main != UNKNOWN:
            seen = rgb2lab(middle.float().mean((1, 2)).numpy() / 255)
            distance = {name: np.linalg.norm(seen - value) for name, value in known.items()}
            assert distance[COLOUR_NAMES[main]] < min(distance.values()) + FARTHEST


def test_meshes_are_mixed_in_at_their_share(pack: Path, tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    renders = dataset.make_renders(26, 7, tokenizer, dataset.caption_variants, CPU)
    job = stages.Pretraining(tmp_path, 26, CPU, pack)
    mixed = job.with_meshes(renders, 0, mesh_renders.mesh_caption_variants)
    of_meshes = mixed.attributes[:, 0] >= len(CLASS_NAMES)
    assert of_meshes.float().mean().item() == pytest.approx(mesh_renders.MESH_SHARE, abs=0.01)
    assert torch.equal(mixed.tokens[:26], renders.tokens) and mixed.tokens.shape[1:] == renders.tokens.shape[1:]
    assert stages.Pretraining(tmp_path, 26, CPU).with_meshes(renders, 0, mesh_renders.mesh_caption_variants) is renders


def test_a_share_of_renders_is_off_the_middle() -> None:
    images = torch.full((400, 3, 64, 64), 200, dtype=torch.uint8)
    images[:, :, 28:36, 28:36] = 20
    empty = torch.zeros(400)
    moved = dataset.off_middle(Renders(images, empty, empty, empty, empty), seed=0).images
    changed = (moved != images).flatten(1).any(1)
    assert changed.float().mean().item() == pytest.approx(dataset.OFF_MIDDLE_SHARE, abs=0.04)
    dark = (200 - moved.float()).mean(1)
    place = torch.arange(64.0)
    middle = (dark.sum(1) @ place) / dark.sum((1, 2))
    assert (middle - 31.5).abs().max().item() <= dataset.OFF_MIDDLE * 32 + 0.5
    assert (dark.sum((1, 2)) / dark[~changed].sum((1, 2)).mean() - 1).abs().max() < 0.05


# The scorers' losses where something is unknown.


def attributes(**told: object) -> list[int]:
    """A row in the order of `ATTRIBUTES`; what is not told is unknown."""
    known = {"class_index": NOUNS.index, "main": COLOUR_NAMES.index, "view": VIEW_WORDS.index}
    return [known[name](told[name]) if name in told else UNKNOWN for name in ATTRIBUTES]


@pytest.mark.parametrize(
    ("image", "told", "verdict"),
    [
        ({"class_index": "animal"}, {"class_index": "animal"}, "true"),
        ({"class_index": "animal"}, {"class_index": "vehicle"}, "false"),
        ({"class_index": "animal"}, {"class_index": "dog"}, "undecided"),
        ({"class_index": "dog"}, {"class_index": "animal"}, "undecided"),
        ({"class_index": "dog"}, {"class_index": "cat"}, "false"),
        ({"class_index": "dog"}, {"class_index": "vehicle"}, "false"),
        ({"class_index": "animal"}, {"class_index": "object"}, "undecided"),
        ({"class_index": "animal", "main": "red"}, {"class_index": "animal", "main": "red"}, "true"),
        ({"class_index": "animal", "main": "red"}, {"class_index": "animal", "main": "blue"}, "false"),
        ({"class_index": "animal"}, {"class_index": "animal", "main": "blue"}, "undecided"),
        ({"class_index": "animal"}, {"class_index": "vehicle", "main": "blue"}, "false"),
        ({"class_index": "animal", "view": "side"}, {"class_index": "animal"}, "true"),
    ],
)
def test_captions_that_may_hold_are_neither_true_nor_false(image: dict, told: dict, verdict: str) -> None:
    stated = torch.tensor([[name in told for name in ATTRIBUTES]])
    rows = torch.tensor([attributes(**image)]), torch.tensor([attributes(**told)]), stated
    assert dataset.true_pairs(*rows).item() == (verdict == "true")
    assert dataset.undecided_pairs(*rows).item() == (verdict == "undecided")


def test_undecided_pairs_do_not_change_the_contrastive_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity, true = torch.randn(5, 5, generator=generator), torch.eye(5, dtype=torch.bool)
    undecided = torch.zeros(5, 5, dtype=torch.bool)
    undecided[0, 3] = True
    loss = scorers.multi_positive_loss(similarity, true, undecided)
    changed = similarity.clone()
    changed[0, 3] += 5
    assert scorers.multi_positive_loss(changed, true, undecided) == loss
    assert scorers.multi_positive_loss(changed, true) != scorers.multi_positive_loss(similarity, true)


def test_captions_fall_back_to_the_noun_where_they_would_state_what_is_unknown() -> None:
    stated = dataset.statement_matrix(CPU)
    rows = torch.tensor([attributes(class_index="animal", main="red")] * len(stated))
    assert dataset.stated_kinds(torch.arange(len(stated)), rows, stated).tolist() == [0, 0, 2, 0, 0, 0]


# All stages with a pack, from trained models.


def test_stages_continue_from_trained_models(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMBOOTH3D_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(loop, "_AVERAGE_EVERY", 1)
    for module in (vae, unet, scorers):
        monkeypatch.setattr(module, "_BATCH", 2)
    chosen = ("vae", "unet", *networks.SCORER_NAMES)
    stages.pretrain(chosen, tmp_path / "models", renders=6, steps=2, device="cpu", pack=pack, start=MODELS)
    before, after = (folders.load_vae(path, CPU).state_dict() for path in (MODELS, tmp_path / "models"))
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith(("encoder", "quant_conv")))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("decoder"))
    tokenizer = folders.load_tokenizer(tmp_path / "models" / "toybox" / "tokenizer")
    require_known_words(tokenizer, "object", "sks")
    figures = stages.mesh_figures(tmp_path / "models", pack, CPU)
    assert set(figures) > {"mesh_vae_psnr_db", "mesh_unet_loss", "judge_mesh_noun", "selector_mesh_view"}
    assert all(np.isfinite(value) for value in figures.values())
    stages._base_renders.cache_clear()


def test_nothing_to_continue_from_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no models to continue from.*--from"):
        stages.pretrain(("unet",), tmp_path, start=tmp_path / "nothing")


def test_random_recipes_have_captions_of_known_words() -> None:
    random = Random(5)
    words = {word for _ in range(2000) for word in tokens(random_caption(random_recipe(random), "back", random))}
    assert words <= set(VOCABULARY) and set(GENERIC_NOUNS) - {"food", "plant"} <= words
