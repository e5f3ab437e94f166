"""Facts about a model that are measured before training, because configurations lie about them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from lmtasks.api import Batch, Recipe
from lmtasks.errors import InputError, first_line
from lmtasks.models.architectures import architecture_of, with_gradients
from lmtasks.models.forward import in_mode, without_cache

FIRST_LOSS = (0.5, 5.0)
"""Least and most that a fresh model's loss may be, as a multiple of what a uniform guess costs.

Some architectures start at three or four times the guess as their authors made them (Gemma, BLOOM).
"""


def probe(model: PreTrainedModel, recipe: Recipe, batch: Batch, *, training: bool = True) -> None:
    """One example through the model, and back from its earlier positions to its last token.

    Args:
        model: the model to train.
        recipe: says what a position may see.
        batch: one example of full length, as the recipe collates it.
        training: whether it is to be trained. A trained one may have come to look at nothing, or at what is
            clipped, and is measured all the same; one that sees the answer never is.

    Raises:
        InputError: the model cannot take the length or the ids, sees the future although it must
            not, or sees only one side although it must see both.
    """
    if recipe.medium is not None:
        _probe_loss(model, recipe, batch)
        return
    # Isolation has a probe of its own; here every position must be able to see every other.
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "document_ids")}
    try:
        with with_gradients(model), _nothing_zero(model), torch.random.fork_rng():
            looks_ahead = _looks_ahead(model, inputs)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the model fails on a block of {batch['input_ids'].shape[1]} tokens: {first_line(error)}",
            "try a smaller --block_size; check that tokenizer and model belong together",
        ) from error
    if recipe.attention and batch["input_ids"].shape[1] > 1 and (training or looks_ahead):
        _check_attention(recipe, model, looks_ahead)


@contextmanager
def _nothing_zero(model: PreTrainedModel) -> Iterator[None]:
    """While this is open, parameters that are all zero have other values.

    Some architectures start the way out of their attention at zero: what they will see once they have
    learned, nothing shows of before.
    """
    zero = [one for one in model.parameters() if not one.is_meta and not one.count_nonzero()]
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one in zero:
            one.copy_(0.02 * torch.randn(one.shape, generator=draw))
    try:
        yield
    finally:
        with torch.no_grad():
            for one in zero:
                one.zero_()


def _looks_ahead(model: PreTrainedModel, inputs: Batch) -> bool:
    """Whether what is said at a position depends on the last token."""
    last = inputs["input_ids"].shape[1] - 1
    with torch.enable_grad():
        logits, embedded = embedded_forward(model, inputs)
        return last > 0 and reaches(logits[:, :last], embedded, slice(last, last + 1))


def _probe_loss(model: PreTrainedModel, recipe: Recipe, batch: Batch) -> None:
    """One example that is no text through the model and the recipe's loss."""
    try:
        with in_mode(model), torch.no_grad():
            recipe.loss(model, batch)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the model fails on an example: {first_line(error)}",
            "check that the model and its processing class belong together",
        ) from error


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
        # what is frozen only prepares (BLT cuts bytes into patches so).
        if found.ndim == 3 and found.requires_grad and (module.weight is weight or (read and _same_ids(read[0], ids))):
            seen.append(found)

    tables = [module for module in model.modules() if getattr(getattr(module, "weight", None), "ndim", 0) == 2]
    hooks = [module.register_forward_hook(keep) for module in tables if not isinstance(module, torch.nn.Linear)]
    try:
        outputs: Any = model(**inputs, **without_cache(model))
    finally:
        for hook in hooks:
            hook.remove()
    return outputs.logits, seen


def _same_ids(read: Any, ids: torch.Tensor) -> bool:
    """Whether a module reads the very tokens, perhaps with some more at the end."""
    if not torch.is_tensor(read) or read.is_floating_point() or read.ndim != 2:
        return False
    return torch.equal(read[:, : ids.shape[1]], ids)


def reaches(logits: torch.Tensor, embedded: list[torch.Tensor], tokens: slice) -> bool:
    """Whether any of the logits depends on these tokens.

    A gradient answers exactly where a change of a token would drown in rounding: what a mask hides has a
    gradient of zero, what is seen has not, however small the weights are. The weighting is arbitrary;
    plain sums can cancel, those of a normalised layer do.
    """
    weighting = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits.device)
    weighted = (logits.float() * weighting).sum()
    if not embedded:
        raise ValueError("nothing in it looks tokens up in a table")
    gradients = torch.autograd.grad(weighted, embedded, retain_graph=True, allow_unused=True)
    return any(gradient is not None and bool(gradient[:, tokens].count_nonzero()) for gradient in gradients)


def _check_attention(recipe: Recipe, model: PreTrainedModel, looks_ahead: bool) -> None:
    kind = model.config.model_type
    if recipe.attention == "causal" and looks_ahead:
        raise InputError(
            f"{recipe.name} cannot train this {kind} model: it sees the tokens that it should predict",
            f"take a decoder such as gpt2 or llama{_made_decoder(model)}, or lmtasks run masked-lm for this model",
        )
    if recipe.attention == "bidirectional" and not looks_ahead:
        raise InputError(
            f"{recipe.name} cannot train this {kind} model: it does not see the text after a position",
            "take an encoder such as roberta or modernbert, or lmtasks run causal-lm for this model",
        )


def _made_decoder(model: PreTrainedModel) -> str:
    """How this very model would see no future, if its architecture knows a way."""
    settings = json.dumps(dict(architecture_of(model.config).causal)).strip("{}")
    return f", make one of this with {settings} in its config.json" if settings else ""


def probe_padding(model: PreTrainedModel, recipe: Recipe, alone: Iterable[Batch], together: Batch) -> None:
    """The losses of examples must be the same, whatever they are padded to.

    Args:
        model: the model to train.
        recipe: whose loss it is.
        alone: examples of different lengths, each in a batch of its own, as the recipe collates them for evaluation.
        together: the same ones in one batch.

    Raises:
        InputError: they are not.
    """
    try:
        with in_mode(model), torch.no_grad(), torch.random.fork_rng():
            apart = sum(float(recipe.loss(model, batch)[0]) for batch in alone)
            padded = float(recipe.loss(model, together)[0])
        # A loss that is no number tells nothing about padding, and is told of where it matters.
        alike = math.isclose(apart, padded, rel_tol=1e-4) or not math.isfinite(apart + padded)
        reason = "" if alike else "its losses depend on the padding"
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = f"it cannot take padding ({first_line(error)})"
    if reason:
        how, advice = "line by line", "leave --line_by_line out: blocks are of one length"
        if recipe.medium is not None:
            how, advice = f"on {recipe.medium.name}", "choose another model"
        raise InputError(f"{recipe.name} cannot train this {model.config.model_type} model {how}: {reason}", advice)


def probe_first_loss(model: PreTrainedModel, recipe: Recipe, batch: Batch) -> tuple[float, float | None]:
    """The loss of a freshly made model before its first step, which must be about that of a guess.

    Whoever knows nothing gives each of the V entries of the vocabulary the same chance, and pays ln V
    nats for each target. A fresh model knows nothing. If it pays far less, its logits see the answer;
    if it pays far more, it starts sure of something that is wrong, and the first steps of training go
    into unlearning that.

    What the guess costs is measured, too: it is the recipe's loss when all logits are equal. This is
    ln V with V the number of logits at a position, whatever size the configuration claims. Where the
    model has no logits there is no such guess, and the loss must only be finite.

    Args:
        model: fresh, not from a checkpoint. Its mode and the random state are left as they are.
        recipe: whose loss it is.
        batch: one example or more, as the recipe collates them. Without targets, both losses are 0.

    Returns:
        mean loss and that of the uniform guess, in nats per target; None for a model without logits.

    Raises:
        InputError: the loss is not finite, or not within ``FIRST_LOSS`` times the guess's.
    """
    with in_mode(model):
        loss = _mean_loss(model, recipe, batch)
        equal = _EqualLogits()
        hook = model.register_forward_hook(equal)
        try:
            guess = _mean_loss(model, recipe, batch)
        finally:
            hook.remove()
    least, most = FIRST_LOSS
    # Where a guess costs nothing, there are no targets or the loss is none that has such a scale.
    off = equal.made and guess > 0 and not least * guess <= loss <= most * guess
    if off or not math.isfinite(loss):
        costs = f", where a uniform guess costs {guess:.2f}" if equal.made else ""
        raise InputError(
            f"the new model starts at a loss of {loss:.2f} nats{costs}",
            "its weights start too large, or its logits see the answer:"
            " check --config_overrides, such as initializer_range",
        )
    return loss, guess if equal.made else None


def _mean_loss(model: PreTrainedModel, recipe: Recipe, batch: Batch) -> float:
    """Nats per target, 0 without targets."""
    with torch.random.fork_rng(), torch.no_grad():
        total, count = recipe.loss(model, batch)[:2]
    return float(total) / max(int(count), 1)


class _EqualLogits:
    """A forward hook: the model's outputs with logits that prefer nothing, if there are any."""

    made = False

    def __call__(self, module: torch.nn.Module, inputs: Any, outputs: Any) -> Any:
        if getattr(outputs, "logits", None) is not None:
            outputs.logits = torch.zeros_like(outputs.logits)
            self.made = True
        return outputs
