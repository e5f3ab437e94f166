"""Probes: what a model sees is measured, whatever its configuration says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from lmtasks import Recipe
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.errors import InputError
from lmtasks.probes import probe

ENCODERS = ("bert", "roberta", "distilbert", "modernbert")
DECODERS = ("gpt2", "llama")


def loaded(folder: Path, kind: str, **config: Any) -> PreTrainedModel:
    model_class = AutoModelForMaskedLM if kind in ENCODERS else AutoModelForCausalLM
    return model_class.from_pretrained(folder, **config)


def a_batch(length: int = 16, last: int = 20) -> dict[str, torch.Tensor]:
    ids = torch.arange(10, 10 + length)[None]
    ids[0, -1] = last
    return {"input_ids": ids, "labels": ids.clone()}


def recipe_for(kind: str) -> Recipe:
    return MASKED_LM if kind in ENCODERS else CAUSAL_LM


@pytest.mark.parametrize("last", [20, 399], ids=["some last token", "the highest last token"])
@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_model_of_the_right_kind_passes(kind: str, last: int, model_folders: dict[str, Path]) -> None:
    probe(loaded(model_folders[kind], kind), recipe_for(kind), a_batch(last=last))


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_sees_what_causal_lm_must_predict(kind: str, model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=f"causal-lm cannot train this {kind} model: it sees the tokens"):
        probe(loaded(model_folders[kind], kind), CAUSAL_LM, a_batch())


@pytest.mark.parametrize("kind", DECODERS)
def test_decoder_does_not_see_what_masked_lm_needs(kind: str, model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=f"masked-lm cannot train this {kind} model: it does not see the text after"):
        probe(loaded(model_folders[kind], kind), MASKED_LM, a_batch())


def test_bert_is_judged_by_what_it_does_and_not_by_its_name(model_folders: dict[str, Path]) -> None:
    config = AutoConfig.from_pretrained(model_folders["bert"])
    config.is_decoder = True
    decoder = AutoModelForCausalLM.from_config(config)
    probe(decoder, CAUSAL_LM, a_batch())
    with pytest.raises(InputError, match="masked-lm cannot train this bert model"):
        probe(decoder, MASKED_LM, a_batch())


def test_recipe_that_says_nothing_about_attention_takes_either(model_folders: dict[str, Path]) -> None:
    recipe = dataclasses.replace(MASKED_LM, attention=None)
    for kind in ("bert", "gpt2"):
        probe(loaded(model_folders[kind], kind), recipe, a_batch())


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2"])
def test_block_longer_than_the_positions_is_refused(kind: str, model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="the model fails on a block of 67 tokens: ") as caught:
        probe(loaded(model_folders[kind], kind), recipe_for(kind), a_batch(67))
    assert "\n" not in caught.value.message


def test_token_beyond_the_vocabulary_is_refused(model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="the model fails on a block of 16 tokens"):
        probe(loaded(model_folders["gpt2"], "gpt2"), CAUSAL_LM, a_batch(last=400))


@pytest.mark.parametrize("training", [True, False])
def test_model_is_left_as_it_was(training: bool, model_folders: dict[str, Path]) -> None:
    model = loaded(model_folders["bert"], "bert").train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = a_batch()
    state = torch.get_rng_state()
    probe(model, MASKED_LM, batch)
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(batch["input_ids"], a_batch()["input_ids"])


def test_dropout_does_not_disturb_the_measurement(model_folders: dict[str, Path]) -> None:
    model = loaded(model_folders["gpt2"], "gpt2", attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5).train()
    probe(model, CAUSAL_LM, a_batch())


@pytest.mark.parametrize(("kind", "size"), [("bert", 128), ("bert", 512), ("gpt2", 512)])
@pytest.mark.parametrize("spread", [0.005, 0.02])
def test_weak_signs_of_looking_ahead_are_signs(kind: str, size: int, spread: float) -> None:
    """Where a changed token would move the logits by less than rounding, the gradient still tells."""
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 2000}
    config = AutoConfig.for_model(kind, **shape, initializer_range=spread)
    torch.manual_seed(0)
    model_class = AutoModelForMaskedLM if kind in ENCODERS else AutoModelForCausalLM
    model = model_class.from_config(config)
    probe(model, recipe_for(kind), a_batch(size))
    with pytest.raises(InputError, match="cannot train"):
        probe(model, CAUSAL_LM if kind in ENCODERS else MASKED_LM, a_batch(size))
