"""The shape of a MEGA model, under the names and with the defaults of published checkpoints."""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PretrainedConfig
from transformers.activations import ACT2FN


@strict
class MegaConfig(PretrainedConfig):
    """Shape of the model.

    Args:
        hidden_size: d, width of the text between the blocks.
        intermediate_size: v, width of the attention's values.
        shared_representation_size: z, width of its queries and keys.
        nffn_hidden_size: width inside the feed-forward networks.
        ema_projection_size: h, averages of each feature.
        bidirectional: a second moving average comes from the end of the text.
        is_decoder: attention sees no later token. A causal model is a decoder and not bidirectional.
        truncation: a moving average looks back over so many tokens only; None: over all.
        use_chunking: attention sees only its own chunk of ``chunk_size`` tokens.
        activation: of values, queries and keys, reset gate, candidate and feed-forward network.
        attention_activation: what makes weights of attention's scores.
        relative_positional_bias: "simple", learned for each distance, or "rotary".
        max_positions: most tokens in one attention with the simple bias; the rotary one has no limit
            of its own.
        normalize_before_mega, normalize_before_ffn: normalise what goes into a part, not what comes out.
        norm_affine: the normalisation has weights.
        use_normalized_ffn: each block has a feed-forward network.
        dropout_prob: of the moving average and of a block's candidate.
        hidden_dropout_prob: of what attention and the feed-forward networks give.
        attention_probs_dropout_prob: of attention's weights.
        nffn_activation_dropout_prob: inside the feed-forward networks.
        use_feature_dropout: drop features of a whole text, not of single tokens.
        add_token_type_embeddings: tokens have types, of which there are ``type_vocab_size``.
        add_lm_hidden_dense_layer: the head has a hidden layer.
        initializer_range: standard deviation of fresh weights, but for words, whose length is about 1, and
            for the moving average:
        ema_delta_alpha_range: of damping and decay, before their sigmoid.
        ema_beta_range: of the expansion, around +1 and -1.
        ema_gamma_omega_range: of the projection and the residual weight.

    Raises:
        StrictDataclassError: a value of another type or kind, or settings that contradict each other.
    """

    model_type = "mega"
    attribute_map: ClassVar[dict[str, str]] = {"max_position_embeddings": "max_positions"}

    vocab_size: int = 30522
    hidden_size: int = 128
    num_hidden_layers: int = 4
    intermediate_size: int = 256
    shared_representation_size: int = 64
    nffn_hidden_size: int = 256
    num_attention_heads: Literal[1] = 1

    ema_projection_size: int = 16
    bidirectional: bool = True
    truncation: int | None = None

    is_decoder: bool = False
    use_chunking: bool = False
    chunk_size: int = -1
    activation: str = "silu"
    attention_activation: Literal["softmax", "laplace", "relu2"] = "softmax"
    relative_positional_bias: Literal["simple", "rotary"] = "rotary"
    max_positions: int = 2048

    normalization_type: Literal["scalenorm", "layernorm", "rmsnorm", "batchnorm", "syncbatchnorm"] = "scalenorm"
    norm_affine: bool = True
    normalize_before_mega: bool = True
    normalize_before_ffn: bool = True
    use_normalized_ffn: bool = True

    dropout_prob: float | int = 0.1
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    nffn_activation_dropout_prob: float | int = 0.1
    use_feature_dropout: bool = False

    add_token_type_embeddings: bool = False
    type_vocab_size: int = 2
    add_lm_hidden_dense_layer: bool = True
    tie_word_embeddings: bool = True

    initializer_range: float | int = 0.02
    ema_delta_alpha_range: float | int = 0.2
    ema_beta_range: float | int = 0.02
    ema_gamma_omega_range: float | int = 1.0

    bos_token_id: int | None = 0
    pad_token_id: int | None = 1
    eos_token_id: int | None = 2
    use_cache: bool = True

    def validate_architecture(self) -> None:
        """The part of what :func:`strict` checks that types cannot say."""
        if self.activation not in ACT2FN:
            raise ValueError(f"there is no activation '{self.activation}'")
        if self.use_chunking and self.chunk_size < 1:
            raise ValueError(f"use_chunking needs a chunk_size of 1 or more, not {self.chunk_size}")
        if self.truncation is not None and self.truncation < 1:
            raise ValueError(f"truncation must be 1 or more, not {self.truncation}")
        if self.relative_positional_bias == "rotary" and self.shared_representation_size % 2:
            raise ValueError(
                f"the rotary bias needs an even shared_representation_size, not {self.shared_representation_size}"
            )
