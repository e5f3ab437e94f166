"""What generation remembers of the text so far."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class LayerCache:
    """What one block remembers.

    Args:
        average: state of the moving average, float32 [batch, d, h].
        inputs: or, where averages are truncated, their last inputs, float32 [batch, truncation - 1, d].
        keys: [batch, tokens, z]; with chunks, of the last chunk's length of tokens.
        values: [batch, tokens, v].
    """

    average: torch.Tensor | None = None
    inputs: torch.Tensor | None = None
    keys: torch.Tensor | None = None
    values: torch.Tensor | None = None

    def extend(self, keys: torch.Tensor, values: torch.Tensor, most: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Remembered and new keys and values; of these at most so many are remembered from now on."""
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], dim=1), torch.cat([self.values, values], dim=1)
        start = 0 if most is None else max(0, keys.shape[1] - most)
        self.keys, self.values = keys[:, start:], values[:, start:]
        return keys, values

    def reorder(self, rows: torch.Tensor) -> None:
        """Take these rows of the batch instead of its own."""
        for name, tensor in vars(self).items():
            if tensor is not None:
                setattr(self, name, tensor.index_select(0, rows.to(tensor.device)))


class MegaCache:
    """What the model remembers, in the shape that ``generate`` expects."""

    is_compileable = False

    def __init__(self, layers: int) -> None:
        self.layers = [LayerCache() for _ in range(layers)]
        self.seen = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens so far, those included that chunks have forgotten."""
        return self.seen

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Follow the beams of a beam search."""
        for layer in self.layers:
            layer.reorder(beam_idx)
