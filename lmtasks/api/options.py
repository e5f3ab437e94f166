"""Options: dataclass fields that become flags, YAML keys and keyword arguments.

A recipe's options and lmtasks' own settings are plain dataclasses whose fields are made with
:func:`option`. Everything that a person types, in whichever of the three ways, goes through
:func:`convert`, so a value means the same and fails the same everywhere.

    @dataclass(frozen=True, kw_only=True)
    class MyOptions:
        rate: float = option(0.15, help="share of tokens hidden", gt=0, lt=1)
        unit: Literal["token", "word"] = option("token", help="what is hidden at once")
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, cast

from lmtasks.errors import InputError, in_one_line, nearest

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""Numbers as people write them. JSON, as which msgspec reads text, knows neither .5 nor 1. nor +1, YAML no 1e-4."""

_LONGEST = 100
"""Letters of a wrong value that an error shows."""

LARGEST = 2**63 - 1
"""The largest whole number. What is larger fits into no machine word, and fails somewhere deep inside."""


class Quoted(str):
    """A text that somebody marked as one, as YAML can with quotes: no number, and neither yes nor no."""

    __slots__ = ()


def option(
    default: Any,
    *,
    help: str,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    aliases: Iterable[str] = (),
    python_only: bool = False,
    training_only: bool = False,
) -> Any:
    """A dataclass field that people can set.

    Args:
        default: the value when nobody sets it.
        help: one line for ``--help``, without a full stop.
        gt, ge, lt, le: range of a number (above, at least, below, at most).
        aliases: other names under which the same option is known.
        python_only: no flag and no YAML key; for values that only Python can hold.
        training_only: changes nothing in an evaluation, which therefore refuses it.
    """
    limits = {"gt": gt, "ge": ge, "lt": lt, "le": le}
    metadata = {
        "help": help,
        "limits": {key: limit for key, limit in limits.items() if limit is not None},
        "aliases": tuple(aliases),
        "python_only": python_only,
        "training_only": training_only,
    }
    return dataclasses.field(default=default, metadata=metadata)


def alternatives_of(kind: Any) -> tuple[Any, ...]:
    """The types of a union; for any other type, that alone."""
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


@dataclass(frozen=True)
class Option:
    """A name that can be set, as a flag, a YAML key or a keyword argument."""

    name: str
    type: Any
    default: Any
    help: str = ""
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    python_only: bool = False
    training_only: bool = False

    @property
    def alternatives(self) -> tuple[Any, ...]:
        """The types that the value may have; ``int | None`` gives ``(int, NoneType)``."""
        return alternatives_of(self.type)

    def within(self, prefix: str) -> Option:
        """The same option under the names that it has where its owner's name stands before them."""
        aliases = tuple(f"{prefix}.{alias}" for alias in self.aliases)
        return dataclasses.replace(self, name=f"{prefix}.{self.name}", aliases=aliases)

    @property
    def is_switch(self) -> bool:
        """Whether the option is a yes or no, so that its flag needs no value."""
        return set(self.alternatives) <= {bool, types.NoneType}

    @property
    def is_list(self) -> bool:
        """Whether the option takes several values."""
        return any(typing.get_origin(kind) is list for kind in self.alternatives)

    @property
    def takes_text(self) -> bool:
        """Whether a text is one of the values, or of their items."""
        kinds = [part for kind in self.alternatives for part in (kind, *typing.get_args(kind))]
        return bool(self.choices) or not {str, dict, Any}.isdisjoint(kinds)

    @property
    def choices(self) -> tuple[str, ...]:
        """The only words allowed, when the type is a ``Literal``."""
        literals = (kind for kind in self.alternatives if typing.get_origin(kind) is typing.Literal)
        return tuple(word for kind in literals for word in typing.get_args(kind) if isinstance(word, str))


def options_of(declaration: type) -> dict[str, Option]:
    """The options that a dataclass declares, by name, in order of declaration.

    Raises:
        TypeError: not a dataclass, or a field that :func:`option` did not make. A plugin's mistake.
    """
    if not dataclasses.is_dataclass(declaration):
        raise TypeError(f"options must be a dataclass, got {declaration!r}")
    hints = typing.get_type_hints(declaration)
    options = {}
    for field in dataclasses.fields(declaration):
        if "help" not in field.metadata:
            raise TypeError(f"{declaration.__name__}.{field.name} must be made with option(default, help=...)")
        options[field.name] = Option(name=field.name, type=hints[field.name], default=field.default, **field.metadata)
    return options


class UnderItsName:
    """What has options of its own, which people type behind its name, so that nothing of two packages can clash."""

    name: str
    options: type | None

    @property
    def prefix(self) -> str:
        """The name as it stands before options and figures."""
        return self.name.replace("-", "_")

    @property
    def flags(self) -> dict[str, Option]:
        """Its options under the names that people type: ``early_lr.rate``, ``torchrun.max_restarts``."""
        own = options_of(self.options) if self.options else {}
        return {option.name: option for option in (option.within(self.prefix) for option in own.values())}

    def chosen(self, values: Mapping[str, Any]) -> Any:
        """Its options, of values under the names that people type; None where it has none."""
        if self.options is None:
            return None
        return self.options(**{name.partition(".")[2]: value for name, value in values.items()})

    def changed(self, options: Any) -> dict[str, Any]:
        """The values that are not the default, under the names that people type."""
        values = {name: getattr(options, name.partition(".")[2]) for name in self.flags}
        return {name: value for name, value in values.items() if value != self.flags[name].default}


def convert(option: Option, value: Any) -> Any:
    """The value in the option's own type and range.

    Text is read as the type asks (``"1e-4"`` is a float, ``"false"`` is not true), so flags and
    YAML agree; a lone value where a list is wanted is a list of one.

    Raises:
        InputError: the value does not fit; the message names the flag.
    """
    # Not at the top: only a command that has values to read pays for the import.
    import msgspec

    if Any in option.alternatives:
        return value
    if isinstance(value, Quoted) and not option.takes_text:
        raise InputError(
            f"--{option.name} cannot be the text '{value}': it must be {describe(option)}", "write it without quotes"
        )
    value = _without_paths(value)
    if option.is_list and isinstance(value, (str, int, float)) and str not in option.alternatives:
        value = [value]
    if isinstance(value, str):
        value = _read(value, option.alternatives)
    try:
        converted = msgspec.convert(value, bounded(option), strict=False)
    except msgspec.ValidationError as error:
        raise _misfit(option, value) from error
    if isinstance(converted, float) and not math.isfinite(converted):
        raise _misfit(option, value)
    numbers = converted if isinstance(converted, list) else [converted]
    if any(isinstance(number, int) and abs(number) > LARGEST for number in numbers):
        message = f"--{option.name} cannot be {value}: the largest whole number is {LARGEST}"
        raise InputError(message, "give a smaller one")
    return converted


def _without_paths(value: Any) -> Any:
    """The names of files that Python code gives as paths, and plain texts."""
    if isinstance(value, (list, tuple)):
        return [_without_paths(item) for item in value]
    if isinstance(value, Quoted):
        return str(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def bounded(option: Option) -> Any:
    """The option's type with its limits where msgspec looks for them: on the numbers."""
    import msgspec

    limits = msgspec.Meta(**cast(Any, option.limits))
    kinds = [Annotated[kind, limits] if kind in (int, float) else kind for kind in option.alternatives]
    return typing.Union[tuple(kinds)]  # noqa: UP007  (a union of a computed list has no other spelling)


def _read(text: str, kinds: tuple[Any, ...]) -> Any:
    """The value of a text where msgspec would not see it; any other text as it is."""
    import json

    word = text.lower()
    if word == "none" and types.NoneType in kinds:
        return None
    if word in ("true", "false") and bool in kinds:
        return word == "true"
    if float in kinds and NUMBER.fullmatch(text):
        return float(word)
    if text.startswith("{") and any(dict in (kind, typing.get_origin(kind)) for kind in kinds):
        with suppress(ValueError):
            return json.loads(text)
    return text


def _misfit(option: Option, value: Any) -> InputError:
    simple = isinstance(value, str | bool | int | float | list | dict | None)
    shown = repr(value) if simple else f"a {type(value).__name__}"
    if isinstance(value, str):
        shown = f"'{value}'"
    shown = in_one_line(shown)
    shown = f"{shown[:_LONGEST]}…" if len(shown) > _LONGEST else shown
    suggestion = nearest(value, option.choices) if isinstance(value, str) else ""
    return InputError(
        f"--{option.name} cannot be {shown}: it must be {describe(option)}{suggestion}",
        f"--{option.name}: {option.help}" if option.help else f"the default is {option.default!r}",
    )


def describe(option: Option) -> str:
    """The values that the option takes, in words: "a number above 0 and below 1"."""
    if option.choices:
        return "one of " + ", ".join(option.choices)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    words |= {list: "a list", dict: "a JSON object"}
    kinds = [words.get(typing.get_origin(kind) or kind, "") for kind in option.alternatives]
    bounds = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    limits = " and ".join(f"{bounds[key]} {limit:g}" for key, limit in option.limits.items())
    return " ".join(filter(None, [" or ".join(filter(None, kinds)), limits]))
