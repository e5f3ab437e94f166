"""The damped multi-dimensional exponential moving average, section 3.1 of the paper.

Each of the d features x is expanded to h copies, each copy averaged at a pace of its own, and the
averages projected back, for j in 1 … d:

    s_t = α_j β_j x_{t,j} + (1 - α_j δ_j) s_{t-1}        y_{t,j} = η_j · s_t        (all but x and y in R^h)

The weight of x_{t-k} in y_t depends on k only, so an average over a whole text is a convolution. From
both sides it is computed by Fourier transform, as in the paper. From the left only it is computed block
by block: the rounding of a Fourier transform lets every token feel the later ones, if only by a hundred
millionth, and a causal model must not see them at all. One more token is a block of one, which is the
recurrence above.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init

from lmtasks_mega.cache import LayerCache
from lmtasks_mega.config import MegaConfig

BLOCK = 64
"""Tokens that are averaged at once, from the left."""


class DampedEMA(nn.Module):
    """silu(EMA(x) + ω ⊙ x), with the average from the left or, added up, from both sides.

    The parameters have the names of published checkpoints, where ``damping_factor`` is the paper's α
    and ``decay_factor`` its δ, both before the sigmoid that keeps them between 0 and 1. Where the
    average comes from both sides, the second half of their rows is for the way from the end.
    Computes in float32 whatever the model does: products of many decays need it.
    """

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        self.config = config
        rows, copies = config.hidden_size * (2 if config.bidirectional else 1), config.ema_projection_size
        self.damping_factor = nn.Parameter(torch.empty(rows, copies, 1))
        self.decay_factor = nn.Parameter(torch.empty(rows, copies, 1))
        self.ema_expansion_matrix = nn.Parameter(torch.empty(rows, copies, 1))
        self.kernel_projection_matrix = nn.Parameter(torch.empty(rows, copies))
        self.residual_weight = nn.Parameter(torch.empty(config.hidden_size))

    def initialize(self) -> None:
        """Fresh parameters; the expansion alternates in sign, so that copies differ from the start."""
        init.normal_(self.damping_factor, std=self.config.ema_delta_alpha_range)
        init.normal_(self.decay_factor, std=self.config.ema_delta_alpha_range)
        beta = torch.randn_like(self.ema_expansion_matrix) * self.config.ema_beta_range
        beta[:, 0::2] += 1
        beta[:, 1::2] -= 1
        init.copy_(self.ema_expansion_matrix, beta)
        init.normal_(self.kernel_projection_matrix, std=self.config.ema_gamma_omega_range)
        init.normal_(self.residual_weight, std=self.config.ema_gamma_omega_range)

    def forward(
        self, x: torch.Tensor, real: torch.Tensor | None = None, cache: LayerCache | None = None
    ) -> torch.Tensor:
        """The averages [batch, length, d].

        Args:
            x: [batch, length, d].
            real: bool [batch, length], false at padding, which no average takes in.
            cache: what came before, where the average is from the left; is brought up to date.
        """
        taken = (x if real is None else x.masked_fill(~real[..., None], 0)).float()
        with torch.autocast(x.device.type, enabled=False):
            if self.config.bidirectional:
                averages = self._from_both_sides(taken)
            elif self.config.truncation:
                averages = self._over_window(taken, self.config.truncation, cache or LayerCache())
            else:
                averages = self._from_left(taken, cache or LayerCache())
        return functional.silu(averages.to(x.dtype) + self.residual_weight * x)

    def _coefficients(self, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """αβ, what a copy takes in, η, what is read off it, and (1 - αδ)^k, what is left after k < length steps."""
        alpha, delta = self.damping_factor.float().sigmoid(), self.decay_factor.float().sigmoid()
        taken = (alpha * self.ema_expansion_matrix.float()).squeeze(-1)
        # η is of the order of 1; scaled, their sum is as well, however many copies there are.
        read = self.kernel_projection_matrix.float() * self.config.ema_projection_size**-0.5
        steps = torch.arange(length, device=read.device)
        return taken, read, torch.exp(torch.log1p(-alpha * delta) * steps)

    def kernel(self, length: int) -> torch.Tensor:
        """The weight of the token so many steps away, float32 [rows, length]."""
        taken, read, left = self._coefficients(length)
        return torch.einsum("jh,jhk->jk", taken * read, left)

    def _from_both_sides(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of an average from the left and one from the right, float32 [batch, length, d]."""
        length = x.shape[1]
        reach = min(length, self.config.truncation or length)
        # A circle that is long enough for one end not to reach the other.
        circle = length + reach
        onward, backward = torch.fft.rfft(self.kernel(reach), n=circle).chunk(2)
        # The conjugate is the kernel run backwards. Both ways take in the token itself.
        spectrum = torch.fft.rfft(x.transpose(1, 2), n=circle) * (onward + backward.conj())
        return torch.fft.irfft(spectrum, n=circle)[..., :length].transpose(1, 2)

    def _from_left(self, x: torch.Tensor, cache: LayerCache) -> torch.Tensor:
        """The average of what came before, float32 [batch, length, d]."""
        longest = min(BLOCK, x.shape[1])
        taken, read, left = self._coefficients(longest + 1)
        place = torch.arange(longest, device=x.device)
        inside = self.kernel(longest)[:, (place[:, None] - place).clamp(min=0)].tril()
        # From the state before a block to its averages, and from a block to the state after it.
        outward = (read[..., None] * left[..., 1:]).transpose(1, 2)
        inward = taken[..., None] * left[..., :longest].flip(-1)
        # Features first: everything is a product of matrices for each, [tokens or copies, batch] on the right.
        x = x.permute(2, 1, 0).contiguous()
        before = cache.average
        state = x.new_zeros(*taken.shape, x.shape[2]) if before is None else before.permute(1, 2, 0)
        averages = []
        for block in x.split(BLOCK, dim=1):
            size = block.shape[1]
            averages.append(inside[:, :size, :size] @ block + outward[:, :size] @ state)
            state = left[..., size, None] * state + inward[..., -size:] @ block
        cache.average = state.permute(2, 0, 1)
        return torch.cat(averages, dim=1).permute(2, 1, 0)

    def _over_window(self, x: torch.Tensor, truncation: int, cache: LayerCache) -> torch.Tensor:
        """The average over the last few tokens, float32 [batch, length, d]."""
        before = x.new_zeros(len(x), truncation - 1, x.shape[2]) if cache.inputs is None else cache.inputs
        joined = torch.cat([before, x], dim=1)
        cache.inputs = joined[:, x.shape[1] :]
        kernel = self.kernel(truncation).flip(-1)[:, None]
        return functional.conv1d(joined.transpose(1, 2), kernel, groups=x.shape[2]).transpose(1, 2)
