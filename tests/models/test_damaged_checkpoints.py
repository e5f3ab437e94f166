"""Checkpoints whose damage shows nowhere but in what they compute, or in the tokens that they do not know."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from lmtasks.models.checkpoint import require_numbers

SMALL = ("--block_size", 16, "--max_steps", 1, "--use_cpu", "--output_dir", "out")


@pytest.fixture
def checkpoint(
    tmp_path: Path, model_folders: dict[str, Path], text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of a causal model, in a folder of its own with a text."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(text_file, "text.txt")
    shutil.copytree(model_folders["gpt2"], "model")
    return tmp_path / "model"


def changed(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    "words",
    [
        ("run", "causal-lm", "--model", "model", "--train_file", "text.txt", *SMALL),
        ("evaluate", "model", "--validation_file", "text.txt", "--block_size", 16),
        ("predict", "model", "the list"),
        ("score", "model", "the list"),
    ],
)
@pytest.mark.parametrize(("value", "called"), [(torch.nan, "NaN"), (-torch.inf, "infinity")])
def test_weights_that_are_no_numbers_are_named_whatever_is_asked_of_them(
    value: float, called: str, words: tuple[Any, ...], checkpoint: Path, lmtasks: Callable[..., Any]
) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"][3, 4] = value
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    done = lmtasks(*words)
    assert (done.code, done.out) == (2, "")
    told = f"error: the weights in 'model' hold {called} in place of numbers, such as transformer.h.1.mlp.c_fc.weight"
    assert told in done.err
    assert not Path("out").exists()


def test_weights_whose_sum_is_too_large_are_numbers_all_the_same() -> None:
    layer = torch.nn.Linear(4, 4).to(torch.float16)
    torch.nn.init.constant_(layer.weight, 60_000)
    assert layer.weight.sum().isinf()
    require_numbers(layer, "model")  # type: ignore[arg-type]


def test_a_token_that_the_model_has_not_makes_no_text_too_long(checkpoint: Path, lmtasks: Callable[..., Any]) -> None:
    changed(checkpoint / "generation_config.json", forced_eos_token_id=9999)
    done = lmtasks("predict", "model", "the list")
    assert (done.code, done.out) == (2, "")
    assert "index 9999 is out of bounds" in done.err


def test_a_model_that_computes_nan_is_not_said_to_look_ahead(checkpoint: Path, lmtasks: Callable[..., Any]) -> None:
    changed(checkpoint / "config.json", layer_norm_epsilon=float("nan"))
    done = lmtasks("run", "causal-lm", "--model", "model", "--train_file", "text.txt", *SMALL)
    assert done.code == 2
    assert "error: what this gpt2 model computes is NaN and no number" in done.err


def test_a_limit_of_tokens_that_is_no_number_is_refused(checkpoint: Path, lmtasks: Callable[..., Any]) -> None:
    changed(checkpoint / "tokenizer_config.json", model_max_length="big")
    done = lmtasks("predict", "model", "the list")
    assert (done.code, done.out) == (2, "")
    assert "error: the tokenizer of 'model' takes 'big' tokens at most, which is no number" in done.err


@pytest.mark.parametrize("command", ["predict", "score"])
def test_tokens_that_the_model_does_not_know_are_told_as_that(
    command: str, checkpoint: Path, lmtasks: Callable[..., Any]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    known = len(tokenizer)
    tokenizer.add_tokens(["pangolin"])
    tokenizer.save_pretrained(checkpoint)
    assert lmtasks(command, "model", "the list").code == 0, "a text without them"
    done = lmtasks(command, "model", "the pangolin")
    assert (done.code, done.out) == (2, "")
    assert f"error: the tokenizer has {known + 1} tokens, and the model knows {known}\n" in done.err


def test_an_evaluation_says_that_it_has_given_the_model_new_tokens(
    checkpoint: Path, lmtasks: Callable[..., Any]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.add_tokens(["pangolin"])
    tokenizer.save_pretrained(checkpoint)
    done = lmtasks("evaluate", "model", "--validation_file", "text.txt", "--block_size", 16)
    assert done.code == 0
    assert "embeddings grown by 1 rows for the tokenizer's tokens" in done.err


def test_a_text_of_half_a_letter_is_no_text(checkpoint: Path, lmtasks: Callable[..., Any]) -> None:
    done = lmtasks("predict", "model", "caf\udce9")
    assert (done.code, done.out) == (2, "")
    assert "error: text 1 is no Unicode text: surrogates not allowed" in done.err


def test_notes_of_git_in_place_of_weights_are_told_as_that(checkpoint: Path, lmtasks: Callable[..., Any]) -> None:
    note = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123\n"
    (checkpoint / "model.safetensors").write_text(note)
    done = lmtasks("predict", "model", "the list")
    assert (done.code, done.out) == (2, "")
    assert "error: the weights in 'model' are damaged" in done.err
    assert "hint: git lfs pull, in that folder" in done.err


def test_code_that_nobody_has_allowed_is_told_as_the_reason(checkpoint: Path, lmtasks: Callable[..., Any]) -> None:
    changed(checkpoint / "config.json", model_type="own", auto_map={"AutoConfig": "own.Config"})
    (checkpoint / "own.py").write_text("open('run', 'w')")
    done = lmtasks("predict", "model", "the list")
    assert (done.code, done.out) == (2, "")
    assert "hint: read that code; run and evaluate run it with --trust_remote_code" in done.err
    assert not Path("run").exists()
