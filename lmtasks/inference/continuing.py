"""Continuations, token by token: several prompts at once, each told as it grows and let go when nobody wants it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from transformers import (
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    Pipeline,
    StoppingCriteria,
    StoppingCriteriaList,
    TextGenerationPipeline,
)
from transformers.pipelines.base import pad_collate_fn

from lmtasks.api import Batch
from lmtasks.errors import InputError
from lmtasks.inference.arguments import completed
from lmtasks.inference.predictor import Predictor
from lmtasks.models.config import most_positions

UNFINISHED = "\ufffd"
"""What a decoder shows where the bytes of a character are still to come."""

Finish = Literal["length", "eos_token", "stop_sequence", "unwanted"]


class Token(NamedTuple):
    """A new token: its number, what it adds to the text, its logarithmic probability, and whether it is a mark.

    The texts of all tokens together are the continuation; where characters are of several tokens, or a stop sequence
    may have begun, that of one is empty and a later one has it.
    """

    number: int
    text: str
    log_probability: float
    special: bool


@dataclass(frozen=True)
class Continuation:
    """What one prompt was continued with.

    Args:
        text: the new text, up to and with its stop sequence.
        finish: why it ends.
        prompt_tokens, new_tokens: how many; the end of text, where the model came to one, counts.
    """

    text: str
    finish: Finish
    prompt_tokens: int
    new_tokens: int


Listener = Callable[[Token], None]
"""Hears of each token as it comes."""

Wanted = Callable[[], bool]
"""Whether anybody still waits for a continuation."""


def continues(pipeline: Pipeline) -> bool:
    """Whether the pipeline's model continues a text token by token, in transformers' own way."""
    generate = getattr(type(pipeline.model), "generate", None)
    return isinstance(pipeline, TextGenerationPipeline) and generate is GenerationMixin.generate


def continued(
    predictor: Predictor,
    texts: list[str],
    listeners: Sequence[Listener | None] | None = None,
    wanted: Sequence[Wanted] | None = None,
    *,
    new_tokens: int,
    at_most: bool = False,
    stop: Sequence[str] = (),
    seed: int | None = None,
    **arguments: Any,
) -> list[Continuation]:
    """A continuation of each text, one for each; the answers are the pipeline's.

    Args:
        predictor: one whose pipeline :func:`continues`.
        listeners: one for each text, or none.
        wanted: asked before each token of a text; a continuation that nobody wants ends there.
        new_tokens: the most of each continuation.
        at_most: take fewer where the model has no positions for so many, instead of refusing.
        stop: texts that end a continuation.
        arguments: of generation, but for beams and for several answers to one text.

    Raises:
        InputError: an argument, or a text, that cannot be had.
    """
    pipeline = predictor.pipeline
    given = completed(pipeline, predictor.recipe.pipeline, {**arguments, "max_new_tokens": new_tokens}, seed)
    eos = _ids(pipeline.model.generation_config.eos_token_id)
    with predictor.answering(given, seed):
        prepared = predictor.prepared(predictor.prompts(texts), given)
        lengths = [inputs["input_ids"].shape[-1] for inputs in prepared]
        room = _room(pipeline, lengths, new_tokens, at_most)
        nobody: list[None] = [None] * len(texts)
        rows = [
            _Row(pipeline.tokenizer, length, most, stop, eos, listener, waits or _always)
            for length, most, listener, waits in zip(lengths, room, listeners or nobody, wanted or nobody, strict=True)
        ]
        apart = predictor.one_at_a_time(prepared, lengths)
        # Side by side a short text has the positions of the longest, so that all in a batch must have the same room.
        for most in sorted(set(room)):
            batch = [number for number, its in enumerate(room) if its == most]
            for together in [[number] for number in batch] if apart else [batch]:
                inputs = [prepared[number] for number in together]
                _generate(pipeline, inputs, [rows[number] for number in together], {**given, "max_new_tokens": most})
    return [row.continuation() for row in rows]


def _room(pipeline: Pipeline, lengths: Sequence[int], wanted: int, at_most: bool) -> list[int]:
    """New tokens that each prompt may get."""
    most = most_positions(pipeline.model.config, pipeline.model)
    room = []
    for number, length in enumerate(lengths, 1):
        # The last new token needs no position: nothing comes after it.
        left = wanted if most is None else most - length + 1
        which = "the text" if len(lengths) == 1 else f"text {number}"
        if left < 1:
            raise InputError(f"{which} has {length} tokens, and the model takes {most}", "shorten the text")
        if left < wanted and not at_most:
            raise InputError(
                f"{which} has {length} tokens, and with {wanted} new ones it is longer than the model can take: {most}",
                f"{left} new tokens or fewer",
            )
        room.append(min(wanted, left))
    return room


def _generate(pipeline: Pipeline, prepared: list[Batch], rows: list[_Row], given: dict[str, Any]) -> None:
    """Let the pipeline's model continue prompts that it has prepared; the rows take its tokens."""
    inputs = pad_collate_fn(pipeline.tokenizer, None)(prepared) if len(prepared) > 1 else dict(prepared[0])
    scores = _Scores()
    pipeline.forward(
        inputs,
        **pipeline._sanitize_parameters(**given)[1],
        num_beams=1,  # whatever the model's own configuration says: a row is an answer
        num_return_sequences=1,
        logits_processor=LogitsProcessorList([scores]),
        stopping_criteria=StoppingCriteriaList([_Watch(rows, scores)]),
    )


@dataclass
class _Row:
    """A continuation while it grows."""

    tokenizer: Any
    prompt_tokens: int
    most: int
    stop: Sequence[str]
    eos: frozenset[int]
    listener: Listener | None
    wanted: Wanted
    ids: list[int] = field(default_factory=list)
    text: str = ""
    told: str = ""
    finish: Finish | None = None

    def take(self, number: int, scores: torch.Tensor) -> None:
        """One more token; scores are those of all tokens at its place, [vocabulary]."""
        self.ids.append(number)
        if number in self.eos:
            self.finish = "eos_token"
        elif len(self.ids) == self.most:
            self.finish = "length"
        elif not self.wanted():
            self.finish = "unwanted"
        if self.listener is None and not self.stop and not self.finish:
            return
        self._read()
        if self.listener is None:
            return
        piece = self._settled()
        self.told += piece
        special = number in self.tokenizer.all_special_ids
        self.listener(Token(number, piece, float(scores.float().log_softmax(-1)[number]), special))

    def _read(self) -> None:
        """The text so far, up to the first stop sequence, which finishes it."""
        self.text = self.tokenizer.decode(self.ids, skip_special_tokens=True)
        ends = [place + len(stop) for stop in self.stop if (place := self.text.find(stop)) >= 0]
        if ends:
            self.text, self.finish = self.text[: min(ends)], "stop_sequence"

    def _settled(self) -> str:
        """What can be told and was not: no half characters, and nothing with which a stop sequence may begin."""
        if self.finish:
            return self.text[len(self.told) :]
        text = self.text.rstrip(UNFINISHED)
        begun = [n for stop in self.stop for n in range(1, len(stop)) if text.endswith(stop[:n])]
        return text[len(self.told) : len(text) - max(begun, default=0)]

    def continuation(self) -> Continuation:
        """It, when it is done."""
        return Continuation(self.text, self.finish or "length", self.prompt_tokens, len(self.ids))


class _Scores(LogitsProcessor):
    """The scores of the newest tokens, [rows, vocabulary], kept as they pass."""

    seen: torch.Tensor

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores as they are."""
        self.seen = scores
        return scores


class _Watch(StoppingCriteria):
    """Gives each row its tokens, and ends those that are finished."""

    def __init__(self, rows: Sequence[_Row], scores: _Scores) -> None:
        self.rows, self.scores = rows, scores

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Whether each row is finished, [rows]."""
        newest = input_ids[:, -1].tolist()
        for row, number, seen in zip(self.rows, newest, self.scores.seen, strict=True):
            if row.finish is None:  # afterwards there comes padding
                row.take(number, seen)
        return torch.tensor([row.finish is not None for row in self.rows], device=input_ids.device)


def _always() -> bool:
    return True


def _ids(value: int | list[int] | None) -> frozenset[int]:
    return frozenset([] if value is None else [value] if isinstance(value, int) else value)
