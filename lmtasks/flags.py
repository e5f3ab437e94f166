"""Flags made of options, so that help, parsing and validation cannot drift apart."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from lmtasks.errors import InputError
from lmtasks.options import NUMBER, Option


class Parser(argparse.ArgumentParser):
    """argparse, with its complaints as one of our errors and no guessing of abbreviated flags."""

    def __init__(self, **arguments: Any) -> None:
        arguments.setdefault("formatter_class", _Formatter)
        super().__init__(allow_abbrev=False, add_help=False, argument_default=argparse.SUPPRESS, **arguments)

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting."""
        raise InputError(message, f"{self.prog} --help")


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=100)


def add_options(parser: argparse.ArgumentParser, title: str, options: Iterable[Option]) -> None:
    """A group of flags, one for each option that can be typed."""
    group = parser.add_argument_group(title)
    for option in options:
        if option.python_only:
            continue
        shape: dict[str, Any] = {"metavar": _placeholder(option)}
        if option.is_switch:
            shape = {"nargs": "?", "const": "true", "metavar": "BOOL"}
        elif option.is_list:
            shape["nargs"] = "+"
        group.add_argument(*_names(option), dest=option.name, help=_help(option), **shape)


def _names(option: Option) -> list[str]:
    return [f"--{name}" for name in (option.name, *option.aliases)]


def _placeholder(option: Option) -> str:
    if option.choices:
        return "{" + ",".join(option.choices) + "}"
    for kind, word in ((int, "N"), (float, "X")):
        if kind in option.alternatives:
            return word
    return "TEXT"


def _help(option: Option) -> str:
    shown = option.default is not None and not option.is_switch and option.help
    text = f"{option.help} (default: {option.default})" if shown else option.help
    return text.replace("%", "%%")


def underscored(arguments: Sequence[str]) -> list[str]:
    """Flags with ``_`` where a person typed ``-``; values stay as they are."""
    result = []
    for argument in arguments:
        if argument.startswith("--"):
            flag, separator, value = argument[2:].partition("=")
            argument = f"--{flag.replace('-', '_')}{separator}{value}"
        result.append(argument)
    return result


def loose(arguments: Sequence[str], switches: Sequence[str] = ()) -> tuple[dict[str, str], list[str]]:
    """Flags that nobody declared, ``--name value`` or ``--name=value``, and what stands between them.

    Args:
        switches: names that need no value, so that the word after them is none.

    Returns:
        values by name, and the other words.
    """
    values: dict[str, str] = {}
    words: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            words.append(word)
            continue
        name, separator, value = word[2:].partition("=")
        if not separator:
            value = rest.pop(0) if _takes_next(name, rest, switches) else "true"
        values[name] = value
    return values, words


def _takes_next(name: str, rest: Sequence[str], switches: Sequence[str]) -> bool:
    if not rest or rest[0].startswith("--"):
        return False
    return name not in switches or rest[0].lower() in ("true", "false")


def scalars(values: Mapping[str, str]) -> dict[str, Any]:
    """Typed words as YAML reads them: ``3`` a number, ``true`` a truth, ``[a, b]`` a list, anything else text."""
    return {name: _scalar(value) for name, value in values.items()}


def _scalar(text: str) -> Any:
    import yaml

    if NUMBER.fullmatch(text):
        return float(text) if set(text) & set(".eE") else int(text)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    is_value = value is None or isinstance(value, bool) or text.startswith(("[", "{"))
    return value if is_value else text
