"""Who sees whom in attention: the whole text, or chunk by chunk."""

from __future__ import annotations

import torch
from torch.nn import functional

from lmtasks_mega.config import MegaConfig


class Sight:
    """Attention over the text as a whole, after as many tokens as a cache may hold.

    Attention is computed in groups of tokens, here a single one.

    Args:
        real: bool [batch, past + length], false at padding.
        past: tokens before these.
        length: tokens that look.
    """

    def __init__(self, config: MegaConfig, real: torch.Tensor, past: int, length: int) -> None:
        place = torch.arange(past + length, device=real.device)
        first = _first(real)
        near = (place >= first)[:, None].expand(-1, length, -1)
        if config.is_decoder:
            near = near & (place <= place[past:, None])
        if config.use_chunking:
            chunk = (place - first) // config.chunk_size
            near = near & (chunk[:, None] == chunk[:, past:, None])
            forgotten = past - min(past, config.chunk_size)
            near, real = near[..., forgotten:], real[:, forgotten:]
        self._see(near[:, None], real[:, None], config)

    def _see(self, near: torch.Tensor, real: torch.Tensor, config: MegaConfig) -> None:
        """Find out which keys are visible.

        Args:
            near: bool [batch or 1, groups or 1, queries, keys], where a query would look, padding or not.
            real: bool [batch, groups, keys].
        """
        # A group that is all padding sees itself: something finite has to come out.
        real = real | ~real.any(dim=-1, keepdim=True)
        self.visible = near & real[:, :, None]
        """Bool [batch, groups, queries, keys]."""
        self.counts = (near if config.is_decoder else self.visible).sum(dim=-1, keepdim=True).clamp(min=1)
        """How many keys a query has, [batch, groups, queries, 1]; a decoder's are those up to itself."""

    def fold(self, states: torch.Tensor) -> torch.Tensor:
        """States [batch, tokens, width] in groups, [batch, groups, size, width]."""
        return states[:, None]

    def unfold(self, states: torch.Tensor) -> torch.Tensor:
        """The way back."""
        return states[:, 0]


class ChunkSight(Sight):
    """Attention inside chunks only, so that its cost grows with the length and not with its square.

    Chunks are counted from the first token that is no padding: what is around a text does not change it.

    Args:
        real: bool [batch, length], false at padding.
    """

    def __init__(self, config: MegaConfig, real: torch.Tensor) -> None:
        place = torch.arange(real.shape[1], device=real.device)
        self._size, self._length = config.chunk_size, real.shape[1]
        self._to_front = (place + _first(real)) % self._length
        self._to_back = (place - _first(real)) % self._length
        near = torch.ones(self._size, self._size, dtype=torch.bool, device=real.device)
        self._see(near.tril() if config.is_decoder else near, self.fold(real[..., None])[..., 0], config)

    def fold(self, states: torch.Tensor) -> torch.Tensor:
        """States [batch, tokens, width] in chunks, [batch, chunks, size, width], the last one filled up."""
        states = _permuted(states, self._to_front)
        return functional.pad(states, (0, 0, 0, -self._length % self._size)).unflatten(1, (-1, self._size))

    def unfold(self, states: torch.Tensor) -> torch.Tensor:
        """The way back."""
        return _permuted(states.flatten(1, 2)[:, : self._length], self._to_back)


def sight(config: MegaConfig, real: torch.Tensor, past: int, length: int) -> Sight:
    """Chunk by chunk where a text begins and has more than one, else as a whole."""
    if config.use_chunking and not past and length > config.chunk_size:
        return ChunkSight(config, real)
    return Sight(config, real, past, length)


def _first(real: torch.Tensor) -> torch.Tensor:
    """Where each text begins, int64 [batch, 1]."""
    return real.int().argmax(dim=1, keepdim=True)


def _permuted(states: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """States [batch, tokens, width] in another order of the tokens, [batch, tokens]."""
    return states.gather(1, order[..., None].expand_as(states))
