"""Several evaluation sets: how they are told apart, and what their figures are called.

A set without a name is the only one. Figures of a named set are called as the Trainer calls them, ``eval_NAME_loss``;
those of the first set are there under the plain names as well, ``eval_loss``, so that whatever reads these goes on.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence

from lmtasks.errors import InputError

UNNAMED = ""
"""The name of the only set, where nobody gave one."""

FIGURES = ("loss", "perplexity", "accuracy", "bits_per_byte", "targets", "unigram_loss", "log_likelihood")
"""Names of figures that every reader of results knows, and that no set can have."""

PLAIN = ("loss", "targets")
"""Figures that are called ``eval_...`` in the results also without a set, as users of the Trainer know them."""

_PARTS = ("unigram", "sliding", "pseudo", "runtime", "samples_per_second", "steps_per_second")
"""What figures and the Trainer's own entries begin with after ``eval_``."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def files_by_set(values: Sequence[str]) -> dict[str, list[str]]:
    """The values of ``--validation_file`` without the names before them, by set, in order.

    A value that exists as it stands, or matches as a glob, has no name, whatever its own name holds.

    Raises:
        InputError: some values have a name and some have none, nothing follows a name, or a name cannot be one.
    """
    sets: dict[str, list[str]] = {}
    for value in values:
        name, file = _named(value)
        sets.setdefault(name, []).append(file)
    if len(sets) > 1 and UNNAMED in sets:
        named = next(name for name in sets if name)
        raise InputError(
            f"--validation_file {sets[UNNAMED][0]} has no name, and '{named}' has one",
            "give every value a name, NAME=FILE, or none",
        )
    check_names(name for name in sets if name)
    return sets


def _named(value: str) -> tuple[str, str]:
    name, separator, file = value.partition("=")
    # No name holds a separator of paths, so this is a path: "data/year=2024/*.txt".
    if not separator or "/" in name or os.sep in name or os.path.exists(os.path.expanduser(value)) or _matches(value):
        return UNNAMED, value
    if not file:
        raise InputError(f"--validation_file {value}: no file follows the name", "--validation_file NAME=FILE")
    if not name:
        raise InputError(f"--validation_file {value}: no name stands before the =", "--validation_file NAME=FILE")
    return name, file


def _matches(pattern: str) -> bool:
    return glob.has_magic(pattern) and next(glob.iglob(pattern, recursive=True), None) is not None


def check_names(names: Iterable[str], views: Iterable[str] = ()) -> None:
    """Refuse names of sets that are none, or with which two figures would have one name.

    Args:
        views: further ways of looking at a text, whose figures begin with their names.

    Raises:
        InputError: names the set.
    """
    known, parts = list(names), (*_PARTS, *views)
    advice = "letters, digits, _ and - make a name, such as wiki"
    for name in known:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputError(f"an evaluation set cannot be called {name!r}", advice)
        if name in (*FIGURES, *parts):
            raise InputError(f"an evaluation set cannot be called '{name}': there is a figure of that name", advice)
        for part in parts:
            if f"{name}_{part}" in known:
                raise InputError(
                    f"evaluation sets cannot be called '{name}' and '{name}_{part}': figures of both"
                    f" would be called eval_{name}_{part}_loss",
                    "give one of them another name",
                )


def in_set(figure: str, name: str) -> str:
    """The name of a set's figure, as the Trainer has it: ("perplexity", "wiki") gives ``eval_wiki_perplexity``."""
    return f"eval_{name}_{figure.removeprefix('eval_')}"


def set_names(figures: Mapping[str, object]) -> list[str]:
    """The names of the sets that figures are of, in order; none where the only set has no name."""
    found = (re.fullmatch(r"eval_(.+)_targets", figure) for figure in figures)
    names = [match[1] for match in found if match]
    # A view has its targets as well, and no set has a likelihood without one.
    return [name for name in names if f"eval_{name}_log_likelihood" not in figures]


def set_of(figure: str, names: Sequence[str]) -> tuple[str, str]:
    """The set that a figure is of, and its plain name: ``eval_wiki_loss`` gives ("wiki", "eval_loss")."""
    for name in sorted(names, key=len, reverse=True):
        if figure.startswith(f"eval_{name}_"):
            plain = figure.removeprefix(f"eval_{name}_")
            return name, f"eval_{plain}" if plain in PLAIN else plain
    return UNNAMED, figure
