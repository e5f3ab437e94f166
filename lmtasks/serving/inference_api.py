"""The Inference API, as ``huggingface_hub.InferenceClient`` speaks it: ``{"inputs": ..., "parameters": {...}}``.

Masks are asked as on the Hub, continuations in the words of text-generation-inference, and what a recipe of a plugin
answers with, by the arguments of its own pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from lmtasks.inference.continuing import Continuation, Token
from lmtasks.serving.refusals import invalid
from lmtasks.serving.served import Served

USUAL_NEW_TOKENS = 100
"""Of a continuation where nobody says how many, as in text-generation-inference; fewer where the model has no room."""

_Positive = Annotated[float, msgspec.Meta(gt=0)]
_Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request; options are about the Hub's own machines, and mean nothing here."""

    inputs: str | list[str]
    parameters: dict[str, Any] = {}
    stream: bool = False
    options: dict[str, Any] = {}

    @property
    def texts(self) -> list[str]:
        """One text or several."""
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs


class MaskParameters(msgspec.Struct, forbid_unknown_fields=True):
    """What can be said about masks."""

    targets: list[str] | None = None
    top_k: _Count | None = None


class TextParameters(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What can be said about continuations. The last ones are known and refused, unless they say nothing."""

    do_sample: bool | None = None
    max_new_tokens: _Count | None = None
    repetition_penalty: _Positive | None = None
    return_full_text: bool | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] | None = None
    stop: list[str] | None = None
    temperature: _Positive | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    top_p: _Share | None = None
    typical_p: _Share | None = None
    details: bool | None = None
    adapter_id: Any = None
    best_of: Any = None
    decoder_input_details: Any = None
    frequency_penalty: Any = None
    grammar: Any = None
    top_n_tokens: Any = None
    truncate: Any = None
    watermark: Any = None

    def arguments(self) -> dict[str, Any]:
        """Of :func:`lmtasks.inference.continuing.continued`.

        Raises:
            Refusal: something is asked for that cannot be had.
        """
        for name in self.__struct_fields__[self.__struct_fields__.index("adapter_id") :]:
            if getattr(self, name) and not (name == "best_of" and self.best_of == 1):
                raise invalid(f"{name} cannot be had here")
        drawing = {name: getattr(self, name) for name in ("temperature", "top_k", "top_p", "typical_p")}
        drawing = {name: value for name, value in drawing.items() if value is not None}
        # The client says do_sample=False whenever nobody says anything.
        drawn = bool(self.do_sample or drawing)
        return {
            "new_tokens": self.max_new_tokens or USUAL_NEW_TOKENS,
            "at_most": self.max_new_tokens is None,
            "stop": stops(self.stop),
            "do_sample": drawn,
            **({"temperature": 1.0, "top_k": 0, **drawing} if drawn else {}),
            "repetition_penalty": self.repetition_penalty,
            "seed": self.seed if drawn else None,
        }


def stops(given: list[str] | str | None) -> tuple[str, ...]:
    """The stop sequences.

    Raises:
        Refusal: one is empty, or there are too many.
    """
    listed = [given] if isinstance(given, str) else given or []
    if "" in listed or len(listed) > 16:
        raise invalid("stop: up to 16 texts, none of them empty")
    return tuple(listed)


def parameters_of(served: Served, question: Question) -> MaskParameters | TextParameters | dict[str, Any]:
    """The parameters, as the model's kind of question has them.

    Raises:
        msgspec.ValidationError: one is unknown, or of another type.
        Refusal: one cannot be had.
    """
    given = {name: value for name, value in question.parameters.items() if value is not None}
    if served.kind == "masks":
        return msgspec.convert(given, MaskParameters)
    if served.kind == "continuations":
        return msgspec.convert(given, TextParameters)
    for name, value in given.items():
        if isinstance(value, dict) or name == "batch_size":
            raise invalid(f"{name} cannot be had here")
    return given


def arguments_of(parameters: MaskParameters | TextParameters | dict[str, Any]) -> Mapping[str, Any]:
    """What a job of the model is given."""
    if isinstance(parameters, TextParameters):
        return parameters.arguments()
    return msgspec.to_builtins(parameters) if isinstance(parameters, MaskParameters) else parameters


def generated(text: str, answer: Continuation, tokens: list[Token], parameters: TextParameters) -> dict[str, Any]:
    """The answer to one prompt."""
    told: dict[str, Any] = {"generated_text": (text if parameters.return_full_text else "") + answer.text}
    if parameters.details:
        told["details"] = {**_ending(answer, parameters), "prefill": [], "tokens": [_told(token) for token in tokens]}
    return told


def piece(token: Token, index: int) -> dict[str, Any]:
    """An event of a stream."""
    return {"index": index, "token": _told(token), "generated_text": None, "details": None}


def last_piece(token: Token, index: int, text: str, answer: Continuation, parameters: TextParameters) -> dict[str, Any]:
    """The event that ends a stream."""
    details = {**_ending(answer, parameters), "input_length": answer.prompt_tokens}
    text = (text if parameters.return_full_text else "") + answer.text
    return {**piece(token, index), "generated_text": text, "details": details}


def _told(token: Token) -> dict[str, Any]:
    return {"id": token.number, "text": token.text, "logprob": token.log_probability, "special": token.special}


def _ending(answer: Continuation, parameters: TextParameters) -> dict[str, Any]:
    return {"finish_reason": answer.finish, "generated_tokens": answer.new_tokens, "seed": parameters.seed}
