"""The arguments of a command line, before anybody knows what they mean.

Commands that only tell get by with this: importing a parser takes longer than their answer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from lmtasks.cli import tab
from lmtasks.errors import InputError
from lmtasks.progress import fitted, say


def underscored(arguments: Sequence[str]) -> list[str]:
    """Flags with ``_`` where a person typed ``-``; values stay as they are."""
    result = []
    for argument in arguments:
        if argument.startswith("--"):
            flag, separator, value = argument[2:].partition("=")
            argument = f"--{flag.replace('-', '_')}{separator}{value}"
        result.append(argument)
    return result


def _flags(arguments: Sequence[str], switches: Sequence[str]) -> Iterator[tuple[str, str | None, list[str]]]:
    """Each flag with its value, if it has one, and the words that say so; any other word has an empty name.

    A flag takes the next word, unless that is a flag, too; a switch takes only true and false. After ``--``,
    which comes with all that follows it, nothing is a flag.
    """
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            yield "", None, [word, *rest]
            return
        if not word.startswith("--"):
            yield "", None, [word]
            continue
        name, separator, value = word[2:].partition("=")
        if separator:
            yield name, value, [word]
        elif rest and not rest[0].startswith("--") and (name not in switches or rest[0].lower() in ("true", "false")):
            yield name, rest[0], [word, rest.pop(0)]
        else:
            yield name, None, [word]


def loose(
    arguments: Sequence[str], switches: Sequence[str] = (), *, aloud: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Values of flags that nobody declared, by name, and the words between them; of a flag that comes again, the last.

    Args:
        switches: names that need no value, so that the word after them is none.
        aloud: say which value gave way to a later one.
    """
    values, words = every(arguments, switches)
    for name, given in values.items() if aloud else ():
        for before in given[:-1]:
            tell_overridden(name, before, given[-1])
    return {name: given[-1] for name, given in values.items()}, words


def every(arguments: Sequence[str], switches: Sequence[str] = ()) -> tuple[dict[str, list[str]], list[str]]:
    """As :func:`loose`, with all values of a flag that comes again, in order."""
    found = list(_flags(arguments, switches))
    words = [word for name, _, said in found if not name for word in said]
    if "--" in words:
        words.remove("--")
    values: dict[str, list[str]] = {}
    for name, value, _ in found:
        if name:
            values.setdefault(name, []).append("true" if value is None else value)
    return values, words


def tell_overridden(name: str, before: Any, now: Any) -> None:
    """Say that a flag came again, and that its last value counts."""
    if before != now:
        say(f"--{name} {before} gives way to --{name} {now}, which comes after it")


def refuse_stray(words: Sequence[str], hint: str) -> None:
    """Refuse words that a command has no use for."""
    if words:
        raise InputError(f"unexpected '{words[0]}'", hint)


def asks_help(arguments: Sequence[str]) -> bool:
    """Whether help is all that is wanted."""
    return not {"--help", "-h", "--help_all"}.isdisjoint(arguments)


def told_of(
    arguments: Sequence[str], usage: str, names: int | None = 0, switches: Sequence[str] = ("json",)
) -> tuple[list[str], set[str]]:
    """The names and the switches that a command which only tells was given.

    Args:
        names: how many it needs; None is any number.
    """
    usage = " ".join(["usage:", usage, "[--plugin MODULE] [--no_plugins]", *(f"[--{name}]" for name in switches)])
    if asks_help(arguments):
        if tab.asked():
            tab.offer_switches(switches)
        print(*fitted([usage], sys.stdout), sep="\n")
        raise SystemExit(0)
    flags, given = loose(arguments, switches)
    unknown = [f"--{flag}" for flag in flags if flag not in switches]
    refuse_stray([*unknown, *([] if names is None else given[names:])], usage)
    if len(given) < (names or 0):
        raise InputError("a name is missing", usage)
    return given, {name for name, value in flags.items() if value.lower() != "false"}


def _taken(arguments: Sequence[str], flag: str, switches: Sequence[str]) -> tuple[list[str], list[str]]:
    """The values of one flag, empty where it has none, and the other words as they were typed."""
    found = list(_flags(arguments, switches))
    others = [word for name, _, said in found if name != flag for word in said]
    return [value or "" for name, value, _ in found if name == flag], others


def without(arguments: Sequence[str], flags: Sequence[str], switches: Sequence[str]) -> list[str]:
    """The words without those of some flags, as they were typed."""
    return [word for name, _, said in _flags(arguments, switches) if name not in flags for word in said]


def taken_switch(arguments: Sequence[str], name: str) -> tuple[bool, list[str]]:
    """Whether a yes-or-no flag stands anywhere before ``--``, and the other words."""
    values, words = _taken(arguments, name, [name])
    return bool(values) and values[0].lower() != "false", words


def taken_values(arguments: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """The values of a flag that may come several times, anywhere before ``--``, and the other words.

    Raises:
        InputError: it has no value.
    """
    values, words = _taken(arguments, name, [])
    if "" in values:
        raise InputError(f"--{name} needs a value", f"--{name} {name.upper()}")
    return values, words


def scalar(text: str) -> Any:
    """A typed word as YAML reads it: ``3`` a number, ``true`` a truth, ``[a, b]`` a list, anything else text."""
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
