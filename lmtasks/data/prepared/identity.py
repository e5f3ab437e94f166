"""What prepared data depend on besides the text: tokenizer and layout, and in words where two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedTokenizerBase

from lmtasks.api import Blocks
from lmtasks.config.request import Request
from lmtasks.data.examples import layout_of
from lmtasks.data.text.segmenters import identity_of
from lmtasks.data.text.special_tokens import as_plain_text
from lmtasks.errors import InputError


def identity(request: Request, processor: Any) -> dict[str, Any]:
    """All by which the examples of one text may differ, as JSON has it."""
    blocks = prepared_layout(request, processor)
    tokenizer = as_plain_text(processor) if request.data.split_special_tokens else processor
    told = {
        "recipe": request.recipe.name,
        "tokenizer": hashlib.blake2b(_words_of(tokenizer).encode(), digest_size=16).hexdigest(),
        "blocks": asdict(blocks),
        "segmenter": identity_of(blocks.word_segmenter) if blocks.words else {},
    }
    found: dict[str, Any] = json.loads(json.dumps(told))
    return found


def _words_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """All that a tokenizer does, as far as it says; one in Python says what its tokens are."""
    if tokenizer.is_fast:
        parts = json.loads(tokenizer.backend_tokenizer.to_str())
        for state in ("truncation", "padding"):  # as the last caller left them
            parts.pop(state, None)
    else:
        parts = {"class": type(tokenizer).__qualname__, "vocabulary": tokenizer.get_vocab()}
    parts["special tokens"] = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    parts["split_special_tokens"] = tokenizer.split_special_tokens
    return json.dumps(parts, sort_keys=True)


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """Where the identity of prepared data is not that of a run, in words."""
    if there.get("tokenizer") != here["tokenizer"]:
        yield "of another tokenizer"
    old, new = there.get("blocks") or {}, here["blocks"]
    different = [name for name in new if old.get(name) != new[name]]
    if different:
        told = ", ".join(f"{name} {json.dumps(old.get(name))}" for name in different)
        yield f"in other blocks ({told} there, {', '.join(json.dumps(new[name]) for name in different)} here)"
    if there.get("segmenter") != here["segmenter"]:
        yield "of words told in another way"


def trained(request: Request) -> dict[str, Any]:
    """The settings with which a request trains a tokenizer; empty where it does not."""
    if not request.model.train_tokenizer:
        return {}
    return {"train_tokenizer": request.model.train_tokenizer, "tokenizer_model": request.model.tokenizer_model}


def prepared_layout(request: Request, processor: Any) -> Blocks:
    """The layout of a request whose data can be prepared.

    Raises:
        InputError: they cannot.
    """
    layout = layout_of(request, processor)
    if not isinstance(layout, Blocks):
        raise InputError(f"only text can be prepared, and {request.recipe.name} is not about text", "lmtasks run")
    return layout
