"""From text to tokens: those of a whole split are one stream, made batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import regex
from transformers import PreTrainedTokenizerBase

from lmtasks.blocks import Blocks
from lmtasks.corpus import Split
from lmtasks.segmentation import word_starts

Integers = np.ndarray[Any, np.dtype[np.int32]]
Places = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

LONGEST = 1 << 20
"""Characters that are tokenised at once; longer texts in parts, so that memory stays bounded."""

# Between words, or, in scripts without spaces, around punctuation.
_CANDIDATE = regex.compile(r"(?<=\S)(?=\s\S)|(?<=\S\s)(?=\S)|(?<=[\p{P}\p{S}])|(?=[\p{P}\p{S}])")
_NEIGHBOURHOOD = 200
"""Characters to either side of a place by which it is known whether a text may be parted there."""

_TRIES = 1000


@dataclass(frozen=True)
class Stream:
    """The tokens of one split, one document after the other.

    Args:
        ids: int32 [tokens], the ones around documents included, the ones around blocks not.
        documents: int64 [documents], where each begins.
        words: bool [tokens], whether a word begins; None when nobody asked.
        rows: how many documents, or lines of running text, went in.
        unit: which of the two, "documents" or "lines".
        bytes: UTF-8 bytes of the text.
        unknown: how many tokens are the tokenizer's unknown token.
    """

    ids: Integers
    documents: Places
    words: Flags | None = None
    rows: int = 0
    unit: str = "documents"
    bytes: int = 0
    unknown: int = 0


def read(split: Split, tokenizer: PreTrainedTokenizerBase, blocks: Blocks) -> Iterator[Stream]:
    """Tokenise a split, batch by batch of its rows.

    Args:
        split: the text.
        tokenizer: called without special tokens; those come from ``blocks``.
        blocks: how the recipe wants it.

    Yields:
        pieces of the stream; ``documents`` count from the beginning of the piece.
    """
    apart = split.documents or blocks.line_by_line
    unit = "documents" if split.documents else "lines"
    for number, texts in enumerate(split.texts()):
        rows = len(texts)
        if blocks.line_by_line and not split.documents:
            texts = [line for line in (text.rstrip("\r\n") for text in texts) if line.strip()]
        size = sum(len(text.encode()) for text in texts)
        parts = [parted(tokenizer, text) for text in texts]
        ids, lengths, words = tokenise(tokenizer, list(itertools.chain.from_iterable(parts)), blocks.words)
        lengths = _summed(lengths, parts)
        unknown = 0 if tokenizer.unk_token_id is None else int((ids == tokenizer.unk_token_id).sum())
        documents = np.zeros(0 if number else 1, np.int64)  # a running text is one document
        if apart:
            ids, documents, words = _framed(ids, lengths, words, blocks.document_start, blocks.document_end)
        yield Stream(ids, documents, words, rows, unit, size, unknown)
    if not apart:
        end = np.asarray(blocks.document_end, np.int32)
        yield Stream(end, np.zeros(0, np.int64), np.ones(len(end), np.bool_) if blocks.words else None, 0, unit)


def parted(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """A text in parts of about ``LONGEST`` characters that have the same tokens apart as together.

    Whether they do is tried, with what is near the place: tokenizers join and split by rules of their own.
    """
    parts, start = [], 0
    while len(text) - start > LONGEST:
        end = _seam(tokenizer, text, start + LONGEST)
        parts.append(text[start:end])
        start = end
    return [*parts, text[start:]] if start < len(text) or not parts else parts


def _seam(tokenizer: PreTrainedTokenizerBase, text: str, earliest: int) -> int:
    """The first place from there on where the text may be parted; its end if none of many will do."""
    for match in itertools.islice(_CANDIDATE.finditer(text, earliest), _TRIES):
        place = match.start()
        left, right = text[place - _NEIGHBOURHOOD : place], text[place : place + _NEIGHBOURHOOD]
        apart = tokenizer([left, right], add_special_tokens=False, verbose=False)["input_ids"]
        if apart[0] + apart[1] == tokenizer(left + right, add_special_tokens=False, verbose=False)["input_ids"]:
            return place
    return len(text)


def _summed(lengths: Places, parts: list[list[str]]) -> Places:
    """The lengths of texts from those of their parts."""
    counts = [len(part) for part in parts]
    firsts = np.cumsum([0, *counts[:-1]]) if counts else np.zeros(0, np.int64)
    return np.add.reduceat(lengths, firsts) if len(lengths) else lengths


def tokenise(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], words: bool = False
) -> tuple[Integers, Places, Flags | None]:
    """The token ids of the texts in one array, how many each text has, and where words begin if asked."""
    if not texts:  # a batch of blank lines; tokenizers do not take nothing
        return np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.bool_) if words else None
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=words,
        verbose=False,
    )
    lengths = np.fromiter(map(len, encoded["input_ids"]), np.int64, count=len(texts))
    ids = np.fromiter(itertools.chain.from_iterable(encoded["input_ids"]), np.int32, count=int(lengths.sum()))
    if not words:
        return ids, lengths, None
    starts = [word_starts(text, offsets) for text, offsets in zip(texts, encoded["offset_mapping"], strict=True)]
    return ids, lengths, np.concatenate([np.zeros(0, np.bool_), *starts])


def _framed(
    ids: Integers, lengths: Places, words: Flags | None, start: tuple[int, ...], end: tuple[int, ...]
) -> tuple[Integers, Places, Flags | None]:
    """Every document between the ids that start and end one; where each begins."""
    whole = lengths + len(start) + len(end)
    lasts = np.cumsum(whole)
    firsts = lasts - whole
    places = np.concatenate(
        [firsts + number for number in range(len(start))] + [lasts - len(end) + number for number in range(len(end))]
        or [np.zeros(0, np.int64)]
    )
    text = np.ones(int(whole.sum()), np.bool_)
    text[places] = False
    framed = np.empty(len(text), np.int32)
    framed[text] = ids
    framed[places] = np.repeat(np.asarray([*start, *end], np.int32), len(lengths))
    if words is None:
        return framed, firsts, None
    starts = np.ones(len(text), np.bool_)
    starts[text] = words
    return framed, firsts, starts
