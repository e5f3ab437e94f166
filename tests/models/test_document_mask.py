"""Isolated documents: none sees another, each counts its positions from the start, or the model is refused."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel

from lmtasks import InputError, Recipe
from lmtasks.builtin.causal_lm import CAUSAL_LM, CausalLMOptions
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.text.packing import cut
from lmtasks.data.text.tokenize import Stream
from lmtasks.models.architectures import register_architectures
from lmtasks.models.document_mask import isolate, probe_isolation
from lmtasks.models.tiny import shrunk

ENCODERS = ("bert", "roberta", "modernbert", "distilbert")
DECODERS = ("gpt2", "llama")
LENGTHS = (7, 19, 1, 12)
"""Documents that fill a block of 39 tokens; the second is longer than the windows of the models that have one."""

SHAPE = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}


def recipe_for(kind: str) -> Recipe:
    return MASKED_LM if kind in ENCODERS else CAUSAL_LM


def model_of(kind: str, recipe: Recipe, attention: str = "sdpa", **shape: Any) -> PreTrainedModel:
    """A model whose every part matters: larger weights than a fresh one has."""
    config = AutoConfig.for_model(kind, **{**SHAPE, **shape}, pad_token_id=1)
    auto = AutoModelForMaskedLM if recipe is MASKED_LM else AutoModelForCausalLM
    torch.manual_seed(0)
    model = auto.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


def documents(changed: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and numbers of the documents; one of them with other tokens."""
    draw = np.random.default_rng(0)
    parts = [draw.integers(5, 400, length) for length in LENGTHS]
    if changed is not None:
        parts[changed] = np.random.default_rng(1).integers(5, 400, LENGTHS[changed])
    numbers = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    return torch.from_numpy(np.concatenate(parts))[None], torch.from_numpy(numbers)[None]


MODELS = [
    *itertools.product(("bert", "roberta", "distilbert", "gpt2", "llama"), [{}], ("sdpa", "eager")),
    ("modernbert", {"local_attention": 8, "global_attn_every_n_layers": 2}, "sdpa"),
    ("modernbert", {"local_attention": 8, "global_attn_every_n_layers": 2}, "eager"),
    ("mistral", {"sliding_window": 4}, "sdpa"),
    ("gemma2", {"sliding_window": 4, "head_dim": 16}, "eager"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "shape", "attention"), MODELS)
def test_changing_one_document_moves_no_logit_of_another(kind: str, shape: dict[str, Any], attention: str) -> None:
    recipe = recipe_for(kind)
    model = model_of(kind, recipe, attention, **shape)
    ids, numbers = documents()
    with torch.no_grad():
        together = model(input_ids=ids).logits
        isolate(model, recipe)
        before = model(input_ids=ids, document_ids=numbers).logits
        for changed in range(len(LENGTHS)):
            other_ids, _ = documents(changed)
            after = model(input_ids=other_ids, document_ids=numbers).logits
            others = numbers[0] != changed
            assert torch.equal(after[0, others], before[0, others])
            assert (after[0, ~others] - before[0, ~others]).abs().amax(-1).min() > 1e-3
    assert (together - before).abs().max() > 1e-2, "without isolation they do see each other"


@pytest.mark.parametrize(("kind", "shape", "attention"), MODELS)
def test_every_document_comes_out_as_it_does_alone(kind: str, shape: dict[str, Any], attention: str) -> None:
    recipe = recipe_for(kind)
    model = model_of(kind, recipe, attention, **shape).double()
    ids, numbers = documents()
    with torch.no_grad():
        alone = [model(input_ids=ids[:, numbers[0] == number]).logits for number in range(len(LENGTHS))]
        isolate(model, recipe)
        packed = model(input_ids=ids, document_ids=numbers).logits
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), rtol=1e-5, atol=1e-5)  # some attend in float32
    probe_isolation(model, recipe, {"input_ids": ids})


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_padding_and_batch_change_nothing(kind: str) -> None:
    recipe = recipe_for(kind)
    model = model_of(kind, recipe).double()
    isolate(model, recipe)
    ids, numbers = documents()
    padded_ids = torch.nn.functional.pad(ids, (0, 5), value=1)
    padded_numbers = torch.nn.functional.pad(numbers, (0, 5), value=-1)
    mask = (padded_numbers >= 0).long()
    with torch.no_grad():
        expected = model(input_ids=ids, document_ids=numbers).logits
        got = model(input_ids=padded_ids, document_ids=padded_numbers, attention_mask=mask).logits
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got[:, : ids.shape[1]], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "modernbert", "gpt2", "llama"])
def test_the_loss_of_packed_documents_is_that_of_the_documents_alone(kind: str, model_folders: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folders[kind])
    recipe = recipe_for(kind)
    options = MaskedLMOptions() if recipe is MASKED_LM else CausalLMOptions()
    options = dataclasses.replace(options, block_size=39, isolate_documents=True)
    model = model_of(kind, recipe).double()
    isolate(model, recipe)
    ids, _ = documents()
    starts = np.cumsum((0, *LENGTHS[:-1]))
    packed = cut(Stream(ids[0].numpy().astype(np.int32), starts), recipe.preprocess(tokenizer, options))
    batch = recipe.collator(tokenizer, options, False)([ExampleDataset(packed, 0)[0]])
    assert batch["document_ids"].tolist() == [np.repeat(np.arange(len(LENGTHS)), LENGTHS).tolist()]
    with torch.no_grad():
        total, targets, _ = recipe.loss(model, batch)
        expected, count = 0.0, 0
        for start, length in zip(starts, LENGTHS, strict=True):
            inputs, labels = (batch[name][:, start : start + length] for name in ("input_ids", "labels"))
            surprise = -model(input_ids=inputs).logits.double().log_softmax(-1)[0]
            for place in range(length):
                target = int(ids[0, start + place]) if recipe is CAUSAL_LM else int(labels[0, place])
                if recipe is CAUSAL_LM and place:
                    expected, count = expected + float(surprise[place - 1, target]), count + 1
                elif recipe is MASKED_LM and target != -100:
                    expected, count = expected + float(surprise[place, target]), count + 1
    assert int(targets) == count > 3
    assert float(total) == pytest.approx(expected, rel=1e-6)


def test_masked_documents_each_have_the_tokens_around_a_text(model_folders: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folders["roberta"])
    frame = ((tokenizer.cls_token_id,), (tokenizer.sep_token_id,))
    blocks = MASKED_LM.preprocess(tokenizer, MaskedLMOptions(isolate_documents=True))
    assert ((blocks.document_start, blocks.document_end), blocks.start, blocks.end) == (frame, (), ())
    blocks = MASKED_LM.preprocess(tokenizer, MaskedLMOptions())
    assert ((blocks.start, blocks.end), blocks.document_start, blocks.document_end) == (frame, (), ())


# --- what cannot ---


@pytest.mark.parametrize(
    ("kind", "shape", "reason"),
    [
        ("mamba", {}, "it takes no mask of documents"),
        ("fnet", {}, "its tokens see other documents all the same"),
        ("convbert", {}, "its tokens see other documents all the same"),
        ("llama4_text", {"head_dim": 16, "attention_chunk_size": 16}, "a document comes out otherwise than alone"),
    ],
)
def test_a_model_that_cannot_is_refused_with_the_reason(kind: str, shape: dict[str, Any], reason: str) -> None:
    recipe = MASKED_LM if kind in ("fnet", "convbert") else CAUSAL_LM
    config = AutoConfig.for_model(kind, **{**SHAPE, **shape}, pad_token_id=1)
    auto = AutoModelForMaskedLM if recipe is MASKED_LM else AutoModelForCausalLM
    torch.manual_seed(0)
    model = auto.from_config(config)
    isolate(model, recipe)
    with pytest.raises(InputError, match=f"cannot isolate documents with this {kind} model: {reason}") as caught:
        probe_isolation(model, recipe, {"input_ids": documents()[0]})
    assert "--line_by_line" in str(caught.value.hint)


def test_positions_that_go_on_are_noticed() -> None:
    """A model that keeps documents apart, but counts positions across them."""
    model = model_of("roberta", MASKED_LM)
    isolate(model, MASKED_LM)
    model.register_forward_pre_hook(
        lambda module, args, inputs: (args, {**inputs, "position_ids": None}), with_kwargs=True
    )
    with pytest.raises(InputError, match="a document comes out otherwise than alone"):
        probe_isolation(model, MASKED_LM, {"input_ids": documents()[0]})


def test_a_mask_that_is_ignored_is_noticed() -> None:
    model = model_of("bert", MASKED_LM)
    isolate(model, MASKED_LM)
    model.register_forward_pre_hook(
        lambda module, args, inputs: (args, {**inputs, "attention_mask": None}), with_kwargs=True
    )
    with pytest.raises(InputError, match="its tokens see other documents all the same"):
        probe_isolation(model, MASKED_LM, {"input_ids": documents()[0]})


def test_a_recipe_that_does_not_say_what_is_seen_is_refused() -> None:
    with pytest.raises(InputError, match="masked-lm cannot isolate documents: it does not say"):
        isolate(model_of("bert", MASKED_LM), dataclasses.replace(MASKED_LM, attention=None))


@pytest.mark.parametrize("training", [True, False])
def test_probing_leaves_no_trace(training: bool) -> None:
    model = model_of("bert", MASKED_LM).train(training)
    isolate(model, MASKED_LM)
    state = torch.get_rng_state()
    probe_isolation(model, MASKED_LM, {"input_ids": documents()[0]})
    assert model.training is training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_with_gradients_in_training_only_is_refused_like_others() -> None:
    register_architectures()
    config = shrunk(AutoConfig.for_model("reformer"))
    config.vocab_size, config.pad_token_id = 300, 1
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(config)
    isolate(model, MASKED_LM)
    ids = torch.randint(5, 300, (1, 64), generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="masked-lm cannot isolate documents with this reformer model"):
        probe_isolation(model, MASKED_LM, {"input_ids": ids})
