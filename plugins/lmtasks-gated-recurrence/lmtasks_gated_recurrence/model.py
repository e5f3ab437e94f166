"""A language model with a gated linear recurrence in the place of attention, in transformers' clothes.

What a layer keeps of a text is one vector, h_t = a_t · h_(t-1) + (1 - a_t) · x_t. Gate and input depend on the token at
t alone, not on what was kept (Feng et al. 2024, minGRU), so that all t are computed at once; the output is gated as in
the recurrent blocks of De et al. 2024 (Griffin). A text is continued from that vector, whatever its length.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import gelu
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput


class GatedRecurrenceConfig(PretrainedConfig):
    """Shape of the model; there is no limit on the length of the text."""

    model_type = "gated-recurrence"

    vocab_size: int = 32000
    hidden_size: int = 512
    intermediate_size: int = 1536
    num_hidden_layers: int = 8
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    tie_word_embeddings: bool = True
    use_cache: bool = True


@dataclass
class GatedRecurrenceOutput(ModelOutput):
    """States of the tokens.

    Args:
        last_hidden_state: [examples, length, size].
        state: what every layer keeps after the last token, [layers, examples, size]; with ``use_cache``.
        hidden_states: those before each layer, and the last; with ``output_hidden_states``.
    """

    last_hidden_state: torch.Tensor | None = None
    state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class GatedRecurrenceCausalLMOutput(ModelOutput):
    """Logits of each next token, [examples, length, vocabulary], and the mean loss where there are labels."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


def scan(gates: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Every h_t = gates_t · h_(t-1) + inputs_t, with h_(-1) = 0, in as many steps as the length has binary digits.

    After each step a place has gathered twice as many of those before it (Hillis and Steele 1986). There is no
    division, and gates are at most 1, so that nothing overflows.

    Args:
        gates, inputs: [examples, length, size].
    """
    gathered = 1
    while gathered < inputs.shape[1]:
        reached = inputs[:, gathered:] + gates[:, gathered:] * inputs[:, :-gathered]
        inputs = torch.cat([inputs[:, :gathered], reached], dim=1)
        gates = torch.cat([gates[:, :gathered], gates[:, gathered:] * gates[:, :-gathered]], dim=1)
        gathered *= 2
    return inputs


def seen(attention_mask: torch.Tensor | None, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which places hold a token, and which go on from the place before them; bool [examples, length, 1] each.

    Args:
        attention_mask: None; [examples, length or more], 0 at padding on either side; or who sees whom,
            [examples, 1, length, length], as documents make it that share a block.
    """
    everywhere = torch.ones(*ids.shape, 1, dtype=torch.bool, device=ids.device)
    if attention_mask is None:
        return everywhere, everywhere
    if attention_mask.ndim == 2:
        return attention_mask[:, -ids.shape[1] :, None].bool(), everywhere
    sees = attention_mask[:, 0] if attention_mask.dtype == torch.bool else attention_mask[:, 0] == 0
    before = sees.diagonal(offset=-1, dim1=1, dim2=2)[..., None]
    return everywhere, torch.cat([everywhere[:, :1], before], dim=1)


class Recurrence(nn.Module):
    """The place of attention: what came before, in one vector."""

    def __init__(self, config: GatedRecurrenceConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.gate, self.input = nn.Linear(size, size), nn.Linear(size, size, bias=False)
        self.shutter, self.output = nn.Linear(size, size, bias=False), nn.Linear(size, size, bias=False)

    def forward(
        self, states: torch.Tensor, tokens: torch.Tensor, goes_on: torch.Tensor, kept: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs [examples, length, size], and what is kept after the last place, [examples, size].

        Args:
            tokens, goes_on: see :func:`seen`.
            kept: from the text before this, [examples, size]; None: there is none.
        """
        # Products of many gates need more digits than bfloat16 has.
        kind = torch.promote_types(states.dtype, torch.float32)
        gate = self.gate(states).to(kind).sigmoid()
        inputs = (1 - gate) * self.input(states).to(kind) * tokens  # padding adds nothing
        gates = torch.where(tokens, gate * goes_on, 1.0)  # and leaves what is kept as it is
        if kept is not None:
            inputs = torch.cat([inputs[:, :1] + gates[:, :1] * kept[:, None], inputs[:, 1:]], dim=1)
        kept = scan(gates, inputs)
        return self.output(kept.to(states.dtype) * gelu(self.shutter(states))), kept[:, -1]


class Block(GradientCheckpointingLayer):
    """A recurrence, and a gated perceptron for each token; each is added to what comes in."""

    def __init__(self, config: GatedRecurrenceConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.intermediate_size
        self.before, self.recurrence = nn.RMSNorm(size, config.rms_norm_eps), Recurrence(config)
        self.between = nn.RMSNorm(size, config.rms_norm_eps)
        self.up, self.down = nn.Linear(size, 2 * inner, bias=False), nn.Linear(inner, size, bias=False)

    def forward(
        self, states: torch.Tensor, tokens: torch.Tensor, goes_on: torch.Tensor, kept: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`Recurrence.forward`."""
        told, kept = self.recurrence(self.before(states), tokens, goes_on, kept)
        states = states + told
        gate, value = self.up(self.between(states)).chunk(2, dim=-1)
        return states + self.down(gelu(gate) * value), kept


class GatedRecurrencePreTrainedModel(PreTrainedModel):
    """Weights and how they begin."""

    config_class = GatedRecurrenceConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]
    _is_stateful = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding | nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.RMSNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, Recurrence):
            # Some keep what they have for two tokens, others for more than a hundred.
            nn.init.uniform_(module.gate.bias, 0.0, 5.0)


class GatedRecurrenceModel(GatedRecurrencePreTrainedModel):
    """Tokens to states."""

    def __init__(self, config: GatedRecurrenceConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Block(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        state: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **_: object,
    ) -> GatedRecurrenceOutput:
        """States of each token, after those that ``state`` is of."""
        states, kept, all_states = self.embed_tokens(input_ids), [], []
        tokens, goes_on = seen(attention_mask, input_ids)
        for number, layer in enumerate(self.layers):
            all_states.append(states)
            states, last = layer(states, tokens, goes_on, None if state is None else state[number])
            kept.append(last)
        states = self.norm(states)
        return GatedRecurrenceOutput(
            last_hidden_state=states,
            state=torch.stack(kept) if use_cache else None,
            hidden_states=(*all_states, states) if output_hidden_states else None,
        )


class GatedRecurrenceForCausalLM(GatedRecurrencePreTrainedModel, GenerationMixin):
    """Tokens to logits of each next one; the output layer is the table of tokens once more."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: GatedRecurrenceConfig) -> None:
        super().__init__(config)
        self.model = GatedRecurrenceModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        state: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **more: object,
    ) -> GatedRecurrenceCausalLMOutput:
        """Logits of each next token; see :meth:`GatedRecurrenceModel.forward`."""
        outputs = self.model(input_ids, attention_mask, state, use_cache, output_hidden_states)
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None if labels is None else self.loss_function(logits, labels, self.config.vocab_size, **more)
        return GatedRecurrenceCausalLMOutput(loss, logits, outputs.state, outputs.hidden_states)

    # --- generation: what is kept is the state, and no more than the last token is read again ---

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        state: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **_: object,
    ) -> dict[str, torch.Tensor | bool | None]:
        """The whole text at first, then its last token with the state of those before it."""
        read = input_ids if state is None else input_ids[:, -1:]
        return {"input_ids": read, "attention_mask": attention_mask, "state": state, "use_cache": use_cache}

    @staticmethod
    def _reorder_cache(state: torch.Tensor, beam_idx: torch.Tensor) -> torch.Tensor:
        return state.index_select(1, beam_idx.to(state.device))
