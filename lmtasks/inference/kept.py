"""What a model keeps of the tokens that it has read, while rows come and go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

SPARE = 64
"""Tokens for which there is room before what is kept of a batch is copied to a larger place."""


class Kept(DynamicLayer):
    """The keys and values of a layer, [rows, heads, tokens, size], with room for more tokens behind them."""

    keys: torch.Tensor
    values: torch.Tensor
    room: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values, those of the newest tokens included."""
        kept, new = self.get_seq_length(), key_states.shape[-2]
        if not kept:
            super().update(key_states, value_states)
            return self.keys, self.values
        if self.room is None or self.room[0].shape[-2] < kept + new:
            self.room = (_with_room(self.keys, new), _with_room(self.values, new))
        for place, states in zip(self.room, (key_states, value_states), strict=True):
            place[:, :, kept : kept + new] = states
        self.keys, self.values = (place[:, :, : kept + new] for place in self.room)
        return self.keys, self.values

    def select(self, rows: torch.Tensor, padding: int) -> None:
        """Keep these rows, without so many tokens at their beginning."""
        self.keys, self.values = (one[rows, :, padding:] for one in (self.keys, self.values))
        self.room = None

    def join(self, other: Kept) -> None:
        """Put the rows of another below these."""
        self.keys = torch.cat(of_one_length([self.keys, other.keys], dim=2))
        self.values = torch.cat(of_one_length([self.values, other.values], dim=2))
        self.room = None


def _with_room(kept: torch.Tensor, new: int) -> torch.Tensor:
    rows, heads, tokens, size = kept.shape
    place = kept.new_empty(rows, heads, tokens + new + SPARE, size)
    place[:, :, :tokens] = kept
    return place


def of_one_length(parts: Sequence[torch.Tensor], dim: int) -> list[torch.Tensor]:
    """The tensors with zeros before the shorter ones, which no mask lets anybody see."""
    longest = max(part.shape[dim] for part in parts)
    filled = []
    for part in parts:
        shape = [*part.shape]
        shape[dim] = longest - shape[dim]
        filled.append(torch.cat([part.new_zeros(shape), part], dim=dim))
    return filled
