"""Relative positions, as numbers that are added to attention's scores."""

from __future__ import annotations

import torch
from torch import nn
from transformers import initialization as init

from lmtasks_mega.config import MegaConfig


class SimpleBias(nn.Module):
    """A learned number for each distance between query and key."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        self.config = config
        self.rel_pos_bias = nn.Parameter(torch.empty(2 * config.max_positions - 1))

    def initialize(self) -> None:
        """Fresh parameters."""
        init.normal_(self.rel_pos_bias, std=self.config.initializer_range)

    def forward(self, queries: int, keys: int) -> torch.Tensor:
        """The bias [queries, keys]; the last query stands where the last key does.

        Raises:
            ValueError: more keys than there are numbers for.
        """
        most = self.config.max_positions
        if keys > most:
            raise ValueError(f"the simple bias has max_positions={most}, but attention spans {keys} tokens")
        places = torch.arange(keys, device=self.rel_pos_bias.device)
        return self.rel_pos_bias[places[None, :] - places[keys - queries :, None] + most - 1]


class RotaryBias(nn.Module):
    """Two learned vectors, each turned by its position (Su et al. 2021); their product knows the distance only."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        self.config = config
        self.alpha = nn.Parameter(torch.empty(1, config.shared_representation_size))
        self.b_param = nn.Parameter(torch.empty(1, config.shared_representation_size))
        # Of no use, but published checkpoints have it.
        self.register_buffer("_float_tensor", torch.zeros(1))

    def initialize(self) -> None:
        """Fresh parameters."""
        init.normal_(self.alpha, std=self.config.initializer_range)
        init.normal_(self.b_param, std=self.config.initializer_range)
        init.zeros_(self._float_tensor)

    def forward(self, queries: int, keys: int) -> torch.Tensor:
        """The bias [queries, keys]; the last query stands where the last key does."""
        half = self.alpha.shape[1] // 2
        places = torch.arange(keys, device=self.alpha.device, dtype=torch.float32)
        speeds = 10_000.0 ** (-torch.arange(half, device=self.alpha.device) / half)
        angles = places[:, None] * speeds
        return _turned(self.alpha, angles[keys - queries :]) @ _turned(self.b_param, angles).t()


def _turned(vector: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """The vector [1, z], whose halves are the two coordinates of z/2 points, by angles [length, z/2]."""
    x, y = vector.chunk(2, dim=1)
    return torch.cat([x * angles.cos() - y * angles.sin(), x * angles.sin() + y * angles.cos()], dim=1)


BIASES = {"simple": SimpleBias, "rotary": RotaryBias}
