"""A plugin for as long as a test takes: recipes and their like that count as installed, without a package."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from lmtasks.api import Architecture, Engine, Extension, Launcher, Recipe, WordSegmenter
from lmtasks.api.hookspecs import hookimpl
from lmtasks.registry.catalog import Catalog, load_catalog
from lmtasks.registry.enabled_plugins import current, selected

_number = itertools.count(1)


@contextmanager
def installed(
    recipes: Iterable[Recipe] = (),
    architectures: Iterable[Architecture] = (),
    word_segmenters: Iterable[WordSegmenter] = (),
    extensions: Iterable[Extension] = (),
    launchers: Iterable[Launcher] = (),
    engines: Iterable[Engine] = (),
    *,
    builtins_only: bool = True,
) -> Iterator[Catalog]:
    """While this is open, what is declared belongs to a plugin, for every command and function.

    They come in by the door of all plugins, so what is refused there is refused here.

    Args:
        builtins_only: of what is really installed, only lmtasks' own counts.

    Yields:
        the catalog.

    Raises:
        InputError: they make no plugin.
    """
    name = f"lmtasks_in_memory_{next(_number)}"
    module = sys.modules[name] = ModuleType(name)
    declared = {"recipes": recipes, "architectures": architectures}
    declared |= {
        "word_segmenters": word_segmenters,
        "extensions": extensions,
        "launchers": launchers,
        "engines": engines,
    }
    for kind, given in declared.items():
        vars(module)[f"lmtasks_{kind}"] = hookimpl(_giving(list(given)))
    try:
        with selected([*current().named, name], builtins_only=builtins_only):
            yield load_catalog()
    finally:
        del sys.modules[name]


def _giving(declarations: list[Any]) -> Callable[[], list[Any]]:
    return lambda: declarations
