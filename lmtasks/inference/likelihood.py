"""How likely a language model finds texts, token by token: nothing but the logits of the targets is ever made.

A causal model tells every token from those before it, the first from the token that begins texts, or else from the
one that ends them. A text longer than the model can take is told in windows that go on from the last token of the
window before, and the last window is whole: lm-evaluation-harness' rolling log-likelihood.

A masked model tells every token from all others (Salazar et al. 2020). Pieces of a text longer than it can take
follow each other, and each is seen alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.api import Batch, Recipe, stack, template_tokens
from lmtasks.errors import InputError, first_line
from lmtasks.models.config import unknown_tokens, usable_length
from lmtasks.models.cross_entropy import plain_likelihoods
from lmtasks.models.forward import MODEL_FAILURES, in_mode, sparse, without_cache
from lmtasks.models.lm_head import Head, separate_head
from lmtasks.models.probes import probe
from lmtasks.models.products import cheap_forward
from lmtasks.progress import stage

Metric = Literal["original", "within_word_l2r"]
"""What is hidden from a masked model with a token: nothing else, or also what follows it within its word.

Of a word in several tokens, the first ones give the others away: "sou" is sure before "venir" (Kauf & Ivanova 2023).
"""

UNLIMITED = 2048
"""Tokens of a window where the model has no limit of its own; lm-evaluation-harness' number."""

CORNER = 32
"""Tokens of the text on which the model is measured."""

ROW = 128
"""Tokens that a row of a batch counts as: shorter rows are as many more. Few tokens keep no processor busy."""

TOGETHER = 128
"""Targets for which the head is run at once, at least: it reads its weights, the largest there are, for each run."""

Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Told:
    """The tokens of one text as a model tells them.

    Args:
        ids: int64 [tokens]; what the tokenizer puts around a text is not among them.
        likelihoods: log p of each in nats, float64 [tokens].
        right: whether no other token was likelier, bool [tokens].
        windows: how many times the model had to begin.
    """

    ids: Integers
    likelihoods: np.ndarray[Any, np.dtype[np.float64]]
    right: np.ndarray[Any, np.dtype[np.bool_]]
    windows: int


@dataclass(frozen=True)
class _Row:
    """What goes through the model at once.

    Args:
        text: the number of the text.
        read: the ids that the model gets, before any is hidden, int64 [length].
        hidden: places behind the mask.
        logits: the places whose logits tell the targets, int64 [targets].
        targets: their ids, int64 [targets].
        first: which token of its text the first of them is; the others follow it.
    """

    text: int
    read: Integers
    hidden: Sequence[int]
    logits: Integers
    targets: Integers
    first: int


class Teller:
    """A model that tells the tokens of texts.

    Args:
        recipe: causal, or one that fills masks.
        model: in evaluation mode from now on, and without gradients.
        most: tokens that go through the model at once at most; all that it can take when None.
        metric: of a masked model.

    Raises:
        InputError: the model cannot take so many, has no token to begin with, or sees what it should tell.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe,
        most: int | None = None,
        metric: Metric = "original",
    ) -> None:
        self.model, self.tokenizer, self.recipe, self.metric = model, tokenizer, recipe, metric
        self.causal = recipe.attention == "causal"
        self.start, self.end = ((_prefix(tokenizer),), ()) if self.causal else template_tokens(tokenizer)
        self.most = self._fitting(most)
        if metric != "original" and not tokenizer.is_fast:
            raise InputError(
                f"--pll_metric {metric}: {type(tokenizer).__name__} does not say which tokens are a word",
                "leave --pll_metric out, or take a model with a fast tokenizer (tokenizer.json)",
            )
        self._measured = False

    def tell(self, texts: Sequence[str], batch_size: int) -> list[Told]:
        """The tokens of each text, in the order of the texts.

        Args:
            batch_size: windows of a causal model at once; of a masked one, as many rows as have the tokens of so many
                of 128. It changes the speed alone.

        Raises:
            InputError: a text has no tokens, or the model fails on one.
        """
        ids, words = self._encoded(texts)
        rows = [row for number in range(len(texts)) for row in self._rows(number, ids[number], words[number])]
        likelihoods = [np.zeros(len(one)) for one in ids]
        right = [np.zeros(len(one), bool) for one in ids]
        with stage("scoring", len(rows), "windows" if self.causal else "tokens") as progress:
            done = 0
            for group in self._groups(self._batches(rows, batch_size)):
                some = [row for batch in group for row in batch]
                for row, told, best in zip(some, *self._told(group), strict=True):
                    where = slice(row.first, row.first + len(told))
                    likelihoods[row.text][where], right[row.text][where] = told, best
                done += len(some)
                progress.update(done)
        windows = [math.ceil(len(one) / self.room) for one in ids]
        return [Told(*parts) for parts in zip(ids, likelihoods, right, windows, strict=True)]

    @property
    def room(self) -> int:
        """Tokens of a text in one window."""
        return self.most if self.causal else self.most - len(self.start) - len(self.end)

    def _fitting(self, asked: int | None) -> int:
        """The tokens of a window, those around a text included."""
        usable = usable_length(self.model.config, self.recipe, self.tokenizer)
        least = len(self.start) + len(self.end) + 1
        if asked is not None and usable is not None and asked > usable:
            raise InputError(
                f"--max_length {asked} is more than the model can take: {usable} tokens", f"--max_length {usable}"
            )
        if asked is not None and asked < least:
            raise InputError(
                f"--max_length {asked} has no room for a token of the text", f"--max_length {least} or more"
            )
        return asked or usable or UNLIMITED

    def _encoded(self, texts: Sequence[str]) -> tuple[list[Integers], list[Any]]:
        """The ids of each text, and where it matters the number of the word of each of its tokens."""
        found = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)
        ids = [np.asarray(one, np.int64) for one in found["input_ids"]]
        for number, one in enumerate(ids, 1):
            if not len(one):
                raise InputError(f"text {number} has no tokens", "leave it out: there is nothing to tell")
        by_word = self.metric == "within_word_l2r"
        return ids, [found.word_ids(number) if by_word else None for number in range(len(ids))]

    def _rows(self, text: int, ids: Integers, words: Sequence[int | None] | None) -> Iterator[_Row]:
        """All that goes through the model for one text."""
        if self.causal:
            whole = np.concatenate([self.start, ids])
            for first in range(0, len(ids), self.room):
                end = min(len(ids), first + self.room)
                begin = max(0, end - self.room)  # the last window is as long as the others
                yield _Row(text, whole[begin:end], (), np.arange(first, end) - begin, ids[first:end], first)
            return
        before = len(self.start)
        for begin in range(0, len(ids), self.room):
            piece = ids[begin : begin + self.room]
            read = np.concatenate([self.start, piece, self.end]).astype(np.int64)
            own = None if words is None else words[begin : begin + self.room]
            for place in range(len(piece)):
                hidden = [before + one for one in _with_rest_of_word(place, own)]
                yield _Row(text, read, hidden, np.asarray([before + place]), piece[place : place + 1], begin + place)

    def _batches(self, rows: Sequence[_Row], batch_size: int) -> Iterator[list[_Row]]:
        """Rows of similar length, the longest first, so that what does not fit into memory fails at once.

        Those of a masked model are of one length: where nothing is padded, padding changes nothing. Nothing that a
        causal model tells sees the padding after it.
        """
        ordered = sorted(rows, key=lambda row: -len(row.read))
        for length, alike in groupby(ordered, key=lambda row: 0 if self.causal else len(row.read)):
            most = batch_size if self.causal else max(1, batch_size * ROW // length)
            while some := list(islice(alike, most)):
                yield some

    def _groups(self, batches: Iterable[list[_Row]]) -> Iterator[list[list[_Row]]]:
        """Batches whose targets are enough together for a run of the head."""
        group: list[list[_Row]] = []
        for rows in batches:
            group.append(rows)
            if sum(len(row.targets) for rows in group for row in rows) >= TOGETHER:
                yield group
                group = []
        if group:
            yield group

    def _told(self, group: Sequence[list[_Row]]) -> tuple[list[Any], list[Any]]:
        """Log p of the targets of each row of some batches, and whether each was the best guess.

        Raises:
            InputError: the model fails on them.
        """
        device = next(self.model.parameters()).device
        batches = [stack([{"input_ids": self._seen(row)} for row in rows], self.tokenizer) for rows in group]
        self._measure(batches[0])
        asked = [row.targets for rows in group for row in rows]
        targets = torch.from_numpy(np.concatenate(asked)).to(device)
        head: Head | None = getattr(self.model, "lmtasks_head", None)
        inputs: Batch = {}
        outputs = []
        try:
            with in_mode(self.model), sparse(self.model), torch.inference_mode(), cheap_forward(device):
                for rows, batch in zip(group, batches, strict=True):
                    inputs = {name: value.to(device) for name, value in batch.items()} | without_cache(self.model)
                    wanted = _wanted(rows, inputs["input_ids"])
                    found = head.hidden(inputs, wanted) if head else self.model(**inputs).logits
                    outputs.append(found[:, : wanted.shape[1]][wanted])
                both = torch.cat(outputs), targets
                told, right = head.likelihoods(*both, inputs) if head else plain_likelihoods(*both)
        except torch.OutOfMemoryError:
            raise
        except MODEL_FAILURES as error:
            if (foreign := unknown_tokens(self.model, self.tokenizer, error)) is not None:
                raise foreign from error
            length = inputs["input_ids"].shape[1]
            reason = f"the model fails on a text of {length} tokens: {first_line(error)}"
            raise InputError(reason, "try a smaller --max_length") from error
        cuts = np.cumsum([len(one) for one in asked])[:-1]
        return np.split(told.cpu().double().numpy(), cuts), np.split(right.cpu().numpy(), cuts)

    def _seen(self, row: _Row) -> Integers:
        """What the model gets in a row."""
        ids = row.read.copy()
        if row.hidden:
            ids[list(row.hidden)] = self.tokenizer.mask_token_id
        return ids

    def _measure(self, batch: Batch) -> None:
        """Whether the model sees what it should tell, and whether its head can run alone: on a corner of a batch."""
        if self._measured:
            return
        self._measured = True
        device = next(self.model.parameters()).device
        probe(self.model, self.recipe, {"input_ids": batch["input_ids"][:1, :CORNER].to(device)}, training=False)
        self.model.requires_grad_(False)
        separate_head(self.model, {"input_ids": batch["input_ids"][:2, :CORNER].to(device)})


def _wanted(rows: Sequence[_Row], ids: torch.Tensor) -> torch.Tensor:
    """Which places tell a target, bool of the shape of the ids, [rows, length]."""
    wanted = torch.zeros(ids.shape, dtype=torch.bool)
    for one, row in zip(wanted, rows, strict=True):
        one[torch.from_numpy(row.logits)] = True
    return wanted.to(ids.device)


def _with_rest_of_word(place: int, words: Sequence[int | None] | None) -> list[int]:
    """A place, and those after it that are of its word, where words are asked for."""
    if words is None or words[place] is None:
        return [place]
    return [other for other in range(place, len(words)) if words[other] == words[place]]


def _prefix(tokenizer: PreTrainedTokenizerBase) -> int:
    """What stands before a text: the token that begins texts, or else the one that ends them."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise InputError(
        "the tokenizer has no token that begins or ends a text, so nothing tells its first one",
        "take a model whose tokenizer has a bos_token or an eos_token",
    )
