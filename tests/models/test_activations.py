"""GELU as one operation: the numbers and gradients of the one that transformers writes out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from lmtasks.models.activations import cheap_gelu

NAMES = ("gelu_new", "gelu_fast", "gelu_accurate")


def through(activation: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What it makes of numbers that any kind has, and their gradients."""
    numbers, upstream = (torch.linspace(*ends, 5001).bfloat16().to(dtype) for ends in ((-9, 9), (-1, 2)))
    made = activation(numbers.requires_grad_())
    made.backward(upstream)
    assert numbers.grad is not None
    return made.detach(), numbers.grad


def found_plain_and_exact(name: str, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """What comes out, and the gradient: of the one operation, of the plain one, and of that in float64."""
    plain, exact = through(ACT2FN[name], dtype), through(ACT2FN[name], torch.float64)
    with cheap_gelu(torch.device("cpu")):
        found = through(ACT2FN[name], dtype)
    return zip(found, plain, exact, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_and_gradients_are_those_of_the_plain_one(name: str) -> None:
    for one, other, oracle in found_plain_and_exact(name, torch.float32):
        assert not torch.equal(one, other), "it is another operation"
        assert torch.allclose(one.double(), oracle, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_in_bfloat16_it_is_nearer_to_float64_than_the_plain_one(name: str) -> None:
    for one, other, oracle in found_plain_and_exact(name, torch.bfloat16):
        assert (one - oracle).abs().mean() < 0.9 * (other - oracle).abs().mean()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_it_is_as_before_afterwards_and_on_other_devices(device: str) -> None:
    plain = type(ACT2FN["gelu_new"]).forward
    with cheap_gelu(torch.device(device)):
        assert (type(ACT2FN["gelu_new"]).forward is plain) is (device == "cuda")
    assert type(ACT2FN["gelu_new"]).forward is plain
