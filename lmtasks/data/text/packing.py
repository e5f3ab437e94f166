"""From a stream of tokens to examples, with nothing lost but one reported tail, and nothing in views.

The task guides cut per batch of a thousand rows and drop what is left over each time; here the
tokens of a whole split are one stream, and examples are places in it. The places are computed when
they are asked for: three numbers for each of many short examples would be more than their tokens.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from lmtasks.api import Blocks
from lmtasks.data.text.tokenize import Integers, Places, Stream
from lmtasks.data.text.word_boundaries import Flags

_AT_ONCE = 1 << 11
"""Stretches whose examples are counted together."""

_TOKENS_AT_ONCE = 1 << 20
"""Tokens that are looked at together."""

_TOLD = 5
"""Kinds of special tokens that are named in a note."""


@dataclass(frozen=True)
class Packed:
    """One split as examples: places in its stream.

    Args:
        stretches: int64 [stretches], where in the stream each begins that is cut on its own: lines, or all tokens.
        end: where the last of them ends.
        most: only so many of the first examples; all when None.
        bare: int64, in order, the pieces that are no examples because they can have no target, by their numbers
            among all pieces.
    """

    stream: Stream
    blocks: Blocks
    stretches: Places
    end: int
    most: int | None = None
    bare: Places = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        total = self.end if self.blocks.one_by_one else int(self._counted[-1]) - len(self.bare)
        return total if self.most is None else min(total, self.most)

    @property
    def tokens(self) -> int:
        """Tokens of the stream."""
        return len(self.stream.ids)

    @property
    def used(self) -> Integers:
        """The tokens up to the end of the last example, int32."""
        return self.stream.ids[: self.places(len(self) - 1)[2] if len(self) else 0]

    @property
    def tail(self) -> int:
        """Tokens left over at the end of the stream, or after the examples that ``head`` took."""
        return self.tokens - len(self.used)

    unit = "tokens"
    """The unit of its size."""

    @property
    def total(self) -> float:
        """Tokens of the stream."""
        return self.tokens

    @property
    def per_example(self) -> float:
        """Tokens of an example with its frame, on average."""
        return len(self.used) / len(self) + self.blocks.size - self.blocks.body

    @property
    def unknown_share(self) -> float:
        """The share of the tokens that the tokenizer does not know."""
        return self.stream.unknown / max(1, self.tokens)

    def sizes(self) -> dict[str, Any]:
        """For plan, record and card."""
        return {
            "rows": self.stream.rows,
            "unit": self.stream.unit,
            "bytes": self.stream.bytes,
            "tokens": self.tokens,
            "unknown": self.stream.unknown,
            "special": dict(self.stream.special),
            "blocks": len(self),
            "tail": self.tail,
            "fingerprint": self.fingerprint,
        }

    def notes(self, name: str) -> Iterator[str]:
        """Warnings for a person who is about to train on the text of that name."""
        blocks, documents = self.blocks, len(self.stream.documents)
        apart = blocks.document_start or blocks.document_end or blocks.line_by_line or blocks.isolate
        if blocks.context and documents > 1 and not apart:
            yield (
                f"the tokenizer has no token that begins or ends a text: the {documents:,} documents of the {name} text"
                " run into each other"
            )
        if self.unknown_share > 0.001:
            yield f"{self.unknown_share:.1%} of the {name} tokens are unknown to the tokenizer"
        if len(self.bare):
            yield f"{len(self.bare):,} pieces of the {name} text are no examples: they have nothing to predict"
        if special := sorted(self.stream.special.items(), key=lambda item: -item[1]):
            share = sum(count for _, count in special) / self.tokens
            told = ", ".join(f"{token} {count:,}" for token, count in special[:_TOLD])
            yield (
                f"{'less than 0.1%' if share < 0.001 else f'{share:.1%}'} of the {name} tokens are special tokens that"
                f" stand in the text: {told}{', ...' * (len(special) > _TOLD)};"
                " --split_special_tokens takes them as plain text"
            )

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change with the text, the tokenizer, the words and the way of cutting."""
        digest = hashlib.blake2b(repr((self.blocks, (len(self), 3))).encode(), digest_size=16)
        words = () if self.stream.words is None else (self.stream.words,)
        for array in (self.stream.ids, self.stream.documents, *words):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def places(self, index: int) -> tuple[int, int, int]:
        """The places in the stream where an example begins, where its scored part begins, and where it ends.

        The first two are the same, but for examples that overlap.
        """
        start, scored, end, prefix = self._place(index)
        return start + prefix, scored, end

    def _place(self, index: int) -> tuple[int, int, int, int]:
        """As :meth:`places`, but where the example begins with its prefix, and how long that is."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        body, step, prefix = self.blocks.body, self._step, len(self.blocks.prefix)
        if self.blocks.one_by_one:  # as every token is scored once, example and token have the same number
            stretch = int(np.searchsorted(self.stretches, index, side="right")) - 1
            first, last = (int(places[0]) for places in self._bounds(stretch, 1))
            window = max(0, -((first - prefix + body - 1 - index) // step))
        else:
            piece = index + int(np.searchsorted(self._before_bare, index, side="right"))
            group = int(np.searchsorted(self._counted, piece, side="right")) - 1
            starts, ends, windows = self._group(group)
            counts = np.cumsum(windows)
            number = piece - int(self._counted[group])
            stretch = int(np.searchsorted(counts, number, side="right"))
            first, last = int(starts[stretch]), int(ends[stretch])
            window = number - int(counts[stretch - 1] if stretch else 0)
        begin = first - prefix
        start = begin + window * step
        after = start - step + body if window else first
        if self.blocks.stride is not None:
            start = min(start, max(begin, last - body))
        prefixed = max(0, first - start)
        # A stride of more than a block leaves out what is between them, which `lmtasks.testing` tells authors.
        scored = index if self.blocks.one_by_one else max(after, start + prefixed)
        return start, scored, min(start + body, last), prefixed

    def example(self, index: int) -> dict[str, Any]:
        """One example; see :data:`lmtasks.api.recipe.Example`."""
        begin, scored, end, prefix = self._place(index)
        start, blocks = begin + prefix, self.blocks
        before = (*blocks.start, *blocks.prefix[len(blocks.prefix) - prefix :])
        frame = (len(before), len(blocks.end))
        ids = np.concatenate([before, self.stream.ids[start:end], blocks.end])
        example: dict[str, Any] = {"input_ids": ids.astype(np.int32)}
        if blocks.isolate and not blocks.line_by_line:
            numbers = np.searchsorted(self.stream.documents, np.arange(start, end), side="right")
            example["document_ids"] = np.pad(numbers - numbers[0], frame, mode="edge")
        if blocks.words and self.stream.words is not None:
            example["word_starts"] = np.pad(self.stream.words[start:end], frame, constant_values=True)
        if self.is_view:
            asked = slice(scored, scored + 1 if blocks.one_by_one else end)
            mask = np.zeros(end - start, np.bool_)
            mask[asked.start - start : asked.stop - start] = self._told(asked)
            example["scored"] = np.pad(mask, frame)
        return example

    @property
    def is_view(self) -> bool:
        """Whether it is for evaluation, beside the plain one: examples say what is scored, tokens of the text only."""
        return self.blocks.stride is not None or self.blocks.one_by_one

    def _told(self, where: slice) -> Flags:
        """Whether the tokens there are of the text, and not those around documents, bool [tokens]."""
        places, documents = np.arange(where.start, where.stop), self.stream.documents
        number = np.searchsorted(documents, places, side="right")
        following = np.append(documents[number[0] : number[-1] + 1], self.tokens)[number - number[0]]
        first, last = len(self.blocks.document_start), len(self.blocks.document_end)
        told: Flags = (places - documents[number - 1] >= first) & (places < following - last)
        return told

    @property
    def whole(self) -> int:
        """The number of the first example that is shorter than those before it; of all where lengths vary."""
        if self.blocks.line_by_line or not len(self):
            return len(self)
        return bisect.bisect_left(range(len(self)), -self._length(0) + 1, key=lambda number: -self._length(number))

    def _length(self, index: int) -> int:
        start, _, end, _ = self._place(index)
        return end - start

    def longest_first(self) -> Iterator[int]:
        """The numbers of the examples, by length; those of equal length in order. Not for ``one_by_one``."""
        if not self.blocks.line_by_line:
            yield from range(len(self))  # only the last are shorter, if any
            return
        present = set().union(*(np.unique(lengths).tolist() for _, lengths in self._lengths()))
        for wanted in sorted(present, reverse=True):
            for number, lengths in self._lengths():
                yield from (number + np.flatnonzero(lengths == wanted)).tolist()

    def head(self, examples: int | None) -> Packed:
        """The first so many examples; all when None. Text and tokens stay those of the whole split."""
        return replace(self, most=examples)

    @property
    def seen(self) -> int:
        """Tokens that views are of: all, or those of the first examples if ``head`` took these."""
        return self.tokens if self.most is None else len(self.used)

    def recut(self, blocks: Blocks) -> Packed:
        """The text that is seen, cut in another way, with nothing left over."""
        return cut(self.stream, blocks, self.seen, whole=True)

    def counts(self, end: int, *, framed: bool) -> Places:
        """How often each token stands before a place of the stream, int64 [vocabulary].

        Args:
            framed: those around documents count as well.
        """
        ids, documents, blocks = self.stream.ids, self.stream.documents, self.blocks
        size = int(ids.max()) + 1 if len(ids) else 1
        # In parts: numpy counts 64-bit copies.
        parts = (ids[start : min(start + _TOKENS_AT_ONCE, end)] for start in range(0, end, _TOKENS_AT_ONCE))
        counts = sum((np.bincount(part, minlength=size) for part in parts), np.zeros(size, np.int64))
        if not framed:
            ends = np.append(documents[1:], len(ids)) - len(blocks.document_end)
            for places, tokens in ((documents, blocks.document_start), (ends, blocks.document_end)):
                for number, token in enumerate(tokens):
                    counts[token] -= int((places + number < end).sum())
        return counts

    @property
    def _step(self) -> int:
        return self.blocks.stride or self.blocks.body

    @cached_property
    def _counted(self) -> Places:
        """The number of examples before each group of ``_AT_ONCE`` stretches, and of all."""
        groups = range(-(-len(self.stretches) // _AT_ONCE))
        return np.cumsum([0, *(self._group(group)[2].sum() for group in groups)])

    @cached_property
    def _before_bare(self) -> Places:
        """The number of examples before each piece that is none."""
        return self.bare - np.arange(len(self.bare))

    def _bounds(self, stretch: int, count: int) -> tuple[Places, Places]:
        """The places where so many stretches begin, and where they end."""
        starts = self.stretches[stretch : stretch + count]
        ends = self.stretches[stretch + 1 : stretch + count + 1] - _unread(self.blocks)
        return starts, np.append(ends, self.end)[: len(starts)]

    def _group(self, group: int) -> tuple[Places, Places, Places]:
        """Where a group's stretches begin and end, and how many examples each has: one every ``_step`` tokens."""
        starts, ends = self._bounds(group * _AT_ONCE, _AT_ONCE)
        lengths = ends - starts
        missing = self.blocks.body - len(self.blocks.prefix) - lengths
        return starts, ends, np.where(lengths > 0, 1 + np.maximum(0, -(missing // self._step)), 0)

    def _pieces(self) -> Iterator[tuple[int, Places, Places]]:
        """Group by group the number of the first piece, and where each begins and how many tokens it has."""
        for group, number in enumerate(self._counted[:-1].tolist()):
            starts, ends, counts = self._group(group)
            begins = np.arange(counts.sum())
            begins -= np.repeat(np.cumsum(counts) - counts, counts)
            begins *= self._step
            begins += np.repeat(starts, counts)
            lengths = np.full(counts.sum(), self.blocks.body)
            last = ends - starts + len(self.blocks.prefix)
            if self.blocks.stride is None:
                last -= (counts - 1) * self._step
            lengths[np.cumsum(counts)[counts > 0] - 1] = np.minimum(last, self.blocks.body)[counts > 0]
            yield number, begins, lengths

    def _lengths(self) -> Iterator[tuple[int, Places]]:
        """Group by group the number of the first example, and the tokens of each."""
        for number, _, lengths in self._pieces():
            first, last = np.searchsorted(self.bare, [number, number + len(lengths)])
            lengths = np.delete(lengths, self.bare[first:last] - number)
            yield number - int(first), lengths[: max(0, len(self) - number + int(first))]

    def without_bare(self) -> Packed:
        """The same without the pieces that can have no target: all too short, or of tokens that never are any."""
        blocks, at_once = self.blocks, max(1, _TOKENS_AT_ONCE // self.blocks.body)
        never, frame, bare = np.asarray(blocks.never_targets), blocks.size - blocks.body, [self.bare]
        for number, starts, lengths in self._pieces():
            nothing = lengths + frame <= blocks.context
            for first in range(0, len(starts) if len(never) else 0, at_once):
                some = slice(first, first + at_once)
                begin, end = starts[some][0], starts[some][-1] + lengths[some][-1]
                possible = ~np.isin(self.stream.ids[begin:end], never)
                nothing[some] |= np.add.reduceat(possible, starts[some] - begin, dtype=np.int64) == 0
            bare.append(number + np.flatnonzero(nothing))
        return replace(self, bare=np.concatenate(bare))


def cut(stream: Stream, blocks: Blocks, tokens: int | None = None, *, whole: bool = False) -> Packed:
    """The examples of a stream, or of so many of its first tokens.

    Args:
        whole: nothing is left over: the last block is as short as it must be. As views want it; for training, and
            the figures that are compared with its loss, all blocks are equal.
    """
    end = len(stream.ids) if tokens is None else tokens
    documents = int(np.searchsorted(stream.documents, end))
    if unread := _unread(blocks):
        following = stream.documents[documents] if documents < len(stream.documents) else len(stream.ids)
        end = max(0, min(end, int(following) - unread))
    if blocks.line_by_line:
        packed = Packed(stream, blocks, stream.documents[:documents], end)
        # In a view that scores each token once, some of its examples have none to score anyway.
        return packed if packed.is_view else packed.without_bare()
    if not whole and blocks.stride is None and end > blocks.body:
        end -= end % blocks.body
    return Packed(stream, blocks, np.zeros(1, np.int64), end)


def _unread(blocks: Blocks) -> int:
    """How many tokens of what ends a document no window reaches: the last ends with the last token that is told."""
    return len(blocks.document_end) if blocks.stride is not None and not blocks.one_by_one else 0
