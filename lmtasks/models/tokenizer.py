"""The tokenizer of a run: loaded, or trained on the spot, and checked before anything relies on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import cached_file

from lmtasks.api import TOKENIZER, Recipe, TokenizerSpec, resolve
from lmtasks.config.settings import ModelSettings
from lmtasks.errors import InputError
from lmtasks.models.adapters import base_of
from lmtasks.models.load_errors import found_or_explained
from lmtasks.models.tokenizer_kinds import KINDS, NEEDS_UNKNOWN, Texts

ABOUT = ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
"""Files of which a processing class has one."""

UNKNOWN = "<unk>"
"""The unknown token, where the recipe's is none, or something else as well."""


def load_tokenizer(name: str, settings: ModelSettings, recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub id.

    It keeps its padding token if it has one: the model's positions may hang on it. What the recipe works with and
    it lacks is added.

    Raises:
        InputError: not found, empty, or without a token that the recipe needs.
    """
    tokenizer = saved_tokenizer(name, settings, recipe)
    add_tokens(tokenizer, recipe)
    return tokenizer


def saved_tokenizer(name: str, settings: ModelSettings, recipe: Recipe) -> PreTrainedTokenizerBase:
    """As :func:`load_tokenizer`, with nothing added."""
    tokenizer: PreTrainedTokenizerBase = from_pretrained("tokenizer", TOKENIZER, name, settings)
    with found_or_explained("tokenizer", name):  # an unknown token that is unknown has no end
        special = set(tokenizer.all_special_ids)
    if not isinstance(longest := tokenizer.model_max_length, int | float):
        raise InputError(
            f"the tokenizer of '{name}' takes {longest!r} tokens at most, which is no number",
            "mend model_max_length in its tokenizer_config.json",
        )
    if len(tokenizer) <= len(special):
        # transformers makes an empty tokenizer, without a word, where the files are missing.
        empty = f"'{name}' has no tokenizer: only special tokens, no vocabulary"
        raise InputError(empty, "name one with --tokenizer_name")
    require_tokens(tokenizer, name, recipe)
    return tokenizer


def from_pretrained(thing: str, reference: str, name: str, settings: ModelSettings) -> Any:
    """The processing class that a folder or Hub id has, or an explanation of why not."""
    # The revision is the model's; a processing class from elsewhere has none of that name.
    revision = settings.revision if name == settings.model_name_or_path else "main"
    name, revision = _home(name, revision)
    with found_or_explained(thing, name):
        return resolve(reference).from_pretrained(name, revision=revision, trust_remote_code=settings.trust_remote_code)


def _home(name: str, revision: str) -> tuple[str, str]:
    """Where the processing class of a model lies: of an adapter that came without one, beside the model it is for."""
    base = base_of(name, revision)
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    if base is None or any(cached_file(name, file, revision=revision, **quiet) for file in ABOUT):
        return name, revision
    return base.name, base.revision


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


def train_tokenizer(
    texts: Iterable[list[str]] | Texts, size: int, spec: TokenizerSpec, kind: str = "bpe"
) -> PreTrainedTokenizerFast:
    """A tokenizer trained on batches of documents.

    Args:
        texts: documents, batch by batch.
        size: its tokens, special ones and bytes included.
        kind: one of :data:`lmtasks.models.tokenizer_kinds.KINDS`.

    Raises:
        InputError: the texts need more tokens.
    """
    roles = dict(spec.special_tokens)
    if kind in NEEDS_UNKNOWN and list(roles.values()).count(roles.get("unk_token", "")) != 1:
        roles["unk_token"] = UNKNOWN  # what is unknown is no end of a text
    # A mask stands for a word together with the space before it, as in RoBERTa's own tokenizer.
    mask = roles.get("mask_token") if kind != "character" else None
    special = {token: AddedToken(token, lstrip=token == mask, special=True) for token in roles.values()}
    unknown = roles.get("unk_token", "")
    if not isinstance(texts, Texts):
        batches = list(texts)
        texts = Texts(lambda: batches)
    tokenizer = KINDS[kind](texts, size, list(special.values()), unknown)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=spec.template, special_tokens=[(token, tokenizer.token_to_id(token)) for token in special]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{role: special[token] for role, token in roles.items()}
    )
