"""Continuous batching: the answers of generate to each prompt alone, with no pass for a row that is finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.inference.continuous_batching import continuously_answered
from lmtasks.inference.predictor import Predictor

TEXTS = ["the list is", "if", "def read(self, size", "the", "class A(object): return self", "import os", "x"] * 2
ENDS = list(range(0, 300, 6))
"""Numbers of tokens that end an answer: so many that some answers end soon and some late."""


@pytest.fixture(scope="module", params=["gpt2", "llama", "bloom"])
def teller(
    request: Any, sharp: dict[str, Path], causal_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Predictor:
    """One that counts positions, one that turns them, and one whose attention fades with distance."""
    folder = sharp.get(request.param)
    if folder is None:
        folder = saved("bloom", causal_tokenizer, tmp_path_factory.mktemp("bloom"), n_head=2, n_layer=2)
    return Predictor(str(folder), CAUSAL_LM)


def saved(kind: str, tokenizer: Any, folder: Path, **shape: Any) -> Path:
    ids = {f"{role}_token_id": tokenizer.eos_token_id for role in ("pad", "bos", "eos")}
    config = AutoConfig.for_model(kind, hidden_size=32, vocab_size=len(tokenizer), **ids, **shape)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:  # a fresh model goes on with its last token, whatever was before
                torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def of_generate(teller: Predictor, **how: Any) -> list[list[int]]:
    """What transformers says to each text alone."""
    folder = teller.pipeline.model.name_or_path
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    more = {"tokenizer": tokenizer} if "stop_strings" in how else {}
    inputs = [tokenizer(text, return_tensors="pt") for text in TEXTS]
    return [model.generate(**one, **how, **more, pad_token_id=0)[0].tolist() for one in inputs]


def ours(teller: Predictor, batch_size: int, **how: Any) -> list[list[int]]:
    answers = teller.predict(TEXTS, batch_size=batch_size, return_tensors=True, **how)
    assert teller.one_by_one is False
    return [answer["generated_token_ids"] for (answer,) in answers]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"eos_token_id": ENDS},
        {"eos_token_id": ENDS, "min_new_tokens": 4},
        {"eos_token_id": ENDS, "min_length": 9},
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 1},
        {"stop_strings": ["e", "s"]},
        {"suppress_tokens": ENDS},
    ],
    ids=lambda how: "-".join(how) or "plain",
)
def test_answers_are_those_of_generate_to_each_prompt_alone(teller: Predictor, how: dict[str, Any]) -> None:
    how = {"max_new_tokens": 11, "do_sample": False, **how}
    wanted = of_generate(teller, **how)
    for batch_size in (2, 3, 8, 32):
        assert ours(teller, batch_size, **how) == wanted


def test_rows_that_are_finished_are_computed_no_more(teller: Predictor) -> None:
    how: dict[str, Any] = {"max_new_tokens": 11, "do_sample": False}
    prompts = [len(teller.tokenizer(text)["input_ids"]) for text in TEXTS]
    plain = of_generate(teller, **how)
    how["eos_token_id"] = [
        ids[length + 2 * (number % 4)] for number, (ids, length) in enumerate(zip(plain, prompts, strict=True))
    ]
    wanted = of_generate(teller, **how)
    new = [len(ids) - length for ids, length in zip(wanted, prompts, strict=True)]
    assert len(set(new)) > 1, "they end at different lengths"
    ours(teller, 4, **how)  # whether padding disturbs is measured once
    rows: list[int] = []
    hook = teller.pipeline.model.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: rows.append(len(inputs[0]))
    )
    ours(teller, 4, **how)
    hook.remove()
    assert sum(rows) == sum(new), "a row of a pass for each new token"
    assert max(rows) == 4


def test_long_prompts_are_not_filled_up_to_the_longest(teller: Predictor) -> None:
    words = " ".join(TEXTS * 2)
    texts = [words[:length] for length in (106, 16, 104, 56, 58, 14, 12)]
    how: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
    wanted = [teller.predict(text, return_tensors=True, **how)[0]["generated_token_ids"] for text in texts]
    teller.predict(texts, batch_size=7, **how)  # whether padding disturbs is measured once
    read: list[tuple[int, int]] = []
    hook = teller.pipeline.model.get_input_embeddings().register_forward_pre_hook(
        lambda module, inputs: read.append(tuple(inputs[0].shape))
    )
    answers = teller.predict(texts, batch_size=7, return_tensors=True, **how)
    hook.remove()
    assert [answer["generated_token_ids"] for (answer,) in answers] == wanted
    lengths = sorted((len(teller.tokenizer(text)["input_ids"]) for text in texts), reverse=True)
    assert 3 * lengths[2] > 64 > 3 * lengths[4], "neither pair is short enough for any filling up, the others are"
    assert read[:3] == [(2, lengths[0]), (2, lengths[2]), (3, lengths[4])]
    assert read[3:] == [(7, 1)] * 4


def test_what_is_drawn_depends_on_the_seed_and_not_on_the_batch(teller: Predictor) -> None:
    how = {"max_new_tokens": 9, "do_sample": True, "temperature": 1.5, "top_k": 0, "eos_token_id": ENDS}
    drawn = ours(teller, 3, seed=7, **how)
    assert drawn == ours(teller, 8, seed=7, **how) == ours(teller, 3, seed=7, **how)
    assert drawn != ours(teller, 3, seed=8, **how)
    (alone,) = teller.predict(TEXTS[0], return_tensors=True, seed=7, **how)
    assert drawn[0] == alone["generated_token_ids"]
    half = len(TEXTS) // 2
    assert drawn[:half] != drawn[half:], "the same texts, but not the same numbers"


def test_without_a_seed_torchs_generator_is_drawn_from(teller: Predictor) -> None:
    how = {"max_new_tokens": 9, "do_sample": True, "temperature": 1.5, "top_k": 0}
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(ours(teller, 4, **how))
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[2] != ours(teller, 4, **how)


def answered(teller: Predictor, **how: Any) -> Any:
    given = {"max_new_tokens": 4, "do_sample": False, **how}
    return continuously_answered(teller.pipeline, teller.prepared(TEXTS, given), 4, given, None)


@pytest.mark.parametrize(
    "how",
    [{"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2}, {"guidance_scale": 2.0}, {"max_time": 9.0}],
)
def test_what_is_about_more_than_a_row_is_left_to_transformers(teller: Predictor, how: dict[str, Any]) -> None:
    assert answered(teller) is not None
    assert answered(teller, **how) is None
    assert len(teller.predict(TEXTS, max_new_tokens=4, **how)) == len(TEXTS)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("mistral", {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "sliding_window": 4}),
        ("mamba", {"num_hidden_layers": 2, "state_size": 4}),
    ],
)
def test_a_model_that_keeps_something_else_is_left_to_transformers(
    kind: str, shape: dict[str, Any], causal_tokenizer: Any, tmp_path: Path
) -> None:
    teller = Predictor(str(saved(kind, causal_tokenizer, tmp_path, **shape)), CAUSAL_LM)
    assert answered(teller) is None
    assert len(teller.predict(TEXTS, max_new_tokens=4, do_sample=False)) == len(TEXTS)
