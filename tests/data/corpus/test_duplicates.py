"""Evaluation rows that were trained on as well: which count, against counts made by hand and a plain set."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus import Split, count_duplicates, load_corpus
from lmtasks.data.corpus.duplicates import SHORTEST_LINE
from lmtasks.data.corpus.split import BATCH_BYTES

LINE = "A line of prose that is long enough to be counted."


def split(rows: list[str], documents: bool) -> Split:
    features = datasets.Features({"text": datasets.Value("string")})
    return Split(datasets.Dataset.from_dict({"text": rows}, features=features), ("text",), documents)


def counted(train: list[str], evaluation: list[str], documents: bool) -> int:
    return count_duplicates(split(train, documents), split(evaluation, documents))


@pytest.mark.parametrize(
    ("train", "evaluation", "count"),
    [
        (["a", "b", "c"], ["c", "d", "a"], 2),
        (["a"], ["b"], 0),
        (["a"], ["a", "b", "a", "a"], 3),  # rows of the evaluation split, not texts
        (["a", "a", "a"], ["a"], 1),
        (["a\n", " b"], ["a", "\tb\r\n", "\u2003a"], 3),
        (["a  b", "c"], ["a b", "C"], 0),
        (["ab", "one\ntwo"], ["a", "two", "one\ntwo\n"], 1),
        (["", " ", "\n"], ["", " ", "\n", "\u2028"], 0),
        (["é", "\x00", "火星"], ["e\u0301", "\x00", "火星", "é"], 3),
        ([], ["a"], 0),
        (["a"], [], 0),
        ([], [], 0),
    ],
)
def test_documents(train: list[str], evaluation: list[str], count: int) -> None:
    assert counted(train, evaluation, documents=True) == count


@pytest.mark.parametrize(
    ("train", "evaluation", "count"),
    [
        ([LINE + "\n"], [LINE], 1),
        ([LINE + "\n"], ["    " + LINE + " \n", LINE + "\n", "more. " + LINE + "\n"], 2),
        (["\n", " \n"], ["\n", " \n"], 0),
        ([" = = Critical reception = = \n"], [" = = Critical reception = = \n"], 0),
        (["x" * 39 + "\n"], ["x" * 39 + "\n"], 0),
        (["x" * 40 + "\n"], ["x" * 40 + "\n"], 1),
        ([" " * 40 + "x\n"], [" " * 40 + "x\n"], 0),
        (["火" * 39 + "\n", "星" * 40], ["火" * 39 + "\n", "星" * 40], 1),  # characters, not bytes
    ],
)
def test_lines_of_a_running_text(train: list[str], evaluation: list[str], count: int) -> None:
    assert SHORTEST_LINE == 40
    assert counted(train, evaluation, documents=False) == count


def test_the_kind_of_the_evaluation_split_decides() -> None:
    rows = ["short", LINE + "\n"]
    assert count_duplicates(split(rows, documents=False), split(rows, documents=True)) == 2
    assert count_duplicates(split(rows, documents=True), split(rows, documents=False)) == 1


ROWS = st.lists(
    st.text("ab \n", max_size=3) | st.integers(SHORTEST_LINE - 2, SHORTEST_LINE + 1).map("é".__mul__), max_size=12
)


@given(train=ROWS, evaluation=ROWS, documents=st.booleans())
@settings(max_examples=150, deadline=None)
def test_counts_are_those_of_a_plain_set(train: list[str], evaluation: list[str], documents: bool) -> None:
    known = {row.strip() for row in train}
    expected = [row for row in evaluation if row.strip() in known and len(row.strip()) >= (1 if documents else 40)]
    assert counted(train, evaluation, documents) == len(expected)


@pytest.mark.parametrize("documents", [False, True])
def test_rows_as_long_as_a_batch_are_compared_without_their_white_space(documents: bool) -> None:
    space = " \u3000\n" * 700
    for size in (BATCH_BYTES - 1, BATCH_BYTES, BATCH_BYTES + 1, 3 * BATCH_BYTES):
        long = "é" + "x" * (size - 3) + "y"
        assert len(long.encode()) == size
        assert counted(["a", space + long + space], [long, long[:-1] + "z", long[:-1], space * 90], documents) == 1
        assert counted([long, "a"], [space + long + space, space + long[:-1]], documents) == 1


def test_many_rows() -> None:
    train = [f"row {number}" for number in range(5000)]
    evaluation = [f"row {number}" for number in range(0, 10_000, 3)]
    assert counted(train, evaluation, documents=True) == len(range(0, 5000, 3))


def test_files_of_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "train.txt").write_bytes(f"Title\r\n\r\n{LINE}\r\nAnother {LINE}\r\n".encode())
    # The last line has no break, and the first file has others.
    (tmp_path / "test.txt").write_bytes(f"Title\n\nUnseen: {LINE}\n{LINE}".encode())
    files = {"train_file": [str(tmp_path / "train.txt")], "validation_file": [str(tmp_path / "test.txt")]}
    by_line = load_corpus(DataSettings(**files))
    assert by_line.train is not None and by_line.evaluation is not None
    assert count_duplicates(by_line.train, by_line.evaluation) == 1
    paragraphs = load_corpus(DataSettings(**files, sample_by="paragraph"))
    assert paragraphs.train is not None and paragraphs.evaluation is not None
    assert count_duplicates(paragraphs.train, paragraphs.evaluation) == 1, "the title is a document here"


def test_what_is_held_out_of_repeated_documents() -> None:
    once = load_corpus(DataSettings(train_dataset=[f"document {n}" for n in range(100)], test_size=0.2))
    assert once.train is not None and once.evaluation is not None
    assert count_duplicates(once.train, once.evaluation) == 0
    assert count_duplicates(once.train, once.train) == 80
    twice = load_corpus(DataSettings(train_dataset=["same"] * 50 + [f"{n}" for n in range(50)], test_size=0.2))
    assert twice.train is not None and twice.evaluation is not None
    same = [text for batch in twice.evaluation.texts() for text in batch].count("same")
    assert same > 0
    assert count_duplicates(twice.train, twice.evaluation) == same


def test_texts_are_not_kept() -> None:
    train, evaluation = (split([f"{name} {n} " + "x" * 10_000 for n in range(3000)], True) for name in "ab")
    tracemalloc.start()
    assert count_duplicates(train, evaluation) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000, "both splits are 60 MB"
