"""Special tokens that stand in a text as such: counted apart from unknown ones, or taken as plain text."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence, Set
from typing import Any

import numpy as np
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerBase

from lmtasks.errors import InputError

_BYTE = re.compile("<0x[0-9A-F]{2}>")


class SpecialTokens:
    """Counts of the special tokens in texts, and of the tokens that are really unknown.

    The unknown token stands for what a tokenizer does not know, and for itself where a text has it written out. In
    some tokenizers, such as GPT-2's, it is another special token as well, and never anything but itself.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.names = special_names(tokenizer)
        self.ids = np.asarray(sorted(self.names), np.int64)
        self.unknown = tokenizer.unk_token_id
        # Where special tokens are plain text, what is written in a text is none.
        self.written = None if tokenizer.split_special_tokens else tokenizer.unk_token

    def counted(self, ids: Any, texts: Sequence[str]) -> tuple[int, dict[str, int]]:
        """How many tokens are unknown, and how many are each special token.

        Args:
            ids: int [tokens], those of the texts and nothing else.
        """
        found, counts = np.unique(ids[np.isin(ids, self.ids)], return_counts=True)
        special = dict(zip(found.tolist(), counts.tolist(), strict=True))
        every = special.pop(self.unknown, 0)
        written = min(every, sum(text.count(self.written) for text in texts)) if every and self.written else 0
        if written:
            special[self.unknown] = written
        return every - written, {self.names[number]: count for number, count in special.items()}


def as_plain_text(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy of a tokenizer to which special tokens that stand in a text are text like any other.

    Raises:
        InputError: the tokenizer cannot be brought to it.
    """
    plain: PreTrainedTokenizerBase = copy.deepcopy(tokenizer)
    plain.split_special_tokens = True
    if plain.is_fast and (isinstance(plain.backend_tokenizer.model, Unigram) or _still_special(plain)):
        # The model of such a tokenizer has them as words of its own, and does not ask what is special.
        plain.backend_tokenizer.model = _without_words(
            plain.backend_tokenizer.model, set(special_names(plain).values())
        )
    if stubborn := _still_special(plain):
        raise InputError(
            f"{type(tokenizer).__name__} cannot take {stubborn[0]} as plain text", "leave --split_special_tokens out"
        )
    return plain


def special_names(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The special tokens by their ids."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    names = {number: str(tokenizer.convert_ids_to_tokens(number)) for number in {*tokenizer.all_special_ids, *added}}
    # Some who trained a tokenizer called the bytes special, of which it makes what it does not know.
    return {number: name for number, name in names.items() if not _BYTE.fullmatch(name)}


def _still_special(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The special tokens that the tokenizer finds in a text that has them written out."""
    names = special_names(tokenizer)
    names.pop(tokenizer.unk_token_id, None)  # which also stands for what is not known
    texts = [text for name in names.values() for text in (name, f"a {name} b")]
    rows = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    found = {number for row in rows for number in row}
    return [name for number, name in names.items() if number in found]


def _without_words(model: Any, words: Set[str]) -> Any:
    """The tokenizer's model with words that no text has in place of these; every word keeps its id."""
    state = json.loads(model.__getstate__())

    def renamed(word: str | None) -> str | None:
        return f"\0{word}\0" if word in words else word

    if isinstance(model, Unigram):
        state["vocab"] = [[renamed(word), score] for word, score in state["vocab"]]
    else:
        state["vocab"] = {renamed(word): number for word, number in state["vocab"].items()}
        state["unk_token"] = renamed(state.get("unk_token"))
        if "merges" in state:
            pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in state["merges"]]
            state["merges"] = [pair for pair in pairs if words.isdisjoint([*pair, "".join(pair)])]
    changed = type(model)()
    changed.__setstate__(json.dumps(state).encode())
    return changed
