"""MEGA in transformers' clothes: the model, and its heads for masked and causal language modelling.

Ma et al. 2022, "Mega: Moving Average Equipped Gated Attention", arXiv 2209.10655. The modules have the
names that published checkpoints use.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast, MaskedLMOutput

from lmtasks_mega.cache import MegaCache
from lmtasks_mega.config import MegaConfig
from lmtasks_mega.layers import MegaBlock
from lmtasks_mega.sight import sight


class MegaPreTrainedModel(PreTrainedModel):
    """What all MEGA models share."""

    config_class = MegaConfig
    base_model_prefix = "mega"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MegaBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.get_input_embeddings():
            # Vectors of a length of about 1. Gates add to them, and nothing normalises the sum before the head:
            # were they as small as other weights, a fresh model would learn for hundreds of steps no more than
            # how frequent words are.
            init.normal_(module.weight, std=self.config.hidden_size**-0.5)
        if hasattr(module, "initialize"):
            module.initialize()


class MegaEmbeddings(nn.Module):
    """Words and, if the configuration has them, token types. Positions are attention's business."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = (
            nn.Embedding(config.type_vocab_size, config.hidden_size) if config.add_token_type_embeddings else None
        )

    def forward(self, words: torch.Tensor, token_type_ids: torch.Tensor | None) -> torch.Tensor:
        """Words [batch, length, d], with their types, 0 where nobody says otherwise."""
        if self.token_type_embeddings is None:
            return words
        if token_type_ids is None:
            token_type_ids = torch.zeros(words.shape[:2], dtype=torch.long, device=words.device)
        return words + self.token_type_embeddings(token_type_ids)


class MegaModel(MegaPreTrainedModel):
    """Embeddings and blocks."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__(config)
        self.embedding_layer = MegaEmbeddings(config)
        self.layers = nn.ModuleList(MegaBlock(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding_layer.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embedding_layer.word_embeddings = value

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: MegaCache | None = None,
        use_cache: bool | None = None,
        **_: object,
    ) -> BaseModelOutputWithPast:
        """Hidden states [batch, length, d].

        Args:
            attention_mask: [batch, past + length], 0 at padding, which may be on either side.
            past_key_values: what came before, from a call with ``use_cache``; is brought up to date.
            use_cache: remember the text; by default as the configuration says, but not in training.

        Raises:
            ValueError: inputs that the model cannot take.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("MEGA takes either input_ids or inputs_embeds")
        words = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        x = self.embedding_layer(words, token_type_ids)
        cache = self._cache(past_key_values, use_cache)
        past = cache.seen if cache else 0
        real = _real(attention_mask, x, past)
        view = sight(self.config, real, past, x.shape[1])
        for index, layer in enumerate(self.layers):
            x = layer(x, real[:, past:], view, cache.layers[index] if cache else None)
        if cache:
            cache.seen += x.shape[1]
        return BaseModelOutputWithPast(last_hidden_state=x, past_key_values=cache)

    def _cache(self, given: MegaCache | None, wanted: bool | None) -> MegaCache | None:
        """The cache to use, if any: what looks ahead can remember nothing."""
        possible = self.config.is_decoder and not self.config.bidirectional
        if given is not None and not possible:
            raise ValueError("only a MEGA decoder that is not bidirectional can go on from past_key_values")
        if wanted is None:
            wanted = self.config.use_cache and not self.training
        return given or (MegaCache(len(self.layers)) if possible and wanted else None)


def _real(attention_mask: torch.Tensor | None, x: torch.Tensor, past: int) -> torch.Tensor:
    """Which tokens are no padding, bool [batch, past + length]."""
    shape = (x.shape[0], past + x.shape[1])
    if attention_mask is None:
        return torch.ones(shape, dtype=torch.bool, device=x.device)
    if attention_mask.shape != shape:
        raise ValueError(
            f"MEGA takes an attention_mask of the shape {list(shape)}, not {list(attention_mask.shape)}:"
            " its moving average cannot be told which token sees which"
        )
    return attention_mask.bool()


class MegaHeadedModel(MegaPreTrainedModel):
    """A model and a head that says what each position could be: a hidden layer, and the embeddings once more.

    ``head`` is the name of the last layer, which is another one for each task.
    """

    head: str

    def __init__(self, config: MegaConfig) -> None:
        super().__init__(config)
        self.mega = MegaModel(config)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size) if config.add_lm_hidden_dense_layer else None
        self.set_output_embeddings(nn.Linear(config.hidden_size, config.vocab_size))
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.mega.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.mega.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        return getattr(self, self.head)

    def set_output_embeddings(self, value: nn.Linear) -> None:
        setattr(self, self.head, value)

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        if self.dense is not None:
            states = self.dense(states).tanh()
        return self.get_output_embeddings()(states)


class MegaForMaskedLM(MegaHeadedModel):
    """MEGA that fills in hidden tokens."""

    head = "mlm_head"
    _tied_weights_keys = {"mlm_head.weight": "mega.embedding_layer.word_embeddings.weight"}

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **extra: Any,
    ) -> MaskedLMOutput:
        """Logits [batch, length, vocabulary], and the mean loss of the labels that are not -100."""
        states = self.mega(input_ids, attention_mask, token_type_ids, inputs_embeds, use_cache=False).last_hidden_state
        logits = self._logits(states)
        loss = None if labels is None else self.loss_function(logits, labels, self.config.vocab_size, **extra)
        return MaskedLMOutput(loss=loss, logits=logits)


class MegaForCausalLM(MegaHeadedModel, GenerationMixin):
    """MEGA that continues a text: a decoder whose moving average is not bidirectional.

    What its configuration makes it is what it is; this class does not change what a position sees.
    """

    head = "lm_head"
    _tied_weights_keys = {"lm_head.weight": "mega.embedding_layer.word_embeddings.weight"}
    _is_stateful = True  # a moving average cannot go back, which assisted generation would need

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """Keys and values are not all that has to be remembered; the model makes its own cache."""
        return False

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        past_key_values: MegaCache | None = None,
        **kwargs: Any,  # the name by which generate knows that all inputs of the model may come
    ) -> dict[str, Any]:
        """What is new, or, where nothing can be remembered, the whole text."""
        if past_key_values is None:
            next_sequence_length = None
        return super().prepare_inputs_for_generation(
            input_ids, next_sequence_length=next_sequence_length, past_key_values=past_key_values, **kwargs
        )

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: MegaCache | None = None,
        use_cache: bool | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int = 0,
        **extra: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [batch, length, vocabulary] of each next token, and the mean loss of the labels.

        Args:
            labels: the tokens themselves, -100 where they do not count; see :class:`MegaModel` for the rest.
            logits_to_keep: only of so many tokens at the end; 0: of all.
        """
        outputs = self.mega(input_ids, attention_mask, token_type_ids, inputs_embeds, past_key_values, use_cache)
        logits = self._logits(outputs.last_hidden_state[:, -logits_to_keep:])
        loss = None if labels is None else self.loss_function(logits, labels, self.config.vocab_size, **extra)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=outputs.past_key_values)
