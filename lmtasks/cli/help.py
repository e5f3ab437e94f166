"""``--help`` of commands with more flags than a screen has lines: the common ones, then where the others are told."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lmtasks.api import BlockOptions, Option, options_of
from lmtasks.errors import InputError, nearest

COMMON = {
    "data": ("dataset_name", "train_file", "validation_file"),
    "model": ("model_name_or_path", "model_type"),
    "adapter": ("use_peft",),
    "output": ("output_dir", "dry_run", "push_to_hub"),
    "processes": ("num_processes",),
    "training": ("learning_rate", "num_train_epochs"),
    "batch": ("train_batch_size",),
}
"""The settings that most people type; of a recipe's options, the first of its own and the length of its examples."""

COLUMNS = (10, 28, 80)
"""Where a flag begins, where its help begins, and where a line ends."""


def screen(
    parser: argparse.ArgumentParser, own: Mapping[str, Sequence[argparse.Action]], groups: Mapping[str, list[Option]]
) -> str:
    """The help that fits on a screen.

    Args:
        own: flags of the command itself, which come first, by their group; of those in none it has no name.
        groups: every option by its group.
    """
    usage = f"usage: {parser.usage or parser.prog}"
    lines = textwrap.wrap(usage, COLUMNS[2], subsequent_indent="  ", break_on_hyphens=False)
    lines += [*textwrap.wrap(str(parser.description), COLUMNS[2]), ""]
    for title, actions in own.items():
        most = [action for action in actions if not title or action.dest in COMMON.get(title, ())]
        lines += [_line(title, _shown(one.option_strings, one.metavar), str(one.help)) for one in most]
    for title, options in groups.items():
        common = [option for option in _common(title, options) if not option.python_only]
        for number, option in enumerate(common):
            lines.append(_line("" if number else title, flag(option), option.help))
    lines += [_line("other", "--config FILE", "YAML file with any of these; flags win over it"), ""]
    more = f"every flag of a group: --help GROUP, which is {_or([*map(_word, filter(None, [*own, *groups])), 'other'])}"
    lines += textwrap.wrap(more, COLUMNS[2], break_on_hyphens=False)
    return "\n".join([*lines, "every flag there is: --help_all"])


def chosen(word: str, groups: Iterable[str]) -> str:
    """The group that ``--help GROUP`` names.

    Raises:
        InputError: there is none of that name.
    """
    known = {_word(title): title for title in (*groups, "other")}
    if word not in known:
        raise InputError(f"--help knows no group '{word}'{nearest(word, known)}", f"--help {' | '.join(known)}")
    return known[word]


def flag(option: Option) -> str:
    """An option as most people type it: by its shortest name, and with what goes behind."""
    shortest = min((option.name, *option.aliases), key=len)
    return _shown([f"--{shortest}"], "" if option.is_switch else placeholder(option) + "..." * option.is_list)


def placeholder(option: Option) -> str:
    """What stands for the value of an option."""
    if option.choices:
        return "{" + ",".join(option.choices) + "}"
    words = {int: "N", float: "X"}
    return next((words[kind] for kind in words if kind in option.alternatives), "TEXT")


def _common(title: str, options: list[Option]) -> Iterator[Option]:
    if title != "recipe":
        yield from (option for option in options if option.name in COMMON.get(title, ()))
        return
    shared = options_of(BlockOptions)
    yield from (option for option in options if option.name == "block_size")
    yield from [option for option in options if option.name not in shared][:2]


def _shown(names: Sequence[str], value: object) -> str:
    return f"{names[0]} {value or ''}".rstrip()


def _line(title: str, shown: str, text: str) -> str:
    start, middle, end = COLUMNS
    flags = f"{title:<{start}}{shown:<{middle - 1}} "
    short = textwrap.shorten(text, end - len(flags), placeholder=" …")
    # What ends with a comma is a whole thought.
    return flags + re.sub("[,;:][^,;:]*…$", " …", short)


def _word(title: str) -> str:
    """A group as it is typed: that of an extension or launcher has its name."""
    return title.rpartition(" ")[2]


def _or(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + f" or {words[-1]}"
