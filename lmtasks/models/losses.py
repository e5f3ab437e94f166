"""Losses as sums over targets, never as means: only the runner divides, over the global batch."""

from __future__ import annotations

from typing import Any

import torch

from lmtasks.api import Sums, model_inputs, token_sums, unwrapped
from lmtasks.models.forward import without_cache
from lmtasks.models.lm_head import separated


def masked_loss(model: torch.nn.Module, batch: dict[str, Any]) -> Sums:
    """Cross-entropy in nats at the positions whose label is not -100, see :func:`lmtasks.token_sums`.

    The batch has what the model takes, ``labels``, and in training perhaps ``label_smoothing``.
    """
    return target_sums(model, batch, batch["labels"])


def causal_loss(model: torch.nn.Module, batch: dict[str, Any]) -> Sums:
    """Cross-entropy in nats of every token given the ones before it, otherwise as :func:`masked_loss`.

    ``labels`` are the tokens themselves, -100 where there is nothing to predict.
    """
    nothing = torch.full_like(batch["labels"][:, :1], -100)
    return target_sums(model, batch, torch.cat([batch["labels"][:, 1:], nothing], dim=1))


def target_sums(
    model: torch.nn.Module, batch: dict[str, Any], targets: torch.Tensor, weights: torch.Tensor | None = None
) -> Sums:
    """The sums of a batch, with the head of the model run only where there are targets, if it can.

    Args:
        batch: as for :func:`masked_loss`; its ``labels`` stay out of the model, which would make a loss of its own.
        targets: int64 [examples, length], what the logits at a position should say; -100 is no target.
        weights: float [examples, length], what the loss at each target is multiplied by; 1 when not given.
    """
    inputs, label_smoothing = model_inputs(batch), batch.get("label_smoothing", 0.0)
    if separated(model):
        sums: Sums = model(**inputs, targets=targets, label_smoothing=label_smoothing, weights=weights)
        return sums
    outputs = model(**inputs, **without_cache(model))
    total, count, more = token_sums(outputs.logits, targets, label_smoothing, weights)
    share = count if weights is None else weights[targets != -100].sum()
    return total + router_pull(model, outputs) * share, count, more


def router_pull(model: torch.nn.Module, outputs: Any) -> torch.Tensor | float:
    """Zero, with the gradient of the loss that keeps experts equally busy (Fedus et al. 2022), if the model has one.

    A model has it where its configuration says ``output_router_logits``. It is one number for a batch, which
    each target is given its share of; what gets logged stays the cross-entropy.
    """
    router_loss = getattr(outputs, "aux_loss", None)
    if not torch.is_grad_enabled() or not torch.is_tensor(router_loss):
        return 0.0
    config = unwrapped(model).config.get_text_config()
    pull: torch.Tensor = getattr(config, "router_aux_loss_coef", 0.0) * router_loss
    return pull - pull.detach()
