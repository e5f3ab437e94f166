"""From text to tokens: those of a whole split are one stream, made batch by batch."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from typing import Any, NamedTuple, TypeVar

import numpy as np
import regex
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lmtasks.api import Blocks
from lmtasks.data.corpus import Split
from lmtasks.data.corpus.split import BATCH_BYTES, utf8
from lmtasks.data.text.word_boundaries import Flags, word_starts

Integers = np.ndarray[Any, np.dtype[np.int32]]
Places = np.ndarray[Any, np.dtype[np.int64]]

_Item = TypeVar("_Item")

LONGEST = 1 << 15
"""Characters of one part of a long text: a tokenizer takes hundreds of bytes for each while it works."""

_PARTS = max(1, BATCH_BYTES // LONGEST)
"""Parts that are tokenised at once."""

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


@dataclass(frozen=True)
class _Batch:
    """Texts that are tokenised together: rows of a split, or parts of a row.

    Args:
        rows: how many rows end here, those included that were left out.
        first: of parts, whether the row begins here; None for rows.
    """

    texts: list[str]
    rows: int
    first: bool | None = None

    def edges(self) -> Flags:
        """Whether a row begins with each text, and whether it ends with it, bool [texts, 2]."""
        edges = np.full((len(self.texts), 2), self.first is None)
        if self.first is not None:
            edges[:1, 0], edges[-1:, 1] = self.first, self.rows > 0
        return edges


def read(
    split: Split, tokenizer: PreTrainedTokenizerBase, blocks: Blocks, start: int = 0, workers: int = 1
) -> Iterator[Stream]:
    """The tokens of a split, batch by batch of its rows.

    Args:
        tokenizer: called without special tokens; those come from ``blocks``.
        start: go on after so many rows.
        workers: processes for a tokenizer in Python; one in Rust uses all cores by itself.

    Yields:
        pieces of the stream; ``documents`` count from the beginning of the piece. ``rows`` counts those that end in
        it: after a piece with any, reading may go on another time.
    """
    apart = split.documents or blocks.line_by_line
    unit = "documents" if split.documents else "lines"
    if not apart and not start:  # a running text is one document
        yield _frame(blocks.document_start, np.zeros(1, np.int64), blocks, unit)
    batches = _batches(split, tokenizer, blocks.line_by_line and not split.documents, start)
    for batch, encoded in _all_encoded(batches, tokenizer, blocks.words, workers):
        size = sum(len(text) if text.isascii() else len(text.encode()) for text in batch.texts)
        ids, lengths = _joined(encoded)
        words = _word_starts(batch.texts, encoded) if blocks.words else None
        unknown = 0 if tokenizer.unk_token_id is None else int((ids == tokenizer.unk_token_id).sum())
        documents = np.zeros(0, np.int64)
        if apart:
            ids, documents, words = _framed(ids, lengths, words, batch, blocks)
        yield Stream(ids, documents, words, batch.rows, unit, size, unknown)
    if not apart:
        yield _frame(blocks.document_end, np.zeros(0, np.int64), blocks, unit)


def _frame(tokens: tuple[int, ...], documents: Places, blocks: Blocks, unit: str) -> Stream:
    """The tokens before or after a running text, as a piece of the stream."""
    words = np.ones(len(tokens), np.bool_) if blocks.words else None
    return Stream(np.asarray(tokens, np.int32), documents, words, 0, unit)


def _batches(split: Split, tokenizer: PreTrainedTokenizerBase, line_by_line: bool, start: int) -> Iterator[_Batch]:
    """The rows from one on; of lines that are on their own neither line breaks nor blank ones."""
    for array in split.arrays(start):
        if len(array) == 1 and len(utf8(array)) > LONGEST:
            yield from _in_parts(tokenizer, utf8(array), line_by_line)
            continue
        texts = array.to_pylist()
        if line_by_line:
            texts = [line for line in (text.rstrip("\r\n") for text in texts) if line.strip()]
        yield _Batch(texts, len(array))


def _in_parts(tokenizer: PreTrainedTokenizerBase, text: memoryview, line_by_line: bool) -> Iterator[_Batch]:
    """One long row, which is never in memory as a whole if its tokenizer allows."""
    if line_by_line:
        while text and text[-1] in b"\r\n":
            text = text[:-1]
        if not any(window.strip() for window in _windows(text)):
            yield _Batch([], 1)
            return
    parts: list[str] = []
    first = True
    for part in parted(tokenizer, _windows(text)):
        if len(parts) == _PARTS:
            yield _Batch(parts, 0, first)
            parts, first = [], False
        parts.append(part)
    yield _Batch(parts, 1, first)


def _windows(text: memoryview) -> Iterator[str]:
    """A text, ``LONGEST`` bytes at a time."""
    return codecs.iterdecode((bytes(text[at : at + LONGEST]) for at in range(0, len(text), LONGEST)), "utf-8")


def parted(tokenizer: PreTrainedTokenizerBase, windows: Iterable[str]) -> Iterator[str]:
    """A text in parts of about ``LONGEST`` characters that have the same tokens apart as together.

    Whether they do is tried, with what is near the place: tokenizers join and split by rules of their own. A text
    that can be parted nowhere stays whole.

    Args:
        windows: the text, piece by piece.
    """
    text, tried = "", 0
    for window in windows:
        text += window
        while (place := _seam(tokenizer, text, max(LONGEST, tried))) is not None:
            yield text[:place]
            text, tried = text[place:], 0
        tried = len(text) - _NEIGHBOURHOOD
    yield text


def _seam(tokenizer: PreTrainedTokenizerBase, text: str, earliest: int) -> int | None:
    """The first place from there on where the text may be parted, if one of many will do."""
    for match in itertools.islice(_CANDIDATE.finditer(text, earliest), _TRIES):
        place = match.start()
        left, right = text[place - _NEIGHBOURHOOD : place], text[place : place + _NEIGHBOURHOOD]
        if len(right) < _NEIGHBOURHOOD:
            break  # tried again when more of the text is there
        one, other, both = _encoded(tokenizer, [left, right, left + right])
        if one.ids + other.ids == both.ids:
            return place
    return None


def _all_encoded(
    batches: Iterator[_Batch], tokenizer: PreTrainedTokenizerBase, offsets: bool, workers: int
) -> Iterator[tuple[_Batch, Sequence[_Encoded]]]:
    """The batches with their tokens, in order; what comes next is made while one is in use."""
    if workers == 1 or _is_plain(tokenizer):
        yield from _ahead((batch, _encoded(tokenizer, batch.texts, offsets)) for batch in batches)
        return
    # Forked, as data loaders do it: nothing of the caller's program is imported again.
    kind = "fork" if "fork" in get_all_start_methods() else "spawn"
    with ProcessPoolExecutor(workers, get_context(kind), _keep_tokenizer, (tokenizer,)) as pool:

        def begun(batch: _Batch) -> tuple[_Batch, list[Future[list[_Encoded]]]]:
            size = -(-len(batch.texts) // workers) or 1
            parts = [batch.texts[first : first + size] for first in range(0, len(batch.texts), size)]
            return batch, [pool.submit(_encoded_there, part, offsets) for part in parts]

        for batch, parts in _ahead(map(begun, batches)):
            yield batch, [text for part in parts for text in part.result()]


_kept: PreTrainedTokenizerBase
"""The tokenizer of this process, if it is one that only tokenises."""


def _keep_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    global _kept
    _kept = tokenizer


def _encoded_there(texts: list[str], offsets: bool) -> list[_Encoded]:
    return list(_encoded(_kept, texts, offsets))


def _ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """The items, each made while the one before it is in use."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


class _Encoded(NamedTuple):
    """The tokens of a text, under the names of ``tokenizers.Encoding``."""

    ids: list[int]
    offsets: list[tuple[int, int]]


def _encoded(tokenizer: PreTrainedTokenizerBase, texts: list[str], offsets: bool = False) -> Sequence[_Encoded]:
    """The tokens of each text; where in the text they are only if asked."""
    if not texts:  # a batch of blank lines; tokenizers do not take nothing
        return []
    if _is_plain(tokenizer):
        # What the call below does, without its bookkeeping, which takes a fifth of the time.
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = tokenizer.split_special_tokens
        encode = backend.encode_batch if offsets else backend.encode_batch_fast
        return encode(texts, add_special_tokens=False)  # type: ignore[no-any-return]
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=offsets,
        verbose=False,
    )
    places = encoded["offset_mapping"] if offsets else [[] for _ in texts]
    return [_Encoded(*row) for row in zip(encoded["input_ids"], places, strict=True)]


def _is_plain(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer is in Rust, with nothing done before or after it."""
    kind = type(tokenizer)
    return issubclass(kind, PreTrainedTokenizerFast) and all(
        getattr(kind, name) is getattr(PreTrainedTokenizerFast, name)
        for name in ("__call__", "_encode_plus", "_convert_encoding", "set_truncation_and_padding")
    )


def _joined(encoded: Sequence[_Encoded]) -> tuple[Integers, Places]:
    """The token ids of the texts in one array, and how many each text has."""
    rows = [text.ids for text in encoded]
    lengths = np.fromiter(map(len, rows), np.int64, count=len(rows))
    return np.fromiter(itertools.chain.from_iterable(rows), np.int32, count=int(lengths.sum())), lengths


def _word_starts(texts: list[str], encoded: Sequence[_Encoded]) -> Flags:
    """Whether a word begins in each token, bool [tokens of all texts]."""
    starts = [word_starts(text, tokens.offsets) for text, tokens in zip(texts, encoded, strict=True)]
    return np.concatenate([np.zeros(0, np.bool_), *starts])


def _framed(
    ids: Integers, lengths: Places, words: Flags | None, batch: _Batch, blocks: Blocks
) -> tuple[Integers, Places, Flags | None]:
    """Every document between the ids that start and end one; where each begins."""
    frame = np.asarray([*blocks.document_start, *blocks.document_end], np.int32)
    counts = len(blocks.document_start), len(blocks.document_end)
    edges = batch.edges()
    framed = np.repeat(edges, counts, axis=1)
    ends = np.cumsum(lengths)
    places = np.repeat(np.stack([ends - lengths, ends], axis=1), counts, axis=1)[framed]
    whole = lengths + framed.sum(axis=1)
    firsts = (np.cumsum(whole) - whole)[edges[:, 0]]
    ids = np.insert(ids, places, np.broadcast_to(frame, framed.shape)[framed])
    return ids, firsts, None if words is None else np.insert(words, places, True)
