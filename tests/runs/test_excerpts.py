"""Pieces of the run's own text: its column and its beginning in the plan, a prompt from what it has not seen."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import datasets
import pytest
import transformers

from lmtasks.artifacts.shell import shell_quoted
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.request import configure
from lmtasks.runs.excerpts import CHARACTERS, column_name, example_prompt, in_one_line
from lmtasks.runs.load import load_data
from lmtasks.runs.standalone_evaluation import evaluate

TRAINED = [f"Tab\there {number}: the <pad> stands in for what is missing.\n" for number in range(40)]


@pytest.fixture
def held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": "x", "body": text} for text in TRAINED]
    Path("train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    seen = [{"id": "x", "body": text} for text in ("Too short.", '--price "$5" of <pad> one [MASK] `apple`!\x1b[0m')]
    Path("held.jsonl").write_text("\n".join(map(json.dumps, seen)), encoding="utf-8")
    return tmp_path


def test_a_run_shows_its_own_text_and_reads_special_tokens_as_it_is_told(
    held_out: Path, lmtasks: Any, model_folders: dict[str, Path]
) -> None:
    data = ["--train_file", "train.jsonl", "--validation_file", "held.jsonl", "--column", "body"]
    words = [*data, "--block_size", 64, "--max_steps", 1, "--output_dir", "out"]
    done = lmtasks("run", "masked-lm", "--model", model_folders["roberta"], *words, "--split_special_tokens")
    assert done.code == 0, done.err
    assert "\ndata       train.jsonl, column body\n" in done.err
    (line,) = re.findall(r"^first text (.*)$", done.err, re.MULTILINE)
    assert line.startswith(r"Tab\there 0: the <pad> stands in for ")
    assert len(line) <= 69
    assert "special tokens" not in done.err, "they are plain text"

    record, card = json.loads(Path("out/run.json").read_text()), Path("out/README.md").read_text()
    assert record["settings"]["split_special_tokens"] is True and record["data"]["column"] == "body"
    assert "Source: train.jsonl, column `body`\n" in card
    example = record["example"]
    assert example == 'price "$5" of <mask> `apple`! [0m'

    # What is offered can be pasted, and answers.
    (offered,) = re.findall(r"^  lmtasks (predict .*)$", done.out, re.MULTILINE)
    assert shlex.split(offered) == ["predict", "out", example]
    assert shlex.split(re.search(r"^lmtasks (predict .*)$", card, re.MULTILINE)[1])[2] == example
    answer = lmtasks(*shlex.split(offered), "--top_k", 1)
    assert answer.code == 0 and len(answer.out.splitlines()) == 1

    # The tokenizer is the model's own; only the text of the run was read otherwise, and is again.
    saved = transformers.AutoTokenizer.from_pretrained("out")
    assert not saved.split_special_tokens
    assert saved("<pad>", add_special_tokens=False)["input_ids"] == [saved.pad_token_id]
    figures = json.loads(Path("out/eval_results.json").read_text())
    assert evaluate("out")["eval_loss"] == figures["eval_loss"]
    noted = lmtasks("run", "masked-lm", "--model", model_folders["roberta"], *words[:-2], "--dry_run").out
    assert re.search(r"of the training tokens are special tokens that stand in the text: <pad> 40;", noted)


def prompt_of(recipe: Any, folder: Path, texts: list[str], **values: Any) -> str | None:
    values = {"train_dataset": TRAINED, "eval_dataset": texts, "model": str(folder), "block_size": 64, **values}
    return example_prompt(load_data(configure(recipe, values), training=True))


def test_a_prompt_is_the_beginning_of_what_was_held_out(model_folders: dict[str, Path]) -> None:
    text = "The cat sat on the mat and it was not a dog at all"
    assert prompt_of(CAUSAL_LM, model_folders["gpt2"], ["short", text]) == "The cat sat on the mat and it was not a dog"
    hidden = prompt_of(MASKED_LM, model_folders["roberta"], [text])
    assert hidden == "The cat sat on the <mask> and it was not a dog"
    assert prompt_of(CAUSAL_LM, model_folders["gpt2"], ["short text"]) == "short text"
    # Without spaces it is cut by characters, and by what the model can take.
    chinese = prompt_of(MASKED_LM, model_folders["roberta"], ["我喜欢学习中文今天天气很好" * 20])
    assert chinese.count("<mask>") == 1 and len(chinese) < CHARACTERS
    assert len(transformers.AutoTokenizer.from_pretrained(model_folders["roberta"])(chinese)["input_ids"]) <= 32
    assert prompt_of(MASKED_LM, model_folders["roberta"], ["1 2 3 ..."]) == "1 2 3 ... <mask>"
    assert prompt_of(CAUSAL_LM, model_folders["gpt2"], ["<|endoftext|>"]) == CAUSAL_LM.example, "nothing to take"


def test_lines_that_follow_each_other_make_one_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folders: dict[str, Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("Some text to train on.\n" * 20)
    Path("b.txt").write_text("- It was\n\na dark and\nstormy night.\n")
    prompt = prompt_of(
        CAUSAL_LM, model_folders["gpt2"], None, train_dataset=None, train_file="a.txt", validation_file="b.txt"
    )
    assert prompt == "It was a dark and stormy night."


def test_the_recipes_own_text_has_the_recipes_own_prompt_and_no_column(model_folders: dict[str, Path]) -> None:
    data = load_data(configure(CAUSAL_LM, {"train_tokenizer": 400}), training=True)
    assert example_prompt(data) == CAUSAL_LM.starter.texts[0]
    assert column_name(data.request, data.corpus) is None
    table = datasets.Dataset.from_dict({"body": TRAINED})
    values = {"train_dataset": table, "text_column": "body", "model": str(model_folders["gpt2"]), "block_size": 32}
    data = load_data(configure(CAUSAL_LM, values), training=True)
    assert column_name(data.request, data.corpus) == "body"


@pytest.mark.parametrize("suffix", ["txt", "fasta"])
def test_files_without_columns_name_none(suffix: str, tmp_path: Path, model_folders: dict[str, Path]) -> None:
    file = tmp_path / f"a.{suffix}"
    file.write_text("".join(f">name\nACDEFGHIKLMNPQRSTVWY{'A' * number}\n" for number in range(30)))
    values = {"train_file": str(file), "model": str(model_folders["gpt2"]), "block_size": 8}
    data = load_data(configure(CAUSAL_LM, values), training=True)
    assert column_name(data.request, data.corpus) is None


def test_one_line_spells_out_what_is_not_printable() -> None:
    assert in_one_line("a\tb\x1b[0mé\u200b\n") == "a\\tb\\x1b[0mé\\u200b\\n"
    assert in_one_line("x" * 70) == "x" * 68 + "…"
    assert in_one_line("x" * 69) == "x" * 69


@pytest.mark.parametrize("text", ["plain", 'say "hi"', "$HOME `x` \\ ! %PATH%", "it's"])
def test_quoted_text_is_one_word_of_a_shell(text: str) -> None:
    assert shlex.split(shell_quoted(text)) == [text]
