"""Losses are sums over targets: against the definition, written out token by token."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from lmtasks import causal_loss, masked_loss, token_sums


class Speaker(torch.nn.Module):
    """A model that answers with the logits it was given and keeps what it was called with."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)
        self.heard: dict[str, Any] = {}

    def forward(self, **inputs: Any) -> SimpleNamespace:
        self.heard = inputs
        return SimpleNamespace(logits=self.logits)


def surprise(logits: list[float], token: int) -> float:
    """Minus the logarithm of the softmax, by hand."""
    return math.log(sum(math.exp(value) for value in logits)) - logits[token]


def a_batch(*labels: list[int]) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.ones(len(labels), len(labels[0]), dtype=torch.int64), "labels": torch.tensor(labels)}


LABELS = ([3, -100, 0, 2], [-100, -100, 1, -100])


@pytest.fixture
def speaker() -> Speaker:
    torch.manual_seed(0)
    return Speaker(torch.randn(2, 4, 5))


def test_masked_loss_is_the_sum_at_the_labels(speaker: Speaker) -> None:
    total, targets, _ = masked_loss(speaker, a_batch(*LABELS))
    expected = sum(
        surprise(speaker.logits[row, place].tolist(), label)
        for row, labels in enumerate(LABELS)
        for place, label in enumerate(labels)
        if label != -100
    )
    assert total.item() == pytest.approx(expected, rel=1e-6)
    assert targets.item() == 4


def test_causal_loss_is_the_sum_over_tokens_given_those_before(speaker: Speaker) -> None:
    labels = ([-100, 3, 0, 2], [-100, 4, -100, -100])
    total, targets, _ = causal_loss(speaker, a_batch(*labels))
    expected = sum(
        surprise(speaker.logits[row, place - 1].tolist(), labels[row][place])
        for row, place in ((0, 1), (0, 2), (0, 3), (1, 1))
    )
    assert total.item() == pytest.approx(expected, rel=1e-6)
    assert targets.item() == 4


def test_first_token_is_no_target_of_causal_loss_whatever_its_label(speaker: Speaker) -> None:
    with_first = causal_loss(speaker, a_batch([1, 3, 0, 2], [1, 4, 0, 0]))
    without = causal_loss(speaker, a_batch([-100, 3, 0, 2], [-100, 4, 0, 0]))
    assert with_first[0].item() == without[0].item()
    assert with_first[1].item() == without[1].item() == 6


@pytest.mark.parametrize("loss", [masked_loss, causal_loss])
def test_nothing_to_predict_is_zero_of_zero(loss: Any, speaker: Speaker) -> None:
    total, targets, _ = loss(speaker, a_batch([-100] * 4, [-100] * 4))
    assert (total.item(), targets.item()) == (0.0, 0)


@pytest.mark.parametrize("loss", [masked_loss, causal_loss])
def test_what_is_for_the_loss_stays_out_of_the_model(loss: Any, speaker: Speaker) -> None:
    loss(speaker, a_batch(*LABELS) | {"attention_mask": torch.ones(2, 4), "label_smoothing": 0.1})
    assert speaker.heard.keys() == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("loss", [masked_loss, causal_loss])
def test_batch_is_left_as_it_was(loss: Any, speaker: Speaker) -> None:
    batch = {**a_batch(*LABELS), "label_smoothing": 0.1}
    loss(speaker, batch)
    assert batch.keys() == {"input_ids", "labels", "label_smoothing"}
    assert batch["labels"].tolist() == list(LABELS)


@pytest.mark.parametrize("loss", [masked_loss, causal_loss])
def test_sums_of_parts_add_up_to_the_sum_of_the_whole(loss: Any) -> None:
    torch.manual_seed(1)
    logits, labels = torch.randn(6, 7, 11), torch.randint(0, 11, (6, 7))
    labels[torch.rand(6, 7) < 0.4] = -100
    batch = {"input_ids": labels.clamp(min=0), "labels": labels}
    with torch.no_grad():
        whole = loss(Speaker(logits), batch)
        parts = [
            loss(Speaker(logits[rows]), {name: value[rows] for name, value in batch.items()})
            for rows in (slice(0, 1), slice(1, 4), slice(4, 6))
        ]
    assert sum(part[0] for part in parts).item() == pytest.approx(whole[0].item(), rel=1e-12)
    assert sum(part[1] for part in parts).item() == whole[1].item()
    assert sum(part[2]["correct"] for part in parts).item() == whole[2]["correct"].item()


def test_gradient_is_that_of_the_sum(speaker: Speaker) -> None:
    total, _, more = masked_loss(speaker, a_batch([3, -100, -100, -100], [-100] * 4))
    total.backward()
    expected = torch.softmax(speaker.logits[0, 0], 0).detach()
    expected[3] -= 1
    assert torch.allclose(speaker.logits.grad[0, 0], expected, atol=1e-7)
    assert speaker.logits.grad[0, 1:].abs().sum() == speaker.logits.grad[1].abs().sum() == 0
    assert more == {}, "training has no use for more sums"


def test_correct_counts_targets_with_the_highest_logit_only() -> None:
    logits = torch.eye(4)
    with torch.no_grad():
        _, targets, more = token_sums(logits, torch.tensor([0, 1, 3, -100]))
    assert (targets.item(), more["correct"].item()) == (3, 2)


def test_evaluation_sums_in_float64_where_float32_would_lose_targets() -> None:
    # 2^24 + 1 is no float32: after one large loss, small ones would vanish one by one.
    logits = torch.zeros(3, 2)
    logits[0, 1] = 2.0**24
    with torch.no_grad():
        total, _, _ = token_sums(logits, torch.zeros(3, dtype=torch.int64))
    assert total.item() == pytest.approx(2.0**24 + 2 * math.log(2), abs=1e-6)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_full(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = torch.randn(200, 50).to(kind)
    labels = torch.randint(0, 50, (200,))
    total, _, _ = token_sums(logits, labels)
    expected = -torch.log_softmax(logits.double(), -1)[torch.arange(200), labels].sum()
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)


# --- label smoothing ---


def of_torch(loss: Any, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """torch's own smoothed loss, in float64, of what the loss predicts."""
    if loss is causal_loss:
        logits, labels = logits[:, :-1], labels[:, 1:]
    return cross_entropy(
        logits.double()[labels != -100], labels[labels != -100], label_smoothing=smoothing, reduction="sum"
    )


@pytest.mark.parametrize("loss", [masked_loss, causal_loss])
@pytest.mark.parametrize("smoothing", [0.05, 0.1, 0.9])
def test_smoothing_changes_the_gradient_and_nothing_else(smoothing: float, loss: Any) -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(6, 7, 11), torch.randint(0, 11, (6, 7))
    labels[torch.rand(6, 7) < 0.4] = -100
    batch = {"input_ids": labels.clamp(min=0), "labels": labels}
    plain, smoothed = Speaker(logits.clone()), Speaker(logits.clone())
    before = loss(plain, batch)
    after = loss(smoothed, {**batch, "label_smoothing": smoothing})
    assert after == before, "sum, count and the rest, to the last bit"
    assert before[0].item() == pytest.approx(of_torch(loss, logits, labels, 0.0).item(), rel=1e-6)

    after[0].backward()
    oracle = logits.clone().requires_grad_()
    of_torch(loss, oracle, labels, smoothing).backward()
    assert torch.allclose(smoothed.logits.grad, oracle.grad, atol=1e-6)
    before[0].backward()
    assert not torch.allclose(smoothed.logits.grad, plain.logits.grad, atol=smoothing / 20)


def test_smoothed_gradient_by_hand() -> None:
    # Equal logits give each of four tokens 1/4; a smoothing of 0.2 wants 0.85 for the label, 0.05 for the others.
    logits = torch.zeros(1, 4, requires_grad=True)
    total, _, _ = token_sums(logits, torch.tensor([2]), 0.2)
    total.backward()
    assert logits.grad[0].tolist() == pytest.approx([0.2, 0.2, -0.6, 0.2], abs=1e-6)
    assert total.item() == pytest.approx(math.log(4), rel=1e-6)


@pytest.mark.parametrize("loss", [masked_loss, causal_loss])
def test_evaluation_does_not_smooth(loss: Any, speaker: Speaker) -> None:
    with torch.no_grad():
        plain = loss(speaker, a_batch(*LABELS))
        assert loss(speaker, a_batch(*LABELS) | {"label_smoothing": 0.5}) == plain


def test_smoothing_of_nothing_is_nothing() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    total, targets, _ = token_sums(logits, torch.zeros(0, dtype=torch.int64), 0.1)
    assert (total.item(), targets.item()) == (0.0, 0)


def test_what_is_said_where_nothing_is_asked_does_not_matter_to_smoothing() -> None:
    logits = torch.tensor([[1.0, 2.0], [math.inf, 0.0]], requires_grad=True)
    total, _, _ = token_sums(logits, torch.tensor([0, -100]), 0.1)
    assert total.item() == pytest.approx(surprise([1.0, 2.0], 0), rel=1e-6)


def test_half_precision_logits_are_smoothed_in_full() -> None:
    torch.manual_seed(0)
    logits = torch.randn(200, 5000).bfloat16().requires_grad_()
    labels = torch.randint(0, 5000, (200,))
    token_sums(logits, labels, 0.1)[0].backward()
    oracle = logits.detach().double().requires_grad_()
    cross_entropy(oracle, labels, label_smoothing=0.1, reduction="sum").backward()
    # bfloat16 has eight bits; a mean of 5,000 numbers taken in them would be off by far more.
    assert torch.allclose(logits.grad.double(), oracle.grad, rtol=2**-8, atol=1e-7)


# --- weights, and logits of whole examples ---


def test_each_loss_is_multiplied_by_its_weight_and_the_count_stays() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 7, requires_grad=True), torch.randint(0, 7, (2, 5))
    labels[0, 1] = labels[1, 4] = -100
    weights = torch.rand(2, 5) * 10
    total, count, _ = token_sums(logits, labels, weights=weights)
    places = [place for place in itertools.product(range(2), range(5)) if labels[place] != -100]
    expected = sum(weights[place] * -logits[place].log_softmax(0)[labels[place]] for place in places)
    assert (total.item(), int(count)) == (pytest.approx(expected.item(), rel=1e-6), 8)
    (ours,), (theirs,) = (torch.autograd.grad(one, logits, retain_graph=True) for one in (total, expected))
    assert torch.allclose(ours, theirs, atol=1e-5)
    with torch.no_grad():
        exact, _, more = token_sums(logits, labels, weights=weights)
    assert (exact.dtype, exact.item()) == (torch.float64, pytest.approx(expected.item(), rel=1e-6))
    assert more["correct"] == sum(logits[place].argmax() == labels[place] for place in places)


def test_smoothing_is_weighted_as_the_loss_is() -> None:
    logits, labels = torch.randn(3, 4, requires_grad=True), torch.tensor([0, 3, 1])
    weights = torch.tensor([2.0, 0.5, 3.0])
    total, _, _ = token_sums(logits, labels, 0.1, weights)
    expected = weights * cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")
    (ours,), (theirs,) = (torch.autograd.grad(one.sum(), logits, retain_graph=True) for one in (total, expected))
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_logits_of_whole_examples_need_not_be_picked() -> None:
    logits, labels = torch.randn(2, 3, 5), torch.tensor([[1, -100, 4], [-100, -100, 0]])
    logits[0, 1] = torch.nan  # is not looked at
    picked = token_sums(logits[labels != -100], labels[labels != -100])
    assert token_sums(logits, labels)[:2] == picked[:2]
