"""What a shell is told when somebody presses TAB.

argcomplete does the talking with the shells. It asks this program anew for each TAB, so the answer knows the recipes,
plugins and runs that are there now; nothing heavy is imported for it.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from glob import glob
from importlib import import_module
from typing import NoReturn

from lmtasks.config.commands import COMMANDS
from lmtasks.errors import LmtasksError

ASKS = "_ARGCOMPLETE"
"""The variable in which a shell says that it wants words, and nothing done."""

DEPTH = 3
"""Folders below this one in which runs are looked for."""


def asked() -> bool:
    """Whether a shell asks for words."""
    return ASKS in os.environ


def complete() -> NoReturn:
    """Tell the shell which words may come where its cursor is, and end this process."""
    from argcomplete.lexers import split_line

    said = os.environ
    _, begun, _, before, _ = split_line(said["COMP_LINE"], int(said["COMP_POINT"]))
    typed = before[1:]
    if not typed:
        offer(argparse.ArgumentParser(add_help=False), lambda **_: COMMANDS)
    takes = COMMANDS.get(typed[0], ("", ""))[0]
    named = [word for word in typed[1:] if not word.startswith("-")]
    if "|" in takes:
        offer(argparse.ArgumentParser(add_help=False), lambda **_: takes.split("|"))
    if takes.startswith(("RECIPE", "[RECIPE")) and not named and not begun.startswith("-"):
        offer(argparse.ArgumentParser(add_help=False), lambda **_: _recipes())
    try:
        import_module(f"lmtasks.cli.{typed[0].replace('-', '_')}").command([*typed[1:], "--help"])
    except (LmtasksError, ImportError):  # a word that is wrong already: there is nothing to say of those behind it
        raise SystemExit(1) from None
    raise SystemExit(1)


def offer(parser: argparse.ArgumentParser, words: Callable[..., Iterable[str]] | None = None) -> NoReturn:
    """Tell the shell of the flags of a command and what may stand behind them, and end this process.

    Args:
        words: gives those that are no flags; by default runs and files.
    """
    from argcomplete import autocomplete

    parser.add_argument("words", nargs="*")
    for action in parser._actions:
        if completer := words if words and not action.option_strings else _completer(action):
            action.completer = completer  # type: ignore[attr-defined]
    autocomplete(parser, always_complete_options=False)
    raise SystemExit(1)


def _completer(action: argparse.Action) -> Callable[..., Iterable[str]] | None:
    """What gives the values of a flag, or the words that are no flags; None where these are files, as by default."""
    if listed := re.fullmatch(r"\{(.*)\}", str(action.metavar)):
        return lambda **_: listed[1].split(",")
    if action.dest in ("engine", "launcher"):
        return lambda **_: _names(f"{action.dest}s")
    if action.metavar == "BOOL":
        return lambda **_: ("true", "false")
    is_run = not action.option_strings or action.dest == "model_name_or_path"
    return _runs_and_files if is_run else None


def offer_switches(switches: Sequence[str]) -> NoReturn:
    """As :func:`offer`, for a command that has no other flags."""
    parser = argparse.ArgumentParser(add_help=False)
    for name in switches:
        parser.add_argument(f"--{name}", action="store_true")
    offer(parser)


def _recipes() -> Mapping[str, str]:
    """The recipes by name, with what shells show beside it."""
    from lmtasks.cli.catalog_cache import told

    return {row["name"]: row["summary"] for row in told().recipes}


def _names(kind: str) -> Mapping[str, str]:
    """The engines or launchers by name, the same."""
    from lmtasks.cli.catalog_cache import told

    return {one["name"]: one["summary"] for plugin in told().plugins for one in plugin[kind]}


def _runs_and_files(prefix: str, **_: object) -> list[str]:
    from argcomplete.completers import FilesCompleter

    runs = {os.path.dirname(path) for depth in range(1, DEPTH + 1) for path in glob("*/" * depth + "run.json")}
    return sorted({*(run for run in runs if run.startswith(prefix)), *FilesCompleter()(prefix)})
