"""Losses as sums over targets, never as means: only the runner divides, over the global batch."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import log_softmax, nll_loss

from lmtasks.models.forward import without_cache
from lmtasks.models.lm_head import Sums, separated


def masked_loss(model: torch.nn.Module, batch: dict[str, Any]) -> Sums:
    """Cross-entropy in nats at the positions whose label is not -100.

    Args:
        batch: what the model takes, ``labels``, and in training perhaps ``label_smoothing``.

    Returns:
        sum of the losses, number of targets, ``{"correct": targets guessed right}``.
    """
    return target_sums(model, batch, batch["labels"])


def causal_loss(model: torch.nn.Module, batch: dict[str, Any]) -> Sums:
    """Cross-entropy in nats of every token given the ones before it.

    ``labels`` are the tokens themselves, -100 where there is nothing to predict. Arguments and result
    are those of :func:`masked_loss`.
    """
    nothing = torch.full_like(batch["labels"][:, :1], -100)
    return target_sums(model, batch, torch.cat([batch["labels"][:, 1:], nothing], dim=1))


def target_sums(model: torch.nn.Module, batch: dict[str, Any], targets: torch.Tensor) -> Sums:
    """The sums of a batch, with the head of the model run only where there are targets, if it can.

    Args:
        batch: as for :func:`masked_loss`; its ``labels`` stay out of the model, which would compute a
            loss of its own.
        targets: int64 [examples, length], what the logits at a position should say; -100 is no target.
    """
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "label_smoothing")}
    label_smoothing = batch.get("label_smoothing", 0.0)
    if separated(model):
        sums: Sums = model(**inputs, targets=targets, label_smoothing=label_smoothing)
        return sums
    wanted = targets != -100
    outputs = model(**inputs, **without_cache(model))
    total, count, more = token_sums(outputs.logits[wanted], targets[wanted], label_smoothing)
    return total + _router_pull(model, outputs) * count, count, more


def _router_pull(model: torch.nn.Module, outputs: Any) -> torch.Tensor | float:
    """Zero, with the gradient of the loss that keeps experts equally busy (Fedus et al. 2022), if the model has one.

    A model has it where its configuration says ``output_router_logits``. It is one number for a batch, which
    each target is given its share of; what gets logged stays the cross-entropy.
    """
    router_loss = getattr(outputs, "aux_loss", None)
    if not torch.is_grad_enabled() or not torch.is_tensor(router_loss):
        return 0.0
    unwrapped: Any = getattr(model, "module", model)
    config = unwrapped.config.get_text_config()
    pull: torch.Tensor = getattr(config, "router_aux_loss_coef", 0.0) * router_loss
    return pull - pull.detach()


def token_sums(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> Sums:
    """The sums for logits [tokens, vocabulary] and labels [tokens]; -100 is no target.

    Args:
        label_smoothing: ε in [0, 1), the share of the target that all V entries of the vocabulary get
            (Szegedy et al. 2016, section 7). Only the gradient is that of the smoothed loss,
            (1 - ε) · -log p(label) + ε / V · Σ -log p. The sum stays the plain cross-entropy: it is
            what gets logged, and smoothed figures could be compared with no others.

    Returns:
        sum of the losses in nats, number of targets, ``{"correct": targets guessed right}``; nothing
        in place of the last while gradients are computed.
    """
    likelihoods = log_softmax(logits.float(), -1)
    losses = nll_loss(likelihoods, labels, ignore_index=-100, reduction="none")
    targets = (labels != -100).sum()
    if torch.is_grad_enabled():
        pull = _pull(likelihoods, losses, labels) * label_smoothing if label_smoothing else 0.0
        return losses.sum() + pull, targets, {}
    # float64 keeps the figure independent of how the examples were batched; on the CPU, because
    # some accelerators have no float64.
    return losses.cpu().double().sum(), targets, {"correct": (logits.argmax(-1) == labels).sum()}


def _pull(likelihoods: torch.Tensor, losses: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Zero, with the gradient by which a wholly smoothed loss differs from the plain one.

    Args:
        likelihoods: log p, [tokens, vocabulary].
        losses: -log p(label), [tokens]; 0 where there is no target.
        labels: [tokens].
    """
    # Not times zero: what a model says where there is no target need not be a number.
    uniform = torch.where(labels != -100, -likelihoods.mean(-1), 0.0)
    difference = (uniform - losses).sum()
    return difference - difference.detach()
