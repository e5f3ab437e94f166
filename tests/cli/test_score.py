"""lmtasks score: texts in, a line of JSON for each out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import lmtasks as api
from lmtasks.builtin.masked_lm import MASKED_LM


def told(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_each_text_is_a_line_of_json(lmtasks: Any, model_folders: dict[str, Path]) -> None:
    done = lmtasks("score", model_folders["gpt2"], "A text.", "Another one.", "--batch-size", 1)
    assert done.code == 0, done.err
    expected = api.score(model_folders["gpt2"], ["A text.", "Another one."], batch_size=1)
    assert told(done.out) == [one.as_json() for one in expected]
    assert list(told(done.out)[0]) == [
        "number", "log_likelihood", "tokens", "characters", "bytes", "words", "correct", "windows"
    ]  # fmt: skip


def test_json_is_one_document(lmtasks: Any, model_folders: dict[str, Path]) -> None:
    done = lmtasks("score", model_folders["bert"], "A text.", "--json")
    (line,) = json.loads(done.out)
    assert line["pseudo_log_likelihood"] == api.score(model_folders["bert"], "A text.").value
    assert "log_likelihood" not in line


def test_a_file_has_a_text_in_each_line(lmtasks: Any, model_folders: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("First.\n\n  \nFourth line.\n", encoding="utf-8")
    by_flag = lmtasks("score", model_folders["gpt2"], "--file", file)
    by_name = lmtasks("score", model_folders["gpt2"], file)
    assert by_flag.out == by_name.out
    values = [one.value for one in api.score(model_folders["gpt2"], ["First.", "Fourth line."])]
    assert [(one["number"], one["log_likelihood"]) for one in told(by_flag.out)] == [(1, values[0]), (4, values[1])]


def test_standard_input_has_one_too(
    lmtasks: Any, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"One.\nTwo.\n")))
    done = lmtasks("score", model_folders["gpt2"], "--file", "-")
    assert [one["number"] for one in told(done.out)] == [1, 2]


def test_tokens_add_up(lmtasks: Any, model_folders: dict[str, Path]) -> None:
    flags = ("--per_token", "--pll_metric", "within_word_l2r", "--max_length", 12)
    done = lmtasks("score", model_folders["roberta"], "unbelievable contexts and their managers", *flags)
    (line,) = told(done.out)
    assert sum(one["log_likelihood"] for one in line["told"]) == pytest.approx(line["pseudo_log_likelihood"])
    assert len(line["told"]) == line["tokens"] > 12
    assert line["windows"] > 1
    assert (
        "1 text is longer than the 12 tokens that the model gets at once: told in pieces, each seen alone" in done.err
    )
    assert line["told"][0].keys() == {"token", "id", "log_likelihood"}


def test_output_is_a_new_file(lmtasks: Any, model_folders: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "scores.jsonl"
    plain = lmtasks("score", model_folders["gpt2"], "A text.")
    done = lmtasks("score", model_folders["gpt2"], "A text.", "--output", output)
    assert done.out == f"{output}\n"
    assert output.read_text(encoding="utf-8") == plain.out
    again = lmtasks("score", model_folders["gpt2"], "Another.", "--output", output)
    assert (again.code, again.err) == (2, f"error: --output {output} exists\nhint: choose another --output\n")
    assert output.read_text(encoding="utf-8") == plain.out
    lost = lmtasks("score", model_folders["gpt2"], "Another.", "--output", tmp_path / "no" / "scores.jsonl")
    assert lost.code == 2
    assert "lies in no folder" in lost.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "score needs a run or a model"),
        (["MODEL", "a", "--file", "texts.txt"], "texts come from 'texts.txt' and from the command line"),
        (["MODEL", "--file", "none.txt"], "--file: no such file: none.txt"),
        (["MODEL", "a", "--top_k", "3"], "unrecognized arguments: --top_k 3"),
        (["MODEL", "a", ""], "text 2 is empty"),
        (["MODEL", "a", "--pll_metric", "best"], "argument --pll_metric: invalid choice"),
        (["nothing/there", "a"], "nothing/there"),
    ],
)
def test_mistakes_are_told_in_two_lines(
    words: list[str], message: str, lmtasks: Any, model_folders: dict[str, Path]
) -> None:
    done = lmtasks("score", *(model_folders["gpt2"] if word == "MODEL" else word for word in words))
    assert done.code == 2
    assert message in done.err
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["error", "hint"]


def test_a_run_is_scored_as_what_it_is(lmtasks: Any, text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ("--train_file", text_file, "--output_dir", out, "--max_steps", 1, "--max_eval_samples", 2)
    assert lmtasks("run", "causal-lm", *flags).code == 0
    (line,) = told(lmtasks("score", out, "A text.").out)
    assert line["log_likelihood"] < 0


OWN = """
from dataclasses import replace
from lmtasks.builtin.masked_lm import MASKED_LM
RECIPE = replace(MASKED_LM, name="odd", attention=None)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe in a file that fills masks and does not say so: all that is known of it is its loss."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.py").write_text(OWN, encoding="utf-8")
    return "./odd.py"


def test_any_other_recipe_has_its_own_loss(lmtasks: Any, model_folders: dict[str, Path], own: str) -> None:
    folder = model_folders["roberta"]
    texts = ["The value of the argument is a string.", "None, unless it was given. " * 9]
    done = lmtasks("score", folder, *texts, "--recipe", own)
    assert done.code == 0, done.err
    one, other = told(done.out)
    assert list(one) == ["number", "loss", "tokens", "characters", "bytes", "words", "windows"]
    assert (one["windows"], other["windows"] > 1) == (1, True)

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    collate = MASKED_LM.collator(tokenizer, MASKED_LM.options(), False)
    batch = collate([{"input_ids": np.asarray(tokenizer(texts[0])["input_ids"]), "seed": (0, 0, 0)}])
    with torch.no_grad():
        logits = model(batch["input_ids"]).logits
    expected = torch.nn.functional.cross_entropy(logits[0], batch["labels"][0], ignore_index=-100)
    assert one["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert one["tokens"] == int((batch["labels"] != -100).sum())

    turned = told(lmtasks("score", folder, *texts[::-1], "--recipe", own).out)
    assert [line["loss"] for line in turned] == [other["loss"], one["loss"]], "neither place nor company matters"


@pytest.mark.parametrize("flags", [["--per_token"], ["--max_length", "9"], ["--pll_metric", "within_word_l2r"]])
def test_what_means_nothing_to_a_loss_is_refused(
    flags: list[str], lmtasks: Any, model_folders: dict[str, Path], own: str
) -> None:
    done = lmtasks("score", model_folders["roberta"], "A text.", "--recipe", own, *flags)
    assert done.code == 2
    assert f"{flags[0]} means nothing to the loss of odd" in done.err


def test_a_loss_is_not_compared(lmtasks: Any, model_folders: dict[str, Path], own: str) -> None:
    flags = ("--validation_file", "odd.py", "--recipe", own)
    done = lmtasks("compare", model_folders["roberta"], model_folders["bert"], *flags)
    assert done.code == 2
    assert "a odd model has no likelihood of a text" in done.err


def test_a_file_among_texts_is_no_text(lmtasks: Any, model_folders: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "texts"
    file.write_text("A text.\n")
    done = lmtasks("score", model_folders["gpt2"], "A text.", file)
    assert (done.code, done.out) == (2, "")
    assert f"error: '{file}' is a file, among texts\nhint: --file {file}" in done.err


def test_a_mistyped_file_is_no_text(
    lmtasks: Any, model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("A text.\n")
    done = lmtasks("score", model_folders["gpt2"], "note.txt")
    assert (done.code, done.out) == (2, "")
    assert "did you mean 'notes.txt'?" in done.err
    assert lmtasks("score", model_folders["gpt2"], "see notes.txt").code == 0, "a text that ends with a name"
