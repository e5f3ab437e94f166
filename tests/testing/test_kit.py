"""The testing kit: what is right passes, each of many mistakes is found by its check, and it is told what to do."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faulty_models
import numpy as np
import pytest
import torch
import transformers
import two_terms
from frozen_recipe import REFERRED
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from two_terms import TWO_TERMS

import lmtasks.testing
from lmtasks import (
    Architecture,
    BlockOptions,
    Blocks,
    Interrupted,
    LossTerm,
    Recipe,
    model_inputs,
    option,
    target_sums,
    token_mask,
    token_sums,
)
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions
from lmtasks.testing import CheckFailed, check_architecture, check_recipe, checks, installed, prove

CHECKS = {name: check for name, check in checks().items() if check.subjects & {"recipe", "architecture"}}


# --- what is right ---


@pytest.mark.parametrize("recipe", [MASKED_LM, CAUSAL_LM, TWO_TERMS], ids=lambda recipe: recipe.name)
def test_built_in_recipes_pass(recipe: Recipe) -> None:
    began = time.process_time()
    proof = check_recipe(recipe, module="two_terms" if recipe is TWO_TERMS else "")
    assert list(proof.checks) == [name for name, check in CHECKS.items() if "recipe" in check.subjects]
    skipped = {name for name, outcome in proof.checks.items() if outcome.state == "skipped"}
    both_sides = {"special-tokens-are-no-targets", "answers-are-hidden"}
    one_term = set() if recipe is TWO_TERMS else {"weights-are-applied-once"}
    frozen = {"frozen-companions-are-asked", "frozen-companions-stay"}
    assert skipped == frozen | one_term | (both_sides if recipe is CAUSAL_LM else set())
    assert time.process_time() - began < 60


@pytest.mark.parametrize(
    ("model", "recipe"), [("gpt2", CAUSAL_LM), ("llama", CAUSAL_LM), ("roberta", MASKED_LM), ("modernbert", MASKED_LM)]
)
def test_models_of_transformers_are_proved(model: str, recipe: Recipe) -> None:
    proof = prove(model, recipe)
    assert proof.failed == {}
    assert proof.subject == f"{model} with {recipe.name}"
    assert list(proof.checks) == [name for name, check in CHECKS.items() if "architecture" in check.subjects]


def classes(tokenizer: Any, options: Any, training: bool) -> Any:
    """Batches that ask of each whole example whether it has an odd number in its seed."""
    collate = MASKED_LM.collator(tokenizer, options, training)
    return lambda examples: {
        **{name: value for name, value in collate(examples).items() if name != "labels"},
        "labels": torch.tensor([one["seed"][-1] % 2 for one in examples]),
    }


ORDER = replace(
    MASKED_LM,
    name="order",
    collator=classes,
    loss=lambda model, batch: token_sums(model(**model_inputs(batch)).logits, batch["labels"]),
    model_class="transformers:AutoModelForSequenceClassification",
    pipeline="text-classification",
    attention=None,
    vocabulary=False,
    starter=None,
)

OF_CLASSES = ("model-takes-a-block", "loss-is-the-cross-entropy", "loss-has-no-floor", "targets-are-the-text")


def test_a_label_for_each_example_is_checked_without_an_oracle() -> None:
    proof = check_recipe(ORDER, model="bert", only=OF_CLASSES)
    states = {name: proof.checks[name].state for name in OF_CLASSES}
    assert states == dict.fromkeys(OF_CLASSES, "ok") | {"targets-are-the-text": "skipped"}


def test_a_mean_of_such_labels_is_found() -> None:
    halved = replace(ORDER, loss=lambda model, batch: (ORDER.loss(model, batch)[0] / 2, *ORDER.loss(model, batch)[1:]))
    with pytest.raises(CheckFailed, match=r"the loss is .* nats for 4 targets, it should be .* for 4"):
        check_recipe(halved, model="bert", only=OF_CLASSES)


def test_a_floor_is_looked_for_where_the_loss_asks_whatever_the_recipe_declares() -> None:
    proof = check_recipe(replace(CAUSAL_LM, attention=None, starter=None), model="gpt2", only=["loss-has-no-floor"])
    assert proof.checks["loss-has-no-floor"].state == "ok"
    floor = replace(loss_of(lambda total, count, batch, more: (total + count, count, more), CAUSAL_LM), attention=None)
    with pytest.raises(CheckFailed, match=r"certain the loss is 1\.0000 a target"):
        check_recipe(floor, model="gpt2", only=["loss-has-no-floor"])


def test_a_frozen_companion_has_its_tokenizer_beside_it() -> None:
    asked = []

    def collator(tokenizer: Any, options: Any, training: bool) -> Any:
        asked.append(AutoTokenizer.from_pretrained(options.reference)("the fox")["input_ids"])
        return REFERRED.collator(tokenizer, options, training)

    proof = check_recipe(replace(REFERRED, collator=collator), only=["frozen-companions-are-asked"])
    assert proof.checks["frozen-companions-are-asked"].state == "ok"
    assert all(asked)
    assert asked


# --- what is wrong with a recipe ---


def loss_of(change: Callable[..., Any], recipe: Recipe = MASKED_LM) -> Recipe:
    """The recipe with ``change(total, count, batch)`` in place of what its loss returns."""

    def loss(model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        total, count, more = recipe.loss(model, batch)
        return change(total, count, batch, more)

    return replace(recipe, loss=loss)


def collated(change: Callable[..., Any], recipe: Recipe = MASKED_LM, *, evaluation: bool = True) -> Recipe:
    """The recipe whose batches go through ``change(batch, examples, tokenizer)``."""

    def collator(tokenizer: Any, options: Any, training: bool) -> Any:
        collate = recipe.collator(tokenizer, options, training)
        if not training and not evaluation:
            return collate

        def changed(examples: Any) -> Any:
            before = [dict(example) for example in examples]
            return change(collate(examples), before, tokenizer)

        return changed

    return replace(recipe, collator=collator)


def seeded(seed: Callable[..., Any], **where: bool) -> Recipe:
    """masked-lm that draws from ``seed(example, examples)`` instead of the example's own."""

    def collator(tokenizer: Any, options: Any, training: bool) -> Any:
        collate = MASKED_LM.collator(tokenizer, options, training)
        if not where.get("training" if training else "evaluation", True):
            return collate
        return lambda examples: collate([{**example, "seed": seed(example, examples)} for example in examples])

    return replace(MASKED_LM, collator=collator)


def relabelled(batch: dict[str, Any], labels: torch.Tensor) -> dict[str, Any]:
    return {**batch, "labels": labels}


def shifted(labels: torch.Tensor, by: int) -> torch.Tensor:
    moved = torch.full_like(labels, -100)
    if by > 0:
        moved[:, by:] = labels[:, :-by]
    else:
        moved[:, :by] = labels[:, -by:]
    return moved


def mutating(tokenizer: Any, options: Any, training: bool) -> Any:
    collate = MASKED_LM.collator(tokenizer, options, training)

    def changed(examples: Any) -> Any:
        batch = collate(examples)
        for row, example in zip(batch["input_ids"], examples, strict=True):
            example["input_ids"][:] = row[: len(example["input_ids"])].numpy()
        return batch

    return changed


def truncating(tokenizer: Any, options: Any, training: bool) -> Any:
    collate = CAUSAL_LM.collator(tokenizer, options, training)
    return lambda examples: collate([{**one, "input_ids": one["input_ids"][:-1]} for one in examples])


def with_special_targets(batch: dict[str, Any], examples: Any, tokenizer: Any) -> dict[str, Any]:
    labels = batch["labels"].clone()
    labels[:, 0] = batch["input_ids"][:, 0]
    return relabelled(batch, labels)


def with_padding_as_target(batch: dict[str, Any], examples: Any, tokenizer: Any) -> dict[str, Any]:
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    return relabelled(batch, batch["labels"].masked_fill(mask == 0, tokenizer.pad_token_id))


def unmasked(batch: dict[str, Any], examples: Any, tokenizer: Any) -> dict[str, Any]:
    return {**batch, "input_ids": torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])}


def without(*names: str) -> Callable[..., dict[str, Any]]:
    return lambda batch, examples, tokenizer: {name: value for name, value in batch.items() if name not in names}


def half_detached(model: Any, batch: dict[str, Any]) -> Any:
    """Only the head of a llama learns."""
    logits = model.lm_head(model.base_model(**model_inputs(batch)).last_hidden_state.detach())
    labels = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    return lmtasks.token_sums(logits, labels)


def blind_to_mask(model: Any, batch: dict[str, Any]) -> Any:
    return MASKED_LM.loss(model, {name: value for name, value in batch.items() if name != "attention_mask"})


def half_of_the_targets(model: Any, batch: dict[str, Any]) -> Any:
    labels = batch["labels"].clone()
    labels[:, ::2] = -100
    total, _, more = MASKED_LM.loss(model, relabelled(batch, labels))
    return total, (batch["labels"] != -100).sum(), more


def smoothed_value(model: Any, batch: dict[str, Any]) -> Any:
    labels, smoothing = batch["labels"], batch.get("label_smoothing", 0.0)
    logits = model(**model_inputs(batch)).logits.flatten(0, 1)
    total = cross_entropy(logits, labels.flatten(), reduction="sum", label_smoothing=smoothing)
    return total, (labels != -100).sum()


def smoothed_by_half(model: Any, batch: dict[str, Any]) -> Any:
    return MASKED_LM.loss(model, {**batch, "label_smoothing": batch.get("label_smoothing", 0.0) / 2})


def otherwise_when_separated(model: Any, batch: dict[str, Any]) -> Any:
    labels = batch["labels"]
    return target_sums(model, batch, shifted(labels, 1) if hasattr(model, "lmtasks_head") else labels)


def leaving_gaps(tokenizer: Any, options: Any) -> dict[str, Blocks]:
    blocks = MASKED_LM.preprocess(tokenizer, options)
    return {"gaps": replace(blocks, stride=2 * blocks.size)}


def side_by_side(tokenizer: Any, options: Any) -> dict[str, Blocks]:
    blocks = CAUSAL_LM.preprocess(tokenizer, options)
    return {"apart": replace(blocks, stride=blocks.size)}


@dataclass(frozen=True, kw_only=True)
class Undocumented(MaskedLMOptions):
    rate: float = option(0.5, help="", gt=0)


@dataclass(frozen=True, kw_only=True)
class Clashing(MaskedLMOptions):
    learning_rate: float = option(0.5, help="how fast to learn", gt=0)


@dataclass(frozen=True, kw_only=True)
class OutOfRange(MaskedLMOptions):
    rate: float = option(2.0, help="share of something", gt=0, lt=1)


@dataclass(frozen=True, kw_only=True)
class Unbounded(BlockOptions):
    mlm_probability: float = option(0.15, help="share of tokens to predict", gt=0, lt=1)
    eval_mlm_probability: float = option(0.15, help="the same share in evaluation", gt=0, lt=1)
    every: int = option(2, help="hide every so many tokens")


def every_so_many(tokenizer: Any, options: Any, training: bool) -> Any:
    assert [*range(0, 9, options.every)] or options.every < 0
    return MASKED_LM.collator(tokenizer, MaskedLMOptions(block_size=options.block_size), training)


def terms_of(change: Callable[..., Any], targets: Callable[..., Any] = TWO_TERMS.targets) -> Recipe:
    """two-terms with ``change(terms, batch, options)`` in place of its terms."""

    def loss(model: torch.nn.Module, batch: dict[str, Any], options: Any) -> Any:
        terms, more = TWO_TERMS.loss(model, batch, options)
        return change(dict(terms), batch, options), more

    return replace(TWO_TERMS, loss=loss, targets=targets)


def guessed(count: Callable[..., torch.Tensor]) -> Recipe:
    """two-terms with a count ``count(guesses, labels)`` of what the model says."""

    def loss(model: torch.nn.Module, batch: dict[str, Any], options: Any) -> Any:
        terms, more = TWO_TERMS.loss(model, batch, options)
        hidden = batch["labels"] != -100
        counted = count(model(**model_inputs(batch)).logits.argmax(-1)[hidden], batch["labels"][hidden])
        return {**terms, "hidden": replace(terms["hidden"], count=counted.sum())}, more

    return replace(TWO_TERMS, loss=loss)


def referring(change: Callable[..., None]) -> Recipe:
    """referred-lm whose loss does something to its reference first."""

    def loss(model: Any, batch: dict[str, Any]) -> Any:
        change(lmtasks.unwrapped(model).reference)
        return REFERRED.loss(model, batch)

    return replace(REFERRED, loss=loss)


def unasked(model: Any, batch: dict[str, Any]) -> Any:
    terms, more = REFERRED.loss(model, batch)
    return {**terms, "away": replace(terms["away"], sum=0 * terms["away"].sum)}, more


def moved(reference: torch.nn.Module) -> None:
    with torch.no_grad():
        next(reference.parameters()).add_(0.1)


def resized(terms: dict[str, LossTerm], **values: Any) -> dict[str, LossTerm]:
    return {**terms, "size": replace(terms["size"], **values)}


STARTER = MASKED_LM.starter
SPEC = MASKED_LM.tokenizer
assert STARTER is not None
assert SPEC is not None

FAULTS: dict[str, tuple[Recipe, str, str]] = {
    "mean instead of a sum": (
        loss_of(lambda total, count, batch, more: (total / count, count, more)),
        "loss-is-a-sum",
        r"losses of 4 examples add up to \d+.*-> return the sum over all targets and never divide",
    ),
    "divided by the batch": (
        loss_of(lambda total, count, batch, more: (total / len(batch["labels"]), count, more)),
        "loss-is-a-sum",
        r"their batch has \d+\.\d+ \(with gradients\).*-> return the sum",
    ),
    "a constant for each target": (
        loss_of(lambda total, count, batch, more: (total + 0.5 * count, count, more)),
        "loss-has-no-floor",
        r"certain the loss is 0\.5000 a target: no model can lower it further.*-> leave out what stays",
    ),
    "more off than there is": (
        loss_of(lambda total, count, batch, more: (total - 2 * count, count, more)),
        "loss-has-no-floor",
        r"certain the loss is -2\.0000 a target: no cross-entropy is below zero",
    ),
    "mean in evaluation": (
        loss_of(lambda total, count, batch, more: (total if more == {} else total / count, count, more)),
        "evaluation-batches-do-not-matter",
        r"in batches of one example, .* in batches of three.*-> let sums be sums",
    ),
    "mean, accumulated": (
        loss_of(lambda total, count, batch, more: (total / count, count, more)),
        "accumulation-does-not-matter",
        r"loss of step 1 is .* with 1×4 batches, .* with 4×1.*-> return sums",
    ),
    "no pair": (
        loss_of(lambda total, count, batch, more: total),
        "loss-is-a-sum",
        r"loss returns a tensor \[\], no pair.*-> return \(sum of the losses, number of targets\)",
    ),
    "one loss for each target": (
        loss_of(lambda total, count, batch, more: (total.expand(3), count, more)),
        "loss-is-a-sum",
        r"the loss is a tensor \[3\], no scalar.*two scalar tensors",
    ),
    "a count that is no tensor": (
        loss_of(lambda total, count, batch, more: (total, int(count), more)),
        "loss-is-a-sum",
        r"the count is a int, no scalar tensor",
    ),
    "padding counts": (
        replace(
            loss_of(lambda total, count, batch, more: (total, torch.tensor(batch["labels"].numel()), more)),
            targets=lambda batch: batch["labels"].flatten(),
        ),
        "padding-does-not-matter",
        r"4 examples have \d+ targets, their batch \d+.*-> label padding -100, count labels",
    ),
    "a frozen companion that nobody asks": (
        replace(REFERRED, loss=unasked),
        "frozen-companions-are-asked",
        r"the loss is \d+\.\d+ with any 'reference'.*-> ask lmtasks.unwrapped\(model\).reference in the loss",
    ),
    "a frozen companion that learns": (
        referring(lambda reference: reference.requires_grad_(True)),
        "frozen-companions-stay",
        r"'reference' wants gradients after a step, and it is declared as frozen.*-> leave it as it is",
    ),
    "a frozen companion that is moved": (
        referring(moved),
        "frozen-companions-stay",
        r"'reference' has another \S+ after a step",
    ),
    "a frozen companion with dropout": (
        referring(lambda reference: [setattr(part, "training", True) for part in reference.modules()]),
        "frozen-companions-stay",
        r"'reference' is in training mode after a step",
    ),
    "a term that is a mean": (
        terms_of(lambda terms, batch, options: resized(terms, sum=terms["size"].sum / terms["size"].count)),
        "loss-is-a-sum",
        r"the losses of the term 'size' of 4 examples add up to \d+.*-> return the sum over all targets",
    ),
    "a term that some batches lack": (
        terms_of(lambda terms, batch, options: terms if len(batch["labels"]) > 1 else {"hidden": terms["hidden"]}),
        "loss-is-a-sum",
        r"4 of 4 examples have no loss of the term 'size'",
    ),
    "a term whose padding counts": (
        terms_of(
            lambda terms, batch, options: resized(terms, count=torch.tensor(batch["labels"].numel())),
            lambda batch: {**two_terms.targets(batch), "size": batch["labels"].numel()},
        ),
        "padding-does-not-matter",
        r"4 examples have \d+ targets of the term 'size', their batch \d+",
    ),
    "the count of another term": (
        terms_of(lambda terms, batch, options: resized(terms, count=terms["hidden"].count)),
        "count-is-that-of-the-targets",
        r"the loss counts \d+ targets of the term 'size', recipe.targets finds \d+.*-> let both count the same",
    ),
    "a count not known before the model runs": (
        guessed(lambda guesses, labels: guesses % 2),
        "count-is-that-of-the-targets",
        r"the count of the term 'hidden' is \d+ with one model and \d+ with another.*-> count what the batch tells",
    ),
    "a count that falls as the model learns": (
        guessed(lambda guesses, labels: guesses != labels),
        "small-batch-is-learned",
        r"the count of the term 'hidden' goes from \d+ to \d+ in \d+ steps.*-> count what the batch tells",
    ),
    "a term that targets does not count": (
        replace(TWO_TERMS, targets=lambda batch: {"hidden": two_terms.targets(batch)["hidden"]}),
        "count-is-that-of-the-targets",
        r"what targets gives names hidden, the terms of the loss are hidden, size.*-> let `targets` give",
    ),
    "terms with targets that have no names": (
        replace(TWO_TERMS, targets=MASKED_LM.targets),
        "count-is-that-of-the-targets",
        r"what targets gives is a tensor \[\d+\], the terms of the loss are hidden, size",
    ),
    "names of targets without terms": (
        replace(MASKED_LM, targets=two_terms.targets),
        "count-is-that-of-the-targets",
        r"what targets gives names hidden, size, and the loss has no terms",
    ),
    "a count that is a share": (
        replace(TWO_TERMS, targets=lambda batch: {**two_terms.targets(batch), "size": 0.5}),
        "count-is-that-of-the-targets",
        r"targets gives a float of the term 'size'.*-> give the ids .* or a count",
    ),
    "a weight applied twice": (
        terms_of(lambda terms, batch, options: resized(terms, sum=terms["size"].sum * options.size_weight)),
        "weights-are-applied-once",
        r"--size_weight changes the weight of the term 'size' from 50.0 to 25.0, and its sum from .*counts twice"
        r".*-> leave the weight out of the sum",
    ),
    "a weight of the batch": (
        terms_of(lambda terms, batch, options: resized(terms, weight=float(len(batch["labels"])))),
        "weights-are-applied-once",
        r"the weight of the term 'size' is 4.0 in one batch and 1.0 in another.*-> make it a number of the options",
    ),
    "a weight that no option says, applied twice": (
        terms_of(
            lambda terms, batch, options: {
                **terms,
                "hidden": LossTerm(terms["hidden"].sum * 3, terms["hidden"].count, 3),
            }
        ),
        "loss-is-the-cross-entropy",
        r"the sum of the term 'hidden' is \d+\.\d+, its weight of 3 times what it should be.*-> leave the weight out",
    ),
    "a weight that is a tensor": (
        terms_of(lambda terms, batch, options: resized(terms, weight=torch.tensor(2.0))),
        "loss-is-a-sum",
        r"the weight of the term 'size' is tensor\(2.\).*-> make it a number of Python's",
    ),
    "a term that is a pair": (
        terms_of(lambda terms, batch, options: {**terms, "size": (terms["size"].sum, terms["size"].count)}),
        "loss-is-a-sum",
        r"the term 'size' is a tuple, no LossTerm.*or \{name: LossTerm\(sum, count, weight\)\}",
    ),
    "a term with a name that is none": (
        terms_of(lambda terms, batch, options: {"Hidden words": terms["hidden"]}),
        "loss-is-a-sum",
        r"a term of a loss cannot be called 'Hidden words'.*-> name it like 'generator'",
    ),
    "no terms": (
        terms_of(lambda terms, batch, options: {}),
        "loss-is-a-sum",
        r"a loss has no term.*-> return \{name: LossTerm",
    ),
    "counts all positions": (
        loss_of(lambda total, count, batch, more: (total, torch.tensor(batch["labels"].numel()), more)),
        "count-is-that-of-the-targets",
        r"the loss counts \d+ targets, recipe.targets finds \d+.*-> let both count the same",
    ),
    "no labels": (
        collated(
            lambda batch, examples, tokenizer: relabelled(batch, torch.full_like(batch["labels"], -100)),
            evaluation=False,
        ),
        "count-is-that-of-the-targets",
        r"has no target.*collator makes labels",
    ),
    "mask from a global generator": (
        seeded(lambda example, examples: int(np.random.randint(1 << 30))),
        "batches-are-repeatable",
        r"have another '\w+'.*-> draw only from numpy.random.default_rng\(example\['seed'\]\)",
    ),
    "mask from the clock": (
        seeded(lambda example, examples: int(time.time()) // 3600),
        "batches-are-repeatable",
        r"collated a second time have another.*not from global generators, the clock",
    ),
    "mask not fixed in evaluation": (
        seeded(lambda example, examples: random.randrange(1 << 30), training=False),
        "evaluation-is-fixed",
        r"have another '\w+'.*-> draw only from",
    ),
    "mask from the batch": (
        seeded(lambda example, examples: (*example["seed"], len(examples))),
        "neighbours-do-not-matter",
        r"'\w+' of an example depends on the examples beside it.*-> make each example from its own ids",
    ),
    "mask always the same": (
        seeded(lambda example, examples: example["seed"][::2]),
        "epochs-differ",
        r"does not depend on the epoch.*-> give all of example\['seed'\]",
    ),
    "changes its examples": (
        replace(MASKED_LM, collator=mutating),
        "examples-stay-as-they-are",
        r"the collator changes 'input_ids' of its examples.*-> work on copies",
    ),
    "labels shifted": (
        collated(lambda batch, examples, tokenizer: relabelled(batch, shifted(batch["labels"], 1))),
        "targets-are-the-text",
        r"position \d+ of an example is asked for token \d+, its own token is \d+.*-> shift once",
    ),
    "labels shifted twice": (
        collated(lambda batch, examples, tokenizer: relabelled(batch, shifted(batch["labels"], -1)), CAUSAL_LM),
        "targets-are-the-text",
        r"is asked for token \d+, the next token is \d+.*lmtasks.causal_loss",
    ),
    "padding is a target": (
        collated(with_padding_as_target),
        "padding-is-no-target",
        r"padding has labels.*-> set labels to -100",
    ),
    "no mask for padding": (
        collated(without("attention_mask")),
        "padding-is-no-target",
        r"no attention_mask.*-> collate with lmtasks.stack",
    ),
    "special tokens are targets": (
        collated(with_special_targets),
        "special-tokens-are-no-targets",
        r"special tokens are targets: <s>.*-> label no position",
    ),
    "the answer stands in the input": (
        collated(unmasked),
        "answers-are-hidden",
        r"100% of the targets stand in the input.*-> put tokenizer.mask_token_id",
    ),
    "cuts off tokens": (
        replace(CAUSAL_LM, collator=truncating),
        "tokens-are-kept",
        r"1 of the 32 tokens of an example are not in its batch.*-> put all of them",
    ),
    "blocks of its own size": (
        replace(MASKED_LM, preprocess=lambda tokenizer, options: Blocks(size=40)),
        "blocks-have-the-size-that-was-asked-for",
        r"examples have 40 tokens in a batch, block_size is 32.*-> take the size from options",
    ),
    "no blocks at all": (
        replace(MASKED_LM, preprocess=lambda tokenizer, options: {"size": 32}),
        "blocks-have-the-size-that-was-asked-for",
        r"preprocess gives dict.*-> return lmtasks.Blocks",
    ),
    "a view that leaves out tokens": (
        replace(MASKED_LM, views=leaving_gaps),
        "views-score-every-token-once",
        r"the view 'gaps' scores \d+ of \d+ tokens.*-> let `stride` be at most",
    ),
    "a view whose blocks do not overlap": (
        replace(CAUSAL_LM, views=side_by_side),
        "views-score-every-token-once",
        r"in the view 'apart' the first token that a block scores is no target.*-> let blocks overlap",
    ),
    "a view whose targets are anywhere": (
        replace(
            CAUSAL_LM,
            collator=lambda tokenizer, options, training: (
                lambda examples: CAUSAL_LM.collator(tokenizer, options, training)(
                    [{name: part for name, part in one.items() if name != "scored"} for one in examples]
                )
            ),
        ),
        "views-score-every-token-once",
        r"in the view 'sliding' tokens are targets that example\['scored'\] does not have.*-> label only",
    ),
    "detached": (
        replace(CAUSAL_LM, loss=half_detached),
        "parameters-move",
        r"\d+ of \d+ parameters have not moved.*model.layers.0.*-> let the loss depend on them",
    ),
    "no gradient": (
        loss_of(lambda total, count, batch, more: (total.detach(), count, more)),
        "small-batch-is-learned",
        r"four examples cannot be learned.*-> see that the gradient flows",
    ),
    "a gradient of half the size": (
        loss_of(lambda total, count, batch, more: (total / 2 + total.detach() / 2, count, more)),
        "loss-is-the-cross-entropy",
        r"the gradient of the loss is not that of its value: they differ by 50.0%.*no detach",
    ),
    "a part of the targets": (
        replace(MASKED_LM, loss=half_of_the_targets),
        "loss-is-the-cross-entropy",
        r"the loss is \d+.* nats for (\d+) targets, it should be \d+.* for \1.*-> sum -log p over every label",
    ),
    "the mask kept from the model": (
        replace(MASKED_LM, loss=blind_to_mask),
        "padding-does-not-matter",
        r"add up to .*the model gets attention_mask and heeds it",
    ),
    "another loss when the head is separate": (
        replace(MASKED_LM, loss=otherwise_when_separated),
        "fast-head-is-the-plain-head",
        r"with its head on the targets only, the model has a loss of .*-> hand all of the batch but labels",
    ),
    "smoothing is published": (
        replace(MASKED_LM, loss=smoothed_value, metrics=("lmtasks.metrics:Perplexity",)),
        "label-smoothing-is-heeded-or-refused",
        r"label smoothing changes the loss that is published.*-> let it change the gradient only",
    ),
    "smoothing by another factor": (
        replace(MASKED_LM, loss=smoothed_by_half),
        "label-smoothing-is-heeded-or-refused",
        r"the gradient with label smoothing is not.*-> pass batch\['label_smoothing'\] on",
    ),
    "a metric without its sum": (
        loss_of(lambda total, count, batch, more: (total, count)),
        "metrics-get-their-sums",
        r"lmtasks.metrics:Accuracy wants correct, the loss gives loss, targets.*-> return it as a third item",
    ),
    "a mean among the sums": (
        loss_of(lambda total, count, batch, more: (total, count, {"correct": total / count})),
        "metrics-get-their-sums",
        r"'correct' is \d+.*-> return sums over the batch",
    ),
    "a causal recipe that declares both sides": (
        replace(CAUSAL_LM, attention="bidirectional"),
        "attention-is-as-declared",
        r"does not see the text after a position.*-> the recipe declares attention='bidirectional'",
    ),
    "a model that sees the future": (
        replace(MASKED_LM, attention="causal"),
        "attention-is-as-declared",
        r"it sees the tokens that it should predict.*-> the recipe declares attention='causal'",
    ),
    "documents that leak": (
        collated(without("document_ids")),
        "documents-stay-isolated",
        r"the loss of the second document in a block depends on the first.*-> keep the document_ids",
    ),
    "a document asked of the one before it": (
        collated(
            lambda batch, examples, tokenizer: (
                relabelled(batch, batch["input_ids"].clone()) if "document_ids" in batch else batch
            ),
            CAUSAL_LM,
        ),
        "documents-stay-isolated",
        r"depends on the first.*make no target of the first token",
    ),
    "a pipeline for other models": (
        replace(CAUSAL_LM, pipeline="fill-mask"),
        "pipeline-answers",
        r"the pipeline 'fill-mask' is not for models of AutoModelForCausalLM.*-> name another: text-generation",
    ),
    "a pipeline that nobody has": (
        replace(CAUSAL_LM, pipeline="text-continuation"),
        "pipeline-answers",
        r"there is no pipeline 'text-continuation'.*-> name another: text-generation",
    ),
    "a prompt without a mask": (
        replace(MASKED_LM, prompt=lambda tokenizer, text: text.replace("<mask>", "")),
        "pipeline-answers",
        r"the pipeline 'fill-mask' does not answer .*-> see that model_class, pipeline and prompt belong together",
    ),
    "a prompt that is no text": (
        replace(MASKED_LM, prompt=lambda tokenizer, text: [text]),
        "prompt-and-answers-are-text",
        r"prompt gives \[.*-> give the text that the pipeline gets",
    ),
    "answers that are no lines": (
        replace(MASKED_LM, answers=lambda output: str(output)),
        "prompt-and-answers-are-text",
        r"answers gives .*-> give a list of lines",
    ),
    "a perplexity without a name": (
        replace(MASKED_LM, perplexity_name=lambda options: ""),
        "run-works",
        r"perplexity_name gives ''.*-> give words for people",
    ),
    "an option without help": (
        replace(MASKED_LM, options=Undocumented),
        "options-are-documented",
        r"--rate has the help ''.*-> say in one line",
    ),
    "an option of TrainingArguments": (
        replace(MASKED_LM, options=Clashing),
        "options-are-documented",
        r"--learning_rate is already .*-> call the option, or its alias, something else",
    ),
    "a default out of its range": (
        replace(MASKED_LM, options=OutOfRange),
        "options-are-documented",
        r"its own default is refused: --rate cannot be 2.0.*-> change the default, or its range",
    ),
    "an option that lets in what fails": (
        replace(MASKED_LM, options=Unbounded, collator=every_so_many),
        "options-hold-or-refuse",
        r"--every 0 is accepted, and then fails with ValueError: range\(\).*-> give the option a range",
    ),
    "a starter with an unknown option": (
        replace(MASKED_LM, starter=replace(STARTER, training={"span": 3})),
        "starter-is-valid",
        r"the starter cannot be run: unknown option '--span'.*-> correct Starter",
    ),
    "a starter of an unknown text": (
        replace(MASKED_LM, starter=replace(STARTER, sample="rust")),
        "starter-is-valid",
        r"there is no embedded text 'rust'.*-> take one of python",
    ),
    "a starter with an empty text": (
        replace(MASKED_LM, starter=replace(STARTER, texts=("",))),
        "starter-is-valid",
        r"the starter's texts have ''",
    ),
    "a tokenizer without a required token": (
        replace(MASKED_LM, required_tokens=("mask_token", "additional_token")),
        "tokenizer-spec-is-complete",
        r"required_tokens has additional_token, the TokenizerSpec has none.*-> add it: special_tokens=",
    ),
    "a template of unknown tokens": (
        replace(MASKED_LM, tokenizer=replace(SPEC, template="<s> $A <end>")),
        "tokenizer-spec-is-complete",
        r"the template has <end>, no special token.*-> add it to special_tokens",
    ),
}


@pytest.mark.seeded
@pytest.mark.parametrize("name", FAULTS)
def test_each_mistake_of_a_recipe_is_found_and_it_is_said_what_to_do(name: str) -> None:
    recipe, check, message = FAULTS[name]
    with pytest.raises(CheckFailed) as failure:
        check_recipe(recipe, only=[check])
    assert failure.value.failed == (check,)
    assert re.search(message, str(failure.value), re.DOTALL), str(failure.value)


# --- what is wrong with a module ---


@pytest.mark.seeded
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import torch", r"importing '\w+' imports .*torch.*-> import them inside the functions"),
        ("import numpy as np", r"importing '\w+' imports numpy"),
        ("raise OSError('no such disk')", r"cannot be imported on its own: OSError: no such disk.*-> mend"),
    ],
)
def test_a_module_with_a_heavy_or_broken_top_is_found(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_recipe.py").write_text(text + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(CheckFailed) as failure:
        check_recipe(MASKED_LM, module="heavy_recipe", only=["import-is-light"])
    assert re.search(message, str(failure.value), re.DOTALL), str(failure.value)


def test_a_recipe_of_no_plugin_needs_its_module_named() -> None:
    outcome = check_recipe(replace(MASKED_LM, name="mine"), only=["import-is-light"]).checks["import-is-light"]
    assert str(outcome) == "skipped: no installed plugin has this recipe; module='...' says where it is declared"


# --- what is wrong with an architecture ---


@pytest.fixture
def architecture() -> Iterator[Callable[..., Architecture]]:
    """``architecture("Noisy")``: one of faulty_models.py under a model type of its own, unknown again afterwards."""
    made = []

    def declare(name: str, **values: Any) -> Architecture:
        kind = f"mixer-{name.lower()}"
        config = type(
            f"{name}Config", (faulty_models.MixerConfig,), {"model_type": kind, "__module__": "faulty_models"}
        )
        model = getattr(faulty_models, name)
        monkeypatch.setattr(faulty_models, config.__name__, config, raising=False)
        monkeypatch.setattr(model, "config_class", config)
        auto = "AutoModelForCausalLM" if model.causal or name == "Clairvoyant" else "AutoModelForMaskedLM"
        made.append((kind, config, getattr(transformers, auto)))
        declared = {
            "config": f"faulty_models:{config.__name__}",
            "models": {auto: f"faulty_models:{name}"},
            "tiny": {"hidden_size": 16},
        }
        return Architecture(model_type=kind, **{**declared, **values})

    with pytest.MonkeyPatch.context() as monkeypatch:
        yield declare
    for kind, config, auto in made:
        CONFIG_MAPPING._extra_content.pop(kind, None)
        auto._model_mapping._extra_content.pop(config, None)


@pytest.mark.parametrize("name", ["Mixer", "CausalMixer"])
def test_a_right_architecture_passes_with_every_recipe_that_it_declares(name: str, architecture: Any) -> None:
    recipe = CAUSAL_LM if name == "CausalMixer" else MASKED_LM
    # Installed packages may have recipes of the same class.
    proofs = {proof.subject: proof for proof in check_architecture(architecture(name))}
    proof = proofs[f"mixer-{name.lower()} with {recipe.name}"]
    assert {outcome.state for outcome in proof.checks.values()} == {"ok"}
    assert proof.checks["fast-head-is-the-plain-head"].reason.startswith("the head runs on every position: ")


MODEL_FAULTS = {
    "UnsavedScale": ("saved-is-what-was-trained", r"cannot be loaded and used: .*-> keep everything that the logits"),
    "LostPositions": ("saved-is-what-was-trained", r"gives other logits .*other buffers must follow from the conf"),
    "SecretTie": ("saved-is-what-was-trained", r"cannot be saved: .*-> name weights .* in _tied_weights_keys"),
    "LostTie": ("saved-is-what-was-trained", r"after.weight and before.weight were one weight.*-> name weights"),
    "DeafToMask": ("padding-does-not-matter", r"add up to .*, their batch has .*attention_mask and heeds it"),
    "Idle": ("parameters-move", r"2 of 7 parameters have not moved.*unused.weight, unused.bias.*name them in unmoved"),
    "Clairvoyant": ("attention-is-as-declared", r"it sees the tokens that it should predict"),
    "Noisy": ("model-is-repeatable", r"answers differently the second time.*-> apply dropout"),
    "Sociable": ("loss-is-a-sum", r"add up to .*, their batch has"),
    "Loud": ("first-loss-is-that-of-a-guess", r"starts at a loss of .*-> if it is too large, start with smaller"),
    "Short": ("model-takes-a-block", r"fails on a block of 32 tokens: .*-> let forward take what the collator makes"),
    "Blank": ("model-takes-a-block", r"finite: False.*-> give logits"),
    "Moody": (
        "batched-answers-are-the-same",
        r"alone, the answer begins .*, in a batch .*-> let the model draw nothing",
    ),
    "LeftBehind": (
        "texts-share-a-batch",
        r"padding changes the answers, so texts are answered one by one.*-> let the model heed attention_mask",
    ),
    "Mute": ("pipeline-answers", r"does not answer .*a model for a pipeline that generates inherits from"),
}


@pytest.mark.seeded
@pytest.mark.parametrize("name", MODEL_FAULTS)
def test_each_mistake_of_a_model_is_found_and_it_is_said_what_to_do(name: str, architecture: Any) -> None:
    check, message = MODEL_FAULTS[name]
    with pytest.raises(CheckFailed) as failure:
        check_architecture(architecture(name), only=[check])
    assert failure.value.failed == (check,)
    assert re.search(message, str(failure.value), re.DOTALL), str(failure.value)


def test_what_cannot_run_is_told_once(architecture: Any) -> None:
    with pytest.raises(CheckFailed) as failure:
        check_architecture(architecture("Short"))
    assert failure.value.failed == ("model-takes-a-block",)
    outcomes = failure.value.proofs[0].checks
    assert str(outcomes["parameters-move"]) == "skipped: not reached: model-takes-a-block failed"
    last = str(failure.value).splitlines()[-1]
    assert last.startswith("  not reached before this is mended: model-is-repeatable, first-loss-is-that-of-a-guess, ")
    assert last.endswith(", texts-share-a-batch")


def test_a_fault_is_told_once_with_all_checks_that_found_it() -> None:
    def crashing(tokenizer: Any, options: Any, training: bool) -> Any:
        raise KeyError("words")

    broken = replace(MASKED_LM, collator=crashing, starter=None)
    found = ["tokens-are-kept", "batches-are-repeatable", "epochs-differ"]
    with pytest.raises(CheckFailed) as failure:
        check_recipe(broken, only=[*found, "evaluation-is-fixed"])
    assert failure.value.failed == tuple(found)
    title, fault, advice, others, unreached = str(failure.value).splitlines()
    assert title == "masked-lm: 3 of 4 checks failed"
    assert re.fullmatch(r"  tokens-are-kept: KeyError: 'words' \(test_kit.py, line \d+\)", fault)
    assert advice.startswith("    -> mend what raises this")
    assert others == "    found by batches-are-repeatable, epochs-differ as well"
    assert unreached == "  not reached before this is mended: evaluation-is-fixed"
    assert failure.value.proofs[0].unreached == ("evaluation-is-fixed",)


def test_a_causal_loss_is_zero_where_each_next_token_is_known() -> None:
    check = "loss-has-no-floor"
    assert check_recipe(CAUSAL_LM, model="gpt2", only=[check]).checks[check].state == "ok"
    unmoved = replace(CAUSAL_LM, loss=lambda model, batch: target_sums(model, batch, batch["labels"]))
    with pytest.raises(CheckFailed, match="certain the loss is"):
        check_recipe(unmoved, model="gpt2", only=[check])


def test_a_floor_is_looked_for_in_the_first_term_only() -> None:
    check = "loss-has-no-floor"
    lifted = terms_of(lambda terms, batch, options: resized(terms, sum=terms["size"].sum + 5))
    assert check_recipe(lifted, only=[check]).checks[check].state == "ok"
    more = terms_of(lambda terms, *_: {**terms, "hidden": replace(terms["hidden"], sum=terms["hidden"].sum + 5)})
    with pytest.raises(CheckFailed, match="certain the loss of the term 'hidden' is"):
        check_recipe(more, only=[check])


@pytest.mark.seeded
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tiny": {}}, r"has no tiny configuration.*-> give tiny="),
        ({"tiny": {"hidden_size": 2_000}}, r"its tiny model has \d+,\d+,\d+ parameters.*-> shrink `tiny`"),
        ({"config": "faulty_models:Nothing"}, r"cannot be used: .*Nothing.*-> see that config and models name classes"),
        ({"models": {}}, r"no installed recipe trains one of its classes.*-> declare models="),
        ({"models": {"AutoModelForCTC": "faulty_models:Mixer"}}, r"no installed recipe trains one of AutoModelForCTC"),
    ],
)
def test_a_wrong_declaration_of_an_architecture_is_found(values: Any, message: str, architecture: Any) -> None:
    with pytest.raises(CheckFailed) as failure:
        check_architecture(architecture("CausalMixer", **values))
    assert failure.value.failed == ("architecture-registers",)
    assert re.search(message, str(failure.value), re.DOTALL), str(failure.value)


def test_parameters_may_be_allowed_to_stay_where_they_are(architecture: Any) -> None:
    idle = architecture("Idle")
    (proof,) = check_architecture(idle, CAUSAL_LM, unmoved=["unused.*"], only=["parameters-move"])
    assert str(proof.checks["parameters-move"]) == "ok: these do not move: unused.weight, unused.bias"


def test_a_model_type_that_nobody_has_is_a_finding() -> None:
    proof = prove("lama", CAUSAL_LM)
    assert list(proof.failed) == ["architecture-registers"]
    assert proof.failed["architecture-registers"].reason == "unknown model type 'lama', did you mean 'llama'?"
    assert {outcome.state for outcome in proof.checks.values()} == {"failed", "skipped"}


def test_options_model_and_tokenizer_can_be_given(causal_tokenizer: Any) -> None:
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=16)
    proof = prove(config, CAUSAL_LM, causal_tokenizer, options={"block_size": 12}, text="fox")
    assert proof.failed == {}
    assert proof.subject == "gpt2 with causal-lm"
    with pytest.raises(CheckFailed, match=r"model-takes-a-block: the tiny model fails on a block of 20 tokens"):
        check_recipe(CAUSAL_LM, model=config, options={"block_size": 20}, only=["model-takes-a-block"])


# --- the kit itself ---


def test_every_check_is_shown_to_find_something() -> None:
    found = {check for _, check, _ in FAULTS.values()} | {check for check, _ in MODEL_FAULTS.values()}
    assert found | {"import-is-light", "architecture-registers"} == CHECKS.keys()
    assert len(FAULTS) >= 20


def test_all_that_failed_is_in_one_error() -> None:
    wrong = replace(FAULTS["labels shifted"][0], answers=str, options=Undocumented)
    names = ["options-are-documented", "targets-are-the-text", "prompt-and-answers-are-text", "batches-are-repeatable"]
    with pytest.raises(AssertionError, match=r"^masked-lm: 3 of 4 checks failed\n") as failure:
        check_recipe(wrong, only=names)
    assert isinstance(failure.value, CheckFailed)
    assert failure.value.failed == tuple(names[:3])
    assert len(re.findall(r"^    -> ", str(failure.value), re.MULTILINE)) == 3


def test_a_finding_names_file_and_line_of_the_function_that_it_is_about() -> None:
    line = loss_of.__code__.co_firstlineno + 3
    with pytest.raises(CheckFailed, match=rf"\(with gradients\) \(loss: test_kit.py, line {line}\)\n"):
        check_recipe(FAULTS["mean instead of a sum"][0], only=["loss-is-a-sum"])
    with pytest.raises(CheckFailed) as failure:  # the loss is ours, and so is the function that the check is about
        check_recipe(FAULTS["labels shifted"][0], only=["targets-are-the-text"])
    assert "(loss:" not in str(failure.value)
    named = replace(MASKED_LM, loss="test_kit:half_of_the_targets")
    line = half_of_the_targets.__code__.co_firstlineno
    with pytest.raises(CheckFailed, match=rf"\(loss: test_kit.py, line {line}\)"):
        check_recipe(named, only=["loss-is-the-cross-entropy"])


def test_code_that_breaks_is_a_finding_with_its_place() -> None:
    def collator(tokenizer: Any, options: Any, training: bool) -> Any:
        raise KeyError("span")

    with pytest.raises(CheckFailed, match=r"KeyError: 'span' \(test_kit.py, line \d+\)"):
        check_recipe(replace(MASKED_LM, collator=collator), only=["tokens-are-kept"])


def test_checks_can_be_left_out_with_a_reason() -> None:
    wrong = replace(MASKED_LM, answers=str)
    proof = check_recipe(
        wrong, only=["prompt-and-answers-are-text"], skip={"prompt-and-answers-are-text": "nobody reads them"}
    )
    assert str(proof.checks["prompt-and-answers-are-text"]) == "skipped: left out: nobody reads them"
    for values in ({"skip": {"loss-is-sum": "a typo"}}, {"only": ["loss-is-sum"]}):
        with pytest.raises(ValueError, match="there is no check 'loss-is-sum', did you mean 'loss-is-a-sum'"):
            check_recipe(MASKED_LM, **values)


def test_a_loss_that_is_no_cross_entropy_has_an_oracle_of_its_own() -> None:
    def squared(model: torch.nn.Module, batch: dict[str, Any]) -> tuple[torch.Tensor, int]:
        wanted = batch["labels"] != -100
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        likelihoods = model(**inputs).logits[wanted].log_softmax(-1)
        return likelihoods.gather(1, batch["labels"][wanted, None]).square().sum(), int(wanted.sum())

    def loss(model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        inputs = {name: value for name, value in batch.items() if name != "label_smoothing"}
        total, count = squared(model, inputs)
        return total, torch.tensor(count)

    recipe = replace(MASKED_LM, loss=loss, metrics=("lmtasks.metrics:Perplexity",))
    names = ["loss-is-the-cross-entropy", "loss-is-a-sum", "label-smoothing-is-heeded-or-refused"]
    with pytest.raises(CheckFailed, match=r"needs check_recipe\(oracle=...\)"):
        check_recipe(recipe, only=names)
    proof = check_recipe(recipe, oracle=squared, only=names)
    assert proof.checks[names[2]].reason == "refused: masked-lm takes no notice of --label_smoothing_factor"


def test_a_recipe_without_starter_or_tokenizer_gets_both() -> None:
    bare = replace(MASKED_LM, starter=None, tokenizer=None)
    proof = check_recipe(bare, text="the <mask> fox", predict={"top_k": 2})
    skipped = {name for name, outcome in proof.checks.items() if outcome.state == "skipped"}
    undeclared = {"import-is-light", "starter-is-valid", "tokenizer-spec-is-complete"}
    undeclared |= {"frozen-companions-are-asked", "frozen-companions-stay"}
    assert skipped == undeclared | {"weights-are-applied-once"}


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for generator in (random.seed, np.random.seed, torch.manual_seed):
        generator(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    for generator in (random.seed, np.random.seed, torch.manual_seed):
        generator(1)
    check_recipe(CAUSAL_LM, only=["run-works", "batches-are-repeatable", "parameters-move"])
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_signal_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        raise Interrupted("stopped by SIGINT", "", 2)

    with pytest.raises(Interrupted):
        check_recipe(replace(MASKED_LM, loss=loss), only=["loss-is-a-sum"])


def test_every_check_makes_its_claim_in_words() -> None:
    for name, check in CHECKS.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", name)
        assert check.summary.endswith("."), name
        assert check.subjects <= {"recipe", "architecture"}
        assert check.subjects, name


# --- what it costs those who do not use it ---

HEAVY = "{'torch', 'transformers', 'datasets', 'evaluate', 'numpy', 'huggingface_hub', 'tokenizers'}"


@pytest.mark.parametrize("module", ["lmtasks.testing", "lmtasks.testing.fixtures"])
def test_importing_the_kit_is_light(module: str) -> None:
    code = f"import sys, {module}; print(sorted({HEAVY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_public_names_are_there() -> None:
    for name in lmtasks.testing.__all__:
        assert getattr(lmtasks.testing, name) is not None
    assert set(dir(lmtasks.testing)) == set(lmtasks.testing.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lmtasks.testing.nothing  # noqa: B018  (looking is the point)


# --- a plugin without a package ---


def test_recipes_and_architectures_can_count_as_installed(architecture: Any) -> None:
    mine = replace(MASKED_LM, name="mine")
    before = lmtasks.load_catalog()
    with installed([mine], [architecture("Mixer")]) as catalog:
        assert catalog.recipe("mine") is mine
        assert catalog.architectures.keys() - before.architectures.keys() == {"mixer-mixer"}
        assert lmtasks.recipes()["mine"] is mine
        assert catalog.recipes.keys() - before.recipes.keys() == {"mine"}
        assert {"masked-lm", "causal-lm"} <= catalog.recipes.keys()
    assert lmtasks.load_catalog() == before
    with pytest.raises(lmtasks.InputError, match="must return Recipe objects"), installed(["mine"]):  # type: ignore[list-item]
        pass


# --- fixtures ---

PLUGIN_TEST = """
import sys

from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from dataclasses import replace


def test_nothing_heavy_came_with_the_fixtures():
    assert not {"torch", "transformers", "datasets", "evaluate"} & sys.modules.keys()


def test_corpus(lmtasks_corpus):
    assert len(lmtasks_corpus) == len(set(lmtasks_corpus)) == 60


def test_tokenizer(lmtasks_tokenizer, lmtasks_corpus):
    tokenizer = lmtasks_tokenizer(MASKED_LM)
    ids = tokenizer(lmtasks_corpus[0])["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == lmtasks_corpus[0]
    assert tokenizer.mask_token == "<mask>"


def test_model(lmtasks_model):
    model, again = lmtasks_model(CAUSAL_LM, "gpt2"), lmtasks_model(CAUSAL_LM, "gpt2")
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert model.lm_head.weight is not again.lm_head.weight
    assert model.lm_head.weight.equal(again.lm_head.weight)
    assert type(lmtasks_model(MASKED_LM)).__name__ == "ModernBertForMaskedLM"


def test_catalog(lmtasks_catalog):
    import lmtasks

    mine = replace(MASKED_LM, name="mine")
    assert lmtasks_catalog(recipes=[mine]).recipe("mine") is mine
    assert "mine" in lmtasks.recipes()


def test_the_catalog_is_gone_again():
    import lmtasks

    assert "mine" not in lmtasks.recipes()


def test_run(lmtasks_run, lmtasks_catalog, tmp_path):
    import lmtasks

    mine = replace(MASKED_LM, name="mine")
    lmtasks_catalog(recipes=[mine])
    run, other = lmtasks_run(mine, max_steps=5, mlm_probability=0.3), lmtasks_run(CAUSAL_LM, "gpt2")
    assert (run.output_dir, other.output_dir) == (tmp_path / "run", tmp_path / "run-2")
    assert run.plan.steps == 5
    assert other.plan.steps == 3
    assert run.predict("the <mask> fox", top_k=1)
    assert lmtasks.evaluate(run.output_dir, eval_dataset=["the old fox sees the house by night"])["eval_targets"] > 0
"""


def test_fixtures_serve_the_tests_of_plugins(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PLUGIN_TEST)
    done = pytester.runpytest_subprocess("-q", "-W", "error", "-p", "no:cacheprovider")
    done.assert_outcomes(passed=7)


def test_fixtures_are_all_that_a_suite_gets(pytester: pytest.Pytester) -> None:
    """Nothing is imported, and no option, marker or hook is added, where nobody asks for a fixture."""
    pytester.makepyfile(
        """
        import sys

        def test_other(request):
            plugin = request.config.pluginmanager.get_plugin("lmtasks")
            assert plugin.__name__ == "lmtasks.testing.fixtures"
            assert not [name for name in vars(plugin) if name.startswith("pytest_")]
            assert {name for name in sys.modules if name.startswith("lmtasks")} == {
                "lmtasks", "lmtasks.errors", "lmtasks.testing", "lmtasks.testing.proof", "lmtasks.testing.fixtures"
            }
        """
    )
    pytester.runpytest_subprocess("-q", "-W", "error").assert_outcomes(passed=1)


# --- losses of several terms ---


def test_an_oracle_tells_what_is_right_of_each_term() -> None:
    def right(model: torch.nn.Module, batch: dict[str, Any]) -> dict[str, tuple[torch.Tensor, int]]:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        rows = model(**inputs).logits[token_mask(batch)]
        return {"size": (sum(row.exp().sum().log() ** 2 for row in rows), len(rows))}

    only = ["loss-is-the-cross-entropy"]
    assert check_recipe(TWO_TERMS, oracle=right, only=only).checks[only[0]].reason == (
        "nothing says what is right of hidden: oracle=..."
    )
    assert "right of size" in check_recipe(TWO_TERMS, only=only).checks[only[0]].reason
    twice = terms_of(lambda terms, batch, options: resized(terms, sum=2 * terms["size"].sum))
    with pytest.raises(CheckFailed, match=r"the loss of the term 'size' is \d+\.\d+ nats .*, it should be"):
        check_recipe(twice, oracle=right, only=only)
    with pytest.raises(CheckFailed, match=r"the oracle tells of 'sizes', the loss has hidden, size.*\n.*name the same"):
        check_recipe(TWO_TERMS, oracle=lambda model, batch: {"sizes": right(model, batch)["size"]}, only=only)


def test_targets_that_are_only_counted_cannot_be_special() -> None:
    counted = replace(TWO_TERMS, targets=lambda batch: {name: len(batch["labels"]) for name in ("hidden", "size")})
    outcome = check_recipe(counted, only=["special-tokens-are-no-targets"]).checks["special-tokens-are-no-targets"]
    assert str(outcome) == "skipped: `targets` counts the targets, and does not say which they are"


def test_logits_are_of_the_vocabulary_unless_the_recipe_says_otherwise() -> None:
    flat = replace(MASKED_LM, name="flat-lm", model_class="transformers:ElectraForPreTraining")
    only = {"model": "electra", "only": ["model-takes-a-block"]}
    with pytest.raises(
        CheckFailed, match=r"(?s)its logits are \[1, 32\].*whose model gives others says vocabulary=False"
    ):
        check_recipe(flat, **only)
    assert str(check_recipe(replace(flat, vocabulary=False), **only).checks["model-takes-a-block"]) == "ok"
