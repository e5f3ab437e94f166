"""Tokens that a user adds to a vocabulary (``--add_tokens``), and the rows of the model with which they start."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.errors import InputError, nearest_path

LONGEST = 100
"""Characters of a token: where a long text may be parted is tried with not many more to each side."""

SHOWN = 5
"""Tokens that a note names."""


@dataclass(frozen=True)
class AddedTokens:
    """What became of the tokens that a user wants to add.

    Args:
        pieces: of each new token, by its id, the ids that its text had before; without any where the tokenizer knew
            nothing of it.
        known: how many tokens the tokenizer had before.
        notes: for people.
    """

    pieces: Mapping[int, Sequence[int]] = field(default_factory=dict)
    known: int = 0
    notes: tuple[str, ...] = ()


def add_to(tokenizer: PreTrainedTokenizerBase, wanted: str | Sequence[str] | None, fresh: bool) -> AddedTokens:
    """Give the tokenizer the tokens that it does not have as whole ones.

    Args:
        wanted: a text file with one token a line, or the tokens.
        fresh: the model is new, all of its rows start at random.

    Raises:
        InputError: no such file, no text or none in it, or something that can be no token.
    """
    if wanted is None:
        return AddedTokens()
    tokens = _read(wanted) if isinstance(wanted, str) else _given(wanted)
    seen: dict[str, str] = {}
    for token in tokens:
        seen.setdefault(_normal(tokenizer, token), token)
    once = list(seen.values())
    vocabulary, unknown = tokenizer.get_vocab(), tokenizer.unk_token_id
    encoded = tokenizer(once, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    # Ids that stand for nothing in particular say nothing about the token.
    pieces = {token: [piece for piece in ids if piece != unknown] for token, ids in zip(once, encoded, strict=True)}
    whole = [
        token
        for token, ids in zip(once, encoded, strict=True)
        if token in vocabulary or (len(ids) == 1 and ids[0] != unknown)
    ]
    new = [token for token in once if token not in set(whole)]
    known = len(tokenizer)
    tokenizer.add_tokens(new)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in new}
    for token, made in ids.items():
        if tokenizer(token, add_special_tokens=False)["input_ids"] != [made]:
            raise InputError(
                f"--add_tokens: the tokenizer takes {token!r} apart even as a token of its own", "leave it out"
            )
    blank = [] if fresh else [token for token in new if not pieces[token]]
    start = "at random, as all rows of a new model" if fresh else "each at the mean of its pieces"
    told = {
        f"tokens added to the vocabulary, {start}": new,
        "tokens to add that are in the vocabulary already": whole,
        "added tokens without known pieces, which start at the mean of all rows": blank,
        "added tokens that begin or end with a space, which is part of them": [t for t in new if t != t.strip()],
    }
    notes = [f"{len(items):,} {what}: {_named(items)}" for what, items in told.items() if items]
    if repeated := len(tokens) - len(once):
        notes.append(f"{repeated:,} tokens to add were there twice")
    return AddedTokens({ids[token]: pieces[token] for token in new}, known, tuple(notes))


def _read(path: str) -> list[str]:
    """The tokens of a file, one a line; spaces belong to them, and blank lines are none."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"--add_tokens '{path}' is not UTF-8 at byte {error.start}", "save it as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        told = f"cannot read --add_tokens '{path}': {reason}{nearest_path(path)}"
        raise InputError(told, "give an existing text file with one token a line") from error
    tokens = [line for line in text.split("\n") if line.strip()]
    tokens = [token.removesuffix("\r") for token in tokens]
    if not tokens:
        raise InputError(f"--add_tokens '{path}' has no tokens", "write one a line")
    return _sound(tokens)


def _given(tokens: Sequence[str]) -> list[str]:
    """The tokens of a list."""
    if not tokens:
        raise InputError("--add_tokens names no tokens", "give a file with one token a line")
    if len(tokens) > 1 and os.path.isfile(tokens[0]):
        raise InputError(f"--add_tokens takes one file, or tokens; '{tokens[0]}' is a file", "put all into one file")
    return _sound(tokens)


def _sound(tokens: Sequence[str]) -> list[str]:
    """The tokens, none of which is empty, too long, or no text at all."""
    for token in tokens:
        if not token:
            raise InputError("--add_tokens: an empty text can be no token", "leave it out")
        if len(token) > LONGEST:
            raise InputError(
                f"--add_tokens: '{token[:30]}...' has {len(token):,} characters, a token at most {LONGEST}",
                "one token a line, not a text",
            )
        if any("\ud800" <= character <= "\udfff" for character in token):
            raise InputError(f"--add_tokens: {token!r} is no text, it has half a character", "leave it out")
    return list(tokens)


def _normal(tokenizer: PreTrainedTokenizerBase, token: str) -> str:
    """The token as the tokenizer sees it: without capitals, for some."""
    normalizer = tokenizer.backend_tokenizer.normalizer if tokenizer.is_fast else None
    seen = token if normalizer is None else str(normalizer.normalize_str(token))
    if not seen:
        raise InputError(f"--add_tokens: the tokenizer removes {token!r} from every text", "leave it out")
    return seen


def _named(tokens: Sequence[str]) -> str:
    more = f" and {len(tokens) - SHOWN:,} more" if len(tokens) > SHOWN else ""
    return ", ".join(map(repr, tokens[:SHOWN])) + more


def make_room(model: PreTrainedModel, rows: int, **how: Any) -> None:
    """Give a model so many rows for tokens, as its ``resize_token_embeddings`` does it."""
    holder = _around_head(model)
    bias = None if holder is None else holder.bias
    apart = isinstance(bias, torch.nn.Parameter) and bias is not getattr(model.get_output_embeddings(), "bias", None)
    model.resize_token_embeddings(rows, **how)
    if holder is not None and apart and isinstance(bias, torch.nn.Parameter):
        # It is of no use then, but what is saved must fit the configuration, and have all that it had.
        more = bias.new_zeros(max(0, rows - len(bias)))
        holder.bias = torch.nn.Parameter(torch.cat([bias.detach(), more]), bias.requires_grad)


def _around_head(model: PreTrainedModel) -> torch.nn.Module | None:
    """The module that has a bias of its own beside the head in it (BERT); the head's own where these are tied."""
    head = model.get_output_embeddings()
    around = (module for module in model.modules() if any(child is head for child in module.children()))
    return next((module for module in around if isinstance(getattr(module, "bias", None), torch.Tensor)), None)


def start_rows(model: PreTrainedModel, added: AddedTokens) -> None:
    """Start the rows of new tokens at the mean of those of their pieces: input, output, and the bias of the output.

    Raises:
        InputError: the model has no table of rows for tokens.
    """
    tables = list(_tables(model))
    if added.pieces and not tables:
        raise InputError(
            f"--add_tokens: a {model.config.model_type} model has no row for each token", "leave --add_tokens out"
        )
    with torch.no_grad():
        for table in tables:
            every = table[: added.known].mean(0)
            # Of what was there before: one new token is never a piece of another.
            means = {row: table[list(pieces)].mean(0) if pieces else every for row, pieces in added.pieces.items()}
            for row, mean in means.items():
                table[row] = mean


def _tables(model: PreTrainedModel) -> Iterator[torch.Tensor]:
    """What a model has for each token of the vocabulary, each once."""
    seen: set[int] = set()
    for tensor in _candidates(model):
        if isinstance(tensor, torch.Tensor) and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            yield tensor


def _candidates(model: PreTrainedModel) -> Iterable[Any]:
    yield getattr(model.get_input_embeddings(), "weight", None)
    head = model.get_output_embeddings()
    yield getattr(head, "weight", None)
    yield getattr(head, "bias", None)
    yield getattr(_around_head(model), "bias", None)
    # BART's family has the bias beside the head, in a row.
    beside = getattr(model, "final_logits_bias", None)
    yield None if beside is None else beside[0]
