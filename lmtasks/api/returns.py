"""What the functions of a recipe return, and what is wrong where one returns something else.

A forgotten ``return`` is found where it was forgotten, not where somebody wanted what is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lmtasks.api.blocks import Blocks
from lmtasks.api.losses import LossTerm, terms_of

SUMS = (
    "return (sum of the losses, number of targets), two scalar tensors, and perhaps {name: further sum};"
    " or {name: LossTerm(sum, count, weight)} in place of both"
)
"""What a loss returns, as advice."""


@dataclass(frozen=True)
class Return:
    """What a function returns.

    Args:
        wrong: a value to what is wrong with it, in words; empty where nothing is.
        advice: what it should be.
    """

    wrong: Callable[[Any], str]
    advice: str


def wrong_sums(said: Any) -> str:
    """What is wrong with what a loss returned; empty where the runner can do with it."""
    by_name = terms_of(said)
    if by_name is None and (not isinstance(said, tuple) or len(said) not in (2, 3)):
        return f"loss returns {kind(said)}, no pair and no triple"
    for name, term in (by_name or {}).items():
        if not isinstance(term, LossTerm):
            return f"the term {name!r} is {kind(term)}, no LossTerm"
    named = by_name if by_name is not None else {"": LossTerm(said[0], said[1])}
    for name, term in named.items():
        if not _is_scalar_tensor(term.sum):
            return f"the loss{of_term(name)} is {kind(term.sum)}, no scalar tensor"
        if not isinstance(term.count, int) and not _is_scalar_tensor(term.count):
            return f"the count{of_term(name)} is {kind(term.count)}, no scalar tensor"
    further = said[-1] if isinstance(said, tuple) and len(said) == (3 if by_name is None else 2) else {}
    by_names = isinstance(further, Mapping)
    strange = [value for value in further.values() if not hasattr(value, "tolist")] if by_names else [further]
    return f"what it returns beside the loss is {kind(strange[0])}, no {{name: tensor}}" if strange else ""


def of_term(name: str) -> str:
    """Which term of a loss is meant, in words; empty where it has only one."""
    return f" of the term '{name}'" if name else ""


def _wrong_batch(said: Any) -> str:
    if not isinstance(said, Mapping):
        return f"the batch is {kind(said)}"
    lists = [name for name, value in said.items() if isinstance(value, list | tuple) or _is_array(value)]
    return f"{lists[0]!r} of the batch is {kind(said[lists[0]])}" if lists else ""


def _other_than(*kinds: type, what: str) -> Callable[[Any], str]:
    return lambda said: "" if isinstance(said, kinds) else f"{what} is {kind(said)}"


BATCH = Return(_wrong_batch, "return a dictionary of tensors, with one row for each example")
"""What the function returns that a collator makes."""

RETURNS = {
    "preprocess": Return(
        lambda said: (
            "" if isinstance(said, Blocks) or hasattr(said, "examples") else f"preprocess returns {kind(said)}"
        ),
        "return lmtasks.Blocks, such as options.blocks(start=..., end=...); or a layout for another medium",
    ),
    "collator": Return(
        lambda said: "" if callable(said) else f"collator returns {kind(said)}",
        "return a function from a list of examples to a batch",
    ),
    "loss": Return(wrong_sums, SUMS),
    "targets": Return(
        lambda said: "" if isinstance(said, Mapping) or hasattr(said, "numel") else f"targets gives {kind(said)}",
        "return the ids of the targets in one dimension; or {name: ids or count} for a loss of terms",
    ),
    "views": Return(_other_than(Mapping, what="views"), "return {name: Blocks(...)}, empty where there are none"),
    "perplexity_name": Return(_other_than(str, what="the name"), "return a text"),
    "prompt": Return(
        lambda said: "prompt returns None" if said is None else "", "return what the pipeline is to get: mostly a text"
    ),
    "answers": Return(_other_than(list, tuple, what="what answers returns"), "return a list of lines"),
}
"""By the name of the field; what is not here may return anything, or is looked at elsewhere."""


CALLBACKS = Return(
    lambda said: "" if isinstance(said, Iterable) else f"callbacks gives {kind(said)}",
    "return a list of TrainerCallback objects, empty where the options ask for nothing",
)
"""What the callbacks of an extension return."""

EXIT_CODE = Return(
    lambda said: "" if isinstance(said, int) else f"it gives {kind(said)}", "return the exit code, 0 where all is well"
)
"""What a subcommand returns."""


def kind(value: Any) -> str:
    """What a value is, in words: of a tensor the shape, of any other object its class."""
    if value is None:
        return "None"
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" if shape is None else f"a {type(value).__name__.lower()} {[*shape]}"


def _is_scalar_tensor(value: Any) -> bool:
    return hasattr(value, "requires_grad") and value.numel() == 1


def _is_array(value: Any) -> bool:
    return type(value).__module__ == "numpy"
