"""Real text that every CPython ships, so that a first run needs neither a file nor the network."""

from __future__ import annotations

import importlib
import random
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

from lmtasks.errors import InputError, nearest

SAMPLES: Mapping[str, str] = {"python": "Python's own language reference and standard library"}
"""The embedded corpora, by name, in words for people."""

SIZE = 3_000_000
"""Characters of the corpus: what two cores can read more than once in a minute of training."""

LONGEST = 100_000
"""Characters of a document; longer modules are mostly tables."""

# Little prose, much repetition: tests, tables, generated files, bindings of one C library after the
# other. Installed packages are not Python's own and differ from machine to machine.
_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idlelib", "idle_test", "lib2to3", "encodings", "turtledemo", "ensurepip", "pydoc_data"}
    | {"tkinter", "msilib", "distutils", "curses", "ctypes", "venv", "wsgiref"}
    | {"lib-dynload", "site-packages", "dist-packages", "__pycache__", "__phello__"}
)
_SKIPPED_FILES = ("_sysconfigdata", "__phello__", "locale.py", "turtle.py")


def sample_documents(name: str) -> list[str]:
    """The documents of an embedded corpus, always in the same order.

    Args:
        name: a key of :data:`SAMPLES`. ``python`` holds the topics of ``help()``, then the source of one
            module each, in an arbitrary but fixed order.

    Raises:
        InputError: no such corpus, or this Python was installed without its library's sources.
    """
    if name not in SAMPLES:
        raise InputError(
            f"no embedded corpus '{name}'{nearest(name, SAMPLES)}", "the embedded corpora are " + ", ".join(SAMPLES)
        )
    # Copies of a document would leak from training into evaluation.
    return list(dict.fromkeys(_topics_and_modules()))


def _topics_and_modules() -> Iterator[str]:
    size = 0
    for text in (*_topics(), *_modules()):
        if size >= SIZE:
            return
        if text.strip() and len(text) <= LONGEST:
            size += len(text)
            yield text


def _topics() -> Iterator[str]:
    """The language reference in pieces, as ``help('TOPIC')`` shows them."""
    # Imported by name: typeshed does not say what the module holds.
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise _no_sources("pydoc_data.topics") from error
    return (topics[key] for key in sorted(topics))


def _modules() -> Iterator[str]:
    """The sources in an order that mixes the library's packages, because not all of it is used."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(file for file in folder.rglob("*.py") if _is_library(file.relative_to(folder)))
    if not files:
        raise _no_sources(str(folder))
    random.Random(0).shuffle(files)
    return (file.read_text(encoding="utf-8") for file in files)


def _is_library(file: Path) -> bool:
    folders = file.parts[:-1]
    return (
        _SKIPPED_FOLDERS.isdisjoint(folders)
        and not any(folder.startswith("config-") for folder in folders)
        and not file.name.startswith(_SKIPPED_FILES)
    )


def _no_sources(place: str) -> InputError:
    return InputError(
        f"the embedded corpus needs the sources of Python's standard library, and there are none in {place}",
        "give your own text with --train_file or --dataset_name",
    )
