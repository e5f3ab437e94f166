"""Conversations as texts: each in the chat template of the tokenizer that is to read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import datasets
import jinja2
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from lmtasks.api import Blocks
from lmtasks.errors import InputError

_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "model": "assistant"}
"""Roles as ShareGPT writes them, and as chat templates know them."""


def rendered(
    rows: datasets.Dataset, column: str, tokenizer: PreTrainedTokenizerBase, blocks: Blocks, source: str
) -> datasets.Dataset:
    """Conversations, which come as JSON, in the tokenizer's chat template.

    The tokens that the recipe puts around every document are left out where the template has them, too.

    Raises:
        InputError: a row that is no conversation, or one that the template refuses; a tokenizer without a template.
    """
    require_template(tokenizer)
    start, end = (tokenizer.decode([*ids]) for ids in (blocks.document_start, blocks.document_end))

    def texts(batch: Mapping[str, list[str | None]], places: list[int]) -> dict[str, list[str | None]]:
        cells = zip(places, batch[column], strict=True)
        made = [None if cell is None else _text(cell, tokenizer, f"row {at + 1} of {source}") for at, cell in cells]
        return {column: [text and _within(text, start, end) for text in made]}

    return rows.map(
        texts,
        batched=True,
        with_indices=True,
        # Datasets would have to look into the tokenizer, whose state changes while it is used.
        new_fingerprint=Hasher.hash((rows._fingerprint, column, str(tokenizer.chat_template), start, end)),
    )


def _within(text: str, start: str, end: str) -> str:
    """A text without the one before it and the one that it ends with, white space behind that apart."""
    bare = text.rstrip()
    return (bare.removesuffix(end) if end and bare.endswith(end) else text).removeprefix(start)


def require_template(tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Refuse a tokenizer that cannot say how a conversation is written.

    Raises:
        InputError: it has no chat template.
    """
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "--chat needs a tokenizer with a chat template, and this one has none",
            "--tokenizer_name of a chat model, or --text_template to write the turns yourself",
        )


def _text(cell: str, tokenizer: PreTrainedTokenizerBase, place: str) -> str:
    try:
        return str(tokenizer.apply_chat_template(_messages(json.loads(cell), place), tokenize=False))
    except jinja2.TemplateError as error:
        raise InputError(f"the chat template refuses {place}: {error}", "repair or remove the row") from error
    except ValueError as error:
        raise InputError(f"{place} is no conversation: {error}", "give a list of {role, content}") from error


def _messages(turns: Any, place: str) -> list[dict[str, Any]]:
    """Turns of ``{role, content}`` or ShareGPT's ``{from, value}`` as chat templates take them."""
    if not isinstance(turns, list) or not turns:
        raise InputError(f"{place} is no conversation: it holds no list of turns", "give a list of {role, content}")
    return [_message(turn, place) for turn in turns]


def _message(turn: Any, place: str) -> dict[str, Any]:
    if isinstance(turn, dict) and "role" in turn:
        return {name: value for name, value in turn.items() if value is not None or name == "content"}
    if isinstance(turn, dict) and isinstance(turn.get("from"), str) and isinstance(turn.get("value"), str):
        role = turn["from"].lower()
        return {"role": _ROLES.get(role, role), "content": turn["value"]}
    raise InputError(f"a turn in {place} has neither role and content nor from and value", "repair or remove the row")
