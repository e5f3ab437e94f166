"""The two parts of a block: gated attention, section 3.2 of the paper, and the feed-forward network."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from lmtasks_mega.cache import LayerCache
from lmtasks_mega.config import MegaConfig
from lmtasks_mega.ema import DampedEMA
from lmtasks_mega.positions import BIASES
from lmtasks_mega.sight import Sight

EPSILON = 1e-5
"""What all normalisations add to a variance."""


class MegaBlock(GradientCheckpointingLayer):
    """Gated attention, then a feed-forward network."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        self.mega_layer = GatedAttention(config)
        self.nffn = FeedForward(config) if config.use_normalized_ffn else None

    def forward(self, x: torch.Tensor, real: torch.Tensor, sight: Sight, cache: LayerCache | None) -> torch.Tensor:
        """[batch, length, d] to the same; see :class:`GatedAttention`."""
        x = self.mega_layer(x, real, sight, cache)
        return x if self.nffn is None else self.nffn(x)


class GatedAttention(nn.Module):
    """One attention head whose queries, keys and gates come from the moving average (equations 7 to 14).

    The names in brackets are the paper's.
    """

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        self.config = config
        shared, inner, width = config.shared_representation_size, config.intermediate_size, config.hidden_size
        # What the rows of mx_proj are for: update gate, queries and keys, reset gate, candidate.
        self._sizes = [width, shared, inner, width]
        self.norm = Norm(config)
        self.ema_gate = DampedEMA(config)
        self.v_proj = nn.Linear(width, inner)
        self.mx_proj = nn.Linear(width, sum(self._sizes))
        self.h_proj = nn.Linear(inner, width)
        self.qk_weight = nn.Parameter(torch.empty(2, shared))
        self.qk_bias = nn.Parameter(torch.empty(2, shared))
        self.rel_pos_bias = BIASES[config.relative_positional_bias](config)
        self.activation = ACT2FN[config.activation]
        self.dropout = Dropout(config.dropout_prob, config)
        self.hidden_dropout = Dropout(config.hidden_dropout_prob, config)
        self.attention_dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def initialize(self) -> None:
        """Fresh parameters of its own; those of its parts are theirs."""
        init.normal_(self.qk_weight, std=self.config.initializer_range)
        init.zeros_(self.qk_bias)

    def forward(self, x: torch.Tensor, real: torch.Tensor, sight: Sight, cache: LayerCache | None) -> torch.Tensor:
        """[batch, length, d] to the same.

        Args:
            real: bool [batch, length], false at padding.
            sight: who sees whom.
            cache: what came before; is brought up to date.
        """
        normed = self.norm(x) if self.config.normalize_before_mega else x
        averages = self.dropout(self.ema_gate(normed, real, cache))
        update, shared, reset, candidate = self.mx_proj(averages).split(self._sizes, dim=-1)
        values = self.activation(self.v_proj(normed))
        attended = self.hidden_dropout(self._attended(self.activation(shared), values, sight, cache))
        candidate = self.activation(candidate + self.h_proj(attended * self.activation(reset)))
        # Y = φ ⊙ Ĥ + (1 - φ) ⊙ X, X as it was before the normalisation.
        x = x + update.sigmoid() * (self.dropout(candidate) - x)
        return x if self.config.normalize_before_mega else self.norm(x)

    def _attended(
        self, shared: torch.Tensor, values: torch.Tensor, sight: Sight, cache: LayerCache | None
    ) -> torch.Tensor:
        """The values that each position attends to, [batch, length, v]; queries and keys are Z, scaled and moved."""
        queries, keys = (shared[..., None, :] * self.qk_weight + self.qk_bias).unbind(-2)
        if cache is not None:
            keys, values = cache.extend(keys, values, self.config.chunk_size if self.config.use_chunking else None)
        queries, keys, values = sight.fold(queries), sight.fold(keys), sight.fold(values)
        weights = self.attention_dropout(self._weights(queries, keys, sight))
        return sight.unfold(weights.to(values.dtype) @ values)

    def _weights(self, queries: torch.Tensor, keys: torch.Tensor, sight: Sight) -> torch.Tensor:
        """What each query takes of each key's value, [batch, groups, queries, keys].

        Softmax weights add up to 1. Those of the Laplace function and the squared ReLU are made one by
        one, of scores that are divided by how many there are.
        """
        products = queries @ keys.transpose(-2, -1)
        bias = self.rel_pos_bias(queries.shape[-2], keys.shape[-2])
        if self.config.attention_activation == "softmax":
            scores = products * self.config.shared_representation_size**-0.5 + bias
            # Finite, since padding may see nothing, and must not become NaN.
            return scores.masked_fill(~sight.visible, torch.finfo(scores.dtype).min).softmax(dim=-1)
        return ACT2FN[self.config.attention_activation](products / sight.counts + bias).masked_fill(~sight.visible, 0)


class FeedForward(nn.Module):
    """A normalised feed-forward network, with the text around it."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        self.normalize_before = config.normalize_before_ffn
        self.norm = Norm(config)
        self.fc1 = nn.Linear(config.hidden_size, config.nffn_hidden_size)
        self.fc2 = nn.Linear(config.nffn_hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.activation]
        self.activation_dropout = Dropout(config.nffn_activation_dropout_prob, config)
        self.dropout = Dropout(config.hidden_dropout_prob, config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, length, d] to the same."""
        inner = self.activation(self.fc1(self.norm(x) if self.normalize_before else x))
        x = x + self.dropout(self.fc2(self.activation_dropout(inner)))
        return x if self.normalize_before else self.norm(x)


class Dropout(nn.Module):
    """Dropout of single numbers, or of a feature in all tokens of a text."""

    def __init__(self, probability: float, config: MegaConfig) -> None:
        super().__init__()
        self.probability, self.whole_features = probability, config.use_feature_dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, length, width] to the same."""
        if self.whole_features:
            return functional.dropout1d(x.transpose(1, 2), self.probability, self.training).transpose(1, 2)
        return functional.dropout(x, self.probability, self.training)


class Norm(nn.Module):
    """The normalisation that the configuration names; it lies in ``norm``, as published checkpoints have it."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        size, affine, kind = config.hidden_size, config.norm_affine, config.normalization_type
        self.over_batch = kind in ("batchnorm", "syncbatchnorm")
        self.norm: nn.Module
        if self.over_batch:
            of_batch = nn.BatchNorm1d if kind == "batchnorm" else SyncBatchNorm
            self.norm = of_batch(size, eps=EPSILON, affine=affine)
        elif kind == "scalenorm":
            self.norm = ScaleNorm(affine)
        else:
            of_token = nn.LayerNorm if kind == "layernorm" else nn.RMSNorm
            self.norm = of_token(size, eps=EPSILON, elementwise_affine=affine)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, length, d] to the same."""
        return self.norm(x.transpose(1, 2)).transpose(1, 2) if self.over_batch else self.norm(x)


class SyncBatchNorm(nn.SyncBatchNorm, nn.BatchNorm1d):
    """torch's, as one of the batch normalisations that transformers gives fresh weights."""


class ScaleNorm(nn.Module):
    """Every token on a sphere of one learned radius (Nguyen and Salazar 2019), here as a multiple of √d."""

    def __init__(self, affine: bool) -> None:
        super().__init__()
        self.scalar = nn.Parameter(torch.empty(1)) if affine else None

    def initialize(self) -> None:
        """A fresh parameter."""
        if self.scalar is not None:
            init.ones_(self.scalar)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., d] to the same."""
        normed = functional.rms_norm(x, x.shape[-1:], eps=EPSILON)
        return normed if self.scalar is None else normed * self.scalar
