"""Sums over the batches of an evaluation, exact and in constant memory, however many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from lmtasks.config.world import World
from lmtasks.errors import RunError

Row = dict[str, Any]
"""The sums of a batch by name: numbers, or lists of these."""


class Sums:
    """The sums of batches, added without rounding: their order, and who added which, makes no difference.

    It is rounded once, when :meth:`of_all` is asked, as ``math.fsum`` does it with all rows at hand.

    Raises:
        RunError: the weight of a term changes from batch to batch.
    """

    def __init__(self) -> None:
        self.total: Row = {}
        self.weights: Mapping[str, float] | None = None

    def add(self, row: Row, weights: Mapping[str, float]) -> None:
        """One more batch.

        Args:
            weights: of the terms of the loss, by name.
        """
        self._add({name: _exact(value) for name, value in row.items()}, weights)

    def of_all(self, world: World) -> tuple[Row, Mapping[str, float]]:
        """The sums of all processes, in all, and the weights; of no batches, none."""
        whole = Sums()
        for total, weights in world.gather((self.total, self.weights)):
            if weights is not None:
                whole._add(total, weights)
        return {name: _rounded(value) for name, value in whole.total.items()}, whole.weights or {}

    def _add(self, row: Row, weights: Mapping[str, float]) -> None:
        before = weights if self.weights is None else self.weights
        if changed := [name for name in before if weights[name] != before[name]]:
            raise RunError(f"the weight of the term '{changed[0]}' changes from batch to batch", "make it one number")
        self.weights = before
        self.total = {name: _plus(self.total[name], value) if self.total else value for name, value in row.items()}


def _exact(value: Any) -> Any:
    if isinstance(value, list):
        return [_exact(one) for one in value]
    # What is not finite stays what it is, and so does a sum with it.
    return Fraction(value) if isinstance(value, float) and math.isfinite(value) else value


def _plus(one: Any, other: Any) -> Any:
    if isinstance(one, list):
        return [_plus(*pair) for pair in zip(one, other, strict=True)]
    return one + other


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(value) if isinstance(value, Fraction) else value
