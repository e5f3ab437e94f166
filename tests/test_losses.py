"""Losses are sums over targets: against the definition, written out token by token."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

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
def test_labels_stay_out_of_the_model(loss: Any, speaker: Speaker) -> None:
    loss(speaker, a_batch(*LABELS) | {"attention_mask": torch.ones(2, 4)})
    assert speaker.heard.keys() == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("loss", [masked_loss, causal_loss])
def test_batch_is_left_as_it_was(loss: Any, speaker: Speaker) -> None:
    batch = a_batch(*LABELS)
    loss(speaker, batch)
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
