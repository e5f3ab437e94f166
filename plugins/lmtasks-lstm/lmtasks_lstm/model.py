"""An LSTM language model in transformers' clothes."""

import torch
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class LSTMConfig(PretrainedConfig):
    """Shape of the model; there is no limit on the length of the text."""

    model_type = "lstm"

    vocab_size: int = 4000
    hidden_size: int = 256
    num_hidden_layers: int = 2
    dropout: float = 0.1
    initializer_range: float = 0.05
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    tie_word_embeddings: bool = True


class LSTMForCausalLM(PreTrainedModel, GenerationMixin):
    """Embedding, LSTM layers, and the embedding once more as output (Press and Wolf 2017)."""

    config_class = LSTMConfig
    main_input_name = "input_ids"
    _tied_weights_keys = {"lm_head.weight": "embedding.weight"}

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, size)
        between = config.dropout if config.num_hidden_layers > 1 else 0.0
        self.lstm = nn.LSTM(size, size, config.num_hidden_layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.lm_head = nn.Linear(size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Embedding, nn.Linear)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embedding = value

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head = value

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: object
    ) -> dict[str, torch.Tensor | None]:
        """The whole text every time: simple, and fast enough at this size."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: object
    ) -> CausalLMOutput:
        """Logits [batch, length, vocabulary] of each next token."""
        states = self._states(self.dropout(self.embedding(input_ids)), attention_mask)
        return CausalLMOutput(logits=self.lm_head(self.dropout(states)))

    def _states(self, inputs: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        if attention_mask is None or bool(attention_mask.all()):
            return self.lstm(inputs)[0]
        # Padding must not pass through the state, so padded texts go one by one.
        states = torch.zeros_like(inputs)
        for row, mask in enumerate(attention_mask.bool()):
            states[row, mask] = self.lstm(inputs[row, mask].unsqueeze(0))[0].squeeze(0)
        return states
