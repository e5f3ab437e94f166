"""What ``lmtasks list`` says, remembered between calls.

Finding and importing plugins takes several times as long as Python takes to start. Nothing of it
can change while the folders on ``sys.path`` (where an installation adds or removes something) and
the plugins' own files stay as they are, so what was said last is said again.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmtasks.catalog import Catalog, Plugin
    from lmtasks.recipe import Recipe

Row = dict[str, str]
"""``name``, ``summary`` and ``owner`` of a recipe."""


def recipe_rows() -> tuple[list[Row], list[str]]:
    """The installed recipes, and a line for each plugin that is broken."""
    file = _file()
    remembered = _read(file)
    if remembered is not None and remembered["stamps"] == _stamps(remembered["stamps"]):
        rows: list[Row] = remembered["rows"]
        return rows, []
    from lmtasks.catalog import load_catalog

    catalog = load_catalog()
    rows = [recipe_row(catalog, recipe) for recipe in catalog.recipes.values()]
    broken = [
        f"{plugin.name} {plugin.version} is broken: {plugin.broken}" for plugin in catalog.plugins if plugin.broken
    ]
    if not broken:  # what breaks a plugin may lie anywhere, and be mended without a trace here
        _write(file, {"stamps": _stamps(_places(catalog.plugins)), "rows": rows})
    return rows, broken


def recipe_row(catalog: Catalog, recipe: Recipe) -> Row:
    """One recipe in three words."""
    return {"name": recipe.name, "summary": recipe.summary, "owner": catalog.owner(recipe.name).name}


def _file() -> str:
    """One file for each Python and search path."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    identity = zlib.crc32(repr((sys.version, sys.prefix, sys.path)).encode())
    return os.path.join(home, "lmtasks", f"list-{identity:08x}.json")


def _places(plugins: Iterable[Plugin]) -> list[str]:
    """The folders that are searched for plugins, and every file that loading them imported from their packages."""
    packages = {plugin.module.partition(".")[0] for plugin in plugins}
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in packages]
    files = {file for module in modules if (file := getattr(module, "__file__", None))}
    return [*sys.path, *sorted(files)]


def _stamps(places: Iterable[str]) -> dict[str, int]:
    """When each place was last changed, in nanoseconds; 0 where there is none."""
    return {place: _changed(place) for place in places}


def _changed(place: str) -> int:
    try:
        return os.stat(place or os.curdir).st_mtime_ns
    except OSError:
        return 0


def _read(file: str) -> dict[str, Any] | None:
    """What was remembered, if it is there and whole."""
    try:
        with open(file, encoding="utf-8") as handle:
            content = json.load(handle)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.keys() == {"stamps", "rows"} else None


def _write(file: str, content: Mapping[str, Any]) -> None:
    """Remember, where there is a place for it: a cache that cannot be written is no error."""
    new = f"{file}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(new, "w", encoding="utf-8") as handle:
            json.dump(content, handle)
        os.replace(new, file)
    except OSError:
        return
