"""What a loss gives, and the checks of its terms: counts that are known before the model runs, and weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from lmtasks.api import SUMS, Batch, LossTerm, kind, loss_terms, of_term, target_counts, weigh, wrong_sums
from lmtasks.testing.case import Case
from lmtasks.testing.proof import Fault, Inapplicable, check


def terms(case: Case, model: torch.nn.Module, batch: Batch) -> tuple[dict[str, LossTerm], dict[str, Any]]:
    """Terms by name, and further sums, that the recipe's loss gives for a batch; a sum and a count are one term.

    Raises:
        Fault: it does not say a sum and a count, or such terms, and perhaps further sums.
    """
    said = case.bound.loss(model, dict(batch))
    if wrong := wrong_sums(said):
        raise Fault(wrong, SUMS)
    found, further = loss_terms(said)
    for name, term in found.items():
        if not torch.is_tensor(term.count):
            raise Fault(f"the count{of_term(name)} is {kind(term.count)}, no scalar tensor", SUMS)
        if not isinstance(term.weight, int | float) or not math.isfinite(term.weight):
            raise Fault(f"the weight{of_term(name)} is {term.weight!r}", "make it a number of Python's")
    return found, dict(further)


def sums(case: Case, model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, int, dict[str, Any]]:
    """Sum and count, of the first term where there are several, and further sums; see :func:`terms`."""
    found, further = terms(case, model, batch)
    first = next(iter(found.values()))
    return first.sum, int(first.count), further


def added(found: Mapping[str, LossTerm]) -> torch.Tensor:
    """The sums of all terms, each times its weight."""
    return weigh(found, {name: term.sum for name, term in found.items()})


def same(one: float, other: float, tolerance: float = 1e-4) -> bool:
    """Whether two figures are equal but for rounding, as sums in float32 of the same terms in another order are."""
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=1e-6)


@check("recipe", of="loss")
def count_is_that_of_the_targets(case: Case) -> None:
    """The number of targets that the loss returns is that of ``targets``, for each term: by it the runner divides."""
    for collate, examples in case.splits():
        batch = collate(examples)
        with torch.no_grad():
            (found, _), (other, _) = (terms(case, model, batch) for model in (case.model(), case.stirred()))
        counts = _counts(case.recipe.targets(batch), found)
        for name, term in found.items():
            count = int(term.count)
            if name in other and count != int(other[name].count):
                raise Fault(
                    f"the count{of_term(name)} is {count} with one model and {int(other[name].count)} with another",
                    "count what the batch tells: the divisor has to be known before the model runs",
                )
            if counts[name] != count:
                raise Fault(
                    f"the loss counts {count} targets{of_term(name)}, recipe.targets finds {counts[name]}",
                    "let both count the same: labels that are not -100, or a `targets` of the recipe's own",
                )
        if not any(counts.values()):
            raise Fault("a batch of four whole blocks has no target", "see that the collator makes labels")


def _counts(said: Any, found: Mapping[str, LossTerm]) -> dict[str, int]:
    """The numbers that ``targets`` says, for each term of the loss."""
    names = [name for name in found if name]
    if bool(names) != isinstance(said, Mapping) or (names and said.keys() != found.keys()):
        told = f"names {', '.join(said)}" if isinstance(said, Mapping) else f"is {kind(said)}"
        raise Fault(
            f"what targets gives {told}, the terms of the loss are {', '.join(names)}"
            if names
            else f"what targets gives {told}, and the loss has no terms",
            "let `targets` give {name: ids or count}, with the names of the loss: a count is known without the model",
        )
    for name, value in said.items() if names else [("", said)]:
        right = value.dim() in ((0, 1) if name else (1,)) if torch.is_tensor(value) else name and type(value) is int
        if not right:
            raise Fault(
                f"targets gives {kind(value)}{of_term(name)}",
                "give the ids of the targets in one dimension, or a count",
            )
    return target_counts(said)


@check("recipe", advice="leave the weight out of the sum: the runner multiplies the mean by it, once", of="loss")
def weights_are_applied_once(case: Case) -> str:
    """The weight of a term is the same in every batch, and where an option changes it, the sum stays as it is."""
    model, batch = case.stirred(), case.batch()
    with torch.no_grad():
        found, _ = terms(case, model, batch)
        if not all(found):
            raise Inapplicable("the loss has one term, which has no weight")
        for collate, examples in case.splits():
            for example in examples:
                for name, term in terms(case, model, collate([example]))[0].items():
                    if term.weight != found[name].weight:
                        raise Fault(
                            f"the weight{of_term(name)} is {found[name].weight} in one batch and {term.weight} in"
                            " another",
                            "make it a number of the options; what changes from example to example goes into the sum",
                        )
        tried = [name for option in case.numbers() if (name := _weighted_by(case, model, batch, option, found))]
    return f"weights that options change: {', '.join(tried) or 'none'}"


def _weighted_by(case: Case, model: torch.nn.Module, batch: Batch, option: str, found: Mapping[str, LossTerm]) -> str:
    """The name of the option, if it changes a weight; then it must not change the sum."""
    try:
        other = case.having(**{option: getattr(case.request.options, option) / 2})
    except Inapplicable:
        return ""
    moved = ""
    for name, term in terms(other, model, batch)[0].items():
        if name in found and term.weight != found[name].weight:
            moved = option
            if not same(term.sum.item(), found[name].sum.item()):
                sums = f"from {found[name].sum.item():.4f} to {term.sum.item():.4f}"
                raise Fault(
                    f"--{option} changes the weight{of_term(name)} from {found[name].weight} to {term.weight},"
                    f" and its sum {sums} as well: the weight counts twice"
                )
    return moved
