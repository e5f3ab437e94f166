"""The tokenizer of a run: loaded, or trained on the spot, and checked before anything relies on it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lmtasks.api import Recipe, TokenizerSpec
from lmtasks.config.settings import ModelSettings
from lmtasks.errors import InputError
from lmtasks.models.load_errors import found_or_explained


def load_tokenizer(name: str, settings: ModelSettings, recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub id.

    It keeps its padding token if it has one: the model's positions may hang on it.

    Raises:
        InputError: not found, empty, or without a token that the recipe needs.
    """
    # The revision is the model's; a tokenizer from elsewhere has none of that name.
    revision = settings.revision if name == settings.model_name_or_path else "main"
    with found_or_explained("tokenizer", name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=settings.trust_remote_code
        )
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        # transformers makes an empty tokenizer, without a word, where the files are missing.
        raise InputError(
            f"'{name}' has no tokenizer: only special tokens, no vocabulary", "name one with --tokenizer_name"
        )
    require_tokens(tokenizer, name, recipe)
    add_tokens(tokenizer, recipe)
    return tokenizer


def add_tokens(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> None:
    """Give the tokenizer the special tokens that the recipe works with and that it lacks."""
    tokenizer.add_tokens(list(recipe.extra_tokens), special_tokens=True)


def require_tokens(tokenizer: PreTrainedTokenizerBase, name: str, recipe: Recipe) -> None:
    """Refuse a tokenizer that lacks a token that the recipe cannot do without."""
    for role in recipe.required_tokens:
        if getattr(tokenizer, role, None) is None:
            raise InputError(
                f"{recipe.name} needs a tokenizer with a {role}, '{name}' has none",
                "take a model made for this task, or --train_tokenizer 8000 with --model_type",
            )


def train_tokenizer(texts: Iterable[list[str]], size: int, spec: TokenizerSpec) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer (Radford et al. 2019): no text has unknown tokens.

    Args:
        texts: batches of documents.
        size: tokens of the vocabulary, special ones and 256 bytes included.
        spec: special tokens and template of the recipe.
    """
    # A mask stands for a word together with the space before it, as in RoBERTa's own tokenizer.
    mask = spec.special_tokens.get("mask_token")
    special = [
        AddedToken(token, lstrip=token == mask, special=True) for token in dict.fromkeys(spec.special_tokens.values())
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.chain.from_iterable(texts), trainer=trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=spec.template,
        special_tokens=[(str(token.content), tokenizer.token_to_id(token.content)) for token in special],
    )
    roles = {
        role: next(token for token in special if token.content == name) for role, name in spec.special_tokens.items()
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)
