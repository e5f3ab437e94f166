"""Clipping within the step of the optimiser, held to torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, AdamW, Optimizer

from lmtasks.training.speed import clip_in_step, divides


class Derived(AdamW):
    """Somebody's own, which may read gradients in its step."""


def model_and_optimizer() -> tuple[torch.nn.Sequential, Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3), torch.nn.Linear(3, 1))
    model[3].requires_grad_(False)
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "weight_decay": 0.0}]
    return model, AdamW(groups, lr=0.01, weight_decay=0.1, fused=True)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("most", [0.01, 1000.0])
def test_clipping_in_the_step_is_torchs_clipping_before_it(most: float, kind: torch.dtype) -> None:
    model, optimizer = model_and_optimizer()
    model.to(kind)
    expected, plain = model_and_optimizer()
    expected.to(kind)
    digits = {"rtol": 1e-5, "atol": 1e-7} if kind == torch.float32 else {"rtol": 0.02, "atol": 1e-3}
    for step in range(5):
        rows = torch.randn(4, 7, generator=torch.Generator().manual_seed(step)).to(kind)
        for one in (model, expected):
            one.zero_grad()
            one(rows).square().sum().backward()
        raw = model[0].weight.grad.clone()
        norm = clip_in_step(optimizer, most)
        assert norm.dtype == torch.float32
        assert torch.equal(model[0].weight.grad, raw)  # nothing was done to them yet
        torch.testing.assert_close(norm, clip_grad_norm_(expected.parameters(), most).float(), **digits)
        optimizer.step()
        plain.step()
        for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, **digits)
            if theirs.grad is not None:
                torch.testing.assert_close(ours.grad, theirs.grad, **digits)
    whole = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None]).double().norm()
    assert whole < most * 1.01
    assert (whole > most * 0.99) == (most < 1)


@pytest.mark.parametrize(
    ("kind", "how", "does"),
    [
        (AdamW, {"fused": True}, True),
        (Adam, {"fused": True}, True),
        (AdamW, {"fused": False}, False),
        (AdamW, {}, False),
        (SGD, {}, False),
        (Derived, {"fused": True}, False),
    ],
)
def test_only_torchs_own_fused_optimisers_divide(kind: type[Optimizer], how: dict[str, Any], does: bool) -> None:
    optimizer = kind([torch.nn.Parameter(torch.ones(2))], lr=0.1, **how)
    assert divides(optimizer) == does


def test_an_optimiser_with_a_hook_before_its_step_gets_clipped_gradients() -> None:
    _, optimizer = model_and_optimizer()
    assert divides(optimizer)
    optimizer.register_step_pre_hook(lambda *_: None)
    assert not divides(optimizer)
