"""A plugin for as long as a test takes: recipes and their like that count as installed, without a package."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

from lmtasks.api import Architecture, Recipe, WordSegmenter
from lmtasks.api.hookspecs import hookimpl
from lmtasks.registry.catalog import Catalog, load_catalog
from lmtasks.registry.enabled_plugins import current, selected

_number = itertools.count(1)


@contextmanager
def installed(
    recipes: Iterable[Recipe] = (),
    architectures: Iterable[Architecture] = (),
    word_segmenters: Iterable[WordSegmenter] = (),
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
    own, others, segmenters = list(recipes), list(architectures), list(word_segmenters)
    vars(module).update(lmtasks_recipes=hookimpl(lambda: own), lmtasks_architectures=hookimpl(lambda: others))
    vars(module).update(lmtasks_word_segmenters=hookimpl(lambda: segmenters))
    try:
        with selected([*current().named, name], builtins_only=builtins_only):
            yield load_catalog()
    finally:
        del sys.modules[name]
