"""The plugins that count: what the environment and the flags of a command say.

Light: ``lmtasks list`` asks here before it knows whether it needs a catalog at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import NamedTuple

from lmtasks.config import caches

BUILTIN = "lmtasks"
"""The distribution whose plugins are never skipped."""


class Selection(NamedTuple):
    """The choice of plugins that a command makes.

    Args:
        named: modules and files that are plugins for this command, though not installed as such.
        builtins_only: no other installed plugin counts.
    """

    named: tuple[str, ...] = ()
    builtins_only: bool = False


_selection: ContextVar[Selection] = ContextVar("lmtasks_selection", default=Selection())  # noqa: B039  (immutable)


def current() -> Selection:
    """The choice of the command that is being carried out."""
    return _selection.get()


def as_flags(chosen: Selection) -> list[str]:
    """The choice as words of a command line."""
    named = [word for name in chosen.named for word in ("--plugin", name)]
    return [*named, "--no_plugins"] if chosen.builtins_only else named


@contextmanager
def selected(named: Sequence[str] = (), *, builtins_only: bool = False) -> Iterator[None]:
    """While this is open, catalogs are loaded so."""
    token = _selection.set(Selection(tuple(named), builtins_only))
    try:
        yield
    finally:
        _selection.reset(token)


def also(source: str) -> None:
    """One more module or file, for as long as what is open."""
    said = current()
    if source not in said.named:
        _selection.set(said._replace(named=(*said.named, source)))


def remember(source: str, location: str = "") -> None:
    """This person named the module or file, so a run that was made with it may lead back to it.

    Args:
        location: the file that a module is; in another folder, one of that name may be somebody else's.
    """
    if is_known(source, location):
        return
    with suppress(OSError):  # then it will have to be named again
        os.makedirs(caches.own(), exist_ok=True)
        with open(os.path.join(caches.own(), "named"), "a", encoding="utf-8") as handle:
            handle.write(f"{source}\t{location}".rstrip("\t") + "\n")


def is_known(source: str, location: str = "") -> bool:
    """Whether this person ever named the file, or the module when it was the one at that location."""
    try:
        with open(os.path.join(caches.own(), "named"), encoding="utf-8") as handle:
            return f"{source}\t{location}".rstrip("\t") in handle.read().splitlines()
    except (OSError, UnicodeDecodeError):
        return False


def why_skipped(distribution: str, entry_point: str) -> str:
    """Why an installed plugin does not count; empty when it does."""
    if distribution == BUILTIN:
        return ""
    if current().builtins_only:
        return "--no_plugins"
    package = normal(distribution)
    allowed = allowed_packages()
    if allowed is not None and package not in allowed:
        return "not in LMTASKS_PLUGINS"
    disabled = _names(os.environ.get("LMTASKS_DISABLE_PLUGINS", ""))
    if {package, normal(entry_point), normal(f"{distribution}:{entry_point}")} & disabled:
        return "in LMTASKS_DISABLE_PLUGINS"
    return ""


def allowed_packages() -> set[str] | None:
    """The only packages whose plugins count; None when all do."""
    allowed = os.environ.get("LMTASKS_PLUGINS")
    return None if allowed is None else _names(allowed)


def traces() -> bool:
    """Whether to tell what is found, loaded and skipped."""
    return os.environ.get("LMTASKS_TRACE_PLUGINS", "").lower() not in ("", "0", "false")


def file_of(word: str) -> tuple[str, str] | None:
    """Path and recipe of ``./my_recipe.py`` or ``./my_recipe.py:NAME``; None for what names no file."""
    path, separator, name = word.rpartition(":")
    if separator and path.endswith(".py"):
        return os.path.abspath(path), name
    return (os.path.abspath(word), "") if word.endswith(".py") else None


def normal(name: str) -> str:
    """The name of a package as it is compared: ``My_Package`` is ``my-package``."""
    return name.strip().replace("_", "-").replace(".", "-").lower()


def _names(text: str) -> set[str]:
    return {normal(name) for name in text.split(",") if name.strip()}
