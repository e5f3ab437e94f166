"""Whether loss and gradients come out of Keras' backend as they do of torch, on one batch, before training.

What traces is not yet right: operators of torch are written anew there, and where one is derived wrongly the loss is
none the less the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lmtasks.api import Batch, Recipe, loss_terms, target_counts, weighted_sum
from lmtasks.errors import first_line
from lmtasks.models.architectures import architecture_of, with_gradients
from lmtasks_keras.batches import Constant, Shapes, constant
from lmtasks_keras.static import RecipeLoss, without_head

LOSS, GRADIENT = 1e-4, 1e-3
"""How far off, as shares, both may be: other kernels add up in another order, and large models have many."""

Gradients = dict[str, np.ndarray[Any, Any]]
"""The gradient of each parameter by its name; those that have none are not there."""


@dataclass(frozen=True)
class Agreement:
    """What came of the comparison.

    Args:
        loss: how far off the loss is, as a share of it.
        gradient: how far off any number in the gradients is, as a share of the largest.
        terms: the weight of each term of the loss by its name.
        idle: names of the parameters that the loss does not depend on: torch's optimisers leave them as they are.
    """

    loss: float
    gradient: float
    terms: Mapping[str, float]
    idle: frozenset[str]

    @property
    def holds(self) -> bool:
        """Whether rounding explains what is off."""
        return self.loss <= LOSS and self.gradient <= GRADIENT


class DisagreementError(Exception):
    """It does not trace, or not what it should; the reason is for people."""


def compare(
    model: torch.nn.Module, recipe: Recipe, batch: Batch, shapes: Shapes, backend: str, label_smoothing: float = 0.0
) -> Agreement:
    """Loss and gradients by torch and by what the backend computes with, which for TensorFlow is what JAX made.

    Args:
        model: its head may be separated, and is not afterwards.
        batch: as the collator makes it, perhaps smaller than the shapes.

    Raises:
        DisagreementError: the model cannot be traced, or filling up the batch changes its targets.
    """
    smoothed = {**batch, "label_smoothing": label_smoothing} if label_smoothing else batch
    want, wanted, terms = _by_torch(model, recipe, smoothed)
    padding = int(getattr(model.config, "pad_token_id", None) or 0)
    filled = constant(batch, shapes, padding)
    again = {
        name: torch.from_numpy(value.astype(np.int64) if value.dtype == np.int32 else value)
        for name, value in filled.items()
    }
    before, after = (target_counts(recipe.targets(one)) for one in (batch, again))
    if before != after:
        raise DisagreementError(f"a batch that is filled up has {after} targets in place of {before}")
    loss = RecipeLoss(without_head(model), recipe, label_smoothing)
    found, gradients = (
        _by_autograd(model, loss, again, terms) if backend == "torch" else _by_jax(model, loss, filled, terms)
    )
    return Agreement(
        loss=abs(found - want) / max(1.0, abs(want)),
        gradient=_off(wanted, gradients),
        terms=terms,
        idle=frozenset(name for name, value in model.named_parameters() if value.requires_grad and name not in wanted),
    )


def _by_torch(model: torch.nn.Module, recipe: Recipe, batch: Batch) -> tuple[float, Gradients, dict[str, float]]:
    """The loss as the Trainer has it, its gradients, and the weights of its terms."""
    with with_gradients(model):
        said = recipe.loss(model, batch)
        terms, _ = loss_terms(said)
        total = weighted_sum(said)
        gradients = _gradients(model, total)
    return float(total.detach()), gradients, {name: float(term.weight) for name, term in terms.items()}


def _by_autograd(
    model: torch.nn.Module, loss: RecipeLoss, batch: Batch, terms: Mapping[str, float]
) -> tuple[float, Gradients]:
    with with_gradients(model):
        sums, _ = loss(batch)
        total = (sums * torch.tensor(list(terms.values()))).sum()
        return float(total.detach()), _gradients(model, total)


def _gradients(model: torch.nn.Module, total: torch.Tensor) -> Gradients:
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    found = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    return {name: value.numpy() for name, value in zip(trained, found, strict=True) if value is not None}


def _by_jax(
    model: torch.nn.Module, loss: RecipeLoss, batch: Constant, terms: Mapping[str, float]
) -> tuple[float, Gradients]:
    import jax

    from lmtasks_keras.tracing import traced

    weights, batch = np.asarray(list(terms.values()), dtype=np.float32), jax.tree.map(jax.numpy.asarray, batch)
    try:
        parameters, function = traced(loss)

        def total(parameters: Any, training: bool, key: Any) -> Any:
            return (function(parameters, batch, key, training)[0] * weights).sum()

        training = architecture_of(model.config).reversible
        value, gradients = jax.jit(jax.value_and_grad(total), static_argnums=1)(parameters, training, None)
        # With dropout, too: what a model draws it may also ask the value of.
        jax.eval_shape(lambda parameters, key: total(parameters, True, key), parameters, jax.random.key(0))
    # What a tracer trips over in anybody's model may be anything.
    except Exception as error:
        raise DisagreementError(f"it cannot be traced ({type(error).__name__}: {first_line(error)})") from error
    named = {name.removeprefix(loss.PREFIX): np.asarray(value) for name, value in gradients.items()}
    return float(value), named


def _off(wanted: Gradients, found: Gradients) -> float:
    """The largest difference, as a share of the largest number that is wanted; where there is none, nothing is."""
    largest = max((float(np.abs(value).max()) for value in wanted.values()), default=0.0)
    names = wanted.keys() | found.keys()
    differences = [np.abs(found.get(name, 0.0) - wanted.get(name, 0.0)).max() for name in names]
    return float(max(differences, default=0.0)) / (largest or 1.0)
