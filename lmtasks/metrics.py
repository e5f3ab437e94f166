"""Metrics as ``evaluate.Metric`` classes: rows of sums, of batches or of all of them; no download, usable alone.

>>> from lmtasks.metrics import Perplexity
>>> Perplexity().compute(loss=[6.0, 2.0], targets=[3, 1])
{'loss': 2.0, 'perplexity': 7.38905609893065}
"""

from __future__ import annotations

import math
from typing import Any

import datasets
import evaluate

CITATION = "Jelinek et al. 1977, Perplexity: a measure of the difficulty of speech recognition tasks"


def _info(description: str, features: dict[str, str], inputs: str) -> evaluate.MetricInfo:
    return evaluate.MetricInfo(
        description=description,
        citation=CITATION,
        inputs_description=inputs,
        features=datasets.Features({name: datasets.Value(kind) for name, kind in features.items()}),
    )


class Perplexity(evaluate.Metric):
    """Mean loss over all targets and its exponential, independent of how they were batched."""

    greater_is_better = False

    def _info(self) -> evaluate.MetricInfo:
        return _info(
            "exp of the mean negative log-likelihood",
            {"loss": "float64", "targets": "int64"},
            "loss: summed loss of each batch in nats; targets: number of targets in each batch",
        )

    def _compute(self, loss: list[float], targets: list[int]) -> dict[str, Any]:
        mean = math.fsum(loss) / sum(targets)
        # exp overflows a float just under 710 nats; so bad a model has no perplexity worth a number.
        return {"loss": mean, "perplexity": math.exp(mean) if mean < 700 else math.inf}


class BitsPerByte(evaluate.Metric):
    """Loss per UTF-8 byte of the text instead of per token, in bits: comparable between tokenizers.

    >>> BitsPerByte().compute(loss=[math.log(2) * 8], targets=[4], tokens=5, bytes=20)
    {'bits_per_byte': 0.5}
    """

    greater_is_better = False

    def _info(self) -> evaluate.MetricInfo:
        return _info(
            "mean negative log-likelihood of a token in bits, times tokens per byte",
            {"loss": "float64", "targets": "int64"},
            "loss: summed loss of each batch in nats; targets: number of targets in each batch;"
            " tokens, bytes: size of the text, in tokens that could be targets and in UTF-8",
        )

    def _compute(self, loss: list[float], targets: list[int], tokens: int, bytes: int) -> dict[str, Any]:
        return {"bits_per_byte": math.fsum(loss) / sum(targets) / math.log(2) * tokens / bytes}


class Accuracy(evaluate.Metric):
    """Share of the targets to which the model gives its highest probability."""

    greater_is_better = True

    def _info(self) -> evaluate.MetricInfo:
        return _info(
            "share of targets guessed right",
            {"correct": "int64", "targets": "int64"},
            "correct: targets guessed right in each batch; targets: number of targets in each batch",
        )

    def _compute(self, correct: list[int], targets: list[int]) -> dict[str, Any]:
        return {"accuracy": sum(correct) / sum(targets)}
