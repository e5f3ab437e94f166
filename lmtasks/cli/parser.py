"""Flags made of options, so that help, parsing and validation cannot drift apart."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable
from typing import Any, NoReturn

from lmtasks.api import Option
from lmtasks.errors import InputError


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
        columns = shutil.get_terminal_size().columns
        super().__init__(prog, max_help_position=34, width=min(columns, 100) - 2)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """All names and then the placeholder once, as Python 3.13 does it."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        shown = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {shown}"


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
            shape |= {"nargs": "+", "action": "extend"}
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
