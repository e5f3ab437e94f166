"""An example with marks: where documents begin, which tokens are special, what is hidden and what is learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from lmtasks.api import Batch, Recipe, target_counts
from lmtasks.data.text.packing import Packed
from lmtasks.data.text.special_tokens import special_names

_CONTEXT = 6
"""Tokens to the left that are decoded with one, for spaces depend on them."""


@dataclass(frozen=True)
class Piece:
    """What one token, or several plain ones in a row, add to the text of an example.

    Args:
        kind: "text"; "special"; "document", which begins here and adds nothing; and of targets "hidden" behind a
            mask, "random" where another token stands in their place, "kept" where they stand there themselves.
        text: what was there, before anything was hidden; of a document its number, counting from 1.
        seen: what the model gets in its place.
    """

    kind: Literal["text", "special", "document", "hidden", "random", "kept"]
    text: str
    seen: str = ""


@dataclass(frozen=True)
class Marked:
    """An example of text as the collator makes it.

    Args:
        number: of the example, from 0.
        targets: how many there are.
        written: the targets decoded, where they are a text of their own; else None.
        input_ids, labels: as the model gets them.
    """

    number: int
    targets: int
    pieces: tuple[Piece, ...]
    written: str | None
    input_ids: list[int]
    labels: list[int]

    @property
    def text(self) -> str:
        """What was there before anything was hidden."""
        return "".join(piece.text for piece in self.pieces if piece.kind != "document")


def marked(
    number: int, batch: Batch, packed: Packed, there: int, recipe: Recipe, tokenizer: PreTrainedTokenizerBase
) -> Marked | None:
    """An example out of the batch that was made of it alone; None where the batch has no ``input_ids``.

    Args:
        there: the number of the example in ``packed``, which is its own unless that is one of several sources.
    """
    if "input_ids" not in batch:
        return None
    ids = batch["input_ids"][0].tolist()
    # What is asked of the whole example, such as a class, is no text.
    labels = batch["labels"][0].tolist() if getattr(batch.get("labels"), "ndim", 0) > 1 else []
    beside = len(labels) == len(ids)
    begins = _documents(there, packed, len(ids))
    # Where nothing can be hidden, every token is told from others, and marks would be everywhere.
    pairs = list(zip(ids, labels, strict=True)) if beside else []
    marks = bool(pairs) and (bool(recipe.gap) or any(label not in (-100, token) for token, label in pairs))
    truth = [token if label == -100 else label for token, label in pairs] if marks else ids
    pieces = list(_pieces(ids, truth, labels if marks else [-100] * len(ids), begins, tokenizer))
    written = None if beside or not labels else tokenizer.decode([label for label in labels if label != -100])
    targets = next(iter(target_counts(recipe.targets(batch)).values()))
    return Marked(number, targets, tuple(_run_together(pieces)), written, ids, labels)


def _documents(number: int, packed: Packed, length: int) -> dict[int, int]:
    """The places of an example where documents begin, and their numbers; none if the collator moved its tokens."""
    start, _, end = packed.places(number)
    if length != end - start + packed.blocks.size - packed.blocks.body:
        return {}
    first, last = np.searchsorted(packed.stream.documents, [start, end])
    places = packed.stream.documents[first:last] - start + len(packed.blocks.start)
    return {int(place): int(first) + count for count, place in enumerate(places, 1)}


def _pieces(
    ids: Sequence[int],
    truth: Sequence[int],
    labels: Sequence[int],
    begins: dict[int, int],
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[Piece]:
    special = special_names(tokenizer)
    for place, (token, label, text) in enumerate(zip(ids, labels, texts_of(truth, tokenizer), strict=True)):
        if place in begins:
            yield Piece("document", str(begins[place]))
        if label == -100:
            yield Piece("special" if token in special else "text", text)
        elif token == label:
            yield Piece("kept", text, text)
        else:
            hidden = token in special
            yield Piece("hidden" if hidden else "random", text, special.get(token) or tokenizer.decode([token]))


def texts_of(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What each token adds to the text; of a character that several tokens make, all is added by the last of them."""

    def decoded(some: Any) -> str:
        return str(tokenizer.decode(list(some), clean_up_tokenization_spaces=False))

    texts, known, special = [], 0, special_names(tokenizer)
    for end in range(1, len(ids) + 1):
        start = max(0, known - _CONTEXT)
        text = decoded(ids[start:end])[len(decoded(ids[start:known])) :]
        # A block may end in the middle of a character.
        goes_on = end < len(ids) and ids[end] not in special and end - known < 4
        unfinished = text.endswith("\ufffd") and goes_on
        texts.append("" if unfinished else text)
        known = known if unfinished else end
    return texts


def _run_together(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """The pieces, those of plain text that follow each other as one."""
    text = ""
    for piece in pieces:
        if piece.kind == "text":
            text += piece.text
            continue
        if text:
            yield Piece("text", text)
            text = ""
        yield piece
    if text:
        yield Piece("text", text)
