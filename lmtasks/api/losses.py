"""What a loss gives: a sum and a count, or several of them by name, each with a weight.

The mean of a term is its sum over its count, both over the whole global batch; the loss is the weighted sum of these
means. Only the runner divides, and only the runner multiplies by a weight.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from lmtasks.api.references import Deferred, resolve
from lmtasks.errors import InputError

if TYPE_CHECKING:
    import torch

SOLE = ""
"""The name of the only term of a loss that has one."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")

_TAKEN = ("unigram", "train", "eval", "sliding", "pseudo")
"""Names with which a term's figures would be called as others are."""


@dataclass(frozen=True)
class LossTerm:
    """One term of a loss that has several.

    Args:
        sum: of the losses of a batch, scalar tensor; neither a mean nor multiplied by the weight.
        count: what the sum is divided by, scalar tensor; :attr:`lmtasks.Recipe.targets` tells it without the model.
        weight: what the mean counts in the loss; the same in every batch.
    """

    sum: torch.Tensor
    count: torch.Tensor
    weight: float = 1.0


LossTerms = Mapping[str, LossTerm]

LossSums = (
    tuple["torch.Tensor", "torch.Tensor"]
    | tuple["torch.Tensor", "torch.Tensor", Mapping[str, "torch.Tensor"]]
    | LossTerms
    | tuple[LossTerms, Mapping[str, "torch.Tensor"]]
)
"""Sum of the losses in nats and number of targets, or terms by name; then perhaps further sums, of any shape."""

Targets = Any
"""Ids of targets, int [targets]; or by name of the term ids, or a count as a number or scalar tensor."""


def terms_of(said: Any) -> Mapping[str, Any] | None:
    """The terms by name of what a loss returned, as they stand there; None where it is a sum and a count."""
    first = said[0] if isinstance(said, tuple) and said else said
    return first if isinstance(first, Mapping) else None


def loss_terms(said: LossSums) -> tuple[dict[str, LossTerm], Mapping[str, torch.Tensor]]:
    """The terms of a loss by name, in order, and its further sums.

    Raises:
        InputError: no term has a name, or one has a name that is none.
    """
    if isinstance(said, Mapping):
        said = said, {}
    if isinstance(said[0], Mapping):
        terms, further = dict(said[0]), said[1]
        _check(terms)
        return terms, further
    total, count, *more = said
    return {SOLE: LossTerm(total, count)}, more[0] if more else {}


@dataclass(frozen=True)
class TargetsByName:
    """The targets of a loss with terms, of a function for each term."""

    functions: Mapping[str, Callable[[Any], Any]]

    def __call__(self, batch: Any) -> dict[str, Any]:
        """Ids, or a count, by name of the term."""
        return {name: function(batch) for name, function in self.functions.items()}


def target_counts(said: Targets) -> dict[str, int]:
    """What the sums of a batch are to be divided by, by name of the term."""
    if isinstance(said, Mapping):
        return {name: _count(found) for name, found in said.items()}
    return {SOLE: said.numel()}


def has_targets(said: Targets) -> bool:
    """Whether a batch has anything to learn."""
    return any(target_counts(said).values())


def target_ids(said: Targets) -> torch.Tensor | None:
    """The ids of the targets, of the first term where there are several; None where it only counts them."""
    first = next(iter(said.values()), None) if isinstance(said, Mapping) else said
    return first if getattr(first, "ndim", 0) else None


def weigh(terms: Mapping[str, LossTerm], parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What is said of each term, such as its mean, times the weight of the term, added up."""
    first, *others = [parts[name] * term.weight if name else parts[name] for name, term in terms.items()]
    return reduce(add, others, first)


def weighted_sum(said: LossSums) -> torch.Tensor:
    """The sums of all terms, each times its weight: what adds up over batches."""
    terms, _ = loss_terms(said)
    return weigh(terms, {name: term.sum for name, term in terms.items()})


def weighted_mean(said: LossSums) -> float:
    """The loss of a batch by itself; of a term without targets 0."""
    terms, _ = loss_terms(said)
    return sum(float(term.sum) / max(int(term.count), 1) * term.weight for term in terms.values())


def require_counted(recipe: str, terms: Mapping[str, Any], counts: Mapping[str, Any]) -> None:
    """Refuse a loss that has other terms than ``targets`` counts: what nobody counts cannot be divided.

    Raises:
        InputError: names both.
    """
    if terms.keys() == counts.keys():
        return
    lost, counted = (f"'{', '.join(some)}'" if set(some) - {SOLE} else "one term" for some in (terms, counts))
    raise InputError(
        f"the loss of {recipe} has {lost}, its `targets` counts {counted}",
        "let `targets` give {name: ids or count} with a name for each term of the loss",
    )


def knowing(loss: Callable[..., LossSums], options: Any) -> Callable[..., LossSums]:
    """The loss as (model, batch), with the options for one that takes three."""
    return _Knowing(loss, options)


@dataclass
class _Knowing:
    """A loss beside the options; which of both kinds it is, is looked at when it is first called."""

    loss: Callable[..., LossSums]
    options: Any
    takes: bool | None = None

    def __call__(self, model: Any, batch: Any) -> LossSums:
        if self.takes is None:
            self.takes = takes_options(self.loss)
        return self.loss(model, batch, self.options) if self.takes else self.loss(model, batch)


def takes_options(loss: Callable[..., Any]) -> bool:
    """Whether a loss has a third positional parameter without a default: it gets the options."""
    loss = inspect.unwrap(loss)
    function = resolve(loss.reference) if isinstance(loss, Deferred) else loss
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # of something in C nobody knows
        return False
    needed = [one for one in parameters if one.default is one.empty and one.kind in (0, 1)]
    return len(needed) > 2


def _check(terms: Mapping[str, LossTerm]) -> None:
    """Refuse names under which no figure can be told."""
    for name in terms:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _TAKEN:
            raise InputError(f"a term of a loss cannot be called {name!r}", "name it like 'generator', in lower case")
    if not terms:
        raise InputError("a loss has no term", "return {name: LossTerm(sum, count)} with at least one")


def _count(found: Any) -> int:
    return int(found.numel()) if getattr(found, "ndim", 0) else int(found)
