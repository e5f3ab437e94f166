"""Checks that a tiny model can be made at all, and begins as models do. Without it, nothing else can be asked."""

from __future__ import annotations

import torch
import transformers

from lmtasks.api import resolve
from lmtasks.errors import InputError
from lmtasks.models.probes import probe_first_loss
from lmtasks.testing.case import Case, inputs_of
from lmtasks.testing.proof import Fault, blamed, check

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
    known = type(transformers.AutoConfig.for_model(config.model_type))
    if type(config) is not known:
        raise Fault(
            f"AutoConfig makes a {known.__name__} of it", "let `config` name the class that the model is made of"
        )
    name = case.recipe.model_class.rpartition(":")[2]
    declared = case.architecture.models.get(name) if case.architecture else None
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
    model, inputs = case.model(), inputs_of(case.example())
    advice = (
        "let forward take what the collator makes, of this length; declare the longest input in the configuration,"
        " as max_position_embeddings"
    )
    told = f"the tiny model fails on a block of {inputs['input_ids'].shape[1]} tokens: "
    with blamed(told, advice), torch.no_grad():
        logits = model(**inputs).logits
    vocabulary = case.recipe.vocabulary
    if logits.dim() < 2 or (vocabulary and logits.dim() != 3) or not bool(logits.isfinite().all()):
        wanted = f"[examples, length{', vocabulary' * vocabulary}]"
        other = "; a recipe whose model gives others says vocabulary=False" * vocabulary
        raise Fault(
            f"its logits are {list(logits.shape)}, finite: {bool(logits.isfinite().all())}",
            f"give logits {wanted}, all of them numbers{other}",
        )


@check(
    "recipe", "architecture", advice="apply dropout and noise only while self.training, and keep no state between calls"
)
def model_is_repeatable(case: Case) -> None:
    """In evaluation mode a model gives the same logits, bit for bit, for the same batch."""
    model, inputs = case.model(), inputs_of(case.example())
    with torch.no_grad():
        once, again = (model(**inputs).logits for _ in range(2))
    if not torch.equal(once, again):
        raise Fault("in evaluation mode the model answers differently the second time")


@check("recipe", "architecture")
def first_loss_is_that_of_a_guess(case: Case) -> str:
    """A model that has learned nothing pays about what a uniform guess pays: it neither knows nor sees the answer."""
    advice = "if it is too large, start with smaller weights; if it is too small, an input or a mask shows the answer"
    with blamed("", advice, InputError):
        first, uniform = probe_first_loss(case.model(), case.bound, case.example())
    return f"first loss {first:.2f} nats, a uniform guess costs {uniform:.2f}"
