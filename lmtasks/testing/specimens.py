"""Material of the checks: a tiny text, a tokenizer trained on it, and the shapes of tiny models."""

from __future__ import annotations

import random

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from lmtasks.api import Recipe, TokenizerSpec, resolve
from lmtasks.config.settings import ModelSettings
from lmtasks.models.config import load_config
from lmtasks.models.tiny import shrunk
from lmtasks.models.tokenizer import add_tokens, train_tokenizer

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


def tiny_config(model_type: str, recipe: Recipe, overrides: str = "") -> PretrainedConfig:
    """The configuration of a tiny model.

    Args:
        overrides: what is said beside the defaults of the type, as ``--config_overrides`` has it.

    Raises:
        InputError: there is no such model type, or the recipe cannot train it.
    """
    return shrunk(load_config(ModelSettings(model_type=model_type, config_overrides=overrides or None), recipe))


def usual_type(recipe: Recipe) -> str:
    """A model type that the recipe's class knows."""
    model_class = resolve(recipe.model_class)
    mapping = getattr(model_class, "_model_mapping", None)
    if mapping is None:
        return str(model_class.config_class.model_type)
    known = {config.model_type for config in mapping}
    return next((kind for kind in ("llama", "modernbert", "t5", "bert") if kind in known), min(known))
