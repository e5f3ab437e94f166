"""MRA with attention in plain torch.

transformers has the model, and computes its attention with kernels that it fetches from the Hub, for CUDA
only; where it has none, it goes on without any attention. What is not about attention is transformers'
here, and all parameters have its names.
"""

import torch
from torch import nn
from transformers import MraConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.mra import modeling_mra as mra

from lmtasks_mra.attention import SIDE, Resolution, multiresolution_attention


class MraSelfAttention(nn.Module):
    """Attention in two resolutions.

    There is no dropout of its weights, whatever ``attention_probs_dropout_prob`` is: nor have transformers' kernels.

    Raises:
        ValueError: the configuration makes no sense.
    """

    def __init__(self, config: MraConfig) -> None:
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(f"hidden_size must be a multiple of num_attention_heads ({config.num_attention_heads})")
        if config.approx_mode not in ("full", "sparse"):
            raise ValueError(f"approx_mode must be full or sparse, not {config.approx_mode}")
        if config.block_per_row < 1:
            raise ValueError("block_per_row must be at least 1")
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(3))
        # The kernels fill smaller heads up to 32, and scale by that.
        self.scale = max(config.hidden_size // self.heads, SIDE) ** -0.5
        # As many as in the longest text, in shorter ones as well.
        rows = max(1, config.max_position_embeddings // SIDE)
        self.resolution = Resolution(
            squares=rows * min(config.block_per_row, rows),
            coarse=config.approx_mode == "full",
            first=config.initial_prior_first_n_blocks,
            diagonal=config.initial_prior_diagonal_n_blocks,
        )

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor]:
        """States [batch, length, size].

        Args:
            attention_mask: [batch, length], 0 at padding.

        Raises:
            ValueError: another kind of mask.
        """
        if attention_mask.ndim != 2:
            raise ValueError("MRA can hide padding only")
        queries, keys, values = (
            layer(hidden_states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        seen = attention_mask.bool()
        states = multiresolution_attention(queries, keys, values, seen, self.scale, self.resolution)
        return (states.transpose(1, 2).flatten(2),)


# The constructors below are not those of the classes that they extend: these would make, and so fetch
# kernels for, the attention that is to be replaced.


class MraAttention(mra.MraAttention):
    """Attention and what follows up to the sum."""

    def __init__(self, config: MraConfig) -> None:
        nn.Module.__init__(self)
        self.self = MraSelfAttention(config)
        self.output = mra.MraSelfOutput(config)


class MraLayer(mra.MraLayer):
    """A layer of the encoder."""

    def __init__(self, config: MraConfig) -> None:
        GradientCheckpointingLayer.__init__(self)
        self.chunk_size_feed_forward = config.chunk_size_feed_forward
        self.seq_len_dim = 1
        self.attention = MraAttention(config)
        self.intermediate = mra.MraIntermediate(config)
        self.output = mra.MraOutput(config)


class MraEncoder(mra.MraEncoder):
    """The layers."""

    def __init__(self, config: MraConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.layer = nn.ModuleList(MraLayer(config) for _ in range(config.num_hidden_layers))


class MraModel(mra.MraModel):
    """Embeddings and layers."""

    def __init__(self, config: MraConfig) -> None:
        mra.MraPreTrainedModel.__init__(self, config)
        self.embeddings = mra.MraEmbeddings(config)
        self.encoder = MraEncoder(config)
        self.post_init()


class MraForMaskedLM(mra.MraForMaskedLM):
    """MRA with its head for hidden words."""

    def __init__(self, config: MraConfig) -> None:
        mra.MraPreTrainedModel.__init__(self, config)
        self.mra = MraModel(config)
        self.cls = mra.MraOnlyMLMHead(config)
        self.post_init()
