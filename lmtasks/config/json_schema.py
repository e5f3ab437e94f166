"""The YAML that a recipe takes, as JSON Schema: for editors, and for programs that write such files."""

from __future__ import annotations

import enum
import typing
from itertools import product
from typing import Any

import msgspec
from transformers import TrainingArguments

from lmtasks.api import NUMBER, Option, Recipe
from lmtasks.api.options import bounded
from lmtasks.config.problems import CONTRADICTIONS
from lmtasks.config.request import ALWAYS, RECIPE, groups_of
from lmtasks.config.training_arguments import training_options

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_TEXT = {"type": "string", "pattern": f"^{NUMBER.pattern}$"}
"""A number as text: to some readers of YAML, 1e-4 is no number."""


def schema_of(recipe: Recipe) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the files that ``lmtasks run RECIPE --config`` takes."""
    ours = {name: option for group in groups_of(recipe).values() for name, option in group.items()}
    # Ours come first, and where transformers has a field of that name, too, ours counts.
    options = [option for option in {**ours, **training_options(), **ours}.values() if not option.python_only]
    properties: dict[str, Any] = {}
    for option in options:
        properties[option.name] = _property(option)
        for alias in option.aliases:
            properties[alias] = {"$ref": f"#/properties/{option.name}", "description": f"the same as {option.name}"}
    text_or_not = [{"type": "string"}, {"type": "null"}]
    properties[RECIPE] = {"description": "the recipe that it is for", "anyOf": text_or_not, "default": None}
    names = {option.name: (option.name, *option.aliases) for option in options}
    twice = [(option.name, alias) for option in options for alias in option.aliases]
    both = [pair for one, other in CONTRADICTIONS for pair in product(names[one], names[other])]
    return {
        "$schema": DIALECT,
        "title": f"lmtasks run {recipe.name}",
        "description": f"{recipe.summary} Names may also be written with - instead of _. An empty value is not set.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "allOf": [{"not": {"required": list(pair)}} for pair in (*twice, *both)],
    }


def _property(option: Option) -> dict[str, Any]:
    described = {"description": " ".join(option.help.split())} if option.help else {}
    null = {"type": "null"}
    if option.name in ALWAYS:
        return {**described, "anyOf": [{"const": True}, null]}
    words = _words(option)
    kinds: list[dict[str, Any]] = [{"enum": words}] if words else _shapes(option)
    return {**described, "anyOf": kinds if null in kinds else [*kinds, null], "default": option.default}


def _words(option: Option) -> list[str]:
    """The only words allowed, also where transformers has them as an enum."""
    hint = typing.get_type_hints(TrainingArguments).get(option.name)
    enums: list[Any] = [kind for kind in (hint, *typing.get_args(hint)) if isinstance(kind, enum.EnumMeta)]
    return list(option.choices) or [str(member.value) for kind in enums for member in kind]


def _shapes(option: Option) -> list[dict[str, Any]]:
    """A shape for each of the option's types, and for what is read as one: a number as text, a lone item of a list."""
    (said,), enums = msgspec.json.schema_components([bounded(option)], ref_template="{name}")
    shapes: list[dict[str, Any]] = []
    for shape in said.get("anyOf", [said]):
        if "items" not in shape:
            shapes += _with_text(shape)
            continue
        items = _with_text(enums.get(shape["items"].get("$ref"), shape["items"]))
        shapes.append({**shape, "items": items[0] if len(items) == 1 else {"anyOf": items}})
        shapes += items if str not in option.alternatives else []
    return shapes


def _with_text(shape: dict[str, Any]) -> list[dict[str, Any]]:
    return [shape, dict(_TEXT)] if shape.get("type") == "number" else [shape]
