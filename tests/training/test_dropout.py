"""Dropout with cheap draws: the numbers of torch's own, with other draws of the same generator."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lmtasks.training.dropout import attention, cheap_dropout, dropout, plain_attention, plain_dropout

CPU = torch.device("cpu")


def seeded(function: Any, *arguments: Any, seed: int = 0, **more: Any) -> Tensor:
    torch.manual_seed(seed)
    result: Tensor = function(*arguments, **more)
    return result


def some(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.1, 0.25, 0.9])
def test_as_many_numbers_are_dropped_as_asked_for_and_the_others_scaled(p: float, dtype: torch.dtype) -> None:
    numbers = some(1000, 401, dtype=dtype).detach() + 5
    found = seeded(dropout, numbers, p)
    stays = found != 0
    # Four standard deviations of a binomial distribution.
    assert abs(stays.float().mean().item() - (1 - p)) < 4 * math.sqrt(p * (1 - p) / numbers.numel())
    scale = 65536 / (65536 - round(p * 65536))
    assert torch.equal(found[stays], (numbers[stays] * scale).to(dtype))
    assert scale == pytest.approx(1 / (1 - p), rel=1e-4)


def test_draws_are_independent_of_each_other() -> None:
    """Of numbers beside each other, which share a draw, and of rows."""
    stays = (seeded(dropout, torch.ones(1000, 400), 0.3) != 0).double()
    for shift in (1, 2, 3, 4, 400):
        one, other = stays.flatten()[shift:], stays.flatten()[:-shift]
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1].item()) < 4 / math.sqrt(len(one))


def test_seed_and_state_of_the_generator_say_the_bits() -> None:
    numbers = some(7, 13)
    assert torch.equal(seeded(dropout, numbers, 0.5), seeded(dropout, numbers, 0.5))
    assert not torch.equal(seeded(dropout, numbers, 0.5), seeded(dropout, numbers, 0.5, seed=3))
    state = torch.get_rng_state()
    first, second = dropout(numbers, 0.5), dropout(numbers, 0.5)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(numbers, 0.5), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_take_the_way_of_the_numbers(dtype: torch.dtype) -> None:
    numbers = some(50, 60, dtype=dtype)
    found = seeded(dropout, numbers.transpose(0, 1), 0.25)  # whatever the layout
    upstream = some(60, 50, dtype=dtype, seed=2).detach()
    found.backward(upstream)
    expected = torch.where(found == 0, 0, (upstream * (65536 / 49152)).to(dtype))
    assert torch.equal(numbers.grad, expected.transpose(0, 1))


def test_second_gradients_are_those_of_a_linear_function() -> None:
    numbers = some(20)
    found = seeded(dropout, numbers, 0.5)
    (first,) = torch.autograd.grad((found**2).sum(), numbers, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), numbers)
    assert torch.allclose(second, torch.where(found == 0, 0.0, 8.0))


@pytest.mark.parametrize(
    ("numbers", "p", "training"),
    [
        (some(4, 5), 0.5, False),
        (some(4, 5), 0.0, True),
        (some(4, 5), 1.0, True),
        (torch.randn(4, 5, dtype=torch.float64), 0.5, True),
    ],
)
def test_what_there_is_nothing_to_draw_for_is_left_to_torch(numbers: Tensor, p: float, training: bool) -> None:
    ours, theirs = (seeded(function, numbers, p, training) for function in (dropout, plain_dropout))
    assert torch.equal(ours, theirs)


def test_numbers_that_are_to_be_changed_in_place_are() -> None:
    numbers = torch.ones(100)
    assert dropout(numbers, 0.5, True, True) is numbers
    assert 0 < (numbers == 0).sum() < 100


def test_result_can_be_changed_in_place() -> None:
    numbers = some(10)
    found = dropout(numbers, 0.5)
    found += 1  # as models do with residuals
    found.sum().backward()
    assert numbers.grad is not None


# --- attention ---

SHAPES = {"usual": (2, 3, 7, 7, 3), "grouped": (2, 4, 7, 7, 2), "across": (2, 3, 5, 7, 3)}
"""Examples, heads, queries, keys, heads of keys."""

VISIBLE = torch.ones(7, 7, dtype=torch.bool).tril()


def parts(shape: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    examples, heads, queries, keys, of_keys = SHAPES[shape]
    sizes = ((heads, queries), (of_keys, keys), (of_keys, keys))
    query, key, value = (some(examples, *size, 8, dtype=dtype, seed=seed) for seed, size in enumerate(sizes))
    return query, key, value


def by_hand(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float, scale: float) -> Tensor:
    """Attention of the same draws, written out in 64 bits."""
    mask = dropout(torch.ones(*query.shape[:-1], key.shape[-2]), p).double()
    query, key, value = query.double(), key.double(), value.double()
    key, value = (one.repeat_interleave(query.shape[1] // one.shape[1], 1) for one in (key, value))
    scores = query @ key.transpose(-2, -1) * scale
    weights = (scores if bias is None else scores + bias).softmax(-1)
    return weights * mask @ value


@pytest.mark.parametrize(
    ("shape", "more", "bias"),
    [
        ("usual", {}, None),
        ("across", {"scale": 0.7}, None),
        ("grouped", {"enable_gqa": True}, None),
        ("usual", {"is_causal": True}, torch.zeros(7, 7).masked_fill(~VISIBLE, -math.inf)),
        ("usual", {"attn_mask": VISIBLE}, torch.zeros(7, 7).masked_fill(~VISIBLE, -math.inf)),
        ("usual", {"attn_mask": some(2, 1, 7, 7, seed=9).detach()}, some(2, 1, 7, 7, seed=9).detach()),
    ],
)
def test_attention_and_its_gradients_are_those_of_its_definition(shape: str, more: Any, bias: Tensor | None) -> None:
    ours, oracle = parts(shape), parts(shape)
    found = seeded(attention, *ours, dropout_p=0.25, **more)
    expected = seeded(by_hand, *oracle, bias, 0.25, more.get("scale", 8**-0.5))
    assert torch.allclose(found.double(), expected, atol=1e-6)
    upstream = some(*found.shape, seed=5).detach()
    found.backward(upstream)
    expected.backward(upstream.double())
    for one, other in zip(ours, oracle, strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-5)


def test_attention_is_torchs_in_the_mean_over_the_draws() -> None:
    query, key, value = (one.detach() for one in parts("usual"))
    torch.manual_seed(0)
    found = torch.stack([attention(query, key, value, dropout_p=0.1) for _ in range(4000)])
    errors = (found.mean(0) - plain_attention(query, key, value)) / (found.std(0) / math.sqrt(4000))
    assert errors.abs().max() < 5


def test_who_sees_nothing_finds_nothing_as_with_torch() -> None:
    query, key, value = parts("usual")
    mask = torch.ones(2, 1, 7, 7, dtype=torch.bool)
    mask[0, :, 2] = False
    found = attention(query, key, value, attn_mask=mask, dropout_p=0.1)
    assert (found[0, :, 2] == 0).all()
    assert (found[1] != 0).all()
    found.sum().backward()
    assert all(one.grad.isfinite().all() for one in (query, key, value))


def test_attention_computes_in_the_precision_that_torch_would_take() -> None:
    query, key, value = parts("usual")
    with torch.autocast("cpu", torch.bfloat16):
        found = seeded(attention, query, key, value, dropout_p=0.25)
        assert found.dtype == plain_attention(query, key, value, dropout_p=0.25).dtype == torch.bfloat16
    whole = seeded(attention, query, key, value, dropout_p=0.25)
    assert torch.allclose(found.float(), whole, atol=0.05)


@pytest.mark.parametrize("causal", [False, True])
def test_short_rows_without_dropout_are_products_in_bfloat16(causal: bool) -> None:
    ours, oracle = parts("usual", torch.bfloat16), parts("usual", torch.bfloat16)
    bias = torch.zeros(7, 7).masked_fill(~VISIBLE, -math.inf) if causal else None
    state = torch.get_rng_state()
    found = attention(*ours, is_causal=causal)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(found.grad_fn).__name__ == "UnsafeViewBackward0"
    expected = by_hand(*oracle, bias, 0.0, 8**-0.5)
    assert torch.allclose(found.double(), expected, atol=0.02)
    found.sum().backward()
    expected.sum().backward()
    for one, other in zip(ours, oracle, strict=True):
        assert torch.allclose(one.grad, other.grad, atol=0.05)


@pytest.mark.parametrize("why", ["float32", "long", "nothing to learn", "dropout of everything"])
def test_attention_that_is_no_slower_with_torch_is_torchs(why: str) -> None:
    dtype = torch.float32 if why == "float32" else torch.bfloat16
    query, key, value = (some(1, 2, 300 if why == "long" else 8, 8, dtype=dtype, seed=seed) for seed in range(3))
    with torch.set_grad_enabled(why != "nothing to learn"):
        more = {"dropout_p": 1.0} if why == "dropout of everything" else {}
        ours, theirs = (function(query, key, value, **more) for function in (attention, plain_attention))
    assert torch.equal(ours, theirs)
    assert type(ours.grad_fn) is type(theirs.grad_fn)


# --- while it is open ---


def test_models_find_it_only_while_it_is_open() -> None:
    layer, numbers = torch.nn.Dropout(0.5), torch.ones(100)
    with cheap_dropout(CPU):
        inside = seeded(layer, numbers)
        assert functional.scaled_dot_product_attention is attention
    assert torch.equal(inside, seeded(dropout, numbers, 0.5))
    assert torch.equal(seeded(layer, numbers), seeded(plain_dropout, numbers, 0.5))
    with pytest.raises(MemoryError), cheap_dropout(CPU):
        raise MemoryError
    assert functional.scaled_dot_product_attention is plain_attention
    assert functional.dropout is plain_dropout


def test_a_gpu_draws_as_it_does() -> None:
    with cheap_dropout(torch.device("cuda")):
        assert functional.dropout is plain_dropout


def test_what_is_made_a_second_time_is_made_with_the_same_draws() -> None:
    numbers = some(100)
    with cheap_dropout(CPU):
        found = checkpoint(lambda given: functional.dropout(given, 0.5).exp(), numbers, use_reentrant=False)
        found.sum().backward()
    expected = torch.where(found == 1, 0, found.detach() * 2)
    assert torch.allclose(numbers.grad, expected)
