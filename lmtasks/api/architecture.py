"""An architecture: what there is to know about one ``model_type`` that transformers does not say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmtasks.api.references import Reference, defer, require_reference
from lmtasks.api.version import API_VERSION


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model type for the Auto classes.

    Most types need no declaration: what a model can take and what it sees is read off its configuration
    and measured on the model. A declaration says what cannot be. Functions may be given as ``"module:function"``.

    Args:
        model_type: the ``model_type`` of its configuration.
        config: ``"module:Class"`` of the configuration; None when transformers has it.
        models: Auto class to model class, ``{"AutoModelForMaskedLM": "pkg.modeling:RetroForMaskedLM"}``.
        fresh: configuration of a model from scratch, where that of the type makes none that can be trained.
        causal: configuration of a model from scratch that makes it see nothing that comes later, for recipes
            whose ``attention`` is "causal"; ``{"is_decoder": True}`` for BERT's family.
        length: (configuration) to the most tokens that an input may have, where neither the configuration's
            usual names nor the size of the position table tells. None: nothing more to say.
        multiple: (configuration) to the number of which the length of every input must be a multiple. Inputs
            are padded to it on the way into the model, and its logits cut to what they were.
        idle: Auto class to patterns of the names of parameters that have no share in what its models learn from
            text, ``"*.pooler.*"``. They are left as they are; several processes would wait for their gradients.
        empty_padding: whether transformers makes the embedding of the padding token zero whenever it loads a
            model of this type, which training must then not undo.
        reversible: whether its layers make what the backward pass needs anew, which they do in training mode only.
        refused: Auto class to the reason why its models of this type cannot be trained on text.
        limits: what a user should know before choosing it, in a line.
        tiny: configuration of a model small enough for tests, beside what :mod:`lmtasks.models.tiny` finds by itself.
        api_version: version of this contract that the declaration was written for.

    Raises:
        ValueError: a class string of the wrong shape.
    """

    model_type: str
    config: str | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    fresh: Mapping[str, Any] = field(default_factory=dict)
    causal: Mapping[str, Any] = field(default_factory=dict)
    length: Callable[[Any], int | None] | Reference = lambda config: None
    multiple: Callable[[Any], int] | Reference = lambda config: 1
    idle: Mapping[str, Sequence[str]] = field(default_factory=dict)
    empty_padding: bool = False
    reversible: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    limits: str = ""
    tiny: Mapping[str, Any] = field(default_factory=dict)
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        title = f"architecture '{self.model_type}'"
        for reference in filter(None, (self.config, *self.models.values())):
            require_reference(title, reference)
        defer(self, title, "length", "multiple")
