"""Real text that every CPython ships, so that a first run needs neither a file nor the network."""

from __future__ import annotations

import ast
import importlib
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from lmtasks.errors import InputError, nearest

SAMPLES: dict[str, str] = {
    "python-docs": "Python's own documentation",
    "python-library": "Python's own standard library",
}

# Tests, tables and generated files: little prose, much repetition. Installed packages are not
# Python's own and differ from machine to machine, and so do the files of _sysconfigdata.
_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idlelib", "idle_test", "lib2to3", "encodings", "turtledemo", "ensurepip", "pydoc_data"}
    | {"lib-dynload", "site-packages", "dist-packages", "__pycache__"}
)
_SKIPPED_PREFIX = "_sysconfigdata"
_Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def sample_documents(name: str) -> list[str]:
    """The documents of an embedded corpus, always in the same order.

    Args:
        name: a key of :data:`SAMPLES`. ``python-docs`` holds the topics of ``help()`` and then one
            document of docstrings per module; ``python-library`` the source of one module each.

    Raises:
        InputError: no such corpus, or this Python was installed without its library's sources.
    """
    if name not in _READERS:
        raise InputError(
            f"no embedded corpus '{name}'{nearest(name, SAMPLES)}", "the embedded corpora are " + ", ".join(SAMPLES)
        )
    # Copies of a document would leak from training into evaluation.
    documents = [document for document in dict.fromkeys(_READERS[name]()) if document.strip()]
    if not documents:
        raise _no_sources(str(_library_folder()))
    return documents


def _topics_and_docstrings() -> Iterator[str]:
    # Imported by name: typeshed does not say what the module holds.
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise _no_sources("pydoc_data.topics") from error
    yield from (topics[key] for key in sorted(topics))
    for file in _sources("**/*.py"):
        yield "\n\n".join(_docstrings(ast.parse(file.read_bytes())))


def _modules() -> Iterator[str]:
    """Modules at the top of the library only: packages would triple the corpus and slow the demo."""
    for file in _sources("*.py"):
        yield file.read_text(encoding="utf-8")


def _sources(pattern: str) -> list[Path]:
    folder = _library_folder()
    files = [file for file in folder.glob(pattern) if _is_library(file.relative_to(folder))]
    if not files:
        raise _no_sources(str(folder))
    return sorted(files, key=lambda file: file.relative_to(folder).parts)


def _is_library(file: Path) -> bool:
    return _SKIPPED_FOLDERS.isdisjoint(file.parts[:-1]) and not file.name.startswith(_SKIPPED_PREFIX)


def _library_folder() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _docstrings(node: ast.AST) -> Iterator[str]:
    """Docstrings below a node in the order of the source."""
    if isinstance(node, _Documented) and (text := ast.get_docstring(node)):
        yield text
    for child in ast.iter_child_nodes(node):
        # Docstrings sit in statements; expressions below them are most of the tree and hold none.
        if isinstance(child, ast.stmt):
            yield from _docstrings(child)


def _no_sources(place: str) -> InputError:
    return InputError(
        f"the embedded corpus needs the sources of Python's standard library, and there are none in {place}",
        "give your own text with --train_file or --dataset_name",
    )


_READERS: dict[str, Callable[[], Iterator[str]]] = {"python-docs": _topics_and_docstrings, "python-library": _modules}
