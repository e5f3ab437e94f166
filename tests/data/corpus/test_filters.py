"""What is left out of a corpus because somebody asked for it, and how many documents that are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmtasks import InputError
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus import Split, load_corpus

TEXTS = ["a", "four", "four", "six ay", "", "four ", "six ay", "火火火火", "[x]"]


def kept(**wishes: Any) -> tuple[list[str], Split]:
    split = load_corpus(DataSettings(eval_dataset=TEXTS, **wishes)).evaluation
    return [text for batch in split.texts() for text in batch], split


@pytest.mark.parametrize(
    ("wishes", "right", "dropped"),
    [
        ({}, [text for text in TEXTS if text], {}),
        ({"min_chars": 4}, [text for text in TEXTS if len(text) >= 4], {"min_chars": 2}),
        ({"max_chars": 4}, ["a", "four", "four", "火火火火", "[x]"], {"max_chars": 3}),
        ({"drop_duplicates": True}, ["a", "four", "six ay", "four ", "火火火火", "[x]"], {"drop_duplicates": 2}),
        ({"filter": "wanted:no_brackets"}, [text for text in TEXTS if text and "[" not in text], {"filter": 1}),
        (
            {"min_chars": 2, "max_chars": 5, "drop_duplicates": True, "filter": "wanted:no_brackets"},
            ["four", "four ", "火火火火"],
            {"min_chars": 1, "max_chars": 2, "filter": 1, "drop_duplicates": 1},
        ),
    ],
)
def test_documents_are_left_out_and_counted(
    wishes: dict[str, Any], right: list[str], dropped: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("wanted.py").write_text("def no_brackets(text):\n    return '[' not in text\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    texts, split = kept(**wishes)
    assert texts == right
    assert dict(split.dropped) == dropped
    assert split.blank == 1, "what is empty is counted as that alone"


def test_a_class_begins_anew_for_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("first.py").write_text(
        "class Two:\n    def __init__(self):\n        self.left = 2\n"
        "    def __call__(self, text):\n        self.left -= 1\n        return self.left >= 0\n"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    data = DataSettings(train_dataset=["a", "b", "c"], eval_dataset=["d", "e", "f"], filter="first:Two")
    corpus = load_corpus(data)
    parts = [[text for batch in part.texts() for text in batch] for part in (corpus.train, corpus.evaluation)]
    assert parts == [["a", "b"], ["d", "e"]]


def test_what_is_left_out_is_neither_trained_on_nor_held_out() -> None:
    data = DataSettings(train_dataset=[*map(str, range(200))], min_chars=2, test_size=0.5)
    corpus = load_corpus(data)
    assert len(corpus.train) == len(corpus.evaluation) == 95
    assert (dict(corpus.train.dropped), dict(corpus.evaluation.dropped)) == ({"min_chars": 10}, {}), "once in all"


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"min_chars": 100}, "nothing of in-memory data is left: 8 by --min_chars"),
        ({"filter": "prose"}, "--filter 'prose' names no function"),
        ({"filter": "math:pi"}, "--filter 'math:pi' names no function"),
        ({"filter": "no_such_module:f"}, "--filter: No module named 'no_such_module'"),
        ({"filter": "math:sqrt"}, "--filter math:sqrt fails on 'a': TypeError: must be real number, not str"),
    ],
)
def test_what_cannot_be_asked_for(wishes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        kept(**wishes)
    assert message in caught.value.message
    assert caught.value.hint


def test_lines_of_running_text_are_no_documents() -> None:
    Path("a.txt").write_text("one\n\ntwo three\n")
    with pytest.raises(InputError, match="--min_chars is about documents") as caught:
        load_corpus(DataSettings(validation_file=["a.txt"], min_chars=4))
    assert "--sample_by paragraph" in caught.value.hint
    split = load_corpus(DataSettings(validation_file=["a.txt"], min_chars=4, sample_by="paragraph")).evaluation
    assert [text for batch in split.texts() for text in batch] == ["two three"]


def test_the_plan_counts_them(lmtasks: Any, model_folders: dict[str, Path]) -> None:
    Path("a.txt").write_text("".join(f"paragraph {n % 30} of many words\n\n" for n in range(60)))
    words = f"run masked-lm --model {model_folders['bert']} --block_size 16 --dry_run --train_file a.txt".split()
    plan = lmtasks(*words, "--sample_by", "paragraph", "--drop_duplicates")
    assert "documents left out by --drop_duplicates: 30" in plan.out
