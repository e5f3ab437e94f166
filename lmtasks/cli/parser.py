"""The parser of commands that take flags; these are made of options, so that help, parsing and checks cannot drift."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from lmtasks.api import Option, Recipe
from lmtasks.cli import tab
from lmtasks.cli.argv import asks_help, loose, refuse_stray, tell_overridden
from lmtasks.cli.help import chosen, placeholder, screen
from lmtasks.config.request import groups_of
from lmtasks.errors import InputError


class Parser(argparse.ArgumentParser):
    """argparse, with its complaints as one of our errors and no guessing of abbreviated flags."""

    def __init__(self, **arguments: Any) -> None:
        arguments["formatter_class"] = _Formatter
        super().__init__(allow_abbrev=False, add_help=False, argument_default=argparse.SUPPRESS, **arguments)
        for name in (None, "store"):
            self.register("action", name, _Last)

    def read(
        self, words: Sequence[str], *, group: Any = None, as_json: str = "", plugins: bool = True
    ) -> tuple[dict[str, Any], list[str]]:
        """The flags that were given, and the words that nobody declared; or help, which ends the command.

        Args:
            group: of the flags that every command has, which come last in ``--help``.
            as_json: meaning of ``--json``, where it is not just that.
            plugins: the command has a use for plugins; they are chosen before anybody knows which command it is.
        """
        add = (group or self).add_argument
        add("--json", action="store_true", help=as_json or "one JSON document on stdout")
        if plugins:
            add("--plugin", metavar="MODULE", help="count a module, or a file, as a plugin; may come again")
            add("--no_plugins", action="store_true", help="the built-in recipes only")
        add("--traceback", action="store_true", help="show where an error comes from")
        add("--help", "-h", action="store_true", help="show this")
        if asks_help(words):
            if tab.asked():
                tab.offer(self)
            self.print_help()
            raise SystemExit(0)
        typed, unknown = self.parse_known_args(words)
        return vars(typed), unknown

    @property
    def groups(self) -> dict[str, list[argparse.Action]]:
        """The flags that are there so far, by the title of their group; of those without one it is empty."""
        _, plain, *titled = self._action_groups
        return {"": plain._group_actions, **{str(group.title): group._group_actions for group in titled}}

    def read_all(self, words: Sequence[str], *, plugins: bool = True) -> dict[str, Any]:
        """The flags that were given, by a command that takes no others."""
        typed, unknown = self.read(words, plugins=plugins)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return typed

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting."""
        raise InputError(message, f"{self.prog} --help")


class _Last(argparse._StoreAction):
    """The last value of a flag counts, and whoever gave two is told so."""

    given = False

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        if option_string and self.given:
            tell_overridden(self.dest, getattr(namespace, self.dest), values)
        self.given = True
        setattr(namespace, self.dest, values)


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
        shape: dict[str, Any] = {"metavar": placeholder(option)}
        if bool in option.alternatives:
            shape = {"nargs": "?", "const": "true", "metavar": "BOOL" if option.is_switch else "TEXT"}
        elif option.is_list:
            shape |= {"nargs": "+", "action": "extend"}
        names = [f"--{name}" for name in (option.name, *option.aliases)]
        if taken := [name for name in names if name in parser._option_string_actions]:
            raise InputError(
                f"{taken[0]} is the name of two options",
                "rename the one that the plugin brings: the other is of lmtasks, or of TrainingArguments",
            )
        group.add_argument(*names, dest=option.name, help=_help(option), **shape)


def _help(option: Option) -> str:
    shown = option.default is not None and not option.is_switch and option.help
    text = f"{option.help} (default: {option.default})" if shown else option.help
    return text.replace("%", "%%")


def typed_flags(
    parser: Parser, recipe: Recipe, words: list[str], *, trains: bool, groups: Sequence[str] = ()
) -> dict[str, Any]:
    """The flags of a command that takes a recipe's options and settings, as typed; or help, which ends the command.

    Args:
        trains: it takes those of training, too.
        groups: those that ``--help`` shows, where a command that takes all has no use for the others.
    """
    declared = groups_of(recipe)
    shown = {
        "recipe" if group == "options" else group: [
            option for option in declared[group].values() if trains or not option.training_only
        ]
        for group in groups or (declared if trains else ("options", "data", "model"))
    }
    if asks_help(words) and "--help_all" not in words and not tab.asked():
        _tell_help(parser, shown, loose(words)[0].get("help", "true"))
    for title, options in shown.items():
        add_options(parser, title, options)
    if "--help_all" in words and trains and not groups:
        from lmtasks.config.training_arguments import training_options

        more = [option for name, option in training_options().items() if name not in declared["training"]]
        add_options(parser, "every other field of TrainingArguments", more)
    # The rest are fields of TrainingArguments or mistakes; the runner's configuration knows which.
    typed, unknown = parser.read(words, group=_others(parser))
    for option in (option for group in declared.values() for option in group.values()):
        # One word may be something else than a list of one: the name of a file.
        if option.is_list and str in option.alternatives and len(typed.get(option.name, ())) == 1:
            typed[option.name] = typed[option.name][0]
    more_typed, stray = loose(unknown, aloud=True)
    refuse_stray(stray, "put texts with spaces in quotes; flags start with --")
    return {**more_typed, **typed}


def _tell_help(parser: Parser, groups: Mapping[str, list[Option]], asked: str) -> NoReturn:
    """Print the screen of help, or a group of flags in full, and end the command."""
    own = parser.groups
    if asked == "true":
        print(screen(parser, own, groups))
        raise SystemExit(0)
    title = chosen(asked, [*filter(None, own), *groups])
    part = Parser(prog=parser.prog, usage=parser.usage, description=parser.description)
    if title == "other":
        part.read(["--help"], group=_others(part))
    if title in own:
        there = part.add_argument_group(title)
        for action in own[title]:
            there._add_action(action)
    else:
        add_options(part, title, groups[title])
    part.print_help()
    raise SystemExit(0)


def _others(parser: Parser) -> Any:
    other = parser.add_argument_group("other")
    other.add_argument("--config", metavar="FILE", help="YAML file with any of these; flags win over it")
    other.add_argument("--help_all", action="store_true", help="every flag there is")
    return other
