"""What chance explains of figures that are sums over documents: intervals and a test, by drawing documents anew.

The document is what is drawn, for tokens of one text are no independent witnesses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.float64]]

FLIPS = 10_000
"""Draws of signs; with so few documents that there are no more ways than that, all of them are gone through."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with the interval in which 95 % of its resamples lie; None where there is but one document."""

    value: float
    low: float | None
    high: float | None


class Bootstrap:
    """Resamples of so many documents, the same for every figure: what is compared is drawn together.

    Args:
        resamples: how many.
        seed: of what is drawn.
    """

    def __init__(self, documents: int, resamples: int, seed: int) -> None:
        draw = np.random.default_rng(seed)
        drawn = (np.bincount(draw.integers(0, documents, documents), minlength=documents) for _ in range(resamples))
        self.weights = np.stack(list(drawn)).astype(np.int32) if documents > 1 else None

    def ratio(self, above: Numbers, below: Numbers) -> Estimate:
        """The sum of one over the sum of the other, float64 [documents] both, with its percentile interval."""
        value = float(above.sum() / below.sum())
        if self.weights is None:
            return Estimate(value, None, None)
        ratios = (self.weights @ above) / (self.weights @ below)
        low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return Estimate(value, float(low), float(high))


def sign_flip_test(differences: Numbers, seed: int) -> float:
    """The chance of a sum as far from 0 as that of the differences, were each as likely to be the other way round.

    That is what holds where two models are alike: which of both did better on a document is a toss. Nothing is
    assumed of how differences are spread, so the test holds for few documents and for long tails, where a bootstrap
    finds too much.

    Args:
        differences: of two models on each document, float64 [documents].

    Returns:
        two-sided p, never 0: of draws, the one that there was counts among them.
    """
    count = len(differences)
    observed = abs(differences.sum()) * (1 - 1e-12)  # rounding makes no sum smaller than itself
    if 2**count <= FLIPS:
        ways = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return float(np.mean(np.abs((1 - 2 * ways) @ differences) >= observed))
    draw = np.random.default_rng(seed)
    flipped = (np.abs(np.where(draw.integers(0, 2, count), -1, 1) @ differences) for _ in range(FLIPS))
    return (1 + sum(bool(total >= observed) for total in flipped)) / (1 + FLIPS)
