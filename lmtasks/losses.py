"""Losses as sums over targets, never as means: only the runner divides, over the global batch."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

Sums = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


def masked_loss(model: torch.nn.Module, batch: dict[str, Any]) -> Sums:
    """Cross-entropy in nats at the positions whose label is not -100.

    Returns:
        sum of the losses, number of targets, ``{"correct": targets guessed right}``.
    """
    logits = _logits(model, batch)
    targets = batch["labels"] != -100
    return token_sums(logits[targets], batch["labels"][targets])


def causal_loss(model: torch.nn.Module, batch: dict[str, Any]) -> Sums:
    """Cross-entropy in nats of every token given the ones before it.

    ``labels`` are the tokens themselves, -100 where there is nothing to predict. Shifting the
    labels instead of the logits saves a copy of the largest tensor of the step.
    """
    logits = _logits(model, batch)
    nothing = torch.full_like(batch["labels"][:, :1], -100)
    labels = torch.cat([batch["labels"][:, 1:], nothing], dim=1)
    return token_sums(logits.flatten(0, 1), labels.flatten())


def token_sums(logits: torch.Tensor, labels: torch.Tensor) -> Sums:
    """The sums for logits [tokens, vocabulary] and labels [tokens]; -100 is no target."""
    losses = cross_entropy(logits.float(), labels, ignore_index=-100, reduction="none")
    targets = (labels != -100).sum()
    if torch.is_grad_enabled():
        return losses.sum(), targets, {}
    # float64 keeps the figure independent of how the examples were batched; on the CPU, because
    # some accelerators have no float64.
    return losses.cpu().double().sum(), targets, {"correct": (logits.argmax(-1) == labels).sum()}


def _logits(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """The model's logits. Labels stay out: a model that sees them computes a loss of its own."""
    outputs = model(**{name: value for name, value in batch.items() if name != "labels"})
    logits: torch.Tensor = outputs.logits
    return logits
