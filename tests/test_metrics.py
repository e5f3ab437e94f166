"""Metrics: figures by hand, from sums however they were batched."""

from __future__ import annotations

import doctest
import math

import evaluate
import pytest

from lmtasks import metrics
from lmtasks.metrics import Accuracy, BitsPerByte, Perplexity


def test_loss_is_divided_by_all_targets_and_not_batch_by_batch() -> None:
    figures = Perplexity().compute(loss=[6.0, 1.0], targets=[3, 1])
    assert figures == {"loss": 1.75, "perplexity": pytest.approx(math.exp(1.75), rel=1e-15)}


def test_batching_does_not_change_the_figures() -> None:
    losses, targets = [0.1 * number for number in range(100)], [1 + number % 3 for number in range(100)]
    whole = Perplexity().compute(loss=[math.fsum(losses)], targets=[sum(targets)])
    assert Perplexity().compute(loss=losses, targets=targets) == pytest.approx(whole, rel=1e-14)


def test_batch_without_targets_changes_nothing() -> None:
    assert Perplexity().compute(loss=[6.0, 0.0], targets=[3, 0])["loss"] == 2.0
    assert Accuracy().compute(correct=[2, 0], targets=[4, 0])["accuracy"] == 0.5


def test_perplexity_of_a_uniform_guess_is_the_number_of_choices() -> None:
    assert Perplexity().compute(loss=[5 * math.log(50)], targets=[5])["perplexity"] == pytest.approx(50)


def test_perplexity_beyond_floats_is_infinite() -> None:
    assert Perplexity().compute(loss=[800.0], targets=[1]) == {"loss": 800.0, "perplexity": math.inf}
    assert Perplexity().compute(loss=[699.0], targets=[1])["perplexity"] == math.exp(699)


def test_loss_that_is_no_number_stays_none() -> None:
    assert math.isnan(Perplexity().compute(loss=[1.0, math.nan], targets=[1, 1])["loss"])


def test_accuracy_is_the_share_of_all_targets() -> None:
    assert Accuracy().compute(correct=[1, 4], targets=[1, 9]) == {"accuracy": 0.5}


def test_bits_per_byte_of_a_sure_guess_among_256_is_eight_for_tokens_of_one_byte() -> None:
    figures = BitsPerByte().compute(loss=[3 * math.log(256), math.log(256)], targets=[3, 1], tokens=9, bytes=9)
    assert figures == {"bits_per_byte": pytest.approx(8, rel=1e-15)}


@pytest.mark.parametrize("metric", [Perplexity, Accuracy, BitsPerByte])
def test_metric_is_one_of_evaluates(metric: type) -> None:
    assert isinstance(metric(), evaluate.Metric)


def test_example_in_the_documentation_is_true() -> None:
    assert doctest.testmod(metrics) == (0, 3)
