"""Every word of the toybox language is one token."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from dreambooth3d.toybox.captions import IDENTIFIERS, VOCABULARY
from dreambooth3d.toybox.pretraining.folders import toybox_tokenizer
from dreambooth3d.toybox.tokenizer import build_tokenizer, learn_merges

TEXT = "a photo of a red and white striped sks dog wearing a blue hat, front view"


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return toybox_tokenizer()


def apply_merges(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding, slow and readable: apply the merges in order of their rank."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    for left, right in merges:
        index = 0
        while index < len(pieces) - 1:
            if (pieces[index], pieces[index + 1]) == (left, right):
                pieces[index : index + 2] = [left + right]
            index += 1
    return pieces


def test_merges_join_every_word_and_start_with_the_most_frequent_pair() -> None:
    words = ["view", "viewer", "vie", "a", "banana"]
    merges = learn_merges(words)
    assert merges[0] == ("v", "i")  # in three words; ("a", "n") is twice in one
    assert len(merges) == len(set(merges))
    for word in words:
        assert apply_merges(word, merges) == [word + "</w>"]
    assert len(apply_merges("vienna", merges)) > 1
    assert learn_merges(reversed(words)) == merges
    assert learn_merges(["a", "b"]) == []


@pytest.mark.parametrize("word", sorted({*VOCABULARY, *IDENTIFIERS}))
def test_each_known_word_is_one_token(tokenizer: CLIPTokenizer, word: str) -> None:
    ids = tokenizer(word).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert len(ids) == 3
    assert tokenizer.decode(ids[1:-1]).strip() == word


def test_known_words_have_distinct_tokens_and_others_fall_into_pieces(tokenizer: CLIPTokenizer) -> None:
    words = sorted({*VOCABULARY, *IDENTIFIERS})
    assert len({tokenizer(word).input_ids[1] for word in words}) == len(words)
    for word in ("banana", "sksx", "xyzzy"):
        pieces = tokenizer.tokenize(word)
        assert len(pieces) > 1
        assert "".join(pieces) == word + "</w>"


def test_a_caption_has_one_token_a_word_and_is_padded_and_cut_to_24(tokenizer: CLIPTokenizer) -> None:
    words = TEXT.replace(",", " ,").split()
    assert len(tokenizer(TEXT).input_ids) == len(words) + 2
    padded = tokenizer(TEXT, padding="max_length", truncation=True).input_ids
    assert len(padded) == 24
    assert set(padded[len(words) + 1 :]) == {tokenizer.eos_token_id}
    cut = tokenizer(" ".join(["dog"] * 40), padding="max_length", truncation=True).input_ids
    dog = tokenizer("dog").input_ids[1]
    assert cut == [tokenizer.bos_token_id, *[dog] * 22, tokenizer.eos_token_id]


def test_saved_and_loaded_tokenizer_gives_equal_ids(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == tokenizer.model_max_length == 24
    for text in (TEXT, "", "an unheard-of thing", TEXT.upper()):
        for options in ({}, {"padding": "max_length", "truncation": True}):
            assert loaded(text, **options).input_ids == tokenizer(text, **options).input_ids


def test_order_and_repetition_of_words_do_not_matter() -> None:
    words = ["dog", "cat", "red"]
    first, second = build_tokenizer(words, 8), build_tokenizer([*reversed(words), "dog"], 8)
    assert first.get_vocab() == second.get_vocab()
