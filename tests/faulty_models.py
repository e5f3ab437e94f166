"""Tiny models that are right, and the same with one mistake each. Registered by test_testing.py."""

from __future__ import annotations

import torch
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput, MaskedLMOutput


class MixerConfig(PretrainedConfig):
    model_type = "mixer"
    vocab_size: int = 300
    hidden_size: int = 16
    num_hidden_layers: int = 1
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02


class Mixer(PreTrainedModel):
    """Each position sees itself and the average of what it may see."""

    config_class = MixerConfig
    causal = False

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.mix = nn.Linear(2 * config.hidden_size, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.build(config)
        self.post_init()

    def build(self, config):
        """What only some of them have."""

    def _init_weights(self, module):
        if isinstance(module, (nn.Embedding, nn.Linear)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)

    def get_input_embeddings(self):
        return self.embedding

    def get_output_embeddings(self):
        return self.head

    def average(self, states, mask):
        if self.causal:
            return (states * mask).cumsum(1) / mask.cumsum(1).clamp(min=1)
        return ((states * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)).expand_as(states)

    def states(self, input_ids, attention_mask=None):
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.embedding(input_ids)
        return torch.tanh(self.mix(torch.cat([states, self.average(states, mask[..., None].float())], dim=-1)))

    def forward(self, input_ids, attention_mask=None, **_):
        return MaskedLMOutput(logits=self.head(self.states(input_ids, attention_mask)))


class CausalMixer(Mixer, GenerationMixin):
    causal = True

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **_):
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def forward(self, input_ids, attention_mask=None, **_):
        return CausalLMOutput(logits=self.head(self.states(input_ids, attention_mask)))


# --- one mistake each ---


class UnsavedScale(CausalMixer):
    """A number that is neither parameter nor buffer."""

    def build(self, config):
        self.scale = 1 + torch.rand(config.vocab_size)

    def forward(self, input_ids, attention_mask=None, **_):
        return CausalLMOutput(logits=self.head(self.states(input_ids, attention_mask)) * self.scale)


class LostPositions(CausalMixer):
    """Positions drawn at random, in a buffer that is not saved."""

    def build(self, config):
        self.register_buffer("positions", torch.randn(64, config.hidden_size), persistent=False)

    def states(self, input_ids, attention_mask=None):
        return super().states(input_ids, attention_mask) + self.positions[: input_ids.shape[1]]


class SecretTie(CausalMixer):
    """Tied weights of which transformers knows nothing."""

    def build(self, config):
        self.before, self.after = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(2))
        self.after.weight = self.before.weight

    def states(self, input_ids, attention_mask=None):
        return self.after(self.before(super().states(input_ids, attention_mask)))


class LostTie(SecretTie):
    """The same, saved as two weights."""

    def save_pretrained(self, *places, **options):
        state = {name: value.clone() for name, value in self.state_dict().items()}
        return super().save_pretrained(*places, state_dict=state, **options)

    def build(self, config):
        super().build(config)
        if config.name_or_path:
            self.after.weight = nn.Parameter(self.before.weight.detach().clone())


class DeafToMask(Mixer):
    """Takes a mask, and averages padding all the same."""

    def states(self, input_ids, attention_mask=None):
        return super().states(input_ids)


class Idle(CausalMixer):
    """A layer that nothing goes through."""

    def build(self, config):
        self.unused = nn.Linear(config.hidden_size, config.hidden_size)


class Clairvoyant(CausalMixer):
    """Averages over the whole text."""

    causal = False


class Noisy(CausalMixer):
    """Dropout that never ends."""

    def states(self, input_ids, attention_mask=None):
        return nn.functional.dropout(super().states(input_ids, attention_mask), 0.1, training=True)


class Moody(CausalMixer):
    """Never says the same word twice in a row: draws what to add to each word."""

    def forward(self, *inputs, **named):
        output = super().forward(*inputs, **named)
        return type(output)(**{**output, "logits": output.logits + 50 * torch.rand(output.logits.shape[-1])})


class Sociable(CausalMixer):
    """What an example comes to depends on the others of its batch."""

    def states(self, input_ids, attention_mask=None):
        states = super().states(input_ids, attention_mask)
        return states + 10 * (states - states.mean(0, keepdim=True))


class Loud(CausalMixer):
    """Starts sure of something that is wrong."""

    def build(self, config):
        config.initializer_range = 5.0


class Short(CausalMixer):
    """Fails beyond sixteen tokens."""

    def states(self, input_ids, attention_mask=None):
        return super().states(input_ids, attention_mask) + torch.zeros(16, 1)


class Mute(Mixer):
    """A causal model that cannot generate."""

    causal = True


class Blank(CausalMixer):
    """Logits that are no numbers."""

    def forward(self, input_ids, attention_mask=None, **_):
        return CausalLMOutput(logits=self.head(self.states(input_ids, attention_mask)) / 0)


class LeftBehind(CausalMixer):
    """Counts positions from the left, padding included."""

    def build(self, config):
        self.positions = nn.Embedding(66, config.hidden_size)

    def states(self, input_ids, attention_mask=None):
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        return super().states(input_ids, attention_mask) + self.positions(place)
