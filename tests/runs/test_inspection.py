"""``lmtasks data``: what it shows is what is trained on."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from lmtasks import EVALUATION_SEED, Recipe
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.cli.app import main
from lmtasks.cli.data import inspection_lines
from lmtasks.config.request import configure
from lmtasks.data.dataset import ExampleDataset
from lmtasks.runs.inspection import Inspection, inspect_data
from lmtasks.runs.load import load_data
from lmtasks.runs.marked import Marked, Piece, texts_of

ROWS = [
    f"Row {number}: naïve 火星 people, said <pad> she?\n\tAnd so on.\x07 " * (1 + number % 3) for number in range(30)
]
MARK = re.compile(r"\[DOC \d+\]|\[(?:MASK|KEPT):(.*?)\]|\[RANDOM:(.*?)->.*?\]", re.DOTALL)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"id": number, "body": text}) for number, text in enumerate([*ROWS, ROWS[0], ROWS[1]])]
    Path("rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def printed(out: str, unit: str) -> list[tuple[str, str]]:
    """The heading of each example, and its text as it was before anything was hidden."""
    found = re.findall(rf"^{unit} example (.*)\n((?:  \| .*\n)+)", out, re.MULTILINE)
    texts = ["\n".join(line[4:] for line in text.splitlines()) for _, text in found]
    return [
        (heading, MARK.sub(lambda mark: mark[1] or mark[2] or "", text))
        for (heading, _), text in zip(found, texts, strict=True)
    ]


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize(("recipe", "kind"), [(MASKED_LM, "roberta"), (CAUSAL_LM, "gpt2")])
def test_what_is_shown_is_what_is_trained_on(
    recipe: Recipe, kind: str, held_out: bool, rows: Path, lmtasks: Any, model_folders: dict[str, Path]
) -> None:
    values = {"model": str(model_folders[kind]), "train_file": "rows.jsonl", "block_size": 40, "seed": 7}
    words = [word for name, value in values.items() for word in (f"--{name}", value)]
    words += ["--column", "body", "--learning_rate", "1e-3", "--examples", 4, *["--held_out"] * held_out]
    told = json.loads(lmtasks("data", recipe.name, *words, "--json").out)

    data = load_data(configure(recipe, {**values, "text_column": "body"}), training=True)
    examples = data.encoded.evaluation if held_out else data.encoded.train
    dataset = ExampleDataset(examples, EVALUATION_SEED if held_out else 7)
    collate = recipe.collator(data.processor, data.request.options, not held_out)
    batches = [collate([dataset[number]]) for number in range(min(4, len(dataset)))]
    assert [one["input_ids"] for one in told["examples"]] == [batch["input_ids"][0].tolist() for batch in batches]
    assert [one["labels"] for one in told["examples"]] == [batch["labels"][0].tolist() for batch in batches]
    assert len(batches) > 1

    out = lmtasks("data", recipe.name, *words).out
    shown = printed(out, "held-out" if held_out else "training")
    assert len(shown) == len(batches)
    for number, (batch, (heading, text)) in enumerate(zip(batches, shown, strict=True)):
        ids, labels = batch["input_ids"][0].numpy(), batch["labels"][0].numpy()
        whole = data.processor.decode(np.where(labels == -100, ids, labels), clean_up_tokenization_spaces=False)
        assert text == whole.replace("\x07", "\\x07")
        assert heading == f"{number}: {len(ids)} tokens, {recipe.targets(batch).numel()} targets"
    marks = len(re.findall(r"\[(?:MASK|KEPT|RANDOM):", out.partition("\n[DOC N]")[0]))
    assert marks == (sum(int((batch["labels"] != -100).sum()) for batch in batches) if recipe is MASKED_LM else 0)


def test_marks_say_what_became_of_each_target(rows: Path, model_folders: dict[str, Path]) -> None:
    seen = inspect_data(
        MASKED_LM,
        model=str(model_folders["roberta"]),
        train_file="rows.jsonl",
        text_column="body",
        block_size=60,
        mlm_probability=0.9,
        examples=8,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folders["roberta"])
    for one in seen.examples:
        pairs = [(token, label) for token, label in zip(one.input_ids, one.labels, strict=True) if label != -100]
        kinds = [
            "hidden" if token == tokenizer.mask_token_id else "kept" if token == label else "random"
            for token, label in pairs
        ]
        assert [piece.kind for piece in one.pieces if piece.kind in ("hidden", "kept", "random")] == kinds
        special = [token for token, label in zip(one.input_ids, one.labels, strict=True) if label == -100]
        special = [tokenizer.decode([token]) for token in special if token in tokenizer.all_special_ids]
        assert [piece.text for piece in one.pieces if piece.kind == "special"] == special
    kinds = [piece.kind for one in seen.examples for piece in one.pieces]
    assert {"hidden", "kept", "random", "special", "document"} <= set(kinds)


def test_documents_are_marked_where_they_begin(rows: Path, model_folders: dict[str, Path]) -> None:
    texts = ["one", "two two", "three"] * 8
    values = {"model": str(model_folders["gpt2"]), "train_dataset": texts, "eval_dataset": ["held out"]}
    seen = inspect_data(CAUSAL_LM, **values, block_size=32, examples=2)
    begun = [piece.text for one in seen.examples for piece in one.pieces if piece.kind == "document"]
    assert begun == [str(number) for number in range(1, len(begun) + 1)] and len(begun) > 4
    text = "".join(
        f"[DOC {piece.text}]" if piece.kind == "document" else piece.text for piece in seen.examples[0].pieces
    )
    assert text.startswith("[DOC 1]one<|endoftext|>[DOC 2]two two<|endoftext|>[DOC 3]three<|endoftext|>[DOC 4]one")
    alone = inspect_data(CAUSAL_LM, **values, block_size=32, line_by_line=True, examples=2)
    assert [[piece.text for piece in one.pieces] for one in alone.examples] == [
        ["1", "one", "<|endoftext|>"],
        ["2", "two two", "<|endoftext|>"],
    ]


@pytest.mark.parametrize(
    ("kind", "shown"), [("bpe", {'" the"', '"’"', '"’\\n"'}), ("wordpiece", {'"the"', '"’"', '"dogs"'})]
)
def test_frequent_tokens_are_spelt_as_text(
    kind: str, shown: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lmtasks: Any
) -> None:
    """Not in the letters that stand for bytes: Ġthe, âĢĻ, Ċ."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("all the dogs’ and the cats’ and the frogs’\n" * 200, encoding="utf-8")
    words = ["--train_file", "text.txt", "--model_type", "bert", "--train_tokenizer", 300, "--tokenizer_model", kind]
    out = lmtasks("data", "masked-lm", *words).out
    told = [line for line in out.splitlines() if line.startswith("  most frequent")]
    assert len(told) == 2
    for line in told:
        assert shown <= set(re.findall(r'"[^"]*"', line)), line


def test_counts_are_those_of_the_text(rows: Path, lmtasks: Any, model_folders: dict[str, Path]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folders["gpt2"])
    texts = ["the the the", "a<|endoftext|>the", "x" * 40, "the"]
    lengths = sorted(len(tokenizer(text)["input_ids"]) for text in texts)
    seen = inspect_data(
        CAUSAL_LM, model=str(model_folders["gpt2"]), train_dataset=texts, eval_dataset=["the", "new"], block_size=8
    )
    facts = seen.splits["train"]
    assert (facts["rows"], facts["documents"], facts["bytes"]) == (4, 4, sum(map(len, texts)))
    assert facts["tokens_per_document"] == {
        "min": lengths[0],
        "median": lengths[1],
        "p90": lengths[2],
        "max": lengths[3],
    }
    assert facts["special"] == {"<|endoftext|>": 1} and facts["unknown"] == 0
    counts: dict[int, int] = {}
    for text in texts:
        for token in tokenizer(text)["input_ids"]:
            counts[token] = counts.get(token, 0) + 1
    assert {one["id"]: one["count"] for one in facts["frequent"]} == counts, "without what ends documents"
    assert sum(one["share"] for one in facts["frequent"]) == pytest.approx(1)
    assert seen.duplicates == 1
    assert seen.documents[1] == ("a<|endoftext|>the", len(tokenizer(texts[1])["input_ids"]))
    lines = list(inspection_lines(seen))
    assert "  also in training  1" in lines and "  special tokens    <|endoftext|> 1" in lines


def everything(terminal: int) -> str:
    """What is written to a terminal until nobody writes any more."""
    read = b""
    with suppress(OSError):  # as Linux says that the other end is closed
        while more := os.read(terminal, 1 << 16):
            read += more
    os.close(terminal)
    return read.decode()


@pytest.mark.parametrize("no_color", ["", "1"])
def test_marks_are_colours_on_a_terminal_that_wants_them(
    no_color: str, rows: Path, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    ours, theirs = os.openpty()
    words = ["data", "masked-lm", "--model", str(model_folders["roberta"]), "--train_file", "rows.jsonl"]
    with ThreadPoolExecutor(1) as pool, open(theirs, "w", encoding="utf-8") as terminal:
        reading = pool.submit(everything, ours)
        monkeypatch.setattr(sys, "stdout", terminal)
        assert main([*words, "--column", "body", "--block_size", "24", "--examples", "1"]) == 0
        terminal.close()
        out = reading.result(60)
    assert ("[MASK:" in out) == bool(no_color) and ("\x1b[7m" in out) == (not no_color)


def test_nothing_is_written_and_no_weights_are_read(rows: Path, lmtasks: Any, model_folders: dict[str, Path]) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        Path("bare").mkdir(exist_ok=True)
        Path("bare", name).write_bytes((model_folders["bert"] / name).read_bytes())
    before = sorted(rows.rglob("*"))
    done = lmtasks(
        "data", "masked-lm", "--model", "bare", "--train_file", "rows.jsonl", "--column", "body", "--examples", 0
    )
    assert done.code == 0 and "example 0" not in done.out
    assert sorted(rows.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "data needs a recipe"),
        (["masked-ml"], "unknown recipe 'masked-ml'"),
        (["masked-lm", "--examples", "-1"], "--examples cannot be -1"),
        (["masked-lm", "--examples", "x"], "argument --examples"),
        (["masked-lm", "--blok_size", "3"], "unknown option '--blok_size', did you mean 'block_size'?"),
    ],
    ids=str,
)
def test_mistakes_are_told(words: list[str], message: str, lmtasks: Any) -> None:
    done = lmtasks("data", *words)
    assert done.code == 2 and message in done.err and "hint: " in done.err and not done.out


def test_help_names_the_flags_of_the_data_and_none_of_training(lmtasks: Any) -> None:
    assert lmtasks("data", "--help").out.startswith("usage: lmtasks data RECIPE [--examples N] [--held_out]")
    shown = lmtasks("data", "masked-lm", "--help_all").out
    for flag in ("--mlm_probability", "--train_file", "--tokenizer_name", "--examples", "--held_out", "--json"):
        assert flag in shown
    assert "--learning_rate" not in shown and "--output_dir" not in shown


def test_each_token_adds_its_text(masked_tokenizer: Any) -> None:
    text = "naïve 火星 \U0001f600!\n x" * 3
    ids = masked_tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = texts_of(ids, masked_tokenizer)
    assert "".join(texts) == text and len(texts) == len(ids)
    assert all("\ufffd" not in one for one in texts)


def test_targets_that_are_a_text_of_their_own_are_written_out() -> None:
    one = Marked(0, 2, (Piece("text", "a <x>"),), "<x> b", [1, 2], [2, 3, 4])
    told = Inspection(
        "r",
        "s",
        None,
        {"train": {"unit": "rows", "rows": 1}, "evaluation": {"unit": "rows", "rows": 1}},
        0,
        (),
        "train",
        (),
        (one,),
    )
    assert "  targets: <x> b" in list(inspection_lines(told))


def test_a_hidden_space_is_seen() -> None:
    one = Marked(
        0, 2, (Piece("text", "a"), Piece("hidden", " ", "<mask>"), Piece("random", " b", " c")), None, [1], [2]
    )
    facts = {"unit": "rows", "rows": 1}
    told = Inspection("r", "s", None, {"train": facts, "evaluation": facts}, 0, (), "train", (), (one,))
    assert "  | a[MASK: ] [RANDOM:b->c]" in list(inspection_lines(told))


def test_a_mix_is_shown_source_by_source(rows: Path, model_folders: dict[str, Path]) -> None:
    Path("a.txt").write_text("the quick brown fox " * 40)
    Path("b.txt").write_text("1 2 3 4 5 6 7 8 9 " * 40)
    own = {"weight": 1, "validation_file": "held.txt"}
    sources = [{"name": name, "train_file": f"{name}.txt", **own} for name in "ab"]
    Path("mix.yaml").write_text(json.dumps({"sources": sources}))
    Path("held.txt").write_text("the lazy dog " * 20)
    seen = inspect_data(CAUSAL_LM, model=str(model_folders["gpt2"]), data="mix.yaml", block_size=16, examples=4)
    assert list(seen.splits) == ["train a", "train b", "evaluation a", "evaluation b"]
    assert sum(one.text.strip()[:1].isdigit() for one in seen.examples) == 2, "half of each"
    lines = list(inspection_lines(seen))
    assert "\ntraining a" in lines and "\nheld out b" in lines


def test_labels_of_whole_examples_are_no_text(rows: Path, all_model_folders: dict[str, Path]) -> None:
    def collator(tokenizer: Any, options: Any, training: bool) -> Any:
        collate = MASKED_LM.collator(tokenizer, options, training)
        return lambda examples: {**collate(examples), "labels": torch.arange(len(examples)) % 2}

    shown = inspect_data(
        dataclasses.replace(MASKED_LM, collator=collator, starter=None),
        model_name_or_path=str(all_model_folders["roberta"]),
        train_file="rows.jsonl",
        text_column="body",
        block_size=16,
        examples=1,
    )
    (one,) = shown.examples
    assert (one.targets, one.written, one.labels) == (1, None, [])
    assert {piece.kind for piece in one.pieces} <= {"text", "special", "document"}
