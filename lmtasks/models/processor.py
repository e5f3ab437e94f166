"""The processing class of a run, which makes the model's inputs of documents; for text it is a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from lmtasks.api import TOKENIZER
from lmtasks.config.request import Request
from lmtasks.errors import InputError
from lmtasks.models.tokenizer import add_tokens, from_pretrained, load_tokenizer, require_tokens, train_tokenizer
from lmtasks.models.tokenizer_kinds import Texts
from lmtasks.progress import say


def load_processor(request: Request, config: PretrainedConfig) -> Any:
    """The processing class that was named, else the model's own, else the recipe's for a model from scratch.

    Raises:
        InputError: not found, or not what the recipe needs.
    """
    recipe, settings = request.recipe, request.model
    name = settings.tokenizer_name or settings.model_name_or_path
    if name is None and recipe.new_processor is not None:
        return recipe.new_processor(config, request.options)
    if recipe.processor == TOKENIZER:
        return load_tokenizer(str(name), settings, recipe)
    return from_pretrained("processing class", recipe.processor, str(name), settings)


def train_processor(request: Request, texts: Callable[[], Iterable[list[str]]]) -> PreTrainedTokenizerBase:
    """A tokenizer trained on texts, with what the recipe says of its special tokens.

    Args:
        texts: begins to read them, batch by batch.

    Raises:
        InputError: the recipe says nothing about training one, or needs a token that its tokenizer lacks.
    """
    spec, size = request.recipe.tokenizer, int(request.model.train_tokenizer or 0)
    if spec is None:
        raise InputError(f"{request.recipe.name} says nothing about training a tokenizer", "give --tokenizer_name")
    say(f"training a tokenizer of {size:,} tokens")
    tokenizer = train_tokenizer(Texts(texts), size, spec, request.model.tokenizer_model)
    require_tokens(tokenizer, "the trained tokenizer", request.recipe)
    add_tokens(tokenizer, request.recipe)
    return tokenizer


def vocabulary(processor: Any) -> int | None:
    """The number of tokens of a tokenizer; None for what is none."""
    return len(processor) if isinstance(processor, PreTrainedTokenizerBase) else None
