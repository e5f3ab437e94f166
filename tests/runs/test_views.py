"""Sliding windows and pseudo-log-likelihood: the same text cut otherwise, against the definitions in plain torch."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from lmtasks import evaluate, run

TEXT = "In the beginning was a text of a few words, then there was another.\n" * 3 + "The end.\n"
SIZE, STRIDE = 16, 5


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    return tmp_path


def blocks(ids: list[int], size: int) -> list[list[int]]:
    """The blocks of a stream, the last as short as it must be."""
    return [ids[at : at + size] for at in range(0, len(ids), size)]


def causal_oracle(folder: Path) -> tuple[list[float], list[float]]:
    """Nats of every target in plain blocks of text and end of text, and of the text in a sliding window."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    text = tokenizer.encode(TEXT, add_special_tokens=False)
    ids = [*text, tokenizer.eos_token_id]

    def surprise(window: list[int], place: int) -> float:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([window])).logits[0, place - 1].double()
        return float(torch.logsumexp(logits, 0) - logits[window[place]])

    plain = [surprise(block, place) for block in blocks(ids, SIZE) for place in range(1, len(block))]
    seen = [tokenizer.bos_token_id, *text]
    sliding, scored, start = [], 1, 0
    while scored < len(seen):
        start = min(start, len(seen) - SIZE)
        window = seen[start : start + SIZE]
        sliding += [surprise(window, place - start) for place in range(scored, start + len(window))]
        scored, start = start + SIZE, start + STRIDE
    assert len(sliding) == len(text)
    return plain, sliding


def test_a_sliding_window_is_that_of_the_definition(model_folders: dict[str, Path]) -> None:
    figures = evaluate(model_folders["gpt2"], validation_file="text.txt", block_size=SIZE, stride=STRIDE)
    plain, sliding = causal_oracle(model_folders["gpt2"])
    for name, losses in (("eval", plain), ("sliding", sliding)):
        assert figures[f"{name}_targets"] == len(losses)
        assert figures[f"{name}_loss"] == pytest.approx(math.fsum(losses) / len(losses), rel=1e-6)
    assert figures["sliding_perplexity"] == pytest.approx(math.exp(figures["sliding_loss"]), rel=1e-9)
    assert figures["sliding_log_likelihood"] == pytest.approx(-math.fsum(sliding), rel=1e-6)
    bits = math.fsum(sliding) / math.log(2) / len(TEXT)
    assert figures["sliding_bits_per_byte"] == pytest.approx(bits, rel=1e-6)
    assert 0 <= figures["sliding_accuracy"] <= 1


@pytest.mark.parametrize("stride", [SIZE, SIZE + 1])
def test_a_stride_that_would_skip_tokens_is_refused(stride: int, model_folders: dict[str, Path], lmtasks: Any) -> None:
    words = ["--validation_file", "text.txt", "--block_size", SIZE, "--stride", stride]
    outcome = lmtasks("evaluate", model_folders["gpt2"], *words)
    assert outcome.code == 2
    assert f"--stride {stride} would skip text: of each block of 16 tokens 15 are told" in outcome.err
    assert "--stride 15 or less" in outcome.err


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_pseudo_log_likelihood_is_that_of_the_definition(kind: str, model_folders: dict[str, Path]) -> None:
    folder = model_folders[kind]
    options: dict[str, Any] = {"validation_file": "text.txt", "block_size": SIZE, "max_eval_samples": 3}
    figures = evaluate(folder, pseudo_perplexity=True, **options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    losses = []
    for body in blocks(ids, SIZE - 2)[:3]:
        block = [tokenizer.cls_token_id, *body, tokenizer.sep_token_id]
        for place in range(1, SIZE - 1):
            hidden = [*block[:place], tokenizer.mask_token_id, *block[place + 1 :]]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([hidden])).logits[0, place].double()
            losses.append(float(torch.logsumexp(logits, 0) - logits[block[place]]))
    assert figures["pseudo_targets"] == len(losses) == 3 * (SIZE - 2)
    assert figures["pseudo_log_likelihood"] == pytest.approx(-math.fsum(losses), rel=1e-6)
    assert figures["pseudo_perplexity"] == pytest.approx(math.exp(math.fsum(losses) / len(losses)), rel=1e-5)
    without = evaluate(folder, **options)
    assert without == {name: value for name, value in figures.items() if not name.startswith("pseudo")}


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_of_pseudo_log_likelihood_change_nothing(size: int, model_folders: dict[str, Path]) -> None:
    options: dict[str, Any] = {"validation_file": "text.txt", "block_size": SIZE, "pseudo_perplexity": True}
    one = evaluate(model_folders["roberta"], **options)
    other = evaluate(model_folders["roberta"], per_device_eval_batch_size=size, **options)
    assert other == pytest.approx(one, rel=2e-6)


def test_isolated_documents_have_views_too(model_folders: dict[str, Path]) -> None:
    documents = ["One document.", "Another one, which is longer.", "The last."]
    options: dict[str, Any] = {"block_size": SIZE, "eval_dataset": documents, "isolate_documents": True}
    pseudo = evaluate(model_folders["roberta"], pseudo_perplexity=True, **options)
    tokenizer = AutoTokenizer.from_pretrained(model_folders["roberta"])
    stream = [token for text in documents for token in tokenizer.encode(text)]
    assert pseudo["pseudo_targets"] == len([token for token in stream if token not in tokenizer.all_special_ids])
    sliding = evaluate(model_folders["gpt2"], stride=STRIDE, **options)
    tokenizer = AutoTokenizer.from_pretrained(model_folders["gpt2"])
    tokens = sum(len(tokenizer.encode(text)) for text in documents)
    assert sliding["sliding_targets"] == tokens - 3, "the first token of a document has nothing before it"


def test_a_run_has_them_at_its_end_and_the_command_line_says_them(model_folders: dict[str, Path], lmtasks: Any) -> None:
    Path("train.txt").write_text(TEXT * 20)
    words = ["--train_file", "train.txt", "--validation_file", "text.txt", "--block_size", SIZE, "--max_steps", 2]
    outcome = lmtasks("run", "causal-lm", "--model", model_folders["gpt2"], "--stride", STRIDE, *words)
    assert outcome.code == 0, outcome.err
    assert "sliding perplexity " in outcome.out
    again = lmtasks("evaluate", "runs/causal-lm")
    assert [line for line in again.out.splitlines() if line.startswith("sliding")] == [
        line for line in outcome.out.splitlines() if line.startswith("sliding")
    ]
    shutil.rmtree("runs")
    result = run("masked-lm", model=str(model_folders["bert"]), train_file="train.txt", validation_file="text.txt",
                 block_size=SIZE, max_steps=2, pseudo_perplexity=True)  # fmt: skip
    assert result.metrics["pseudo_perplexity"] > 1
    outcome = lmtasks("evaluate", "runs/masked-lm")
    assert f"pseudo perplexity {result.metrics['pseudo_perplexity']:.2f}" in " ".join(outcome.out.split())
