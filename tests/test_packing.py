"""Packing: no token lost, none moved, every end of a document where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lmtasks import Blocks, stack, template_tokens
from lmtasks.corpus import Split
from lmtasks.packing import Packed, Packer, pack

WORDS = 20


def words_tokenizer(template: str = "$A", **special: str) -> PreTrainedTokenizerFast:
    """Word "7" is token 7; special tokens follow from 20 on, in the order given."""
    vocabulary = {str(number): number for number in range(WORDS)} | {"a": WORDS}
    for token in special.values():
        vocabulary.setdefault(token, len(vocabulary))
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, vocabulary[token]) for token in special.values()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


TOKENIZER = words_tokenizer()


@dataclass(frozen=True, eq=False)
class InBatches(Split):
    """A split that is read so many rows at once."""

    at_once: int = 1000

    def texts(self, batch_size: int = 1000) -> Iterator[list[str]]:
        return super().texts(self.at_once)


def split_of(documents: list[list[int]], *, is_documents: bool = True, at_once: int = 1000) -> Split:
    rows = datasets.Dataset.from_dict(
        {"text": [" ".join(map(str, document)) for document in documents]},
        features=datasets.Features({"text": datasets.Value("string")}),
    )
    return InBatches(rows, ("text",), is_documents, at_once=at_once)


def packed(documents: list[list[int]], blocks: Blocks, **how: Any) -> Packed:
    return pack(split_of(documents, **how), TOKENIZER, blocks)


frames = st.lists(st.integers(100, 103), max_size=2).map(tuple)


@given(
    documents=st.lists(st.lists(st.integers(0, WORDS - 1), max_size=30), max_size=12),
    body=st.integers(1, 12),
    at_once=st.integers(1, 13),
    is_documents=st.booleans(),
    block=st.tuples(frames, frames),
    document=st.tuples(frames, frames),
)
@settings(max_examples=250, deadline=None)
def test_blocks_and_tail_are_the_whole_stream_in_order(
    documents: list[list[int]],
    body: int,
    at_once: int,
    is_documents: bool,
    block: tuple[tuple[int, ...], tuple[int, ...]],
    document: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    (start, end), (first, last) = block, document
    blocks = Blocks(size=body + len(start) + len(end), start=start, end=end, document_start=first, document_end=last)
    result = packed(documents, blocks, is_documents=is_documents, at_once=at_once)
    stream = (
        [token for one in documents for token in (*first, *one, *last)]
        if is_documents
        else [*(token for one in documents for token in one), *last]
    )
    full = len(stream) // body
    assert result.blocks.tolist() == [[*start, *stream[i * body : (i + 1) * body], *end] for i in range(full)]
    assert result.blocks.shape == (full, blocks.size)
    assert (result.tokens, result.tail) == (len(stream), len(stream) - full * body)
    assert result.rows == len(documents)


@given(st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=9), st.integers(1, 7))
@settings(deadline=None)
def test_packer_gives_the_same_blocks_however_the_stream_comes(pieces: list[list[int]], body: int) -> None:
    packer = Packer(body)
    parts = [packer.add(np.asarray(piece, dtype=np.int32)) for piece in pieces]
    stream = [token for piece in pieces for token in piece]
    got = [token for part in parts for block in part.tolist() for token in block]
    rest = [] if packer.rest is None else packer.rest.tolist()
    assert got + rest == stream
    assert len(rest) < body


DOCUMENTS = [[1, 2, 3], [4], [5, 6]]


def test_every_document_ends_with_its_end() -> None:
    result = packed(DOCUMENTS, Blocks(size=3, document_end=(99,)))
    assert result.blocks.tolist() == [[1, 2, 3], [99, 4, 99], [5, 6, 99]]
    assert (result.tail, result.unit) == (0, "documents")


def test_lines_of_a_running_text_have_one_end_at_the_very_last() -> None:
    result = packed(DOCUMENTS, Blocks(size=3, document_start=(98,), document_end=(99,)), is_documents=False, at_once=2)
    assert result.blocks.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (result.tokens, result.tail, result.unit) == (7, 1, "lines")


def test_documents_start_with_their_start() -> None:
    result = packed(DOCUMENTS, Blocks(size=4, document_start=(98,)))
    assert result.blocks.tolist() == [[98, 1, 2, 3], [98, 4, 98, 5]]


def test_blocks_are_framed_once_each() -> None:
    result = packed(DOCUMENTS, Blocks(size=4, start=(98,), end=(99,)))
    assert result.blocks.tolist() == [[98, 1, 2, 99], [98, 3, 4, 99], [98, 5, 6, 99]]
    assert result.tokens == 6, "frames of blocks are no text"


def test_nothing_gives_no_blocks_of_the_right_width() -> None:
    result = packed([], Blocks(size=5, start=(98,)))
    assert result.blocks.shape == (0, 5)
    assert (result.rows, result.tokens, result.tail, result.bytes) == (0, 0, 0, 0)


def test_bytes_are_those_of_the_texts_in_utf8(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    rows = datasets.Dataset.from_dict({"text": ["é", "a\n", "🙂"]})
    assert pack(Split(rows, ("text",), True), masked_tokenizer, Blocks(size=2)).bytes == 2 + 2 + 4


def test_blocks_are_the_tokenizers_own_tokens_without_its_special_ones(
    masked_tokenizer: PreTrainedTokenizerBase, documents: list[str]
) -> None:
    rows = datasets.Dataset.from_dict({"text": documents[:5]})
    result = pack(Split(rows, ("text",), False), masked_tokenizer, Blocks(size=7))
    stream = [token for text in documents[:5] for token in masked_tokenizer.encode(text, add_special_tokens=False)]
    assert result.blocks.ravel().tolist() == stream[: len(stream) // 7 * 7]
    assert result.blocks.dtype == np.int32


def test_progress_hears_of_every_row() -> None:
    heard: list[int] = []
    pack(split_of([[1]] * 5, at_once=2), TOKENIZER, Blocks(size=2), heard.append)
    assert heard == [2, 4, 5]


def test_head_takes_the_first_blocks_and_keeps_the_counts() -> None:
    result = packed([[1, 2, 3, 4, 5]], Blocks(size=2))
    assert result.head(1).blocks.tolist() == [[1, 2]]
    assert result.head(9).blocks.tolist() == result.head(None).blocks.tolist() == [[1, 2], [3, 4]]
    assert (result.head(1).tokens, result.head(1).tail) == (5, 1)


# --- template_tokens ---


@pytest.mark.parametrize(
    ("template", "special", "expected"),
    [
        ("<s> $A </s>", {"cls_token": "<s>", "sep_token": "</s>"}, ((21,), (22,))),
        ("[CLS] $A [SEP]", {"sep_token": "[SEP]", "cls_token": "[CLS]"}, ((22,), (21,))),
        ("$A", {"eos_token": "<|endoftext|>"}, ((), ())),
        ("<s> $A", {"bos_token": "<s>", "eos_token": "</s>"}, ((21,), ())),
        ("$A </s>", {"eos_token": "</s>"}, ((), (21,))),
        ("<s> <s> $A </s> <s>", {"bos_token": "<s>", "eos_token": "</s>"}, ((21, 21), (22, 21))),
    ],
    ids=["RoBERTa", "BERT", "GPT-2", "Llama", "T5", "several"],
)
def test_template_tokens_are_what_the_tokenizer_puts_around_a_text(
    template: str, special: dict[str, str], expected: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    assert template_tokens(words_tokenizer(template, **special)) == expected


# --- stack ---


def test_stack_pads_on_the_right_to_the_longest() -> None:
    tokenizer = words_tokenizer(pad_token="<pad>")
    batch = stack([{"input_ids": np.array([1, 2, 3], np.int32)}, {"input_ids": np.array([4], np.int32)}], tokenizer)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 21, 21]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert str(batch["input_ids"].dtype) == str(batch["attention_mask"].dtype) == "torch.int64"


def test_stack_of_equal_lengths_has_no_attention_mask() -> None:
    batch = stack([{"input_ids": [1, 2]}, {"input_ids": [3, 4]}], TOKENIZER)
    assert batch.keys() == {"input_ids"}
    assert batch["input_ids"].tolist() == [[1, 2], [3, 4]]


def test_stack_without_a_padding_token_pads_with_masked_zeros() -> None:
    batch = stack([{"input_ids": [5]}, {"input_ids": [3, 4]}], TOKENIZER)
    assert batch["input_ids"].tolist() == [[5, 0], [3, 4]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]
