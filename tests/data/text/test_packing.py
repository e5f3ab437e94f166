"""Packing: no token lost, none moved, every end of a document where it belongs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase
from words_tokenizer import WORDS, words_tokenizer

from lmtasks import Blocks, Recipe, stack, template_tokens
from lmtasks.builtin.causal_lm import CAUSAL_LM, CausalLMOptions
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions
from lmtasks.data.corpus import Split
from lmtasks.data.text import packing
from lmtasks.data.text.packing import Packed, cut
from lmtasks.data.text.token_cache import store
from lmtasks.data.text.tokenize import Stream, read

TOKENIZER = words_tokenizer()
SPECIAL = words_tokenizer(
    "<s> $A </s>", cls_token="<s>", sep_token="</s>", eos_token="<eos>", mask_token="<mask>", pad_token="<pad>"
)


@dataclass(frozen=True, eq=False)
class InBatches(Split):
    """A split that is read so many rows at once."""

    at_once: int = 1000

    def arrays(self, start: int = 0, batch_size: int = 1000) -> Iterator[pa.Array]:
        return super().arrays(start, self.at_once)


def split_of(documents: list[list[int]], *, is_documents: bool = True, at_once: int = 1000) -> Split:
    rows = datasets.Dataset.from_dict(
        {"text": [" ".join(map(str, document)) + "\n" * (not is_documents) for document in documents]},
        features=datasets.Features({"text": datasets.Value("string")}),
    )
    return InBatches(rows, ("text",), is_documents, at_once=at_once)


def pack(split: Split, tokenizer: PreTrainedTokenizerBase, blocks: Blocks) -> Packed:
    return cut(store(partial(read, split, tokenizer, blocks), None), blocks)


def packed(documents: list[list[int]], blocks: Blocks, **how: Any) -> Packed:
    return pack(split_of(documents, **how), TOKENIZER, blocks)


def examples(packed: Packed) -> list[list[int]]:
    return [packed.example(number)["input_ids"].tolist() for number in range(len(packed))]


frames = st.lists(st.integers(100, 103), max_size=2).map(tuple)
texts = st.lists(st.lists(st.integers(0, WORDS - 1), max_size=30), max_size=12)


def streamed(documents: list[list[int]], blocks: Blocks, is_documents: bool) -> list[list[int]]:
    """By the definition: the stretches of tokens that must not be joined, one unless line by line."""
    first, last = blocks.document_start, blocks.document_end
    if blocks.line_by_line:
        return [[*first, *one, *last] for one in documents if one or is_documents]
    if is_documents:
        return [[token for one in documents for token in (*first, *one, *last)]]
    return [[*first, *(token for one in documents for token in one), *last]] if documents else [[]]


@given(
    documents=texts,
    body=st.integers(1, 12),
    at_once=st.integers(1, 13),
    is_documents=st.booleans(),
    line_by_line=st.booleans(),
    block=st.tuples(frames, frames),
    document=st.tuples(frames, frames),
)
@settings(max_examples=400, deadline=None)
def test_examples_and_tail_are_the_whole_text_in_order(
    documents: list[list[int]],
    body: int,
    at_once: int,
    is_documents: bool,
    line_by_line: bool,
    block: tuple[tuple[int, ...], tuple[int, ...]],
    document: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    (start, end), (first, last) = block, document
    blocks = Blocks(
        size=body + len(start) + len(end),
        start=start,
        end=end,
        document_start=first,
        document_end=last,
        line_by_line=line_by_line,
    )
    result = packed(documents, blocks, is_documents=is_documents, at_once=at_once)
    stretches = streamed(documents, blocks, is_documents)
    expected = [one[at : at + body] for one in stretches for at in range(0, len(one), body)]
    for_evaluation = cut(result.stream, blocks, whole=True)
    assert examples(for_evaluation) == [[*start, *one, *end] for one in expected]
    assert (for_evaluation.tail, for_evaluation.tokens) == (0, sum(map(len, stretches)))
    if not line_by_line and len(expected) > 1 and len(expected[-1]) < body:
        expected.pop()
        assert for_evaluation.whole == len(expected) == result.whole
    else:
        assert for_evaluation.whole == len(expected)
    assert examples(result) == [[*start, *one, *end] for one in expected]
    total = sum(map(len, stretches))
    assert (result.tokens, result.tail) == (total, total - sum(map(len, expected)))
    assert result.stream.rows == len(documents)


@pytest.mark.parametrize(("recipe", "options"), [(MASKED_LM, MaskedLMOptions), (CAUSAL_LM, CausalLMOptions)])
@given(
    documents=texts,
    size=st.integers(3, 20),
    at_once=st.integers(1, 13),
    is_documents=st.booleans(),
    line_by_line=st.booleans(),
)
@settings(max_examples=1000, deadline=None)
def test_tokens_are_conserved(
    recipe: Recipe,
    options: Any,
    documents: list[list[int]],
    size: int,
    at_once: int,
    is_documents: bool,
    line_by_line: bool,
) -> None:
    split = split_of(documents, is_documents=is_documents, at_once=at_once)
    blocks = recipe.preprocess(SPECIAL, options(block_size=size, line_by_line=line_by_line))
    result = pack(split, SPECIAL, blocks)
    specials = {SPECIAL.cls_token_id, SPECIAL.sep_token_id, SPECIAL.eos_token_id}
    kept = [token for one in examples(result) for token in one if token not in specials]
    left = [token for token in result.stream.ids[len(result.used) :].tolist() if token not in specials]
    given_tokens = [token for one in documents for token in one]
    assert kept + left == given_tokens, "the text itself, in order, nothing twice"
    assert len(result.used) + result.tail == result.tokens
    assert result.tail < blocks.body
    assert all(len(one) <= size for one in examples(result))
    if not line_by_line and len(result) > 1:
        assert {len(one) for one in examples(result)} == {size}


@given(documents=texts, body=st.integers(1, 12), data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_sliding_window_scores_every_token_once_with_enough_before_it(
    documents: list[list[int]], body: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, body))
    prefix = data.draw(st.sampled_from([(), (98,), (97, 98)])) if body > 2 else ()
    result = packed(documents, Blocks(size=body + 1, start=(99,), stride=stride, prefix=prefix))
    stream = [token for one in documents for token in one]
    before = [*prefix, *stream]  # what is cut, as if the prefix were text
    scored = []
    for number in range(len(result)):
        example = result.example(number)
        begin = min(number * stride, max(0, len(before) - body))
        assert example["input_ids"].tolist() == [99, *before[begin : begin + body]]
        assert result.places(number)[2] == min(begin + body, len(before)) - len(prefix)
        where = np.flatnonzero(example["scored"])
        scored += example["input_ids"][where].tolist()
        assert len(where) == where[-1] - where[0] + 1
        if number:
            assert where[0] - 1 >= body - stride, "what the window before it had is what it has seen"
            assert where[0] - 1 == body - stride or number == len(result) - 1
            assert len(example["input_ids"]) == body + 1, "the last is whole as well"
    assert scored == stream
    assert (result.tail, result.whole) == (0, len(result))


@given(
    documents=texts,
    body=st.integers(3, 12),
    framing=st.tuples(frames, frames),
    line_by_line=st.booleans(),
    one_by_one=st.booleans(),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_views_score_the_text_and_nothing_that_stands_around_documents(
    documents: list[list[int]],
    body: int,
    framing: tuple[tuple[int, ...], tuple[int, ...]],
    line_by_line: bool,
    one_by_one: bool,
    data: st.DataObject,
) -> None:
    blocks = Blocks(
        size=body,
        document_start=framing[0],
        document_end=framing[1],
        line_by_line=line_by_line,
        one_by_one=one_by_one,
        stride=data.draw(st.integers(1, body) if not one_by_one else st.none() | st.integers(1, body)),
        prefix=data.draw(st.sampled_from([(), (110,), (110, 111)])),
    )
    result = cut(packed(documents, blocks).stream, blocks, whole=True)
    told = [example["input_ids"][example["scored"]].tolist() for example in map(result.example, range(len(result)))]
    assert [token for some in told for token in some] == [token for one in documents for token in one]
    lengths = [len(result.example(number)["input_ids"]) for number in range(len(result))]
    if not line_by_line:
        assert result.whole == sum(length == max(lengths) for length in lengths)


def test_a_prefix_stands_before_the_text_once_or_before_each_line() -> None:
    once = packed([[1, 2, 3], [4]], Blocks(size=3, stride=2, prefix=(9,)))
    assert examples(once) == [[9, 1, 2], [2, 3, 4]]
    each = packed([[1, 2, 3, 5], [4]], Blocks(size=3, stride=2, prefix=(9,), line_by_line=True))
    assert examples(each) == [[9, 1, 2], [2, 3, 5], [9, 4]]
    assert [each.example(number)["scored"].tolist() for number in range(3)] == [
        [False, True, True], [False, True, True], [False, True]
    ]  # fmt: skip
    apart = packed([[1, 2], [4]], Blocks(size=4, stride=2, prefix=(9,), isolate=True)).example(0)
    assert apart["document_ids"].tolist() == [0, 0, 0, 1]


@given(documents=texts, body=st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_one_by_one_scores_every_token_of_every_block_alone(documents: list[list[int]], body: int) -> None:
    plain = packed(documents, Blocks(size=body + 2, start=(98,), end=(99,)))
    plain = cut(plain.stream, plain.blocks, whole=True)
    result = plain.recut(Blocks(size=body + 2, start=(98,), end=(99,), one_by_one=True))
    expected = [(one, place) for one in examples(plain) for place in range(1, len(one) - 1)]
    got = []
    for number in range(len(result)):
        example = result.example(number)
        (place,) = np.flatnonzero(example["scored"])
        got.append((example["input_ids"].tolist(), place))
    assert got == expected


@given(documents=texts, body=st.integers(1, 6), line_by_line=st.booleans(), data=st.data())
@settings(max_examples=200, deadline=None)
def test_examples_do_not_depend_on_how_many_stretches_are_counted_together(
    documents: list[list[int]], body: int, line_by_line: bool, data: st.DataObject
) -> None:
    blocks = Blocks(
        size=body,
        line_by_line=line_by_line,
        stride=data.draw(st.none() | st.integers(1, body)),
        one_by_one=data.draw(st.booleans()),
    )
    result = packed(documents, blocks)
    places = [result.places(number) for number in range(len(result))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_AT_ONCE", data.draw(st.integers(1, 4)))
        result = packed(documents, blocks)
        assert [result.places(number) for number in range(len(result))] == places
        if not blocks.one_by_one:
            lengths = [end - start for start, _, end in places]
            most = data.draw(st.integers(0, len(places)))
            expected = sorted(range(most), key=lambda number: -lengths[number])
            assert list(result.head(most).longest_first()) == expected


@pytest.mark.parametrize(("recipe", "options"), [(MASKED_LM, MaskedLMOptions), (CAUSAL_LM, CausalLMOptions)])
@given(
    lines=st.lists(st.lists(st.integers(0, len(SPECIAL) - 1), min_size=1, max_size=9), max_size=12),
    size=st.integers(3, 6),
    most=st.integers(0, 9),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_every_example_of_a_line_has_a_target_and_nothing_else_is_left_out(
    recipe: Recipe, options: Any, lines: list[list[int]], size: int, most: int, data: st.DataObject
) -> None:
    chosen = options(block_size=size, line_by_line=True)
    blocks, collate = recipe.preprocess(SPECIAL, chosen), recipe.collator(SPECIAL, chosen, True)
    pieces = [line[at : at + blocks.body] for line in lines for at in range(0, len(line), blocks.body)]
    framed = [[*blocks.start, *piece, *blocks.end] for piece in pieces]
    seeded = [{"input_ids": np.asarray(ids, np.int32), "seed": (0, 0, 0)} for ids in framed]
    expected = [ids for ids, one in zip(framed, seeded, strict=True) if recipe.targets(collate([one])).numel()]
    stream = Stream(
        np.asarray([token for line in lines for token in line], np.int32),
        np.cumsum([0, *map(len, lines)])[:-1] if lines else np.zeros(0, np.int64),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_AT_ONCE", data.draw(st.integers(1, 4)))
        patch.setattr(packing, "_TOKENS_AT_ONCE", data.draw(st.integers(1, 30)))
        result = cut(stream, blocks)
        assert examples(result) == expected
        assert len(result.bare) == len(framed) - len(expected)
        head = result.head(most)
        assert examples(head) == expected[:most]
        assert list(head.longest_first()) == sorted(range(len(head)), key=lambda number: -len(expected[number]))


def test_pieces_without_a_target_are_told() -> None:
    lines = [[1], [2, 3], [4], [5, 6, 7]]
    result = packed(lines, Blocks(size=2, line_by_line=True, context=1))
    assert examples(result) == [[2, 3], [5, 6]]
    assert list(result.notes("training")) == [
        "3 pieces of the training text are no examples: they have nothing to predict"
    ]
    assert (result.sizes()["blocks"], result.tail) == (2, 1)


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        (Blocks(size=2, context=1), True),
        (Blocks(size=2, context=1, document_end=(9,)), False),
        (Blocks(size=2, context=1, document_start=(9,)), False),
        (Blocks(size=2, context=1, isolate=True), False),
        (Blocks(size=2, context=1, line_by_line=True), False),
        (Blocks(size=2), False),
    ],
    ids=str,
)
def test_documents_that_run_into_each_other_are_told(blocks: Blocks, told: bool) -> None:
    lacks = "the tokenizer has no token that begins or ends a text"
    note = f"{lacks}: the 2 documents of the training text run into each other"
    assert (note in packed([[1, 2, 3], [4, 5, 6]], blocks).notes("training")) is told
    assert note not in packed([[1, 2, 3, 4]], blocks).notes("training")


def test_examples_that_are_not_there() -> None:
    result = packed([[1, 2, 3, 4, 5]], Blocks(size=2))
    assert [len(result.example(number)["input_ids"]) for number in range(2)] == [2, 2]
    for number in (2, -1):
        with pytest.raises(IndexError):
            result.example(number)
    with pytest.raises(IndexError):
        result.head(1).example(1)


@pytest.mark.parametrize("line_by_line", [False, True])
def test_places_take_no_memory(line_by_line: bool) -> None:
    starts = np.arange(0, 10**6, 5)
    stream = Stream(np.zeros(10**6, np.int32), starts)
    tracemalloc.start()
    result = cut(stream, Blocks(size=4, line_by_line=line_by_line))
    assert len(result) == (400_000 if line_by_line else 250_000)
    assert next(result.longest_first()) == 0
    assert result.places(len(result) - 1) == ((999_999, 999_999, 10**6) if line_by_line else (999_996, 999_996, 10**6))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000, "a byte for each example would be as much"


DOCUMENTS = [[1, 2, 3], [4], [5, 6]]


def test_every_document_ends_with_its_end() -> None:
    result = packed(DOCUMENTS, Blocks(size=3, document_end=(99,)))
    assert examples(result) == [[1, 2, 3], [99, 4, 99], [5, 6, 99]]
    assert (result.tail, result.stream.unit) == (0, "documents")


def test_lines_of_a_running_text_have_one_start_and_one_end() -> None:
    result = packed(DOCUMENTS, Blocks(size=3, document_start=(98,), document_end=(99,)), is_documents=False, at_once=2)
    assert examples(result) == [[98, 1, 2], [3, 4, 5]]
    assert (result.tokens, result.tail, result.stream.unit) == (8, 2, "lines")
    assert result.stream.documents.tolist() == [0]


def test_documents_start_with_their_start() -> None:
    result = packed(DOCUMENTS, Blocks(size=4, document_start=(98,)))
    assert examples(result) == [[98, 1, 2, 3], [98, 4, 98, 5]]


def test_blocks_are_framed_once_each() -> None:
    result = packed(DOCUMENTS, Blocks(size=4, start=(98,), end=(99,)))
    assert examples(result) == [[98, 1, 2, 99], [98, 3, 4, 99], [98, 5, 6, 99]]
    assert result.tokens == 6, "frames of blocks are no text"


def test_less_than_a_block_is_one_short_block() -> None:
    result = packed(DOCUMENTS, Blocks(size=9, start=(98,), end=(99,)))
    assert examples(result) == [[98, 1, 2, 3, 4, 5, 6, 99]]
    assert (result.tokens, result.tail) == (6, 0)


def test_line_by_line_every_row_is_an_example_and_a_long_one_goes_on_in_the_next() -> None:
    blocks = Blocks(size=4, start=(98,), end=(99,), document_end=(7,), line_by_line=True)
    result = packed(DOCUMENTS, blocks)
    assert examples(result) == [[98, 1, 2, 99], [98, 3, 7, 99], [98, 4, 7, 99], [98, 5, 6, 99], [98, 7, 99]]
    assert result.tail == 0


def test_line_by_line_lines_of_a_text_lose_their_breaks_and_blank_ones_are_left_out(
    masked_tokenizer: PreTrainedTokenizerBase,
) -> None:
    rows = datasets.Dataset.from_dict({"text": ["one two\n", "\n", "  \r\n", " three\r\n"]})
    result = pack(Split(rows, ("text",), False), masked_tokenizer, Blocks(size=50, line_by_line=True))
    assert [masked_tokenizer.decode(one) for one in examples(result)] == ["one two", " three"]
    assert result.stream.bytes == len("one two") + len(" three"), "the bytes of what is trained on"
    assert result.stream.rows == 4


def test_isolated_documents_are_numbered_in_every_block() -> None:
    result = packed(DOCUMENTS, Blocks(size=6, start=(98,), end=(99,), isolate=True))
    assert examples(result) == [[98, 1, 2, 3, 4, 99]]
    assert result.example(0)["document_ids"].tolist() == [0, 0, 0, 0, 1, 1], "the frame belongs to its neighbours"
    cut_within = packed(DOCUMENTS, Blocks(size=2, isolate=True))
    assert [cut_within.example(number)["document_ids"].tolist() for number in range(3)] == [[0, 0], [0, 1], [0, 0]]


def test_an_empty_document_is_a_document() -> None:
    result = packed([[1], [], [2]], Blocks(size=6, document_start=(8,), document_end=(9,), isolate=True))
    assert examples(result) == [[8, 1, 9, 8, 9, 8]]
    assert result.example(0)["document_ids"].tolist() == [0, 0, 0, 1, 1, 2]


def test_words_begin_where_the_text_says(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    rows = datasets.Dataset.from_dict({"text": ["unbelievable, words", "more"]})
    blocks = Blocks(size=60, start=(1,), end=(2,), document_end=(2,), words=True)
    result = pack(Split(rows, ("text",), True), masked_tokenizer, blocks)
    example = result.example(0)
    ids, starts = example["input_ids"], example["word_starts"]
    words = [masked_tokenizer.decode(part) for part in np.split(ids, np.flatnonzero(starts))[1:]]
    end = masked_tokenizer.decode([2])
    assert words == [masked_tokenizer.decode([1]), "unbelievable", ",", " words", end, "more", end, end]


def test_nothing_gives_no_examples() -> None:
    result = packed([], Blocks(size=5, start=(98,)))
    assert len(result) == 0
    assert (result.stream.rows, result.tokens, result.tail, result.stream.bytes) == (0, 0, 0, 0)


def test_bytes_are_those_of_the_texts_in_utf8(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    rows = datasets.Dataset.from_dict({"text": ["é", "a\n", "🙂"]})
    assert pack(Split(rows, ("text",), True), masked_tokenizer, Blocks(size=2)).stream.bytes == 2 + 2 + 4


def test_unknown_tokens_are_counted_and_frames_are_not() -> None:
    split = datasets.Dataset.from_dict({"text": ["1 what 2", "who 3"]})
    tokenizer = words_tokenizer(unk_token="<unk>")
    result = pack(Split(split, ("text",), True), tokenizer, Blocks(size=4, document_end=(tokenizer.unk_token_id,)))
    assert (result.stream.unknown, result.tokens) == (2, 7)


def test_blocks_are_the_tokenizers_own_tokens_without_its_special_ones(
    masked_tokenizer: PreTrainedTokenizerBase, documents: list[str]
) -> None:
    rows = datasets.Dataset.from_dict({"text": documents[:5]})
    result = pack(Split(rows, ("text",), False), masked_tokenizer, Blocks(size=7))
    stream = [token for text in documents[:5] for token in masked_tokenizer.encode(text, add_special_tokens=False)]
    assert [token for one in examples(result) for token in one] == stream[: len(stream) // 7 * 7]
    assert result.example(0)["input_ids"].dtype == result.stream.ids.dtype == np.int32


def test_head_takes_the_first_examples_and_keeps_the_counts() -> None:
    result = packed([[1, 2, 3, 4, 5]], Blocks(size=2))
    assert examples(result.head(1)) == [[1, 2]]
    assert examples(result.head(9)) == examples(result.head(None)) == [[1, 2], [3, 4]]
    assert result.head(1).tokens == 5


def test_another_cut_has_the_text_of_the_same_examples() -> None:
    result = packed([[1, 2, 3, 4, 5, 6, 7]], Blocks(size=2)).head(2)
    assert result.used.tolist() == [1, 2, 3, 4]
    assert examples(result.recut(Blocks(size=3, stride=1))) == [[1, 2, 3], [2, 3, 4]]
    assert result.recut(Blocks(size=3, stride=1)).used.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "other",
    [
        packed([[1, 2, 3], [4, 5, 7]], Blocks(size=2)),
        packed([[1, 2, 3, 4], [5, 6]], Blocks(size=2)),
        packed([[1, 2, 3], [4, 5, 6]], Blocks(size=3)),
        packed([[1, 2, 3], [4, 5, 6]], Blocks(size=2, isolate=True)),
        packed([[1, 2, 3], [4, 5, 6]], Blocks(size=2)).head(2),
    ],
    ids=["token", "document", "size", "isolation", "number"],
)
def test_fingerprint_changes_with_text_and_cut(other: Packed) -> None:
    one = packed([[1, 2, 3], [4, 5, 6]], Blocks(size=2))
    assert one.fingerprint == packed([[1, 2, 3], [4, 5, 6]], Blocks(size=2), at_once=1).fingerprint
    assert one.fingerprint != other.fingerprint


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


def test_stack_pads_on_the_right_whatever_the_tokenizer_prefers() -> None:
    tokenizer = words_tokenizer(pad_token="<pad>")
    tokenizer.padding_side = "left"
    batch = stack([{"input_ids": [1, 2]}, {"input_ids": [3]}], tokenizer)
    assert batch["input_ids"].tolist() == [[1, 2], [3, 21]]


def test_stack_keeps_the_numbers_of_documents() -> None:
    rows = [{"input_ids": [1, 2], "document_ids": [0, 1]}, {"input_ids": [3], "document_ids": [0]}]
    assert stack(rows, TOKENIZER)["document_ids"].tolist() == [[0, 1], [0, -1]]


def test_stack_without_a_padding_token_pads_with_masked_zeros() -> None:
    batch = stack([{"input_ids": [5]}, {"input_ids": [3, 4]}], TOKENIZER)
    assert batch["input_ids"].tolist() == [[5, 0], [3, 4]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]
