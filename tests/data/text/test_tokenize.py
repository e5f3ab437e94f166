"""Text becomes the tokenizer's own tokens; long texts in parts, with the tokens of the whole."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_word_boundaries import KINDS, byte_level
from tokenizers import processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lmtasks import Blocks
from lmtasks.data.corpus import Split
from lmtasks.data.corpus import split as corpus_split
from lmtasks.data.sample import sample_documents
from lmtasks.data.text import tokenize as stream
from lmtasks.data.text.tokenize import Part, Stream, parted, read

PROSE = " ".join(sample_documents("python")[5].split())[:3000]
LONG = {
    "prose": PROSE,
    "lines": "\n".join(PROSE[at : at + 60] for at in range(0, 3000, 60)),
    "many spaces": PROSE.replace(" ", "   ").replace(".", ".\n\n"),
    "Chinese": "我喜欢学习中文。今天天气很好，我们去公园玩吧！" * 60,
    "code": "def f(x):\n    return {x: [1, 2]}\n\n" * 60,
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LONGEST", 300)


def windows(text: str) -> list[tuple[str, list[int]]]:
    return [(text[at : at + 77], []) for at in range(0, len(text), 77)]


def tokens_of(part: Part, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return tokens(tokenizer, part.before + part.text)[part.skipped :]


def tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_parts_have_the_tokens_of_the_whole(kind: str, text: str) -> None:
    parts = list(parted(KINDS[kind], windows(text)))
    assert "".join(part.text for part in parts) == text
    assert [token for part in parts for token in tokens_of(part, KINDS[kind])] == tokens(KINDS[kind], text)
    if kind in ("wordpiece", "byte_level"):
        assert len(parts) >= 4
        assert max(len(part.text) for part in parts) < 700, "the last one has what is too near the end to be tried"


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(alphabet="ab .,\n\t我é'1", min_size=400, max_size=900))
@settings(max_examples=40, deadline=None)
def test_any_text_may_be_parted(kind: str, text: str) -> None:
    parts = list(parted(KINDS[kind], windows(text)))
    assert "".join(part.text for part in parts) == text
    assert [token for part in parts for token in tokens_of(part, KINDS[kind])] == tokens(KINDS[kind], text)


def test_a_text_without_any_seam_stays_whole() -> None:
    assert list(parted(KINDS["byte_level"], windows("a" * 2000))) == [Part("a" * 2000)]


def joined(pieces: Iterable[Stream]) -> tuple[list[int], list[int], list[bool] | None, int, int]:
    """Tokens, documents, words, rows and bytes of all pieces."""
    ids: list[int] = []
    documents: list[int] = []
    words: list[bool] = []
    rows = size = 0
    for piece in pieces:
        documents += (piece.documents + len(ids)).tolist()
        ids += piece.ids.tolist()
        words += [] if piece.words is None else piece.words.tolist()
        rows, size = rows + piece.rows, size + piece.bytes
    return ids, documents, words or None, rows, size


def rows_of(texts: list[str], documents: bool) -> Split:
    return Split(datasets.Dataset.from_dict({"text": texts}), ("text",), documents)


FRAMED = Blocks(size=8, document_start=(1,), document_end=(2, 3))


@pytest.mark.parametrize("line_by_line", [False, True])
@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("documents", [False, True])
def test_documents_of_many_parts_keep_their_frames_and_words(
    words: bool, documents: bool, line_by_line: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = KINDS["byte_level"]
    blank = " " * 1000 + "\r\n"
    split = rows_of([PROSE + "\r\n", blank, "short", PROSE[:700], LONG["Chinese"], "", PROSE[7:]], documents)
    blocks = replace(FRAMED, words=words, line_by_line=line_by_line)
    monkeypatch.setattr(corpus_split, "BATCH_BYTES", 600)
    in_parts = list(read(split, tokenizer, blocks))
    assert sum(piece.rows == 0 and len(piece.ids) > 2 for piece in in_parts) > 5, "long rows come in several pieces"
    monkeypatch.setattr(stream, "LONGEST", 10**6)
    monkeypatch.setattr(corpus_split, "BATCH_BYTES", 10**6)
    whole = list(read(split, tokenizer, blocks))
    assert joined(in_parts) == joined(whole)
    assert joined(whole)[3] == 7


@pytest.mark.parametrize("documents", [False, True])
def test_reading_goes_on_after_any_piece_that_ends_a_row(documents: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_split, "BATCH_BYTES", 600)
    split = rows_of(["one", PROSE, *[f"line {number}\n" for number in range(200)], PROSE[5:], "two"], documents)
    pieces = list(read(split, KINDS["byte_level"], FRAMED))
    rows = 0
    for number, piece in enumerate(pieces):
        if piece.rows:
            rows += piece.rows
            rest = list(read(split, KINDS["byte_level"], FRAMED, rows))
            assert joined([*pieces[: number + 1], *rest]) == joined(pieces)
    assert rows == len(split)


# Not byte_fallback: to it a text is one single word, which cannot be parted.
@pytest.mark.parametrize("kind", ["wordpiece", "byte_level", "sentencepiece"])
def test_a_long_row_is_never_in_memory_as_a_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LONGEST", 1 << 15)
    split = rows_of([(PROSE + " ") * 3000], True)
    tracemalloc.start()
    total = sum(piece.bytes for piece in read(split, KINDS[kind], Blocks(size=8)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 3000 * (len(PROSE) + 1) > 8_000_000
    assert peak < 4_000_000


# --- the tokens of any kind of tokenizer are its own ---


class Shouting(PreTrainedTokenizerFast):
    """Does something of its own before it tokenises."""

    def _encode_plus(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._encode_plus(
            [one.upper() for one in text] if isinstance(text, list) else text.upper(), *args, **kwargs
        )


def special(**options: Any) -> PreTrainedTokenizerFast:
    """With a special token that occurs in the text, and a template that must not be applied."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level(), eos_token="<eos>", pad_token="<pad>", **options)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<eos> $A <eos>", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    return tokenizer


def cutting() -> PreTrainedTokenizerFast:
    """As ``tokenizer.json`` of models that were saved while they cut and padded."""
    tokenizer = special()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    return tokenizer


MAKERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    **{kind: partial(KINDS.__getitem__, kind) for kind in KINDS},
    "special tokens": special,
    "special tokens as text": partial(special, split_special_tokens=True),
    "cutting": cutting,
    "own code": lambda: Shouting(tokenizer_object=byte_level()),
    "Python": ByT5Tokenizer,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_tokens_are_those_of_the_tokenizer(kind: str) -> None:
    tokenizer = MAKERS[kind]()
    texts = ["some text", "", "more<eos>text <eos>\n", "naïve 火星 \x00", "a" * 50]
    expected = MAKERS[kind]()(texts, add_special_tokens=False, padding=False, truncation=False)["input_ids"]
    ids, documents, words, _, _ = joined(read(rows_of(texts, True), tokenizer, Blocks(size=8)))
    assert words is None
    assert [part.tolist() for part in np.split(ids, documents[1:])] == expected
    if tokenizer.is_fast:
        again = joined(read(rows_of(texts, True), tokenizer, Blocks(size=8, words=True)))
        assert (again[0], again[1]) == (ids, documents)


def test_special_tokens_in_the_text_are_one_token_or_many_as_the_tokenizer_says() -> None:
    lengths = [
        len(joined(read(rows_of(["<eos>"], True), special(split_special_tokens=split), Blocks(size=8)))[0])
        for split in (False, True)
    ]
    assert lengths[0] == 1 < lengths[1]


def test_an_error_of_the_tokenizer_arrives() -> None:
    class Broken(ByT5Tokenizer):
        def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(read(rows_of(["a"], True), Broken(), Blocks(size=8)))


@pytest.mark.parametrize("workers", [2, 3])
def test_processes_of_a_tokenizer_in_python_give_what_one_gives(workers: int) -> None:
    tokenizer = ByT5Tokenizer()
    split = Split(datasets.Dataset.from_dict({"text": [f"number {n} " * (n % 7) for n in range(50)]}), ("text",), True)
    blocks = Blocks(size=16, document_end=(1,))
    alone = list(read(split, tokenizer, blocks))
    shared = list(read(split, tokenizer, blocks, workers=workers))
    assert [piece.rows for piece in alone] == [piece.rows for piece in shared]
    for one, other in zip(alone, shared, strict=True):
        assert np.array_equal(one.ids, other.ids) and np.array_equal(one.documents, other.documents)
