"""From documents to fixed-size blocks of tokens, with nothing lost but one reported tail.

The task guides cut per batch of a thousand rows and drop what is left over each time; here the
tokens of a whole split are one stream. Light at the top, so that a recipe may name
:class:`Blocks` without importing anything heavy.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from lmtasks.corpus import Split

    IntArray = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """How documents become blocks. What a recipe's ``preprocess`` returns.

    Args:
        size: tokens per block, ``start`` and ``end`` included.
        start, end: token ids around every block.
        document_start, document_end: token ids around every document in the stream.
    """

    size: int
    start: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    document_start: tuple[int, ...] = ()
    document_end: tuple[int, ...] = ()

    @property
    def body(self) -> int:
        """Tokens of the stream in one block."""
        return self.size - len(self.start) - len(self.end)


@dataclass(frozen=True)
class Packed:
    """One split as blocks.

    Args:
        blocks: int32 [blocks, size].
        rows: how many documents, or lines of running text, went in.
        unit: which of the two, "documents" or "lines".
        tokens: tokens of the stream, the ones around documents included, the ones around blocks not.
        tail: tokens of the stream after the last full block; ``tokens == len(blocks) * body + tail``.
        bytes: UTF-8 bytes of the documents.
        frame: how many ids at the start and at the end of each block are no text.
    """

    blocks: IntArray
    rows: int
    unit: str
    tokens: int
    tail: int
    bytes: int
    frame: tuple[int, int] = (0, 0)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change with the text, the tokenizer and the way of packing."""
        return hashlib.blake2b(repr(self.blocks.shape).encode() + self.blocks.tobytes(), digest_size=16).hexdigest()

    @property
    def text(self) -> IntArray:
        """The blocks without what surrounds them, int32 [blocks, body]."""
        start, end = self.frame
        return self.blocks[:, start : self.blocks.shape[1] - end]

    def head(self, blocks: int | None) -> Packed:
        """The first so many blocks; everything when None. Counts stay those of the whole split."""
        return replace(self, blocks=self.blocks[:blocks])


@dataclass
class Packer:
    """Cuts a stream of tokens into the bodies of blocks, carrying the rest from one call to the next."""

    body: int
    rest: IntArray | None = field(default=None, init=False)

    def add(self, tokens: IntArray) -> IntArray:
        """The blocks that are full after these tokens, int32 [full blocks, body]."""
        import numpy as np

        stream = tokens if self.rest is None else np.concatenate([self.rest, tokens])
        full = len(stream) // self.body * self.body
        self.rest = stream[full:]
        return stream[:full].reshape(-1, self.body)


def pack(
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    blocks: Blocks,
    progress: Callable[[int], None] = lambda rows: None,
) -> Packed:
    """Tokenise and pack a split.

    Args:
        split: the documents.
        tokenizer: called without special tokens; those come from ``blocks``.
        blocks: how the recipe wants them.
        progress: called with the number of rows done.
    """
    import numpy as np

    packer = Packer(blocks.body)
    bodies = []
    rows = tokens = size = 0
    for texts in split.texts():
        stream = tokenise(tokenizer, texts, blocks if split.documents else None)
        bodies.append(packer.add(stream))
        rows += len(texts)
        tokens += len(stream)
        size += sum(len(text.encode()) for text in texts)
        progress(rows)
    if not split.documents:
        # A running text is one document: its end is the end of the split.
        end = np.asarray(blocks.document_end, dtype=np.int32)
        bodies.append(packer.add(end))
        tokens += len(end)
    body = np.concatenate(bodies) if bodies else np.empty((0, blocks.body), dtype=np.int32)
    tail = 0 if packer.rest is None else len(packer.rest)
    unit = "documents" if split.documents else "lines"
    frame = len(blocks.start), len(blocks.end)
    return Packed(_framed(body, blocks), rows, unit, tokens, tail, size, frame)


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], blocks: Blocks | None) -> IntArray:
    """The token ids of the texts in one int32 array, each framed as a document where ``blocks`` is given."""
    import numpy as np

    encoded = tokenizer(
        list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )["input_ids"]
    start, end = (blocks.document_start, blocks.document_end) if blocks else ((), ())
    pieces = itertools.chain.from_iterable((start, ids, end) for ids in encoded)
    return np.fromiter(itertools.chain.from_iterable(pieces), dtype=np.int32)


def _framed(body: IntArray, blocks: Blocks) -> IntArray:
    """Every body between the ids that start and end a block."""
    import numpy as np

    sides = [np.tile(np.asarray(ids, dtype=np.int32), (len(body), 1)) for ids in (blocks.start, blocks.end)]
    return np.concatenate([sides[0], body, sides[1]], axis=1)


def template_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the tokenizer itself puts before and after a text; (``[CLS]``, ``[SEP]``) for BERT."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    framed = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(framed) - len(bare) + 1):
        if framed[start : start + len(bare)] == bare:
            return tuple(framed[:start]), tuple(framed[start + len(bare) :])
    return (), ()


def stack(examples: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Examples as one batch: ``input_ids`` int64 [examples, longest], padded on the right.

    ``attention_mask`` of the same shape is there only when something was padded: without padding
    it says nothing, and costs some attention kernels their fast path.
    """
    import numpy as np
    import torch

    lengths = [len(example["input_ids"]) for example in examples]
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = np.full((len(examples), max(lengths)), padding, dtype=np.int64)
    for row, example in zip(ids, examples, strict=True):
        row[: len(example["input_ids"])] = example["input_ids"]
    batch = {"input_ids": torch.from_numpy(ids)}
    if min(lengths) < max(lengths):
        mask = np.arange(max(lengths)) < np.asarray(lengths)[:, None]
        batch["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
    return batch
