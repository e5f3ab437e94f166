"""OpenAI's ``/v1/completions``, for models that continue texts."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from lmtasks.inference.continuing import Continuation, Finish
from lmtasks.serving.inference_api import stops
from lmtasks.serving.refusals import invalid

Reason = dict[Finish, str]

REASONS: Reason = {"length": "length", "eos_token": "stop", "stop_sequence": "stop", "unwanted": "stop"}


class StreamOptions(msgspec.Struct):
    """What else a stream tells."""

    include_usage: bool = False


class Wish(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of a request. The last ones are known and refused, unless they say nothing."""

    prompt: str | list[str]
    model: str | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] | None = None
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    best_of: Any = None
    frequency_penalty: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    presence_penalty: Any = None
    suffix: Any = None

    @property
    def prompts(self) -> list[str]:
        """Each prompt as often as it wants answers, those of one after the other."""
        listed = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        return [text for text in listed for _ in range(self.n or 1)]

    def arguments(self) -> dict[str, Any]:
        """Of :func:`lmtasks.inference.continuing.continued`; the defaults are OpenAI's.

        Raises:
            Refusal: something is asked for that cannot be had.
        """
        for name in self.__struct_fields__[self.__struct_fields__.index("best_of") :]:
            if getattr(self, name) and not (name == "best_of" and self.best_of == (self.n or 1)):
                raise invalid(f"{name} cannot be had here")
        warmth = 1.0 if self.temperature is None else self.temperature
        top_p = 1.0 if self.top_p is None else self.top_p
        drawn = warmth > 0
        return {
            "new_tokens": self.max_tokens or 16,
            "at_most": self.max_tokens is None,
            "stop": stops(self.stop),
            "do_sample": drawn,
            **({"temperature": warmth, "top_k": 0, "top_p": top_p} if drawn else {}),
            "seed": self.seed if drawn else None,
        }


class Telling:
    """The answers to one wish, in OpenAI's shapes.

    Args:
        model: as it is called here.
    """

    def __init__(self, wish: Wish, model: str) -> None:
        self.wish, self.prompts = wish, wish.prompts
        self.head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, answers: Sequence[Continuation]) -> dict[str, Any]:
        """All answers at once."""
        choices = [
            _choice(number, (prompt if self.wish.echo else "") + self.until_stop(answer.text), REASONS[answer.finish])
            for number, (prompt, answer) in enumerate(zip(self.prompts, answers, strict=True))
        ]
        return {**self.head, "choices": choices, "usage": self._usage(answers)}

    def chunk(self, number: int, text: str, reason: str | None = None) -> dict[str, Any]:
        """An event of a stream: what one answer goes on with."""
        return {**self.head, "choices": [_choice(number, text, reason)]}

    def usage(self, answers: Sequence[Continuation]) -> dict[str, Any]:
        """The event that a stream ends with, where that was asked for."""
        return {**self.head, "choices": [], "usage": self._usage(answers)}

    def until_stop(self, text: str) -> str:
        """A text without the stop sequence that it ends with, which is no part of an answer here."""
        ends = [stop for stop in stops(self.wish.stop) if text.endswith(stop)]
        return text[: len(text) - max(map(len, ends), default=0)]

    def _usage(self, answers: Sequence[Continuation]) -> dict[str, int]:
        # A prompt that was asked for several answers is counted once.
        read = sum(answer.prompt_tokens for answer in answers[:: self.wish.n or 1])
        made = sum(answer.new_tokens for answer in answers)
        return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def _choice(number: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"index": number, "text": text, "logprobs": None, "finish_reason": reason}
