"""Facts about a model that are measured before training, because configurations lie about them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from lmtasks.api import Batch, Recipe, has_targets, weighted_mean, weighted_sum
from lmtasks.errors import InputError, first_line
from lmtasks.models.adapters import thawed
from lmtasks.models.architectures import architecture_of, with_gradients
from lmtasks.models.forward import MODEL_FAILURES, measuring, sparse, without_cache

FIRST_LOSS = (0.5, 5.0)
"""Least and most that a fresh model's loss may be, as a multiple of what a uniform guess costs.

Some architectures start at three or four times the guess as their authors made them (Gemma, BLOOM).
"""


def probe(model: PreTrainedModel, recipe: Recipe, batch: Batch, *, training: bool = True) -> None:
    """One example through the model, and back from its earlier positions to its last token.

    Args:
        batch: one example of full length, as the recipe collates it.
        training: whether the model is to be trained. A trained one may have come to look at nothing, or at what is
            clipped, and is measured all the same; one that sees the answer never is.

    Raises:
        InputError: the model cannot take the length or the ids, sees the future although it must
            not, or sees only one side although it must see both.
    """
    if recipe.medium is not None:
        advice = "check that the model and its processing class belong together"
        with _explained("an example", advice), measuring(model):
            recipe.loss(model, batch)
        return
    # Isolation has a probe of its own; here every position must be able to see every other.
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "document_ids")}
    length = inputs["input_ids"].shape[1]
    advice = "try a smaller --block_size; check that tokenizer and model belong together"
    with _explained(f"a block of {length} tokens", advice), with_gradients(model), _nothing_zero(model):
        logits, embedded = embedded_forward(model, inputs)
        # Of these a gradient would tell that everything sees everything.
        _require_numbers(logits, model)
        looks_ahead = length > 1 and reaches(logits[:, : length - 1], embedded, slice(length - 1, length))
    if length > 1 and (training or looks_ahead):
        _check_attention(recipe, model, looks_ahead)


def _require_numbers(logits: torch.Tensor, model: PreTrainedModel) -> None:
    if bool(logits.isnan().any()):
        raise InputError(
            f"what this {model.config.model_type} model computes is NaN and no number",
            "look for a value in its config.json that is none, or is far too large",
        )


@contextmanager
def _explained(thing: str, advice: str) -> Iterator[None]:
    """One line in place of what the model's code says."""
    try:
        yield
    except MODEL_FAILURES as error:
        raise InputError(f"the model fails on {thing}: {first_line(error)}", advice) from error


@contextmanager
def _nothing_zero(model: PreTrainedModel) -> Iterator[None]:
    """While this is open, parameters that are all zero have other values.

    Some architectures start the way out of their attention at zero: what they will see once they have
    learned, nothing shows of before.
    """
    zero = [one for one in model.parameters() if not one.is_meta and not one.count_nonzero()]
    for one in zero:
        torch.nn.init.normal_(one, std=0.02)
    try:
        yield
    finally:
        for one in zero:
            torch.nn.init.zeros_(one)


def embedded_forward(model: PreTrainedModel, inputs: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits [1, length, vocabulary], and the embedded tokens [1, length or more, size] that they came from.

    These are several where a model reads its input more than once (BART: encoder and decoder), and longer
    than the input where a model fills it up (Longformer).
    """
    seen: list[torch.Tensor] = []
    ids = inputs["input_ids"]
    weight = getattr(model.get_input_embeddings(), "weight", None)

    def keep(module: torch.nn.Module, read: tuple[Any, ...], output: Any) -> None:
        found = output[0] if isinstance(output, tuple) else output
        # A table of positions may be given the tokens as well, but has no row of embeddings for each example;
        # what the architecture keeps frozen only prepares (BLT cuts bytes into patches so).
        if found.ndim == 3 and found.requires_grad and (module.weight is weight or (read and _same_ids(read[0], ids))):
            seen.append(found)

    tables = [module for module in model.modules() if getattr(getattr(module, "weight", None), "ndim", 0) == 2]
    with ExitStack() as hooks:
        hooks.enter_context(thawed(model))
        for module in tables:
            if not isinstance(module, torch.nn.Linear):
                hooks.enter_context(module.register_forward_hook(keep))
        return model(**inputs, **without_cache(model)).logits, seen


def _same_ids(read: Any, ids: torch.Tensor) -> bool:
    """Whether a module reads the very tokens, perhaps with some more at the end."""
    whole = torch.is_tensor(read) and not read.is_floating_point() and read.ndim == 2
    return whole and torch.equal(read[:, : ids.shape[1]], ids)


def reaches(logits: torch.Tensor, embedded: list[torch.Tensor], tokens: slice) -> bool:
    """Whether any of the logits depends on these tokens.

    A gradient answers exactly where a change of a token would drown in rounding: what a mask hides has a
    gradient of zero, what is seen has not, however small the weights are. Where all is mixed and parted again, as
    by a Fourier transform, rounding is left of what is not seen. It is told by what a gradient always is, and rounding
    never: three times as large where all that it is of is three times as large.
    """
    # The weighting is arbitrary; plain sums can cancel, those of a normalised layer do.
    weighting = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits.device)
    if not embedded:
        raise ValueError("nothing in it looks tokens up in a table")

    def gradients(scale: float) -> list[torch.Tensor]:
        weighted = (logits.float() * (scale * weighting)).sum()
        found = torch.autograd.grad(weighted, embedded, retain_graph=True, allow_unused=True)
        return [one[:, tokens] for one in found if one is not None]

    once = gradients(1.0)
    if not any(bool(one.count_nonzero()) for one in once):
        return False
    return any(not _is_rounding(3 * one, thrice) for one, thrice in zip(once, gradients(3.0), strict=True))


def _is_rounding(expected: torch.Tensor, found: torch.Tensor) -> bool:
    """Whether two gradients that should be equal are far from it; zeros are as well."""
    size = expected.float().norm()
    return not size or bool((found.float() - expected.float()).norm() > 0.1 * size)


def _check_attention(recipe: Recipe, model: PreTrainedModel, looks_ahead: bool) -> None:
    kind = model.config.model_type
    if recipe.attention == "causal" and looks_ahead:
        settings = json.dumps(dict(architecture_of(model.config).causal)).strip("{}")
        own = f", make one of this with {settings} in its config.json" if settings else ""
        raise InputError(
            f"{recipe.name} cannot train this {kind} model: it sees the tokens that it should predict",
            f"take a decoder such as gpt2 or llama{own}, or lmtasks run masked-lm for this model",
        )
    if recipe.attention == "bidirectional" and not looks_ahead:
        raise InputError(
            f"{recipe.name} cannot train this {kind} model: it does not see the text after a position",
            "take an encoder such as roberta or modernbert, or lmtasks run causal-lm for this model",
        )


def probe_short(model: PreTrainedModel, recipe: Recipe, batch: Batch, number: int) -> None:
    """The last tokens of a text, less than a block, must go through the model, or there is an InputError.

    Args:
        batch: an example of them, as the recipe collates it for evaluation.
        number: how many blocks come before them.
    """
    if has_targets(recipe.targets(batch)):
        thing = f"the last {batch['input_ids'].shape[1]} tokens of the evaluation text, less than a block"
        with _explained(thing, f"--max_eval_samples {number} leaves them out"), measuring(model), sparse(model):
            recipe.loss(model, batch)


def probe_padding(model: PreTrainedModel, recipe: Recipe, alone: Iterable[Batch], together: Batch) -> None:
    """The losses of examples must be the same, whatever they are padded to, or there is an InputError.

    Args:
        alone: examples of different lengths, each in a batch of its own, as the recipe collates them for evaluation.
        together: the same ones in one batch.
    """
    try:
        with measuring(model):
            apart = sum(float(weighted_sum(recipe.loss(model, batch))) for batch in alone)
            padded = float(weighted_sum(recipe.loss(model, together)))
        # A loss that is no number tells nothing about padding, and is told of where it matters.
        alike = math.isclose(apart, padded, rel_tol=1e-4) or not math.isfinite(apart + padded)
        reason = "" if alike else "its losses depend on the padding"
    except MODEL_FAILURES as error:
        reason = f"it cannot take padding ({first_line(error)})"
    if reason:
        how, advice = "line by line", "leave --line_by_line out: blocks are of one length"
        if recipe.medium is not None:
            how, advice = f"on {recipe.medium.name}", "choose another model"
        raise InputError(f"{recipe.name} cannot train this {model.config.model_type} model {how}: {reason}", advice)


def probe_first_loss(model: PreTrainedModel, recipe: Recipe, batch: Batch) -> tuple[float, float | None]:
    """The loss of a freshly made model before its first step, which must be about that of a guess.

    A fresh model knows nothing, and so gives each of the V entries of the vocabulary the same chance, at ln V nats
    for each target. If it pays far less, its logits see the answer; if it pays far more, it starts sure of something
    that is wrong, and the first steps of training go into unlearning that.

    The guess is measured, too, as the recipe's loss when all logits are equal: the V of a configuration need not be
    that of the logits. Where the model has no logits there is no such guess, and the loss must only be finite.

    Returns:
        mean loss and that of the uniform guess, in nats per target, 0 without any; None for a model without logits.

    Raises:
        InputError: the loss is not finite, or not within ``FIRST_LOSS`` times the guess's.
    """
    with_logits = False

    def equal(module: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        nonlocal with_logits
        if getattr(outputs, "logits", None) is not None:
            outputs.logits, with_logits = torch.zeros_like(outputs.logits), True

    loss = _mean_loss(model, recipe, batch)
    with model.register_forward_hook(equal):
        guess = _mean_loss(model, recipe, batch)
    least, most = FIRST_LOSS
    # Where a guess costs nothing, there are no targets or the loss is none that has such a scale.
    off = with_logits and guess > 0 and not least * guess <= loss <= most * guess
    if off or not math.isfinite(loss):
        costs = f", where a uniform guess costs {guess:.2f}" if with_logits else ""
        raise InputError(
            f"the new model starts at a loss of {loss:.2f} nats{costs}",
            "its weights start too large, or its logits see the answer:"
            " check --config_overrides, such as initializer_range",
        )
    return loss, guess if with_logits else None


def _mean_loss(model: PreTrainedModel, recipe: Recipe, batch: Batch) -> float:
    """Nats per target, 0 without targets."""
    with measuring(model):
        return weighted_mean(recipe.loss(model, batch))
