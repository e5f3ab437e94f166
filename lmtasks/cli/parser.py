"""The parser of commands that take flags; these are made of options, so that help, parsing and checks cannot drift."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from lmtasks.api import Option, Recipe
from lmtasks.cli.argv import asks_help, loose
from lmtasks.config.request import groups_of
from lmtasks.errors import InputError

TITLES = {"options": "recipe", "data": "data", "model": "model", "output": "output", "training": "training"}
"""Titles of the groups of settings in ``--help``."""


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


def typed_flags(parser: Parser, recipe: Recipe, words: list[str], groups: Sequence[str]) -> dict[str, Any]:
    """The flags of a command that takes a recipe's options and settings, as typed."""
    declared = groups_of(recipe)
    trains = "training" in groups
    for group in groups:
        options = [option for option in declared[group].values() if trains or not option.training_only]
        add_options(parser, TITLES[group], options)
    other = parser.add_argument_group("other")
    other.add_argument("--config", metavar="FILE", help="YAML file with any of these; flags win over it")
    add_last(other)
    if trains:
        other.add_argument("--help_all", action="store_true", help="show this and every field of TrainingArguments")
    if trains and "--help_all" in words:
        _add_training(parser, declared["training"])
    if asks_help(words) or "--help_all" in words:
        parser.print_help()
        raise SystemExit(0)
    typed, unknown = parser.parse_known_args(words)
    # The rest are fields of TrainingArguments or mistakes; the runner's configuration knows which.
    more, stray = loose(unknown)
    if stray:
        raise InputError(f"unexpected '{stray[0]}'", "put texts with spaces in quotes; flags start with --")
    return {**more, **vars(typed)}


def add_last(group: Any, as_json: str = "one JSON document on stdout") -> None:
    """The flags that come last in ``--help``; plugins are chosen before anybody knows the command."""
    group.add_argument("--json", action="store_true", help=as_json)
    group.add_argument("--plugin", metavar="MODULE", help="count a module, or a file, as a plugin; may come again")
    group.add_argument("--no_plugins", action="store_true", help="the built-in recipes only")
    group.add_argument("--help", "-h", action="store_true", help="show this")


def _add_training(parser: Parser, declared: Mapping[str, Option]) -> None:
    from lmtasks.config.training_arguments import training_options

    more = [option for name, option in training_options().items() if name not in declared]
    add_options(parser, "every other field of TrainingArguments", more)
