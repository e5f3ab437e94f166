"""The words of a command line, before anybody knows what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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


def _takes_next(name: str, rest: Sequence[str], switches: Sequence[str]) -> bool:
    if not rest or rest[0].startswith("--"):
        return False
    return name not in switches or rest[0].lower() in ("true", "false")


def scalars(values: Mapping[str, str]) -> dict[str, Any]:
    """Typed words as YAML reads them: ``3`` a number, ``true`` a truth, ``[a, b]`` a list, anything else text."""
    return {name: _scalar(value) for name, value in values.items()}


def _scalar(text: str) -> Any:
    import yaml

    from lmtasks.options import NUMBER

    if NUMBER.fullmatch(text):
        return float(text) if set(text) & set(".eE") else int(text)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    is_value = value is None or isinstance(value, bool) or text.startswith(("[", "{"))
    return value if is_value else text
