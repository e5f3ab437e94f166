"""The forward pass of any model: in which mode it runs, what it leaves behind, what it may fail with."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from transformers import PreTrainedModel

from lmtasks.api import Batch

MODEL_FAILURES = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""Kinds of whatever a model's own code trips over when it is given something that it was not made for.

It is anybody's code, and narrows nothing down. Only calls of a model belong under it: our own mistakes look the same.
"""


@contextmanager
def in_mode(model: torch.nn.Module, *, training: bool = False) -> Iterator[None]:
    """While this is open the model is in that mode; afterwards in the one that it was in."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


@contextmanager
def measuring(model: torch.nn.Module, *, training: bool = False, gradients: bool = False) -> Iterator[None]:
    """While this is open the model is in that mode, with gradients or without; nothing random is used up.

    What some remember of a batch in training, such as ranges of activations, is forgotten again.
    """
    # Only where it is: otherwise every GPU of the machine would be taken into use.
    used = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    memory = [(buffer, buffer.clone()) for buffer in model.buffers()] if training else []
    with in_mode(model, training=training), torch.set_grad_enabled(gradients), torch.random.fork_rng(used):
        try:
            yield
        finally:
            for buffer, before in memory:
                buffer.copy_(before)


@contextmanager
def sparse(model: torch.nn.Module) -> Iterator[None]:
    """While this is open a model may give up its sparse attention; afterwards it has it again.

    BigBird gives it up for good as soon as it gets a short text.
    """
    parts: list[Any] = list(model.modules())
    kept = [(part, part.attention_type) for part in parts if hasattr(part, "set_attention_type")]
    try:
        yield
    finally:
        for part, attention in kept:
            if part.attention_type != attention:
                part.set_attention_type(attention)


def repeated(batch: Batch, count: int) -> Batch:
    """A batch with its one example so many times; what has no row for each example stays as it is."""
    rows = {name: value for name, value in batch.items() if torch.is_tensor(value) and value.shape[:1] == (1,)}
    return {**batch, **{name: torch.cat([value] * count) for name, value in rows.items()}}


def without_cache(model: torch.nn.Module) -> dict[str, bool]:
    """Input that tells the model not to keep keys and values for a next token, if it would.

    Nobody reads them, and some models change them in place, which gradients cannot take (RWKV).
    """
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def position_tables(model: torch.nn.Module) -> list[torch.nn.Embedding]:
    """The learned position embeddings."""
    named = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    return [module for module in named if isinstance(module, torch.nn.Embedding)]


def first_position(table: torch.nn.Embedding) -> int:
    """The position of a first token: RoBERTa's family counts from its padding id on."""
    return 0 if table.padding_idx is None else table.padding_idx + 1


def moved(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """The model on a device; quantised it stays where it was loaded, which is the device that there is."""
    with suppress(ValueError):
        return model.to(device)
    return model
