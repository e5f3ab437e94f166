"""An architecture: what there is to know about one ``model_type`` that transformers does not say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmtasks.recipe import API_VERSION


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model type for the Auto classes.

    Args:
        model_type: the ``model_type`` of its configuration.
        config: ``"module:Class"`` of the configuration; None when transformers has it.
        models: Auto class to model class, ``{"AutoModelForMaskedLM": "pkg.modeling:RetroForMaskedLM"}``.
        tiny: configuration overrides of a model small enough for tests.
        api_version: version of this contract that the declaration was written for.

    Raises:
        ValueError: a class string of the wrong shape.
    """

    model_type: str
    config: str | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        for reference in filter(None, (self.config, *self.models.values())):
            if not re.fullmatch(r"[\w.]+:\w+", reference):
                raise ValueError(f"architecture '{self.model_type}': {reference!r} must look like 'module:Class'")
