"""What the YAML of a recipe may hold, as JSON Schema: for editors, and for programs that write such files."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterable
from typing import Any

from transformers import TrainingArguments

from lmtasks.api import NUMBER, Option, Recipe
from lmtasks.config.request import ALWAYS, CONTRADICTIONS, groups_of
from lmtasks.config.training_arguments import training_options

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_PLAIN = {bool: "boolean", int: "integer", str: "string", dict: "object", list: "array"}
_BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}

_TEXT = {"type": "string", "pattern": f"^{NUMBER.pattern}$"}
"""A number as text: to some readers of YAML, 1e-4 is no number."""


def schema_of(recipe: Recipe) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the files that ``lmtasks run RECIPE --config`` takes."""
    options = _options(recipe)
    properties: dict[str, Any] = {}
    for option in options.values():
        properties[option.name] = _property(option)
        for alias in option.aliases:
            properties[alias] = {"$ref": f"#/properties/{option.name}", "description": f"the same as {option.name}"}
    names = {option.name: (option.name, *option.aliases) for option in options.values()}
    twice = [(own, alias) for own, *aliases in names.values() for alias in aliases]
    both = [pair for one, other in CONTRADICTIONS for pair in _pairs(names[one], names[other])]
    return {
        "$schema": DIALECT,
        "title": f"lmtasks run {recipe.name}",
        "description": f"{recipe.summary} Names may also be written with - instead of _. An empty value is not set.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "allOf": [{"not": {"required": list(pair)}} for pair in (*twice, *both)],
    }


def _pairs(ones: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    return [(one, other) for one in ones for other in others]


def _options(recipe: Recipe) -> dict[str, Option]:
    ours = {name: option for group in groups_of(recipe).values() for name, option in group.items()}
    more = {name: option for name, option in training_options().items() if name not in ours}
    return {name: option for name, option in {**ours, **more}.items() if not option.python_only}


def _property(option: Option) -> dict[str, Any]:
    words = _words(option)
    kinds: list[dict[str, Any]] = [shape for kind in option.alternatives for shape in _shapes(option, kind)]
    if words:
        kinds = [{"enum": words}]
    if option.name in ALWAYS:
        kinds = [{"const": True}]
    if {"type": "null"} not in kinds:
        kinds.append({"type": "null"})
    described = {"description": " ".join(option.help.split())} if option.help else {}
    default = {} if option.name in ALWAYS else {"default": option.default}
    return {**described, "anyOf": kinds, **default}


def _words(option: Option) -> list[str]:
    """The only words allowed, also where transformers has them as an enum."""
    hint = typing.get_type_hints(TrainingArguments).get(option.name)
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = typing.get_args(hint) if is_union else (hint,)
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, enum.Enum)]
    return list(option.choices) or [str(member.value) for kind in enums for member in kind]


def _shapes(option: Option, kind: Any) -> list[dict[str, Any]]:
    """What a value of one of the option's types may look like."""
    if kind is types.NoneType:
        return [{"type": "null"}]
    limits = {_BOUNDS[key]: limit for key, limit in option.limits.items()}
    if kind is float:
        return [{"type": "number", **limits}, dict(_TEXT)]
    if typing.get_origin(kind) is typing.Literal:
        return [{"enum": list(typing.get_args(kind))}]
    if typing.get_origin(kind) is list:
        items = _shapes(option, typing.get_args(kind)[0])
        alone = items if str not in option.alternatives else []
        return [{"type": "array", "items": items[0] if len(items) == 1 else {"anyOf": items}}, *alone]
    name = _PLAIN.get(typing.get_origin(kind) or kind, "string")
    return [{"type": name, **(limits if kind is int else {})}]
