"""A CLIP tokenizer whose byte-pair vocabulary knows each given word as one token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


def _merge(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Replace each occurrence of `pair` in a word's pieces by the joined piece."""
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first, until every word is a single piece (Sennrich et al. 2016)."""
    pieces = [(*word[:-1], word[-1] + WORD_END) for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while any(len(word) > 1 for word in pieces):
        pairs = Counter(pair for word in pieces for pair in pairwise(word))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_merge(word, best) for word in pieces]
    return merges


def build_tokenizer(words: Iterable[str], max_length: int = 24) -> CLIPTokenizer:
    """A tokenizer in which each of `words` is one token and any other word falls into pieces.

    Args:
        words: lower-case words and identifier tokens.
        max_length: tokens per prompt, start and end included.
    """
    words = sorted(set(words))
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789,.-")
    merges = learn_merges(words)
    tokens = [START, END, *letters, *(letter + WORD_END for letter in letters)]
    tokens += [left + right for left, right in merges]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_length)
