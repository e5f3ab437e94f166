"""The contrastive loss of wav2vec 2.0, as a sum over hidden steps, and how the regularisers enter.

At each hidden step the model has to tell the quantised vector of that step from those of other hidden steps of the
same recording: cross-entropy over cosine similarities divided by a temperature (Baevski et al. 2020, equation 3). That
is a sum over targets like any other.

Two terms are none. The *diversity loss* is an entropy of the codebooks' mean use in a batch, so it depends on what was
batched, and two halves of a batch do not add up to the whole. The *feature penalty* is a mean over all activations of
the encoder. Here both are taken recording by recording, and weighed by its hidden steps: the sum over recordings u of

    n_u · (α · (GV - Σ_g exp H(p̄_gu)) / GV  +  β · mean(z_u²))

with n_u hidden steps, p̄_gu the mean softmax of group g over them, without noise and temperature, and z_u the output of
the convolutional encoder before its layer normalisation. Divided by the number of targets, as everything is, α and β
have the weights that they have in the paper and its authors' code: α is 0.1, β is 10 for the encoder with group
normalisation and 0 for the other. What is gained is that batch size, accumulation and number of processes change
nothing. What differs is that each recording by itself is asked to use many codes, not a few recordings together;
15 seconds have some 370 hidden steps for 2 times 320 codes.

They change the gradient only. The value is that of the contrastive loss, so that what is logged in training can be
compared with what is measured in evaluation; the same rule holds for label smoothing.

A distractor with the very code of the right answer is no distractor, and is left out. Where that leaves none, the step
costs nothing; so a codebook that has collapsed looks like a small loss. ``codebook_perplexity`` tells the two apart.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import log_softmax, normalize, one_hot

from lmtasks import unwrapped
from lmtasks_masked_speech.hearing import ear_of, within

INPUTS = ("input_values", "attention_mask", "mask_time_indices")
FEATURE_PENALTY = 10.0
"""Of the authors' configuration for the encoder with group normalisation."""

Sums = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


def loss(model: Any, batch: dict[str, Any]) -> Sums:
    """Sum of the losses in nats and number of hidden steps; without gradients also what the metrics need.

    Returns:
        the third item has ``correct``, steps at which the right answer is more similar than every distractor, and
        ``codes``, how often each code was used at a hidden step, int64 [groups, codes].
    """
    ear = ear_of(model)
    lengths = batch["attention_mask"].sum(1) if "attention_mask" in batch else None
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    outputs, heard = ear.listen(model, lengths, inputs)
    quantizer = unwrapped(model).quantizer
    wanted = batch["labels"] != -100
    codes = codes_of(quantizer, heard["codevectors"])
    logits = contrast(outputs, codes, wanted, batch["negatives"], ear.config.contrastive_logits_temperature)
    losses = -log_softmax(logits, -1)[:, 0]
    if torch.is_grad_enabled():
        regulariser = _regulariser(ear.config, quantizer, heard, wanted, lengths, batch)
        return losses.sum() + (regulariser - regulariser.detach()), wanted.sum(), {}
    best = logits[:, 1:].max(-1).values
    correct = (logits[:, 0] > best) & best.isfinite()
    counts = one_hot(codes[wanted], quantizer.num_vars).sum(0)
    return losses.cpu().double().sum(), wanted.sum(), {"correct": correct.sum(), "codes": counts}


def contrast(
    outputs: Any, codes: torch.Tensor, wanted: torch.Tensor, negatives: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The logits of the candidates at each hidden step, float32 [hidden steps, 1 + negatives]; the first is right.

    All similarities within a recording are computed at once, [examples, steps, steps], and then picked: far less than
    a vector for each candidate.
    """
    predicted = normalize(outputs.projected_states.float(), dim=-1, eps=1e-8)
    quantized = normalize(outputs.projected_quantized_states.float(), dim=-1, eps=1e-8)
    rows, steps = wanted.nonzero(as_tuple=True)
    candidates = torch.cat([steps[:, None], negatives[rows, steps]], dim=1)
    logits = (predicted @ quantized.transpose(1, 2))[rows, steps].gather(1, candidates) / temperature
    same = (codes[rows[:, None], candidates] == codes[rows, steps][:, None]).all(-1)
    same[:, 0] = False
    return logits.masked_fill(same, -torch.inf)


@torch.no_grad()
def codes_of(quantizer: Any, vectors: torch.Tensor) -> torch.Tensor:
    """The codes that were chosen, int64 [examples, steps, groups]: the nearest codebook entries.

    In training they are not the largest logits, and straight through the sampling the vectors are the entries but for
    rounding.
    """
    groups, size = quantizer.num_groups, quantizer.num_vars
    entries = quantizer.codevectors.float().view(groups, size, -1)
    parts = vectors.float().unflatten(-1, (groups, -1))
    scores = torch.einsum("esgd,gvd->esgv", parts, entries) - entries.square().sum(-1) / 2
    return scores.argmax(-1)


def _regulariser(
    config: Any,
    quantizer: Any,
    heard: dict[str, torch.Tensor],
    wanted: torch.Tensor,
    lengths: torch.Tensor | None,
    batch: dict[str, Any],
) -> torch.Tensor:
    """Diversity and penalty, summed over recordings; see the top of this module."""
    default = FEATURE_PENALTY if config.feat_extract_norm == "group" else 0.0
    diversity = batch.get("diversity_loss_weight", config.diversity_loss_weight)
    penalty = batch.get("feature_penalty", default)
    hidden = wanted.sum(1)
    total = diversity * unused(quantizer, heard["logits"], wanted)
    if penalty:
        total = total + penalty * _energy(heard["features"], lengths, config)
    return (hidden * total).sum()


def unused(quantizer: Any, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The share of the codebooks that each recording makes no use of, float32 [examples]."""
    groups, size = quantizer.num_groups, quantizer.num_vars
    chances = logits.float().view(*wanted.shape, groups, size).softmax(-1)
    share = wanted.float() / wanted.sum(1, keepdim=True).clamp(min=1)
    # What is never chosen has no logarithm, and no gradient.
    mean = torch.einsum("esgv,es->egv", chances, share).clamp(min=1e-9)
    perplexity = torch.exp(-torch.xlogy(mean, mean).sum(-1)).sum(-1)
    return (groups * size - perplexity) / (groups * size)


def _energy(features: torch.Tensor, lengths: torch.Tensor | None, config: Any) -> torch.Tensor:
    """The mean square of the encoder's output [examples, channels, steps] over each recording, float32 [examples]."""
    squares = features.float().square().mean(1)
    if lengths is None:
        return squares.mean(1)
    steps = lengths
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        steps = (steps - kernel) // stride + 1
    return (squares * within(steps, squares.shape[1])).sum(1) / steps
