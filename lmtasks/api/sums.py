"""The cross-entropy of logits, as a loss returns it: a sum and a count, never a mean.

Light at the top, so that the module of a recipe may import it at its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Sums = tuple["Tensor", "Tensor", dict[str, "Tensor"]]
"""Sum of the losses in nats, number of targets, and further sums by name."""


def token_sums(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, weights: Tensor | None = None) -> Sums:
    """The sums for logits [tokens, vocabulary] and labels [tokens]; -100 is no target.

    Both may be [examples, length, ...] as well; then only logits that have a target are read.

    Args:
        label_smoothing: ε in [0, 1), the share of the target that all V entries of the vocabulary get
            (Szegedy et al. 2016, section 7). Only the gradient is that of the smoothed loss,
            (1 - ε) · -log p(label) + ε / V · Σ -log p. The sum stays the plain cross-entropy: it is
            what gets logged, and smoothed figures could be compared with no others.
        weights: what the loss of each label is multiplied by, of the shape of the labels; 1 when not given. Neither
            the number of targets nor what is right of them knows of it.

    Returns:
        sum of the losses in nats, number of targets, ``{"correct": targets guessed right}``; nothing
        in place of the last while gradients are computed.
    """
    import torch
    from torch.nn.functional import log_softmax, nll_loss

    if labels.ndim > 1:
        wanted = labels != -100
        logits, labels, weights = logits[wanted], labels[wanted], None if weights is None else weights[wanted]
    likelihoods = log_softmax(logits.float(), -1)
    losses = nll_loss(likelihoods, labels, ignore_index=-100, reduction="none")
    targets = labels != -100
    if torch.is_grad_enabled():
        total = _scaled(losses, weights).sum()
        if label_smoothing:
            # Not times zero: what a model says where there is no target need not be a number.
            uniform = torch.where(targets, -likelihoods.mean(-1), 0.0)
            smoothed = label_smoothing * _scaled(uniform - losses, weights).sum()
            total = total + (smoothed - smoothed.detach())
        return total, targets.sum(), {}
    # float64 keeps the figure independent of how the examples were batched; on the CPU, because
    # some accelerators have no float64.
    exact = _scaled(losses.cpu().double(), None if weights is None else weights.cpu().double())
    return exact.sum(), targets.sum(), {"correct": (logits.argmax(-1) == labels).sum()}


def _scaled(losses: Tensor, scales: Tensor | None) -> Tensor:
    return losses if scales is None else losses * scales
