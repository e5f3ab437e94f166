"""Every token of a text is scored; the sliding figure is the rolling one of lm-evaluation-harness, by definition."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertForMaskedLM,
    BigBirdConfig,
    BigBirdForMaskedLM,
    PreTrainedTokenizerBase,
)

from lmtasks import evaluate
from lmtasks.builtin.causal_lm import CAUSAL_LM, CausalLMOptions
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.text.packing import cut
from lmtasks.data.text.tokenize import Stream
from lmtasks.errors import InputError
from lmtasks.training.evaluation import evaluate_model

TOKENS = 1657
"""Tokens of the text: neither 64 nor 512 divides them."""


def stream_of(tokens: int, end: int) -> Stream:
    """A text of so many tokens with the token at its end."""
    ids = np.append(5 + np.arange(tokens) % 90, end).astype(np.int32)
    return Stream(ids, np.zeros(1, np.int64), rows=1, bytes=4 * tokens)


@pytest.mark.parametrize(
    ("size", "stride"),
    [(64, 1), (64, 16), (64, 63), (128, 100), (200, 1), (200, 16), (200, 128), (512, 1), (512, 63), (512, 128)],
)
def test_a_sliding_window_has_every_token_as_a_target(
    size: int, stride: int, causal_tokenizer: PreTrainedTokenizerBase
) -> None:
    options = CausalLMOptions(block_size=size, stride=stride)
    stream = stream_of(TOKENS, causal_tokenizer.eos_token_id)
    plain = cut(stream, CAUSAL_LM.preprocess(causal_tokenizer, options), whole=True)
    view = plain.recut(CAUSAL_LM.views(causal_tokenizer, options)["sliding"])
    assert len(view) == 1 + -(-(TOKENS + 1 - size) // stride), "a prefix and the text"
    collate = CAUSAL_LM.collator(causal_tokenizer, options, False)
    told = []
    for number in range(len(view)):
        batch = collate([view.example(number)])
        told += batch["labels"][batch["labels"] != -100].tolist()
    assert told == stream.ids[:TOKENS].tolist()


@pytest.mark.parametrize(("size", "blocks", "last"), [(64, 26, 57), (128, 13, 121), (200, 9, 57), (512, 4, 121)])
def test_blocks_of_all_sizes_have_the_same_text(
    size: int,
    blocks: int,
    last: int,
    causal_tokenizer: PreTrainedTokenizerBase,
    masked_tokenizer: PreTrainedTokenizerBase,
) -> None:
    options = CausalLMOptions(block_size=size)
    collate = CAUSAL_LM.collator(causal_tokenizer, options, False)
    plain = cut(stream_of(TOKENS - 1, 2), CAUSAL_LM.preprocess(causal_tokenizer, options), whole=True)
    batches = [collate([plain.example(number)]) for number in range(len(plain))]
    assert (len(plain), plain.whole, batches[-1]["input_ids"].shape[1], plain.tail) == (blocks, blocks - 1, last, 0)
    assert torch.cat([batch["input_ids"][0] for batch in batches]).tolist() == plain.stream.ids.tolist()
    assert sum(int((batch["labels"] != -100).sum()) for batch in batches) == TOKENS - blocks, "but for first tokens"

    hidden = MaskedLMOptions(block_size=size, pseudo_perplexity=True)
    pseudo = plain.recut(MASKED_LM.views(masked_tokenizer, hidden)["pseudo"])
    hide = MASKED_LM.collator(masked_tokenizer, hidden, False)
    labels = [hide([pseudo.example(number)])["labels"] for number in range(len(pseudo))]
    assert torch.cat([row[row != -100] for row in labels]).tolist() == plain.stream.ids[:-1].tolist()


@pytest.mark.parametrize(("tokens", "size"), [(65, 64), (1, 64)])
def test_a_last_block_of_one_token_has_no_target_and_changes_nothing(
    tokens: int, size: int, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Its only token has nothing before it in its block; the sliding window tells it from the block before."""
    folder = model_folders["gpt2"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = ""
    while len(tokenizer.encode(text + "0")) < tokens:
        text += "0"
    (tmp_path / "text.txt").write_text(text := text + "0")
    assert len(tokenizer.encode(text)) == tokens
    figures = evaluate(folder, validation_file=str(tmp_path / "text.txt"), block_size=size, stride=size - 1)
    assert figures["sliding_targets"] == tokens
    assert figures["eval_targets"] == min(tokens, size - 1), "of one block, whose first token is given"
    if tokens == size + 1:
        first = evaluate(
            folder, validation_file=str(tmp_path / "text.txt"), block_size=size, stride=size - 1, max_eval_samples=1
        )
        assert first["sliding_targets"] == size, "the text of the first block alone"


# --- models that cannot take what is short ---


def test_a_model_that_cannot_take_the_short_block_is_refused_before_anything_else(
    model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = BertForMaskedLM.forward

    @functools.wraps(forward)
    def picky(self: BertForMaskedLM, *arguments: Any, **inputs: Any) -> Any:
        if inputs["input_ids"].shape[1] < 16:
            raise ValueError("too short")
        return forward(self, *arguments, **inputs)

    monkeypatch.setattr(BertForMaskedLM, "forward", picky)
    text = tmp_path / "text.txt"
    text.write_text("0 " * 30)
    count = len(AutoTokenizer.from_pretrained(model_folders["bert"]).encode(text.read_text(), add_special_tokens=False))
    blocks, rest = divmod(count, 14)
    assert blocks > 1 and rest
    options: dict[str, Any] = {"validation_file": str(text), "block_size": 16}
    assert evaluate(model_folders["bert"], **options), "which has blocks of one length only"
    with pytest.raises(
        InputError, match=rf"fails on the last {rest + 2} tokens .*, less than a block: too short"
    ) as it:
        evaluate(model_folders["bert"], **options, pseudo_perplexity=True)
    assert it.value.hint == f"--max_eval_samples {blocks} leaves them out"
    seen = evaluate(model_folders["bert"], **options, pseudo_perplexity=True, max_eval_samples=blocks)
    assert seen["pseudo_targets"] == 14 * blocks


def test_a_short_block_does_not_end_the_sparse_attention_of_big_bird(masked_tokenizer: PreTrainedTokenizerBase) -> None:
    config = BigBirdConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        block_size=4, num_random_blocks=1, max_position_embeddings=64, attention_type="block_sparse",
    )  # fmt: skip
    torch.manual_seed(0)
    model = BigBirdForMaskedLM(config)
    options = MaskedLMOptions(block_size=40)
    examples = cut(stream_of(100, 2), MASKED_LM.preprocess(masked_tokenizer, options), whole=True)
    assert 0 < examples.whole < len(examples)
    collate = MASKED_LM.collator(masked_tokenizer, options, False)
    first, second = (evaluate_model(model, MASKED_LM, ExampleDataset(examples, 0), collate, 8) for _ in range(2))
    assert first == second
    assert model.bert.attention_type == model.bert.encoder.layer[0].attention_type == "block_sparse"


# --- lm-evaluation-harness ---


def rolling(folder: Path, text: str, length: int) -> float:
    """Bits per byte as lm-evaluation-harness' ``loglikelihood_rolling`` defines it.

    The model is given at most so many tokens. The first window is the prefix token and the beginning of the text; the
    next go on from the last token of the one before; the last is as long, and only what is new in it counts. The
    prefix is the token that begins texts, or the one that ends them.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer.encode(text, add_special_tokens=False)
    prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    nats, done = 0.0, 0
    while done < len(ids):
        end = min(done + length, len(ids))
        given = [prefix, *ids[: end - 1]] if not done else ids[max(0, end - length - 1) : end - 1]
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([given])).logits[0].double().log_softmax(-1)
        wanted = torch.tensor(ids[done:end])
        nats -= float(logs[-len(wanted) :].gather(1, wanted[:, None]).sum())
        done = end
    return nats / math.log(2) / len(text.encode())


@pytest.mark.parametrize("size", [16, 33, 64])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_sliding_figure_is_the_rolling_one(
    kind: str, size: int, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    text = "In the beginning was a text of a few words – then there was another.\n\n" * 6 + "The end.\n"
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    folder = model_folders[kind]
    figures = evaluate(folder, validation_file=str(tmp_path / "text.txt"), block_size=size, stride=size - 1)
    assert figures["sliding_bits_per_byte"] == pytest.approx(rolling(folder, text, size - 1), abs=1e-5)
    assert figures["sliding_targets"] == len(
        AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False)
    )


def test_line_by_line_it_is_that_of_the_documents_one_by_one(model_folders: dict[str, Path]) -> None:
    texts = ["One text – short.", "Another one, which is longer than a block of sixteen tokens is.", "x"]
    folder = model_folders["gpt2"]
    figures = evaluate(folder, eval_dataset=texts, line_by_line=True, block_size=16, stride=15)
    sizes = [len(text.encode()) for text in texts]
    bits = sum(rolling(folder, text, 15) * size for text, size in zip(texts, sizes, strict=True))
    assert figures["sliding_bits_per_byte"] == pytest.approx(bits / sum(sizes), abs=1e-5)
