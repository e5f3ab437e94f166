"""From text to tokens: those of a whole split are one stream, made batch by batch."""

from __future__ import annotations

import bisect
import codecs
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_all_start_methods, get_context
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow.compute as pc
import regex
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lmtasks.api import Blocks
from lmtasks.data.corpus import Split
from lmtasks.data.corpus.split import BATCH_BYTES, joined, utf8
from lmtasks.data.text.segmenters import Segment, segment_of
from lmtasks.data.text.special_tokens import SpecialTokens
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
_NEIGHBOURHOOD = 128
"""Characters to either side of a place by which it is known whether a text may be parted there."""

_SHIFT = 37
"""Characters by which the left side is shorter when it is tried again; odd, because pairs are what is joined first."""

_VARIED = 12
"""Groups of three characters that a text has at least if it is no run."""

_TRIES, _TRIES_OF_ROWS = 1000, 20


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
        unknown: how many tokens stand for what the tokenizer does not know.
        special: how many special tokens stand in the text itself, by token; those around documents are none of these.
    """

    ids: Integers
    documents: Places
    words: Flags | None = None
    rows: int = 0
    unit: str = "documents"
    bytes: int = 0
    unknown: int = 0
    special: Mapping[str, int] = field(default_factory=dict)


class Part(NamedTuple):
    """A part of a text whose parts have the tokens of the whole.

    Args:
        before: the end of the part before, ``skipped`` tokens, read along: tokenizers look at what stands to the left.
        rows: how many rows end in the part; 0 where it ends in the middle of one.
    """

    text: str
    before: str = ""
    skipped: int = 0
    rows: int = 0


@dataclass(frozen=True)
class _Batch:
    """Texts that are tokenised together: rows, or parts of a text.

    Args:
        rows: how many rows end here, those included that were left out.
        parts: of which the texts are made where they are parts of one, which ``opens`` and ``closes`` with them or not.
    """

    texts: list[str]
    rows: int
    parts: Sequence[Part] = ()
    opens: bool = False
    closes: bool = False

    @property
    def edges(self) -> Flags:
        """Whether a document begins with each text, and whether it ends with it, bool [texts, 2]."""
        edges = np.full((len(self.texts), 2), not self.parts)
        if self.parts:
            edges[0, 0], edges[-1, 1] = self.opens, self.closes
        return edges

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the text."""
        return sum(len(text) if text.isascii() else len(text.encode()) for text in self.own)

    @property
    def own(self) -> list[str]:
        """The texts, without what was only read along."""
        return [part.text for part in self.parts] or self.texts


def read(
    split: Split, tokenizer: PreTrainedTokenizerBase, blocks: Blocks, start: int = 0, workers: int = 1
) -> Iterator[Stream]:
    """The tokens of a split, batch by batch of its rows.

    Lines of a running text are tokenised as one text: its ids are those of the tokenizer called on the whole, which
    may join what stands to both sides of a line break, or treat the beginning of a text otherwise.

    Args:
        tokenizer: called without special tokens; those come from ``blocks``.
        start: go on after so many rows.
        workers: processes for a tokenizer in Python; one in Rust uses all cores by itself.

    Yields:
        pieces of the stream; ``documents`` count from the beginning of the piece. ``rows`` counts those that end in
        it: after a piece with any, reading may go on another time.
    """
    unit = "documents" if split.documents else "lines"
    running = not split.documents and not blocks.line_by_line
    special_tokens = SpecialTokens(tokenizer)
    batches = _running(split, tokenizer, start) if running else _batches(split, tokenizer, blocks.line_by_line, start)
    segment = segment_of(blocks.word_segmenter) if blocks.words else None
    for batch, encoded in _all_encoded(batches, tokenizer, blocks.words, workers):
        ids, lengths = _joined(encoded, batch.parts)
        words = None if segment is None else _word_starts(batch, encoded, segment)
        unknown, special = special_tokens.counted(ids, batch.own)
        ids, documents, words = _framed(ids, lengths, words, batch, blocks)
        yield Stream(ids, documents, words, batch.rows, unit, batch.bytes, unknown, special)


def _batches(split: Split, tokenizer: PreTrainedTokenizerBase, line_by_line: bool, start: int) -> Iterator[_Batch]:
    """The rows from one on; of lines that are on their own neither line breaks nor blank ones."""
    lines = line_by_line and not split.documents
    for array in split.arrays(start):
        text = utf8(array)
        if len(array) > 1 or len(text) <= LONGEST:
            texts = array.to_pylist()
            if lines:
                texts = [line for line in (text.rstrip("\r\n") for text in texts) if line.strip()]
            yield _Batch(texts, len(array))
            continue
        while lines and text and text[-1] in b"\r\n":
            text = text[:-1]
        if lines and not any(window.strip() for window in _windows(text)):
            yield _Batch([], 1)
            continue
        windows: Iterator[tuple[str, Sequence[int]]] = ((window, ()) for window in _windows(text))
        yield from _in_parts(parted(tokenizer, itertools.chain(windows, [("", (0,))])), opens=True)


def _running(split: Split, tokenizer: PreTrainedTokenizerBase, start: int) -> Iterator[_Batch]:
    """Running texts from a row on, which may be in the middle of one."""
    opens = start in split.text_starts
    before = "" if opens else _before(split, start)
    for _, arrays in itertools.groupby(split.running(start), key=lambda piece: piece[0]):
        windows = ((joined(array), np.cumsum(pc.utf8_length(array)).tolist()) for _, array in arrays)
        yield from _in_parts(parted(tokenizer, windows, before), opens)
        opens, before = True, ""


def _before(split: Split, start: int) -> str:
    """The end of a running text before a row, ``_NEIGHBOURHOOD`` characters if there are as many."""
    first = max(int(split.text_starts[np.searchsorted(split.text_starts, start) - 1]), start - _NEIGHBOURHOOD)
    text, rows = "", first
    for array in split.arrays(first):
        text = (text + joined(array.slice(0, start - rows)))[-_NEIGHBOURHOOD:]
        rows += len(array)
        if rows >= start:
            break
    return text


def _in_parts(parts: Iterable[Part], opens: bool) -> Iterator[_Batch]:
    """A text in batches of its parts; it is never in memory as a whole if its tokenizer allows."""
    batch: list[Part] = []
    uncounted = 0  # in the middle of a row nobody can go on, so rows count with the next part that ends one
    for part in parts:
        if len(batch) == _PARTS:
            rows = uncounted + sum(one.rows for one in batch)
            ends = batch[-1].rows > 0
            yield _Batch([part.before + part.text for part in batch], rows if ends else 0, batch, opens)
            batch, opens, uncounted = [], False, 0 if ends else rows
        batch.append(part)
    rows = uncounted + sum(one.rows for one in batch)
    yield _Batch([part.before + part.text for part in batch], rows, batch, opens, closes=True)


def _windows(text: memoryview) -> Iterator[str]:
    """A text, ``LONGEST`` bytes at a time."""
    return codecs.iterdecode((bytes(text[at : at + LONGEST]) for at in range(0, len(text), LONGEST)), "utf-8")


def parted(
    tokenizer: PreTrainedTokenizerBase, windows: Iterable[tuple[str, Sequence[int]]], before: str = ""
) -> Iterator[Part]:
    """A text in parts of about ``LONGEST`` characters that have the tokens of the whole.

    Whether they do is tried, with what is near the place: tokenizers join and split by rules of their own. A text
    that can be parted nowhere stays whole. Ends of rows are tried first, for reading may go on there another time.

    Args:
        windows: the text, piece by piece, and the places in each, in characters, where rows end.
        before: the end of what stands before it, where it is the rest of a text.
    """
    text, tried, skipped = "", 0, len(_encoded(tokenizer, [before])[0].ids) if before else 0
    ends: list[int] = []
    for window, places in windows:
        ends += [len(text) + place for place in places]
        text += window
        while (seam := _seam(tokenizer, text, max(LONGEST, tried), ends)) is not None:
            place, tokens = seam
            done = bisect.bisect_right(ends, place)
            rows = done if done and ends[done - 1] == place else 0
            yield Part(text[:place], before, skipped, rows)
            before, skipped, text, tried = text[place - _NEIGHBOURHOOD : place], tokens, text[place:], 0
            # Rows that end within a part that ends in the middle of one: with the part after it.
            ends = [max(0, end - place) for end in (ends[done:] if rows else ends)]
        tried = len(text) - _NEIGHBOURHOOD
    yield Part(text, before, skipped, len(ends))


def _seam(tokenizer: PreTrainedTokenizerBase, text: str, earliest: int, ends: Sequence[int]) -> tuple[int, int] | None:
    """The first place from there on where the text may be parted, if any, and the number of tokens right before it."""
    latest = len(text) - _NEIGHBOURHOOD  # beyond, it is tried again when more of the text is there
    rows = ends[bisect.bisect_left(ends, earliest) : bisect.bisect_right(ends, latest)]
    candidates = (match.start() for match in _CANDIDATE.finditer(text, earliest, max(earliest, latest)))
    for place in itertools.chain(rows[:_TRIES_OF_ROWS], itertools.islice(candidates, _TRIES)):
        left, right = text[place - _NEIGHBOURHOOD : place], text[place : place + _NEIGHBOURHOOD]
        # From a second place on as well: how a long run is divided depends on where it begins.
        later = left[_SHIFT:]
        if _is_run(later) or _is_run(right):
            continue
        alone, whole, alone_later, whole_later = (
            encoded.ids for encoded in _encoded(tokenizer, [left, left + right, later, later + right])
        )
        after, after_later = whole[len(alone) :], whole_later[len(alone_later) :]
        if whole == alone + after and whole_later == alone_later + after_later and after == after_later:
            return place, len(alone)
    return None


def _is_run(text: str) -> bool:
    """Whether a text says little about what is near it: a line of dashes, empty lines, a few letters over and over."""
    return len({text[at : at + 3] for at in range(len(text) - 2)}) < _VARIED


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


def _joined(encoded: Sequence[_Encoded], parts: Sequence[Part]) -> tuple[Integers, Places]:
    """The token ids of the texts in one array, and how many each text has."""
    rows = [text.ids for text in encoded]
    if parts:
        rows = [ids[part.skipped :] for ids, part in zip(rows, parts, strict=True)]
    lengths = np.fromiter(map(len, rows), np.int64, count=len(rows))
    return np.fromiter(itertools.chain.from_iterable(rows), np.int32, count=int(lengths.sum())), lengths


def _word_starts(batch: _Batch, encoded: Sequence[_Encoded], segment: Segment) -> Flags:
    """Whether a word begins in each token, bool [tokens of all texts]."""
    starts = [word_starts(text, tokens.offsets, segment) for text, tokens in zip(batch.texts, encoded, strict=True)]
    if batch.parts:
        starts = [flags[part.skipped :] for flags, part in zip(starts, batch.parts, strict=True)]
    return np.concatenate([np.zeros(0, np.bool_), *starts])


def _framed(
    ids: Integers, lengths: Places, words: Flags | None, batch: _Batch, blocks: Blocks
) -> tuple[Integers, Places, Flags | None]:
    """Every document between the ids that start and end one; where each begins."""
    frame = np.asarray([*blocks.document_start, *blocks.document_end], np.int32)
    counts = len(blocks.document_start), len(blocks.document_end)
    edges = batch.edges
    framed = np.repeat(edges, counts, axis=1)
    ends = np.cumsum(lengths)
    places = np.repeat(np.stack([ends - lengths, ends], axis=1), counts, axis=1)[framed]
    whole = lengths + framed.sum(axis=1)
    firsts = (np.cumsum(whole) - whole)[edges[:, 0]]
    ids = np.insert(ids, places, np.broadcast_to(frame, framed.shape)[framed])
    return ids, firsts, None if words is None else np.insert(words, places, True)
