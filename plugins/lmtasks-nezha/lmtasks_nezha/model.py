"""NEZHA (Wei et al. 2019, "Neural Contextualized Representation for Chinese Language Understanding").

It is BERT but for its positions: none are added to the embedded tokens. Instead, every attention adds to
the keys and to the values a vector that says how far the one token is from the other. These vectors are
sinusoids and not learned. What is BERT here is transformers' BERT, with its parameter names.
"""

import torch
from torch import nn
from transformers import BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions, MaskedLMOutput
from transformers.models.bert.modeling_bert import BertOnlyMLMHead, BertSelfAttention


class NezhaConfig(BertConfig):
    """BERT's configuration, and how far apart tokens may be before it makes no difference.

    Args:
        max_relative_position: distances beyond it, to either side, count as this one.
        use_relative_position: as the authors' own files say it; must be true.
    """

    model_type = "nezha"

    vocab_size: int = 21128
    max_relative_position: int = 64
    use_relative_position: bool = True
    classifier_dropout: float | int | None = 0.1
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3


def relative_positions(length: int, size: int, limit: int, like: torch.Tensor) -> torch.Tensor:
    """The vector from each position i to each position j, [i, j, size].

    Entries 2k and 2k + 1 are sine and cosine of r / 10000^(2k / size), with r the distance j - i, limited
    to [-limit, limit] and counted from -limit on, as in the published models.

    Args:
        like: gives type and device.
    """
    distances = torch.arange(2 * limit + 1, device=like.device, dtype=torch.float32)
    rates = 10000 ** (-torch.arange(0, size, 2, device=like.device, dtype=torch.float32) / size)
    angles = distances[:, None] * rates
    # The last cosine has no room where the size is odd.
    vectors = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :size].to(like.dtype)
    places = torch.arange(length, device=like.device)
    return vectors[(places - places[:, None]).clamp(-limit, limit) + limit]


class NezhaEmbeddings(nn.Module):
    """Tokens and segments; positions come in later."""

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **_: object,
    ) -> torch.Tensor:
        """States [batch, length, size]; without segments, all is the first one."""
        tokens = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if token_type_ids is None:
            token_type_ids = torch.zeros(tokens.shape[:2], dtype=torch.long, device=tokens.device)
        return self.dropout(self.LayerNorm(tokens + self.token_type_embeddings(token_type_ids)))


class NezhaSelfAttention(BertSelfAttention):
    """Attention whose keys and values know how far away they are.

    Fused kernels take a bias for the scores, but nothing for the values, so this is written out.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        relative_positions: torch.Tensor,
        **_: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States [batch, length, size], and who looked where, [batch, heads, length, length].

        Args:
            attention_mask: what is added to the scores.
            relative_positions: see :func:`relative_positions`.
        """
        queries, keys, values = (
            layer(hidden_states).unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = queries @ keys.transpose(2, 3) + torch.einsum("bhid,ijd->bhij", queries, relative_positions)
        scores = scores * self.scaling
        if attention_mask is not None:
            scores = scores + attention_mask
        weights = self.dropout(scores.softmax(-1))
        states = weights @ values + torch.einsum("bhij,ijd->bhid", weights, relative_positions)
        return states.transpose(1, 2).flatten(2), weights


class NezhaPreTrainedModel(BertPreTrainedModel):
    """What transformers has to know about the models here."""

    config_class = NezhaConfig
    base_model_prefix = "nezha"
    _supports_flash_attn = False
    _supports_sdpa = False
    _supports_flex_attn = False
    _supports_attention_backend = False


class NezhaModel(NezhaPreTrainedModel, BertModel):
    """The encoder.

    Raises:
        ValueError: the configuration asks for a decoder, or for no relative positions.
    """

    def __init__(self, config: NezhaConfig) -> None:
        if config.is_decoder:
            raise ValueError("NEZHA is an encoder: is_decoder must be false")
        if not config.use_relative_position:
            raise ValueError("NEZHA without use_relative_position is BERT: take model type bert")
        super().__init__(config, add_pooling_layer=False)
        self.embeddings = NezhaEmbeddings(config)
        for layer in self.encoder.layer:
            layer.attention.self = NezhaSelfAttention(config)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **inputs: object,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """The states of the last layer, and others if asked for."""
        if inputs_embeds is None:
            inputs_embeds = self.embeddings.word_embeddings(input_ids)
        size = self.config.hidden_size // self.config.num_attention_heads
        # Made once for all layers: it is the largest tensor here.
        positions = relative_positions(inputs_embeds.shape[1], size, self.config.max_relative_position, inputs_embeds)
        return super().forward(
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
            relative_positions=positions,
            **inputs,
        )


class NezhaForMaskedLM(NezhaPreTrainedModel):
    """The encoder and BERT's head for hidden words."""

    _tied_weights_keys = {
        "cls.predictions.decoder.weight": "nezha.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }

    def __init__(self, config: NezhaConfig) -> None:
        super().__init__(config)
        self.nezha = NezhaModel(config)
        self.cls = BertOnlyMLMHead(config)
        self.post_init()

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """The bias has two names in checkpoints, also where the weights are not tied."""
        tied = super().get_expanded_tied_weights_keys(all_submodels)
        return {**tied, "cls.predictions.decoder.bias": "cls.predictions.bias"}

    def get_output_embeddings(self) -> nn.Linear:
        return self.cls.predictions.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.cls.predictions.decoder = value
        self.cls.predictions.bias = value.bias

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **inputs: object,
    ) -> MaskedLMOutput:
        """Logits [batch, length, vocabulary]; the mean loss, too, where there are labels."""
        outputs = self.nezha(input_ids, attention_mask, token_type_ids, inputs_embeds, **inputs)
        logits = self.cls(outputs.last_hidden_state)
        loss = None if labels is None else nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
