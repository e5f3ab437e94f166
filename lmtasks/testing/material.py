"""What checks work on: a tiny text, a tokenizer trained on it, and the shapes of tiny models."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lmtasks.models import load_config
from lmtasks.recipe import Recipe, TokenizerSpec
from lmtasks.references import resolve
from lmtasks.settings import ModelSettings
from lmtasks.tokenization import add_tokens, train_tokenizer

WORDS = """
    a the this that one every old new small quick brown red black white fox dog cat bird river house road tree wind
    stone light night day hand word sees takes finds makes leaves keeps crosses follows near under over behind
    before after with without and but then never always again slowly
""".split()  # noqa: SIM905  (a list of so many words is read more easily without quotes)

ANY_TOKENIZER = TokenizerSpec(
    special_tokens={
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "mask_token": "<mask>",
    }
)
"""For recipes that say nothing about tokenizers."""

SMALL: Mapping[str, float] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head", "n_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "rotary_dim", "local_attention"), 16),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "d_inner", "d_ff", "ffn_dim"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 66),
}
"""What configurations call their sizes, and how small they may be. 66 positions are 64 for RoBERTa's family."""


def corpus(documents: int = 60, seed: int = 0) -> list[str]:
    """Documents of 3 to 40 words, no two alike."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 40))) + f", number {seed}.{n}." for n in range(documents)]


def tokenizer_for(recipe: Recipe) -> PreTrainedTokenizerBase:
    """A byte-level tokenizer with the recipe's special tokens, and with some merges."""
    spec = recipe.tokenizer or ANY_TOKENIZER
    tokenizer = train_tokenizer([corpus()], 256 + 64 + len(set(spec.special_tokens.values())), spec)
    add_tokens(tokenizer, recipe)
    return tokenizer


def tiny_config(
    model_type: str, recipe: Recipe, tiny: Mapping[str, Any] | None = None, overrides: str = ""
) -> PretrainedConfig:
    """The configuration of a tiny model.

    Args:
        tiny: what its architecture says is tiny; all that is shrunk then.
        overrides: what is to stay of a configuration whose sizes are shrunk, as ``--config_overrides`` has it.

    Raises:
        InputError: there is no such model type, or the recipe cannot train it.
    """
    if tiny and model_type in CONFIG_MAPPING:
        return AutoConfig.for_model(model_type, **tiny)
    default = load_config(ModelSettings(model_type=model_type), recipe)
    own = {*default.to_dict(), *default.attribute_map}
    shrunk = [f"{name}={size:g}" for name, size in SMALL.items() if name in own and _is_size(getattr(default, name))]
    written = ",".join(filter(None, [overrides, *shrunk]))
    return load_config(ModelSettings(model_type=model_type, config_overrides=written or None), recipe)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def usual_type(recipe: Recipe) -> str:
    """A model type that the recipe's class knows."""
    model_class = resolve(recipe.model_class)
    mapping = getattr(model_class, "_model_mapping", None)
    if mapping is None:
        return str(model_class.config_class.model_type)
    known = {config.model_type for config in mapping}
    return next((kind for kind in ("llama", "modernbert", "t5", "bert") if kind in known), min(known))
