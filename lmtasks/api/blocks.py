"""The way from text to examples, and from these to a batch: what the author of a recipe says and uses.

Light at the top, so that a recipe may name :class:`Blocks` without importing anything heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """The way from documents to examples, which a recipe's ``preprocess`` returns.

    The tokens of all documents are one stream, cut into blocks of equal size; the last tokens, less
    than a block, are left over, but in views they are a short block. So is a stream shorter than one block.

    Args:
        size: tokens per example, ``start`` and ``end`` included; at most, where examples are shorter.
        start, end: token ids around every block.
        document_start, document_end: token ids around every document in the stream; a running text is one.
        line_by_line: no stream; each document, or line of a text file, is an example of its own. One
            longer than ``size`` goes on in the next. What can have no target is left out.
        isolate: tokens of one document neither see those of another nor count their positions from it.
        words: examples say where words begin.
        context: tokens that an example has before its first target: 1 where each token is told from those before it.
        word_segmenter: name of what tells words, where these are asked for.
        never_targets: token ids that the collator makes no targets, wherever they stand: bits per byte and
            the baseline leave them out.
        stride: for views: a block begins every so many tokens, and only what the block before it did not have
            is scored; at most ``size``. The last begins earlier, so that it is whole.
        one_by_one: for views: as many examples as a block has tokens, each scores one.
        prefix: for views: token ids before the first token of the stream, or of each document ``line_by_line``,
            so that it can be told as well. They take room in the block, and are no text.
    """

    size: int
    start: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    document_start: tuple[int, ...] = ()
    document_end: tuple[int, ...] = ()
    line_by_line: bool = False
    isolate: bool = False
    words: bool = False
    context: int = 0
    word_segmenter: str = "unicode"
    never_targets: tuple[int, ...] = ()
    stride: int | None = None
    one_by_one: bool = False
    prefix: tuple[int, ...] = ()

    @property
    def body(self) -> int:
        """Tokens of the stream in one block."""
        return self.size - len(self.start) - len(self.end)


def template_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the tokenizer itself puts before and after a text; (``[CLS]``, ``[SEP]``) for BERT."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    framed = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(framed) - len(bare) + 1):
        if framed[start : start + len(bare)] == bare:
            return tuple(framed[:start]), tuple(framed[start + len(bare) :])
    return (), ()


def stack(examples: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Examples as one batch: ``input_ids`` int64 [examples, longest].

    Padding is on the right, whatever side the tokenizer pads on for generation: so the positions of
    a text never depend on what it is batched with.

    ``attention_mask`` of the same shape is there only when something was padded: without padding
    it says nothing, and costs some attention kernels their fast path. ``document_ids`` of the same
    shape, -1 at padding, is there when the examples have them.
    """
    import numpy as np
    import torch

    lengths = [len(example["input_ids"]) for example in examples]
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    batch = {"input_ids": _padded([example["input_ids"] for example in examples], padding)}
    if min(lengths) < max(lengths):
        mask = np.arange(max(lengths)) < np.asarray(lengths)[:, None]
        batch["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
    if "document_ids" in examples[0]:
        batch["document_ids"] = _padded([example["document_ids"] for example in examples], -1)
    return batch


def _padded(rows: list[Any], filler: int) -> Any:
    """The rows as one int64 tensor [rows, longest]."""
    import numpy as np
    import torch

    table = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    for place, row in zip(table, rows, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(table)
