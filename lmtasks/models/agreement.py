"""Agreement of two ways to compute the same logits, which rounding keeps from being equal."""

from __future__ import annotations

import torch


def agree(one: torch.Tensor, other: torch.Tensor, *, spread: float, overall: bool = False) -> bool:
    """Whether logits differ by rounding only: other shapes and kernels add up in another order.

    Args:
        spread: the difference that is allowed, as a share of the standard deviation of ``other``.
        overall: whether the mean square of the differences counts, since of many one is always farther off, and
            what is no number in either tells nothing; without any number, they agree. Else every number must
            agree, and may be off by a thousandth of itself besides.
    """
    if not overall:
        one, other = one.float(), other.detach().float()
        return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=spread * float(other.std()))
    one, other = one.cpu().double(), other.cpu().double()
    told = one.isfinite() & other.isfinite()
    if told.sum() < 2:
        return True
    return bool((one - other)[told].square().mean().sqrt() <= spread * other[told].std())
