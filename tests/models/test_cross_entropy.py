"""Log p of labels under a projection to the vocabulary, against the same in float64 with all logits at hand."""

from __future__ import annotations

import math

import pytest
import torch

from lmtasks.models import cross_entropy as projection
from lmtasks.models.cross_entropy import likelihoods, plain_likelihoods

WORDS, SIZE = 103, 16


@pytest.fixture(params=[1, 60, 10**6], ids=["a word at a time", "in pieces", "at once"], autouse=True)
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "AT_ONCE", {"cpu": request.param})


def layer() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(WORDS, SIZE, generator=draw), torch.randn(WORDS, generator=draw)


def asked(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(count, SIZE, generator=draw), torch.randint(WORDS, (count,), generator=draw)


@pytest.mark.parametrize("count", [0, 1, 11])
@pytest.mark.parametrize("biased", [True, False])
def test_they_are_those_of_all_logits_in_float64(count: int, biased: bool) -> None:
    weight, bias = layer()
    features, labels = asked(count)
    logits = features.double() @ weight.double().t() + (bias.double() if biased else 0)
    labels[: count // 2] = logits.argmax(1)[: count // 2]
    told, right = likelihoods(features, labels, weight, bias if biased else None)
    expected = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    assert told.dtype == torch.float32
    torch.testing.assert_close(told.double(), expected, rtol=1e-6, atol=1e-5)
    assert right.tolist() == (logits.argmax(1) == labels).tolist()
    plain, plainly_right = plain_likelihoods(logits.float(), labels)
    torch.testing.assert_close(told, plain, rtol=1e-6, atol=1e-5)
    assert right.tolist() == plainly_right.tolist()


def test_large_logits_and_words_that_cannot_be_are_no_trouble() -> None:
    weight, bias = layer()
    weight *= 100
    bias[:40] = -math.inf  # whole pieces of them
    features, labels = asked(7)
    labels[0], labels[1] = 3, 70
    expected = (features.double() @ weight.double().t() + bias.double()).log_softmax(1).gather(1, labels[:, None])[:, 0]
    told, right = likelihoods(features, labels, weight, bias)
    assert told[0] == -math.inf and not right[0]
    torch.testing.assert_close(told.double(), expected, rtol=1e-5, atol=1e-3)


def test_of_words_that_are_as_likely_the_first_is_the_guess() -> None:
    weight, bias = torch.zeros(WORDS, SIZE), torch.zeros(WORDS)
    features, _ = asked(3)
    told, right = likelihoods(features, torch.tensor([0, 1, WORDS - 1]), weight, bias)
    assert right.tolist() == [True, False, False]
    assert told.tolist() == pytest.approx([-math.log(WORDS)] * 3)


def test_the_first_of_many_that_are_as_likely_is_told_for_every_label() -> None:
    weight, bias = (one.sign() for one in layer())  # whole numbers, whose sums are exact and seldom differ
    features = asked(40)[0].sign()
    guesses = (features @ weight.t() + bias).argmax(1)
    for labels in (guesses, (guesses + 1) % WORDS, torch.full_like(guesses, int(guesses.mode().values))):
        assert likelihoods(features, labels, weight, bias)[1].tolist() == (labels == guesses).tolist()


def test_what_is_no_number_stays_none() -> None:
    weight, bias = layer()
    features, labels = asked(2)
    features[0, 0] = math.nan
    told, _ = likelihoods(features, labels, weight, bias)
    assert told.isnan().tolist() == [True, False]


def test_products_are_in_the_precision_of_autocast() -> None:
    weight, bias = layer()
    features, labels = asked(5)
    logits = torch.nn.functional.linear(features.bfloat16(), weight.bfloat16(), bias.bfloat16()).float()
    expected = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    with torch.autocast("cpu", torch.bfloat16):
        told, _ = likelihoods(features, labels, weight, bias)
    exact, _ = likelihoods(features, labels, weight, bias)
    assert (told - exact).abs().max() > 1e-3
    torch.testing.assert_close(told, expected, rtol=0, atol=0.1)


def test_a_label_that_the_layer_has_no_word_for_is_refused() -> None:
    weight, bias = layer()
    with pytest.raises(IndexError, match=f"a label is {WORDS}, and the layer has {WORDS} words"):
        likelihoods(asked(2)[0], torch.tensor([0, WORDS]), weight, bias)
