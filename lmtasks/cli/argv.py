"""The arguments of a command line, before anybody knows what they mean.

Commands that only tell get by with this: importing a parser takes longer than their answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmtasks.errors import InputError


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

    After ``--`` nothing is a flag.

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
        if word == "--":
            return values, words + rest
        if not word.startswith("--"):
            words.append(word)
            continue
        name, separator, value = word[2:].partition("=")
        if not separator:
            value = rest.pop(0) if _takes_next(name, rest, switches) else "true"
        values[name] = value
    return values, words


def asks_help(arguments: Sequence[str]) -> bool:
    """Whether help is all that is wanted."""
    return "--help" in arguments or "-h" in arguments


def told_of(
    arguments: Sequence[str], usage: str, names: int = 0, switches: Sequence[str] = ("json",), most: int | None = 0
) -> tuple[list[str], set[str]]:
    """The names that a command which only tells was given, and which of its switches.

    Args:
        names: how many it needs.
        most: how many more it takes; None is any number.
    """
    usage = " ".join(["usage:", usage, "[--plugin MODULE] [--no_plugins]", *(f"[--{name}]" for name in switches)])
    if asks_help(arguments):
        print(usage)
        raise SystemExit(0)
    flags, given = loose(arguments, switches)
    unknown = [f"--{flag}" for flag in flags if flag not in switches]
    unknown += [] if most is None else given[names + most :]
    if unknown:
        raise InputError(f"unexpected '{unknown[0]}'", usage)
    if len(given) < names:
        raise InputError("a name is missing", usage)
    return given, {name for name, value in flags.items() if value.lower() != "false"}


def taken_switch(arguments: Sequence[str], name: str) -> tuple[bool, list[str]]:
    """Whether a yes-or-no flag stands anywhere before ``--``, and the other words."""
    said, words = False, list(arguments)
    for place in reversed(range(_end(words))):
        flag, separator, value = words[place].partition("=")
        if flag != f"--{name}":
            continue
        if not separator and place + 1 < _end(words) and words[place + 1].lower() in ("true", "false"):
            value = words.pop(place + 1)
        said = value.lower() != "false"
        del words[place]
    return said, words


def taken_values(arguments: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """The values of a flag that may come several times, anywhere before ``--``, and the other words.

    Raises:
        InputError: it has no value.
    """
    values: list[str] = []
    words = list(arguments)
    place = 0
    while place < _end(words):
        flag, separator, value = words[place].partition("=")
        if flag != f"--{name}":
            place += 1
            continue
        del words[place]
        if not separator and place < _end(words) and not words[place].startswith("--"):
            value = words.pop(place)
        if not value:
            raise InputError(f"--{name} needs a value", f"--{name} {name.upper()}")
        values.append(value)
    return values, words


def _end(words: Sequence[str]) -> int:
    """Where flags end."""
    return words.index("--") if "--" in words else len(words)


def _takes_next(name: str, rest: Sequence[str], switches: Sequence[str]) -> bool:
    if not rest or rest[0].startswith("--"):
        return False
    return name not in switches or rest[0].lower() in ("true", "false")


def scalars(values: Mapping[str, str]) -> dict[str, Any]:
    """Typed words as YAML reads them: ``3`` a number, ``true`` a truth, ``[a, b]`` a list, anything else text."""
    return {name: _scalar(value) for name, value in values.items()}


def _scalar(text: str) -> Any:
    import yaml

    from lmtasks.api import NUMBER

    if NUMBER.fullmatch(text):
        return float(text) if set(text) & set(".eE") else int(text)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    is_value = value is None or isinstance(value, bool) or text.startswith(("[", "{"))
    return value if is_value else text
