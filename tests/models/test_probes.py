"""Probes: what a model sees is measured, whatever its configuration says."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    LlamaForCausalLM,
    PreTrainedModel,
)
from transformers.modeling_outputs import MaskedLMOutput

from lmtasks import Recipe
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.errors import InputError
from lmtasks.models.probes import probe, probe_first_loss

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


def test_a_model_that_reads_its_input_twice_passes(all_model_folders: dict[str, Path]) -> None:
    probe(AutoModelForMaskedLM.from_pretrained(all_model_folders["bart"]), MASKED_LM, a_batch())


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_sees_what_causal_lm_must_predict(kind: str, model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=f"causal-lm cannot train this {kind} model: it sees the tokens"):
        probe(loaded(model_folders[kind], kind), CAUSAL_LM, a_batch())


@pytest.mark.parametrize("kind", DECODERS)
def test_decoder_does_not_see_what_masked_lm_needs(kind: str, model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=f"masked-lm cannot train this {kind} model: it does not see the text after"):
        probe(loaded(model_folders[kind], kind), MASKED_LM, a_batch())


class Convolving(PreTrainedModel):
    """Mixes positions by a Fourier transform, of twice the length where it is causal."""

    config_class = BertConfig

    def __init__(self, config: Any, share: float = 1.0, around: bool = False) -> None:
        super().__init__(config)
        self.embedding = torch.nn.Embedding(config.vocab_size, 16)
        self.kernel = torch.nn.Parameter(torch.randn(16, 64))
        self.head = torch.nn.Linear(16, config.vocab_size)
        self.share, self.around = share, around
        self.post_init()

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embedding

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        states, length = self.embedding(input_ids).transpose(1, 2), input_ids.shape[1]
        size = length if self.around else 2 * length
        mixed = torch.fft.irfft(torch.fft.rfft(states, size) * torch.fft.rfft(self.kernel[:, :length], size), size)
        seen = (mixed[..., :length] + self.share * states.cumsum(-1)).transpose(1, 2)
        return MaskedLMOutput(logits=self.head(seen))


def test_rounding_is_not_taken_for_sight() -> None:
    model = Convolving(BertConfig(vocab_size=400))
    moved = []
    for last in (20, 30):
        with torch.no_grad():
            moved.append(model(**a_batch(last=last)).logits[:, :-1])
    assert not torch.equal(*moved), "what is not seen leaves rounding, or nothing is tried here"
    probe(model, CAUSAL_LM, a_batch())
    with pytest.raises(InputError, match="does not see the text after"):
        probe(model, MASKED_LM, a_batch())


@pytest.mark.parametrize("weight", [1.0, 1e-4])
def test_a_glance_at_what_follows_is_seen_beside_rounding(weight: float) -> None:
    model = Convolving(BertConfig(vocab_size=400), around=True)
    with torch.no_grad():
        model.kernel[:, 1:] *= weight
    with pytest.raises(InputError, match="it sees the tokens"):
        probe(model, CAUSAL_LM, a_batch())


def test_a_model_that_has_learned_to_look_at_nothing_is_measured_and_not_trained(
    model_folders: dict[str, Path],
) -> None:
    model = loaded(model_folders["gpt2"], "gpt2")
    with pytest.raises(InputError, match="it does not see the text after"):
        probe(model, MASKED_LM, a_batch())
    probe(model, MASKED_LM, a_batch(), training=False)
    with pytest.raises(InputError, match="it sees the tokens"):
        probe(loaded(model_folders["bert"], "bert"), CAUSAL_LM, a_batch(), training=False)


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


# --- the loss before the first step ---


def fresh(kind: str, folder: Path, model_class: Any = None, **changes: Any) -> PreTrainedModel:
    """A new model with the configuration of a folder."""
    config = AutoConfig.from_pretrained(folder, **changes)
    torch.manual_seed(0)
    made: PreTrainedModel = model_class(config) if model_class else _auto(kind).from_config(config)
    return made


def _auto(kind: str) -> Any:
    return AutoModelForMaskedLM if kind in ENCODERS else AutoModelForCausalLM


def collated(kind: str, length: int = 48) -> dict[str, torch.Tensor]:
    """One example of mixed tokens, as the recipes label them: half of them hidden, or all but the first."""
    ids = torch.arange(10, 10 + 7 * length, 7)[None] % 390 + 10
    labels = ids.clone()
    if kind in ENCODERS:
        hidden = torch.arange(length) % 2 == 0
        ids[:, hidden], labels[:, ~hidden] = 4, -100
    else:
        labels[:, 0] = -100
    return {"input_ids": ids, "labels": labels}


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_fresh_model_starts_at_the_price_of_a_guess(kind: str, model_folders: dict[str, Path]) -> None:
    model = fresh(kind, model_folders[kind])
    loss, guess = probe_first_loss(model, recipe_for(kind), collated(kind))
    assert guess == pytest.approx(math.log(400), rel=1e-6)
    assert loss == pytest.approx(math.log(400), rel=0.1)
    # The two are measured apart: small weights are no equal logits.
    assert loss != guess


def test_first_loss_is_the_mean_over_the_targets_without_dropout(model_folders: dict[str, Path]) -> None:
    model = fresh("gpt2", model_folders["gpt2"], attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5).train()
    batch = collated("gpt2")
    loss, _ = probe_first_loss(model, CAUSAL_LM, batch)
    with torch.no_grad():
        logits = model.eval()(input_ids=batch["input_ids"]).logits
    expected = torch.nn.functional.cross_entropy(logits[0, :-1], batch["labels"][0, 1:])
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_guess_is_among_as_many_as_there_are_logits(model_folders: dict[str, Path]) -> None:
    """Vocabularies are padded: what counts is what the softmax runs over."""
    model = fresh("llama", model_folders["llama"])
    model.resize_token_embeddings(1024)
    model.config.vocab_size = 400
    assert probe_first_loss(model, CAUSAL_LM, collated("llama"))[1] == pytest.approx(math.log(1024), rel=1e-6)


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_weights_that_start_too_large_are_refused(kind: str, model_folders: dict[str, Path]) -> None:
    model = fresh(kind, model_folders[kind], initializer_range=1.0)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(5)
    with pytest.raises(InputError) as caught:
        probe_first_loss(model, recipe_for(kind), collated(kind))
    assert caught.value.message.startswith("the new model starts at a loss of ")
    assert caught.value.message.endswith("nats, where a uniform guess costs 5.99")
    assert float(caught.value.message.split()[8]) > 5 * 5.99
    assert "initializer_range" in caught.value.hint
    assert "\n" not in str(caught.value)


class SeesTheNextToken(LlamaForCausalLM):
    """A decoder whose logits are given the token that they should predict."""

    strength = 30.0

    def forward(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
        outputs = super().forward(input_ids=input_ids, **inputs)
        answer = torch.nn.functional.one_hot(input_ids.roll(-1, dims=1), outputs.logits.shape[-1])
        outputs.logits = outputs.logits + self.strength * answer
        return outputs


@pytest.mark.parametrize("strength", [6.0, 30.0])
def test_logits_that_see_the_answer_are_refused(strength: float, model_folders: dict[str, Path]) -> None:
    model = fresh("llama", model_folders["llama"], SeesTheNextToken)
    model.strength = strength
    with pytest.raises(InputError, match=r"starts at a loss of [0-2]\.\d\d nats, .* costs 5\.99") as caught:
        probe_first_loss(model, CAUSAL_LM, collated("llama"))
    assert "see the answer" in caught.value.hint


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(kind: str, value: float, model_folders: dict[str, Path]) -> None:
    model = fresh(kind, model_folders[kind])
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = value
    with pytest.raises(InputError, match=r"starts at a loss of (nan|inf) nats"):
        probe_first_loss(model, recipe_for(kind), collated(kind))


def test_batch_without_targets_says_nothing(model_folders: dict[str, Path]) -> None:
    batch = collated("bert")
    batch["labels"][:] = -100
    assert probe_first_loss(fresh("bert", model_folders["bert"]), MASKED_LM, batch) == (0.0, 0.0)


def test_loss_that_takes_no_logits_from_the_model_is_not_held_to_the_vocabulary(model_folders: dict[str, Path]) -> None:
    def other_loss(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        states = model.base_model(input_ids=batch["input_ids"]).last_hidden_state
        return -states.square().sum(), torch.tensor(states.numel())

    recipe = dataclasses.replace(MASKED_LM, loss=other_loss)
    model = fresh("bert", model_folders["bert"])
    loss, guess = probe_first_loss(model, recipe, collated("bert"))
    assert loss < 0 and guess is None
    torch.nn.init.constant_(model.get_input_embeddings().weight, math.nan)
    with pytest.raises(InputError, match="starts at a loss of nan nats"):
        probe_first_loss(model, recipe, collated("bert"))


class Noisy(BertForMaskedLM):
    """An encoder that draws random numbers even when it does not train."""

    def forward(self, **inputs: Any) -> Any:
        outputs = super().forward(**inputs)
        outputs.logits = outputs.logits + 0.01 * torch.randn_like(outputs.logits)
        return outputs


@pytest.mark.parametrize("training", [True, False])
def test_first_loss_leaves_model_batch_and_random_state_as_they_were(
    training: bool, model_folders: dict[str, Path]
) -> None:
    model = fresh("bert", model_folders["bert"], Noisy).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch, state = collated("bert"), torch.get_rng_state()
    probe_first_loss(model, MASKED_LM, batch)
    assert model.training is training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, collated("bert")[name]) for name, value in batch.items())
    # The logits are the model's own again.
    assert model(input_ids=batch["input_ids"]).logits.any()


def test_refused_model_is_left_in_its_mode(model_folders: dict[str, Path]) -> None:
    model = fresh("llama", model_folders["llama"], SeesTheNextToken).train()
    with pytest.raises(InputError):
        probe_first_loss(model, CAUSAL_LM, collated("llama"))
    assert model.training
    assert torch.is_grad_enabled()
