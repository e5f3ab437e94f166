"""QDQBERT: BERT that learns to be computed in 8-bit integers.

In front of every matrix product of the encoder, and of every residual sum, stands a node that quantises and
dequantises: its values are those that 8-bit integers times a scale can have. Training through these nodes
makes the weights fit them. What the nodes stand in is transformers' BERT, with its parameter names. Pooling,
embeddings and the head are BERT's own.

Sources: Wu et al. 2020, "Integer Quantization for Deep Learning Inference: Principles and Empirical
Evaluation" (symmetric ranges, one scale for activations and one for each output of a layer's weights,
ranges from calibration); Zafrir et al. 2019, "Q8BERT: Quantized 8Bit BERT" (weights quantised anew in
every step).
"""

from typing import Any, Literal

import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel, BertModel, BertPreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions
from transformers.models.bert.modeling_bert import BertSelfAttention

LARGEST = 127
"""Integers go from -LARGEST to LARGEST: symmetric, so that zero is one of them and -128 is none."""

SMALLEST_SCALE = 1e-30
"""Of values that are all zero."""

Mode = Literal["off", "watching", "on"]


class QDQBertConfig(BertConfig):
    """BERT's configuration, and how the ranges of activations are found.

    Args:
        calibration_batches: training batches in which the nodes only watch; afterwards their ranges stay.
            0: the nodes are never switched on.
        calibration_percentile: share of a batch's values, in percent, that its range takes in. 100: all.
    """

    model_type = "qdqbert"

    calibration_batches: int = 16
    calibration_percentile: float = 99.99


def quantized_weight(weight: torch.Tensor) -> torch.Tensor:
    """The nearest weight that 8-bit integers can say, with a scale for each output.

    Args:
        weight: [outputs, inputs].
    """
    scales = (weight.detach().abs().amax(1).float() / LARGEST).clamp(min=SMALLEST_SCALE)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -LARGEST, LARGEST)


class Quantizer(nn.Module):
    """The node in the path of an activation.

    ``amax``, the end of its range, is state that is saved with the model. Gradients pass as if nothing had
    been rounded, and stop where values were cut off at the end of the range.

    Args:
        percentile: see :class:`QDQBertConfig`.
    """

    def __init__(self, percentile: float) -> None:
        super().__init__()
        self.percentile = percentile
        self.amax = nn.Buffer(torch.zeros(()))
        self.mode: Mode = "off"

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.mode == "watching":
            self.watch(values.detach())
        if self.mode != "on":
            return values
        scale = (self.amax / LARGEST).clamp(min=SMALLEST_SCALE)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, -LARGEST, LARGEST)

    def watch(self, values: torch.Tensor) -> None:
        """Widen the range to take in the percentile of these values.

        A maximum, so that seeing the same values again changes nothing: layers that are computed a second
        time for the backward pass come by twice.
        """
        outside = int(values.numel() * (100 - self.percentile) / 100)
        largest = values.abs().flatten().topk(outside + 1).values
        self.amax.copy_(torch.maximum(self.amax, largest[-1]))


class QuantizedLinear(nn.Linear):
    """A linear layer with nodes at its input and its weight."""

    def __init__(self, inputs: int, outputs: int, percentile: float) -> None:
        super().__init__(inputs, outputs)
        self.input_quantizer = Quantizer(percentile)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.input_quantizer.mode != "on":
            return super().forward(self.input_quantizer(input))
        return nn.functional.linear(self.input_quantizer(input), quantized_weight(self.weight), self.bias)


class QDQBertSelfAttention(BertSelfAttention):
    """Attention with nodes at both factors of both products.

    Fused kernels have no place for these, so this is written out.
    """

    def __init__(self, config: QDQBertConfig, layer_idx: int) -> None:
        super().__init__(config, is_causal=config.is_decoder, layer_idx=layer_idx)
        size, percentile = config.hidden_size, config.calibration_percentile
        self.query = QuantizedLinear(size, size, percentile)
        self.key = QuantizedLinear(size, size, percentile)
        self.value = QuantizedLinear(size, size, percentile)
        self.query_quantizer = Quantizer(percentile)
        self.key_quantizer = Quantizer(percentile)
        self.weights_quantizer = Quantizer(percentile)
        self.value_quantizer = Quantizer(percentile)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        **_: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States [batch, length, size], and who looked where, [batch, heads, length, seen length].

        Args:
            attention_mask: what is added to the scores.
            past_key_values: the cache, if there is one.
        """
        queries, keys, values = (
            layer(hidden_states).unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, self.layer_idx)
        scores = self.query_quantizer(queries) @ self.key_quantizer(keys).transpose(2, 3) * self.scaling
        if attention_mask is not None:
            scores = scores + attention_mask
        weights = self.dropout(scores.softmax(-1))
        states = self.weights_quantizer(weights) @ self.value_quantizer(values)
        return states.transpose(1, 2).flatten(2), weights


class QDQBertOutput(nn.Module):
    """The end of attention and of the feed-forward part: projection and residual sum, with nodes at all of it."""

    def __init__(self, config: QDQBertConfig, inputs: int) -> None:
        super().__init__()
        self.dense = QuantizedLinear(inputs, config.hidden_size, config.calibration_percentile)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.new_quantizer = Quantizer(config.calibration_percentile)
        self.residual_quantizer = Quantizer(config.calibration_percentile)

    def forward(self, hidden_states: torch.Tensor, input_tensor: torch.Tensor) -> torch.Tensor:
        new = self.dropout(self.dense(hidden_states))
        return self.LayerNorm(self.new_quantizer(new) + self.residual_quantizer(input_tensor))


class QDQBertPreTrainedModel(BertPreTrainedModel):
    """What transformers has to know about the models here."""

    config_class = QDQBertConfig
    _supports_flash_attn = False
    _supports_sdpa = False
    _supports_flex_attn = False
    _supports_attention_backend = False
    # BERT's checkpoints have no ranges: they are found in training.
    _keys_to_ignore_on_load_missing = [r"quantizer\.amax$", r"batches_watched$"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Quantizer):
            init.zeros_(module.amax)
        elif isinstance(module, QDQBertModel):
            init.zeros_(module.batches_watched)


class QDQBertModel(QDQBertPreTrainedModel, BertModel):
    """The encoder, or decoder, and the clock of its calibration.

    In its first training batches the model is BERT and its nodes watch. From then on, and whenever it is not
    training, the nodes are on with the ranges that they have; until they have any, it is BERT.

    Gradients flow while the nodes watch. With several processes, the ranges are those of the first one, as
    DistributedDataParallel does it with buffers.

    Raises:
        ValueError: cross-attention, or no such calibration.
    """

    def __init__(self, config: QDQBertConfig, add_pooling_layer: bool = True) -> None:
        if config.add_cross_attention:
            raise ValueError("QDQBERT has no cross-attention: add_cross_attention must be false")
        if config.calibration_batches < 0:
            raise ValueError(f"calibration_batches must be at least 0, got {config.calibration_batches}")
        if not 0 < config.calibration_percentile <= 100:
            raise ValueError(
                f"calibration_percentile must be above 0 and at most 100, got {config.calibration_percentile}"
            )
        super().__init__(config, add_pooling_layer)
        for number, layer in enumerate(self.encoder.layer):
            layer.attention.self = QDQBertSelfAttention(config, number)
            layer.attention.output = QDQBertOutput(config, config.hidden_size)
            layer.intermediate.dense = QuantizedLinear(
                config.hidden_size, config.intermediate_size, config.calibration_percentile
            )
            layer.output = QDQBertOutput(config, config.intermediate_size)
        self.batches_watched = nn.Buffer(torch.zeros((), dtype=torch.long))
        self.post_init()

    def forward(self, *arguments: Any, **inputs: Any) -> BaseModelOutputWithPoolingAndCrossAttentions:
        mode = self._mode()
        for module in self.modules():
            if isinstance(module, Quantizer):
                module.mode = mode
        if mode == "watching":
            self.batches_watched.add_(1)
        return super().forward(*arguments, **inputs)

    def _mode(self) -> Mode:
        watched = int(self.batches_watched)
        if self.training and watched < self.config.calibration_batches:
            return "watching"
        return "on" if watched else "off"


class QDQBertForMaskedLM(QDQBertPreTrainedModel, BertForMaskedLM):
    """For hidden words."""

    def __init__(self, config: QDQBertConfig) -> None:
        super().__init__(config)
        self.bert = QDQBertModel(config, add_pooling_layer=False)
        self.post_init()


class QDQBertLMHeadModel(QDQBertPreTrainedModel, BertLMHeadModel):
    """For the next word, with ``is_decoder=true``."""

    def __init__(self, config: QDQBertConfig) -> None:
        super().__init__(config)
        self.bert = QDQBertModel(config, add_pooling_layer=False)
        self.post_init()
