"""The answers of ``lmtasks list``, ``show`` and ``plugins``, remembered between calls.

Finding and importing plugins takes several times as long as Python takes to start (benchmarks/startup.py has both).
Nothing of it can change while the folders on ``sys.path`` (where an installation adds or removes something) and
the plugins' own files stay as they are, so what was said last is said again. What breaks a plugin
may lie elsewhere as well: in the environment, which is looked at too, or anywhere, so that what is
broken is looked at anew every few minutes.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from lmtasks.config import caches
from lmtasks.registry.enabled_plugins import current, traces

if TYPE_CHECKING:
    from lmtasks.registry.catalog import Catalog
    from lmtasks.registry.plugin import Plugin

KEPT_FOR = 600
"""Seconds for which it is believed that a plugin is still broken."""

PASSING = {"_", "PWD", "OLDPWD", "SHLVL", "COLUMNS", "LINES", "LMTASKS_TRACE_PLUGINS"}
"""Variables that a shell changes all the time, and that break no plugin."""


_CONTENT = {"recipes": list, "plugins": list, "stamps": dict, "until": float, "environment": int}
"""The file, by name and type."""


class Told(NamedTuple):
    """A catalog in words.

    Args:
        recipes: ``name``, ``summary``, ``owner`` and what else ``lmtasks show`` tells of each.
        plugins: ``title``, ``state``, ``problems`` and the fields of each.
    """

    recipes: list[dict[str, Any]]
    plugins: list[dict[str, Any]]


def told(*, everything: bool = False) -> Told:
    """The installed catalog, from the cache where it still is as it was.

    Args:
        everything: import also what imports torch or the like at its top.
    """
    file = _file()
    # A command that names a plugin of its own, or wants to see how they are loaded, needs them loaded.
    remembered = None if everything or current().named or traces() else _read(file)
    if remembered is not None and _is_true(remembered):
        return Told(remembered["recipes"], remembered["plugins"])
    from lmtasks.registry.catalog import load_catalog

    catalog = load_catalog(light=not everything)
    recipes = [described(catalog, name) for name in catalog.recipes]
    said = Told(recipes, [plugin.as_json() for plugin in catalog.plugins])
    if not current().named:
        broken = any(plugin.broken for plugin in catalog.plugins)
        until, environment = (time.time() + KEPT_FOR, _environment()) if broken else (0.0, 0)
        stamps = _stamps(_places(catalog.plugins))
        _write(file, {**said._asdict(), "stamps": stamps, "until": until, "environment": environment})
    return said


def described(catalog: Catalog, name: str) -> dict[str, Any]:
    """One recipe, under the name that people type."""
    from lmtasks.api import describe, options_of

    recipe = catalog.recipes[name]
    return {
        "name": name,
        "summary": recipe.summary,
        "owner": catalog.owner(name).name,
        "model_class": recipe.model_class,
        "pipeline": recipe.pipeline,
        "attention": recipe.attention,
        "metrics": ", ".join(recipe.metrics),
        "options": [
            {"name": option.name, "type": describe(option), "default": option.default, "help": option.help}
            for option in options_of(recipe.options).values()
        ],
    }


def _file() -> str:
    """One file for each Python, search path and choice of plugins."""
    choice = os.environ.get("LMTASKS_PLUGINS"), os.environ.get("LMTASKS_DISABLE_PLUGINS"), current()
    place = zlib.crc32(repr((sys.version, sys.prefix, sys.path, choice)).encode())
    return os.path.join(caches.own(), f"list-{place:08x}.json")


def _is_true(remembered: Mapping[str, Any]) -> bool:
    until = remembered["until"]
    if until and not (time.time() < until <= time.time() + KEPT_FOR and remembered["environment"] == _environment()):
        return False
    return bool(remembered["stamps"] == _stamps(remembered["stamps"]))


def _environment() -> int:
    said = sorted((name, value) for name, value in os.environ.items() if name not in PASSING)
    return zlib.crc32(repr(said).encode("utf-8", "surrogateescape"))


def _places(plugins: Iterable[Plugin]) -> list[str]:
    """The folders that are searched for plugins, and the files that say what these bring."""
    packages = {plugin.module.partition(".")[0] for plugin in plugins}
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in packages]
    files = {file for module in modules if (file := getattr(module, "__file__", None))}
    for plugin in plugins:
        if plugin.broken or plugin.slow:  # not all of it was imported, or nothing
            files |= _files_of(plugin.module.partition(".")[0])
    return [*sys.path, *sorted(files)]


def _files_of(package: str) -> set[str]:
    """Every module of a package, without importing it."""
    from importlib.util import find_spec
    from pathlib import Path

    spec = None
    with suppress(ImportError, ValueError):
        spec = find_spec(package)
    if spec is None:
        return set()
    files = {str(file) for folder in spec.submodule_search_locations or () for file in Path(folder).rglob("*.py")}
    return files | {spec.origin or ""} - {""}


def _stamps(places: Iterable[str]) -> dict[str, int]:
    """The time of each place's last change, in nanoseconds; 0 where there is none."""
    stamps = dict.fromkeys(places, 0)
    for place in stamps:
        with suppress(OSError):
            stamps[place] = os.stat(place or os.curdir).st_mtime_ns
    return stamps


def _read(file: str) -> dict[str, Any] | None:
    """The content of the file, if it is there and whole."""
    try:
        with open(file, encoding="utf-8") as handle:
            content = json.load(handle)
    except (OSError, ValueError):
        return None
    whole = isinstance(content, dict) and {name: type(value) for name, value in content.items()} == _CONTENT
    return content if whole else None


def _write(file: str, content: Mapping[str, Any]) -> None:
    """Remember, where there is a place for it: a cache that cannot be written is no error."""
    new = f"{file}.{os.getpid()}"
    with suppress(OSError):
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(new, "w", encoding="utf-8") as handle:
            json.dump(content, handle, default=str)
        os.replace(new, file)
