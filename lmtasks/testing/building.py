"""Checks that a tiny model can be made at all, and begins as models do. Without it, nothing else can be asked."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from lmtasks.api import Batch, resolve
from lmtasks.data.examples import one_example
from lmtasks.errors import InputError, first_line
from lmtasks.models.probes import probe_first_loss
from lmtasks.testing.case import Case
from lmtasks.testing.proof import Fault, check

LARGEST = 5_000_000
"""Parameters of a model that is still tiny."""


@check("architecture", gate=True)
def architecture_registers(case: Case) -> str:
    """The Auto classes make a tiny model of its type, with the class that is declared."""
    if case.architecture is not None and not case.architecture.tiny:
        raise Fault(
            f"the architecture '{case.architecture.model_type}' has no tiny configuration",
            "give tiny={'hidden_size': 32, ...}: a model that a test can train in a second",
        )
    config, model = case.configured(), case.make()
    if type(config) is not type(transformers.AutoConfig.for_model(config.model_type)):
        raise Fault(
            f"AutoConfig makes a {type(transformers.AutoConfig.for_model(config.model_type)).__name__} of it",
            "let `config` name the class that the model is made of",
        )
    if case.architecture is not None:
        name = case.recipe.model_class.rpartition(":")[2]
        declared = case.architecture.models.get(name)
        if declared and type(model) is not resolve(declared):
            raise Fault(f"{name} makes a {type(model).__name__}, not {declared}", "let no other plugin have this type")
    size = sum(parameter.numel() for parameter in model.parameters())
    if size > LARGEST:
        raise Fault(
            f"its tiny model has {size:,} parameters", f"shrink `tiny` below {LARGEST:,}, best to a few thousand"
        )
    return f"{size:,} parameters"


@check("recipe", "architecture", gate=True)
def model_takes_a_block(case: Case) -> None:
    """A tiny model is made, and gives logits for every token of a whole block."""
    model, inputs = case.model(), _inputs(example_of(case))
    try:
        with torch.no_grad():
            logits = model(**inputs).logits
    except Exception as error:
        raise Fault(
            f"the tiny model fails on a block of {inputs['input_ids'].shape[1]} tokens: {first_line(error)}",
            "let forward take what the collator makes, of this length; declare the longest input in the configuration,"
            " as max_position_embeddings",
        ) from error
    if logits.dim() != 3 or not bool(logits.isfinite().all()):
        raise Fault(
            f"its logits are {list(logits.shape)}, finite: {bool(logits.isfinite().all())}",
            "give logits [examples, length, vocabulary], all of them numbers",
        )


@check("recipe", "architecture")
def model_is_repeatable(case: Case) -> None:
    """In evaluation mode a model gives the same logits, bit for bit, for the same batch."""
    model, inputs = case.model(), _inputs(example_of(case))
    with torch.no_grad():
        once, again = (model(**inputs).logits for _ in range(2))
    if not torch.equal(once, again):
        raise Fault(
            "in evaluation mode the model answers differently the second time",
            "apply dropout and noise only while self.training, and keep no state between calls",
        )


@check("recipe", "architecture")
def first_loss_is_that_of_a_guess(case: Case) -> str:
    """A model that has learned nothing pays about what a uniform guess pays: it neither knows nor sees the answer."""
    try:
        first, uniform = probe_first_loss(case.model(), case.recipe, example_of(case))
    except InputError as error:
        raise Fault(
            error.message,
            "if it is too large, start with smaller weights; if it is too small, an input or a mask shows the answer",
        ) from error
    return f"first loss {first:.2f} nats, a uniform guess costs {uniform:.2f}"


def example_of(case: Case) -> Batch:
    """One whole block with a target, as the runner's own probes get it."""
    return one_example(case.request, case.tokenizer, case.texts.evaluation, "tiny")


def _inputs(batch: Batch) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name != "labels"}
