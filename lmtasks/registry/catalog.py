"""The catalog: what is installed, who owns it, and what is broken and why.

Plugins are found by entry points of the group ``lmtasks``. Each is imported and registered on its
own (:mod:`lmtasks.registry.loader`), as ``distribution:entry-point``, so that no plugin can take another
down or hide it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import pluggy

from lmtasks.api import (
    UNICODE,
    Architecture,
    Command,
    Engine,
    Extension,
    Format,
    Launcher,
    Recipe,
    WordSegmenter,
    hookspecs,
)
from lmtasks.config.elsewhere import ENGINES
from lmtasks.config.request import Request
from lmtasks.errors import InputError, nearest
from lmtasks.progress import complain
from lmtasks.registry.discovery import installed, named
from lmtasks.registry.enabled_plugins import BUILTIN, current, file_of, normal, traces, why_skipped
from lmtasks.registry.faults import (
    unwatched,
    watched,
    watched_command,
    watched_engine,
    watched_extension,
    watched_format,
    watched_launcher,
)
from lmtasks.registry.loader import HeavyImportError, load
from lmtasks.registry.plugin import DECLARED, BrokenPluginError, Plugin

SEGMENTERS = {
    "icu": "lmtasks-word-segmenters",
    "jieba": "lmtasks-word-segmenters[chinese]",
    "sudachi": "lmtasks-word-segmenters[japanese]",
    "newmm": "lmtasks-word-segmenters[thai]",
}
"""Packages of known word segmenters, by their names."""

LAUNCHERS = {"ray": "lmtasks-ray", "slurm": "lmtasks-slurm", "hf-jobs": "lmtasks-hf-jobs"}
"""Packages of known launchers, by their names."""


@dataclass(frozen=True)
class Catalog:
    """Recipes, architectures and formats by name, with their owners.

    Args:
        recipes: by what people type: the recipe's name, or ``package:recipe`` where that is not enough.
        architectures: by model type.
        plugins: everything that was found.
        formats: of data files, by name.
    """

    recipes: Mapping[str, Recipe]
    architectures: Mapping[str, Architecture]
    plugins: tuple[Plugin, ...]
    formats: Mapping[str, Format] = field(default_factory=dict)

    def recipe(self, name: str) -> Recipe:
        """The recipe of that name; see :meth:`find`."""
        return self.recipes[self.find(name)]

    def find(self, name: str) -> str:
        """The name in :attr:`recipes` of what was typed.

        Args:
            name: ``recipe``, ``package:recipe``, ``file.py`` or ``file.py:recipe``.

        Raises:
            InputError: there is none, or several; names the nearest, or the broken plugin that would have it.
        """
        for spelling in (name, name.replace("_", "-")):
            if spelling in self.recipes:
                return spelling
        if file := file_of(name):
            return self._in_file(name, *file)
        package, _, recipe = name.rpartition(":")
        if package:
            return self._in_package(package, recipe)
        if owners := [plugin for plugin in self.plugins if name in plugin.recipes]:
            raise InputError(
                f"recipe '{name}' is in several packages: {' and '.join(plugin.title for plugin in owners)}",
                f"say which: {' or '.join(f'{plugin.distribution}:{name}' for plugin in owners)}",
            )
        self._refuse_broken(name, [plugin for plugin in self.plugins if name in (plugin.entry_point, *plugin.claims)])
        raise InputError(f"unknown recipe '{name}'{nearest(name, self.recipes)}", self._elsewhere())

    def word_segmenter(self, name: str) -> tuple[WordSegmenter, Plugin]:
        """The word segmenter of that name, and the plugin that declared it.

        Raises:
            InputError: there is none; names the nearest, and the package that has it.
        """
        own = {one: plugin for plugin in self.plugins for one in plugin.word_segmenters}
        if name in own:
            return own[name].word_segmenters[name], own[name]
        raise self.unknown("word segmenter", name, [UNICODE, *own], SEGMENTERS)

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The engines of all plugins by name, of which faults are told, but for what is built in.

        Asked for another name it raises an InputError that names the nearest, and the package that has it.
        """
        return _Engines(self._seen("engines", watched_engine), self)

    @property
    def launchers(self) -> dict[str, Launcher]:
        """The launchers of all plugins by name, of which faults are told, but for what is built in."""
        return self._seen("launchers", watched_launcher)

    def _seen(self, brought: str, watch: Callable[[Any, Plugin], Any]) -> dict[str, Any]:
        """What all plugins bring of a kind, by name, watched but for what is built in."""
        return {
            name: one if plugin.distribution == BUILTIN else watch(one, plugin)
            for plugin in self.plugins
            for name, one in getattr(plugin, brought).items()
        }

    def launcher(self, name: str) -> Launcher:
        """The launcher of that name; ``_`` for ``-`` will do.

        Raises:
            InputError: there is none; names the nearest, and the package that has it.
        """
        known = self.launchers
        for spelling in (name, name.replace("_", "-")):
            if spelling in known:
                return known[spelling]
        raise self.unknown("launcher", name.replace("_", "-"), list(known), LAUNCHERS)

    def unknown(self, kind: str, name: str, own: list[str], elsewhere: Mapping[str, str]) -> InputError:
        """What to tell of a name that no plugin has: the nearest, and the package that has it."""
        known = [*own, *elsewhere]
        meant = "" if name in known else nearest(name, known)
        packages = [elsewhere[one] for one in elsewhere.keys() - {*own} if one == name or f"'{one}'" in meant]
        broken = [f"; broken: {plugin.title}: {plugin.broken}" for plugin in self.plugins if plugin.broken]
        # Where there is nothing of a kind, lmtasks itself is installed as an earlier version (in place, say).
        there = f"there are {', '.join(own)}" if own else "install lmtasks anew: what it has is not registered"
        told = f"pip install '{packages[0]}'" if packages else there
        return InputError(f"unknown {kind} '{name}'{meant}", f"{told}{''.join(broken)}{self._not_counted()}")

    def owner(self, name: str) -> Plugin:
        """The plugin that declared the recipe of that name in :attr:`recipes`."""
        package, _, recipe = name.rpartition(":")
        owners = (plugin for plugin in self.plugins if recipe in plugin.recipes)
        return next(plugin for plugin in owners if package in ("", plugin.distribution))

    def name_of(self, recipe: Recipe) -> str | None:
        """The name in :attr:`recipes` of this very recipe; None for one that somebody made in memory."""
        recipe = unwatched(recipe)
        return next((name for name, known in self.recipes.items() if known is recipe), None)

    def watched(self, recipe: Recipe) -> Recipe:
        """The recipe with all extensions; faults of code that is not ours are told as those of its plugin."""
        name = self.name_of(recipe)
        owner = self.owner(name) if name else None
        known = None if owner is None or owner.distribution == BUILTIN else owner
        return watched(unwatched(recipe), known, self.extensions, self.engines)

    @property
    def extensions(self) -> tuple[Extension, ...]:
        """The extensions of all plugins, of which faults are told."""
        return tuple(watched_extension(one, plugin) for plugin in self.plugins for one in plugin.extensions.values())

    @property
    def commands(self) -> dict[str, Command]:
        """The subcommands of all extensions by name, of which faults are told."""
        return {
            command.name: watched_command(command, extension, plugin)
            for plugin in self.plugins
            for extension in plugin.extensions.values()
            for command in extension.commands
        }

    def _in_package(self, package: str, recipe: str) -> str:
        plugins = [plugin for plugin in self.plugins if normal(plugin.distribution) == normal(package)]
        if not plugins:
            known = {plugin.distribution for plugin in self.plugins}
            raise InputError(
                f"recipe '{package}:{recipe}': there is no plugin '{package}'{nearest(package, known)}",
                f"install it, or see what lmtasks plugins shows{self._not_counted()}",
            )
        for plugin in plugins:
            if recipe in plugin.recipes:
                return _within(self.recipes, plugin, recipe)
        self._refuse_broken(f"{package}:{recipe}", plugins)
        own = [name for plugin in plugins for name in plugin.recipes]
        raise InputError(
            f"'{package}' has no recipe '{recipe}'{nearest(recipe, own)}",
            f"it has {', '.join(own) or 'none'}{self._not_counted()}",
        )

    def _in_file(self, typed: str, path: str, name: str) -> str:
        plugin = next((plugin for plugin in self.plugins if plugin.distribution == path), None)
        if plugin is None:
            raise InputError(
                f"'{typed}' is a file, and only commands take those",
                "in Python, import it and give lmtasks.run the Recipe",
            )
        names = list(plugin.recipes)
        if name in names or (len(names) == 1 and not name):
            return _within(self.recipes, plugin, name or names[0])
        own = ", ".join(names)
        if name:
            raise InputError(f"'{path}' has no recipe '{name}'{nearest(name, names)}", f"it has {own}")
        if not names:
            raise InputError(f"'{path}' has no recipe", "it brings architectures only")
        raise InputError(f"'{path}' has several recipes: {own}", f"say which: {typed}:{names[0]}")

    def _refuse_broken(self, name: str, plugins: Iterable[Plugin]) -> None:
        for plugin in plugins:
            if plugin.broken:
                raise InputError(
                    f"recipe '{name}' is broken: {plugin.title}: {plugin.broken}",
                    "lmtasks plugins shows all plugins; upgrade or uninstall this one",
                )

    def _elsewhere(self) -> str:
        """Where a recipe that is not there may be."""
        broken = [f"{plugin.title}: {plugin.broken}" for plugin in self.plugins if plugin.broken]
        told = f"lmtasks list shows what is installed: {', '.join(self.recipes)}"
        return f"{told}; broken: {', '.join(broken)}" if broken else f"{told}{self._not_counted()}"

    def _not_counted(self) -> str:
        skipped = [f"{plugin.name} ({plugin.skipped})" for plugin in self.plugins if plugin.skipped]
        return f"; not loaded: {', '.join(skipped)}" if skipped else ""


class _Engines(dict[str, Engine]):
    """Engines by name, which know what to tell of a name that is none."""

    def __init__(self, known: Mapping[str, Engine], catalog: Catalog) -> None:
        super().__init__(known)
        self._catalog = catalog

    def __missing__(self, name: str) -> Engine:
        raise self._catalog.unknown("engine", name, list(self), ENGINES)


def load_catalog(entry_points: Iterable[metadata.EntryPoint] | None = None, *, light: bool = False) -> Catalog:
    """Load every plugin that counts.

    Args:
        entry_points: what to load instead of the installed entry points of group ``lmtasks``.
        light: leave out what imports torch or the like at its top, and say so; for commands that only tell.

    Raises:
        InputError: a module or file that somebody named for this command is broken.
    """
    began = time.perf_counter()
    manager = pluggy.PluginManager("lmtasks")
    manager.add_hookspecs(hookspecs)
    found = [*installed(entry_points), *map(named, current().named)]
    _trace(f"{len(found)} found in {_milliseconds(began)} ms")
    plugins: list[Plugin] = []
    for plugin in found:
        if plugin.kind == "module" and plugin.module in [other.module for other in plugins if not other.skipped]:
            continue  # it is an installed plugin as well
        _load(manager, plugin, plugins, light)
        plugins.append(plugin)
    architectures = {kind: one for plugin in plugins for kind, one in plugin.architectures.items()}
    formats = {name: watched_format(one, plugin) for plugin in plugins for name, one in plugin.formats.items()}
    _tell_taken_suffixes(plugins)
    return Catalog(_named(plugins), architectures, tuple(plugins), formats)


def engine_of(request: Request) -> Engine:
    """The engine of a request, whose recipe may be of no catalog."""
    return request.engine or load_catalog().engines[request.loop.engine]


def _load(manager: pluggy.PluginManager, plugin: Plugin, others: Iterable[Plugin], light: bool) -> None:
    """Load one plugin, and keep in it what came of that."""
    if plugin.kind == "package" and (reason := why_skipped(plugin.distribution, plugin.entry_point)):
        plugin.skipped = reason
        _trace(f"{plugin.title} skipped: {reason}")
        return
    began = time.perf_counter()
    try:
        load(manager, plugin, {id(recipe) for other in others for recipe in other.recipes.values()}, light=light)
        _refuse_taken(plugin, others)
    except (HeavyImportError, BrokenPluginError) as error:
        state = "slow" if isinstance(error, HeavyImportError) else "broken"
        setattr(plugin, state, str(error))
        for brought in DECLARED:
            setattr(plugin, brought, {})
        _trace(f"{plugin.title} {state} after {_milliseconds(began)} ms: {error}")
        if plugin.broken:
            _refuse_named(plugin, plugin.broken)
        return
    _trace(f"{plugin.title} loaded in {_milliseconds(began)} ms: {', '.join(plugin.brings) or 'nothing'}")
    if not plugin.brings:
        _refuse_named(plugin, "it declares no recipe: it needs a lmtasks_recipes hook, or a Recipe at its top level")


def _refuse_named(plugin: Plugin, reason: str) -> None:
    """A plugin that somebody named is there to be used, so its failure is the command's."""
    if plugin.kind == "file":
        raise InputError(f"'{plugin.distribution}' cannot be used: {reason}", "mend the file, or name another")
    if plugin.kind == "module":
        raise InputError(
            f"module '{plugin.distribution}' cannot be used: {reason}",
            "start lmtasks where it can be imported, or set PYTHONPATH; a file is named with its .py",
        )


def _refuse_taken(plugin: Plugin, others: Iterable[Plugin]) -> None:
    """Refuse what another plugin has; of recipes, what another one of the same package has."""
    for other in others:
        for brought, kind in {**DECLARED, "commands": "command", "trackers": "tracker"}.items():
            both = getattr(plugin, brought).keys() & getattr(other, brought).keys()
            if both and (brought != "recipes" or other.distribution == plugin.distribution):
                raise BrokenPluginError(f"{kind} '{min(both)}' already belongs to {other.name}")
        if both := plugin.prefixes.keys() & other.prefixes.keys():
            one = min(both)
            raise BrokenPluginError(
                f"--{one}.… of its {plugin.prefixes[one]} is that of the {other.prefixes[one]} of {other.name}"
            )


def _named(plugins: Sequence[Plugin]) -> dict[str, Recipe]:
    """Each recipe under its own name, or under ``package:recipe`` where that is taken.

    A name that two packages have belongs to neither, but for a built-in's: whoever installs a package must not change,
    without knowing, what an old command means.
    """
    recipes: dict[str, Recipe] = {}
    for plugin in plugins:
        for name, recipe in plugin.recipes.items():
            others = [other for other in plugins if name in other.recipes and other is not plugin]
            if not others or plugin.distribution == BUILTIN:
                recipes[name] = recipe
                continue
            full = f"{plugin.distribution}:{name}"
            recipes[full] = recipe
            is_built_in = any(other.distribution == BUILTIN for other in others)
            why = "is built in" if is_built_in else f"is also in {' and '.join(other.title for other in others)}"
            plugin.taken += (f"recipe '{name}' {why}; this one is {full}",)
    return recipes


def _tell_taken_suffixes(plugins: Sequence[Plugin]) -> None:
    """Say which files of a plugin's format are read as those of a built-in one, whose ends of names stay its own."""
    built_in = [one for plugin in plugins if plugin.distribution == BUILTIN for one in plugin.formats.values()]
    names = {suffix: one.name for one in built_in for suffix in one.suffixes}
    for plugin in plugins:
        for one in plugin.formats.values() if plugin.distribution != BUILTIN else ():
            for suffix in names.keys() & {*one.suffixes}:
                said = f"files in {suffix} are {names[suffix]}; --format {one.name} reads them"
                plugin.taken += (f"format '{one.name}': {said}",)


def _within(recipes: Mapping[str, Recipe], plugin: Plugin, recipe: str) -> str:
    full = f"{plugin.distribution}:{recipe}"
    return full if full in recipes else recipe


def _trace(text: str) -> None:
    if traces():
        complain(f"plugins: {text}")


def _milliseconds(began: float) -> str:
    return f"{(time.perf_counter() - began) * 1000:.0f}"
