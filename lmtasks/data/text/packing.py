"""From a stream of tokens to examples, with nothing lost but one reported tail.

The task guides cut per batch of a thousand rows and drop what is left over each time; here the
tokens of a whole split are one stream, and examples are places in it. The places are computed when
they are asked for: three numbers for each of many short examples would be more than their tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lmtasks.api import Blocks
from lmtasks.data.text.tokenize import Integers, Places, Stream

_AT_ONCE = 1 << 12
"""Stretches whose examples are counted together."""


@dataclass(frozen=True)
class Packed:
    """One split as examples: places in its stream.

    Args:
        stretches: int64 [stretches], where in the stream each begins that is cut on its own: lines, or all tokens.
        end: where the last of them ends.
        most: only so many of the first examples; all when None.
    """

    stream: Stream
    blocks: Blocks
    stretches: Places
    end: int
    most: int | None = None

    def __len__(self) -> int:
        total = self.end if self.blocks.one_by_one else int(self._counted[-1])
        return total if self.most is None else min(total, self.most)

    @property
    def tokens(self) -> int:
        """Tokens of the stream."""
        return len(self.stream.ids)

    @property
    def used(self) -> Integers:
        """The tokens that some example has, int32; every one once."""
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
            "blocks": len(self),
            "tail": self.tail,
            "fingerprint": self.fingerprint,
        }

    def notes(self, name: str) -> Iterator[str]:
        """Warnings for a person who is about to train on the text of that name."""
        if self.unknown_share > 0.001:
            yield f"{self.unknown_share:.1%} of the {name} tokens are unknown to the tokenizer"

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
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        body, step = self.blocks.body, self._step
        if self.blocks.one_by_one:  # as every token is scored once, example and token have the same number
            stretch = int(np.searchsorted(self.stretches, index, side="right")) - 1
            first, last = self._bounds(stretch, 1)
            window = max(0, -((first + body - 1 - index) // step))
        else:
            group = int(np.searchsorted(self._counted, index, side="right")) - 1
            bounds, windows = self._group(group)
            counts = np.cumsum(windows)
            number = index - int(self._counted[group])
            stretch = int(np.searchsorted(counts, number, side="right"))
            first, last = bounds[stretch : stretch + 2]
            window = number - int(counts[stretch - 1] if stretch else 0)
        start = int(first) + window * step
        scored = index if self.blocks.one_by_one else start - step + body if window else start
        return start, scored, min(start + body, int(last))

    def example(self, index: int) -> dict[str, Any]:
        """One example; see :data:`lmtasks.api.recipe.Example`."""
        start, scored, end = self.places(index)
        blocks = self.blocks
        frame = (len(blocks.start), len(blocks.end))
        ids = np.concatenate([blocks.start, self.stream.ids[start:end], blocks.end])
        example: dict[str, Any] = {"input_ids": ids.astype(np.int32)}
        if blocks.isolate and not blocks.line_by_line:
            numbers = np.searchsorted(self.stream.documents, np.arange(start, end), side="right")
            example["document_ids"] = np.pad(numbers - numbers[0], frame, mode="edge")
        if blocks.words and self.stream.words is not None:
            example["word_starts"] = np.pad(self.stream.words[start:end], frame, constant_values=True)
        if blocks.stride is not None or blocks.one_by_one:
            first = scored - start + len(blocks.start)
            example["scored"] = slice(first, first + (1 if blocks.one_by_one else end - scored))
        return example

    def longest_first(self) -> Iterator[int]:
        """The numbers of the examples, by length; those of equal length in order. Not for ``one_by_one``."""
        if not self.blocks.line_by_line:
            yield from range(len(self))  # only the last may be shorter
            return
        present = set().union(*(np.unique(lengths).tolist() for _, lengths in self._lengths()))
        for wanted in sorted(present, reverse=True):
            for number, lengths in self._lengths():
                yield from (number + np.flatnonzero(lengths == wanted)).tolist()

    def head(self, examples: int | None) -> Packed:
        """The first so many examples; all when None. Text and tokens stay those of the whole split."""
        return replace(self, most=examples)

    def recut(self, blocks: Blocks) -> Packed:
        """The text of these very examples, cut in another way."""
        return cut(self.stream, blocks, len(self.used))

    @property
    def _step(self) -> int:
        return self.blocks.stride or self.blocks.body

    @cached_property
    def _counted(self) -> Places:
        """The number of examples before each group of ``_AT_ONCE`` stretches, and of all."""
        groups = range(-(-len(self.stretches) // _AT_ONCE))
        return np.cumsum([0, *(self._group(group)[1].sum() for group in groups)])

    def _bounds(self, stretch: int, count: int) -> Places:
        """The places where so many stretches begin, and where the last of them ends."""
        bounds = self.stretches[stretch : stretch + count + 1]
        return bounds if len(bounds) > count else np.append(bounds, self.end)

    def _group(self, group: int) -> tuple[Places, Places]:
        """The bounds of a group's stretches, and how many examples each has: one every ``_step`` tokens."""
        bounds = self._bounds(group * _AT_ONCE, _AT_ONCE)
        lengths = np.diff(bounds)
        return bounds, np.where(lengths > 0, 1 + np.maximum(0, -((self.blocks.body - lengths) // self._step)), 0)

    def _lengths(self) -> Iterator[tuple[int, Places]]:
        """Group by group the number of the first example, and the tokens of each."""
        for group, number in enumerate(self._counted[:-1].tolist()):
            bounds, counts = self._group(group)
            lengths = np.full(counts.sum(), self.blocks.body)
            lengths[np.cumsum(counts)[counts > 0] - 1] = (np.diff(bounds) - (counts - 1) * self._step)[counts > 0]
            yield number, lengths[: max(0, len(self) - number)]


def cut(stream: Stream, blocks: Blocks, tokens: int | None = None) -> Packed:
    """The examples of a stream, or of so many of its first tokens."""
    end = len(stream.ids) if tokens is None else tokens
    if blocks.line_by_line:
        return Packed(stream, blocks, stream.documents[: np.searchsorted(stream.documents, end)], end)
    if blocks.stride is None and end > blocks.body:
        end -= end % blocks.body
    return Packed(stream, blocks, np.zeros(1, np.int64), end)
