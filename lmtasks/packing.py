"""From a stream of tokens to examples, with nothing lost but one reported tail.

The task guides cut per batch of a thousand rows and drop what is left over each time; here the
tokens of a whole split are one stream, and examples are places in it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmtasks.blocks import Blocks
from lmtasks.stream import Integers, Places, Stream


@dataclass(frozen=True)
class Packed:
    """One split as examples: places in its stream.

    Args:
        stream: the tokens.
        blocks: how they were cut.
        spans: int64 [examples, 3]: where an example begins, where its scored part begins (the same, but
            for overlapping examples), and where it ends.
    """

    stream: Stream
    blocks: Blocks
    spans: Places

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def tokens(self) -> int:
        """Tokens of the stream."""
        return len(self.stream.ids)

    @property
    def used(self) -> Integers:
        """The tokens that some example has, int32; every one once."""
        return self.stream.ids[self.spans[0, 0] : self.spans[-1, 2]] if len(self) else self.stream.ids[:0]

    @property
    def tail(self) -> int:
        """Tokens left over at the end of the stream, or after the examples that ``head`` took."""
        return self.tokens - len(self.used)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change with the text, the tokenizer and the way of cutting."""
        digest = hashlib.blake2b(repr((self.blocks, self.spans.shape)).encode(), digest_size=16)
        for array in (self.stream.ids, self.stream.documents):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def example(self, index: int) -> dict[str, Any]:
        """One example; see :data:`lmtasks.recipe.Example`."""
        start, scored, end = self.spans[index]
        blocks = self.blocks
        example: dict[str, Any] = {"input_ids": np.concatenate([blocks.start, self.stream.ids[start:end], blocks.end])}
        example["input_ids"] = example["input_ids"].astype(np.int32)
        if blocks.isolate and not blocks.line_by_line:
            numbers = np.searchsorted(self.stream.documents, np.arange(start, end), side="right")
            example["document_ids"] = np.pad(numbers - numbers[0], (len(blocks.start), len(blocks.end)), mode="edge")
        if blocks.words and self.stream.words is not None:
            frame = (len(blocks.start), len(blocks.end))
            example["word_starts"] = np.pad(self.stream.words[start:end], frame, constant_values=True)
        if blocks.stride is not None or blocks.one_by_one:
            first = scored - start + len(blocks.start)
            example["scored"] = slice(first, first + (1 if blocks.one_by_one else end - scored))
        return example

    def head(self, examples: int | None) -> Packed:
        """The first so many examples; all when None. Text and tokens stay those of the whole split."""
        return replace(self, spans=self.spans[:examples])

    def recut(self, blocks: Blocks) -> Packed:
        """The text of these very examples, cut in another way."""
        return cut(self.stream, blocks, len(self.used))


def cut(stream: Stream, blocks: Blocks, tokens: int | None = None) -> Packed:
    """The examples of a stream, or of so many of its first tokens."""
    total = len(stream.ids) if tokens is None else tokens
    step = blocks.stride or blocks.body
    if blocks.line_by_line:
        starts = stream.documents[stream.documents < total]
        spans = _windows(starts, np.append(starts, total)[1:], blocks.body, step)
    else:
        spans = _windows(np.zeros(1, np.int64), np.full(1, total), blocks.body, step)
        if blocks.stride is None and len(spans) > 1 and spans[-1, 2] - spans[-1, 0] < blocks.body:
            spans = spans[:-1]
    return Packed(stream, blocks, _one_by_one(spans) if blocks.one_by_one else spans)


def _windows(first: Places, last: Places, body: int, step: int) -> Places:
    """Windows of ``body`` tokens over the stretches from ``first`` to ``last``, one every ``step`` tokens.

    The last of a stretch ends with it. What an earlier window had is not scored again.
    """
    lengths = last - first
    counts = np.where(lengths > 0, 1 + np.maximum(0, -(-(lengths - body) // step)), 0)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.repeat(first, counts) + number * step
    ends = np.minimum(starts + body, np.repeat(last, counts))
    scored = np.where(number > 0, starts - step + body, starts)
    return np.stack([starts, scored, ends], axis=1).astype(np.int64)


def _one_by_one(spans: Places) -> Places:
    """Every span as often as it has scored tokens, each time with the next of them scored."""
    counts = spans[:, 2] - spans[:, 1]
    repeated = np.repeat(spans, counts, axis=0)
    repeated[:, 1] += np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return repeated
