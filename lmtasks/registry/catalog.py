"""The catalog: what is installed, who owns it, and what is broken and why.

Plugins are found by entry points of the group ``lmtasks``. Each is imported and registered on its
own (:mod:`lmtasks.registry.loader`), as ``distribution:entry-point``, so that no plugin can take another
down or hide it.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Literal

import pluggy

from lmtasks.api import Architecture, Recipe, hookspecs
from lmtasks.errors import InputError, nearest
from lmtasks.registry.enabled_plugins import BUILTIN, current, file_of, is_known, normal, selected, traces, why_skipped
from lmtasks.registry.loader import (
    GROUP,
    BrokenPluginError,
    Declared,
    HeavyImportError,
    Source,
    installed,
    load,
    location,
    named,
)

__all__ = ["GROUP", "Catalog", "Plugin", "load_catalog", "recorded", "recorded_recipe"]


MANY = 8
"""Names in a line for people."""


@dataclass(frozen=True)
class Plugin:
    """A plugin and what came of loading it.

    Args:
        distribution: the package; for others the name of the module or the path of the file.
        recipes, architectures: what it brings.
        broken: why it cannot be used; then it brings nothing.
        claims: when it is broken, names of recipes that it would bring, as far as known.
        taken: for each recipe that its plain name does not reach, why.
        slow: why it was not imported by a command that only tells.
        skipped: what says that it does not count.
        kind: how it came in: by an installed package, or as a module or file that somebody named.
    """

    distribution: str
    version: str
    entry_point: str
    module: str = ""
    recipes: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    broken: str = ""
    claims: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    slow: str = ""
    skipped: str = ""
    kind: Literal["package", "module", "file"] = "package"

    @property
    def name(self) -> str:
        """``distribution:entry-point``, or the module or the file."""
        return f"{self.distribution}:{self.entry_point}" if self.kind == "package" else self.distribution

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}".rstrip()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with it, each in one line."""
        return (self.broken, *self.taken) if self.broken else self.taken

    @property
    def state(self) -> str:
        """What came of it, for people."""
        if self.broken:
            return f"BROKEN: {self.broken}"
        if self.slow:
            return f"SLOW: {self.slow}"
        if self.skipped:
            return f"not loaded: {self.skipped}"
        names = [*self.recipes, *self.architectures]
        more = [f"and {len(names) - MANY} more"] if len(names) > MANY else []
        brings = ", ".join([*names[:MANY], *more]) or "nothing"
        return "; ".join([brings, *(f"BROKEN: {reason}" for reason in self.taken)])

    @property
    def origin(self) -> dict[str, str]:
        """What ``run.json`` keeps, so that the recipe is found again."""
        if self.kind == "package":
            return {"package": self.distribution, "version": self.version}
        return {self.kind: self.distribution}


@dataclass(frozen=True)
class Catalog:
    """Recipes and architectures by name, with their owners.

    Args:
        recipes: by what people type: the recipe's name, or ``package:recipe`` where that is not enough.
        architectures: by model type.
        plugins: everything that was found.
    """

    recipes: Mapping[str, Recipe]
    architectures: Mapping[str, Architecture]
    plugins: tuple[Plugin, ...]

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
        if name in self.recipes:
            return name
        if file := file_of(name):
            return self._in_file(name, *file)
        package, _, recipe = name.rpartition(":")
        if package:
            return self._in_package(package, recipe)
        self._refuse_several(name)
        self._refuse_broken(name, [plugin for plugin in self.plugins if name in (plugin.entry_point, *plugin.claims)])
        raise InputError(f"unknown recipe '{name}'{nearest(name, self.recipes)}", self._elsewhere())

    def owner(self, name: str) -> Plugin:
        """The plugin that declared the recipe of that name in :attr:`recipes`."""
        package, _, recipe = name.rpartition(":")
        owners = (plugin for plugin in self.plugins if recipe in plugin.recipes)
        return next(plugin for plugin in owners if package in ("", plugin.distribution))

    def name_of(self, recipe: Recipe) -> str | None:
        """The name in :attr:`recipes` of this very recipe; None for one that somebody made in memory."""
        return next((name for name, known in self.recipes.items() if known is recipe), None)

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
        if name in plugin.recipes:
            return _within(self.recipes, plugin, name)
        own = ", ".join(plugin.recipes)
        if name:
            raise InputError(f"'{path}' has no recipe '{name}'{nearest(name, plugin.recipes)}", f"it has {own}")
        if len(plugin.recipes) != 1:
            raise InputError(
                f"'{path}' has several recipes: {own}" if own else f"'{path}' has no recipe",
                f"say which: {typed}:{plugin.recipes[0]}" if own else "it brings architectures only",
            )
        return _within(self.recipes, plugin, plugin.recipes[0])

    def _refuse_several(self, name: str) -> None:
        owners = [plugin for plugin in self.plugins if name in plugin.recipes]
        if owners:
            raise InputError(
                f"recipe '{name}' is in several packages: {' and '.join(plugin.title for plugin in owners)}",
                f"say which: {' or '.join(f'{plugin.distribution}:{name}' for plugin in owners)}",
            )

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
    sources = [*installed(entry_points), *map(named, current().named)]
    _trace(f"{len(sources)} found in {_milliseconds(began)} ms")
    recipes: dict[str, dict[str, Recipe]] = {}
    architectures: dict[str, Architecture] = {}
    plugins: list[Plugin] = []
    for source in sources:
        if source.kind == "module" and source.module in [plugin.module for plugin in plugins if not plugin.skipped]:
            continue  # it is an installed plugin as well
        known = {id(recipe) for declared in recipes.values() for recipe in declared.values()}
        plugin, declared = _loaded(manager, source, plugins, known, light)
        plugins.append(plugin)
        recipes[plugin.name] = declared.recipes
        architectures.update(declared.architectures)
    return _named(recipes, architectures, plugins)


def _loaded(
    manager: pluggy.PluginManager, source: Source, plugins: Iterable[Plugin], known: set[int], light: bool
) -> tuple[Plugin, Declared]:
    """One plugin, and what it declares if it can be used."""
    identity: dict[str, Any] = {name: value for name, value in vars(source).items() if name != "get"}
    nothing = Declared()
    if source.kind == "package" and (reason := why_skipped(source.distribution, source.entry_point)):
        _trace(f"{source.name} {source.version} skipped: {reason}")
        return Plugin(**identity, skipped=reason), nothing
    began, declared = time.perf_counter(), Declared()
    try:
        load(manager, source, declared, known, light=light)
        _refuse_taken(source, declared, plugins)
    except HeavyImportError as error:
        _trace(f"{source.name} {source.version} slow after {_milliseconds(began)} ms: {error}")
        return Plugin(**identity, slow=str(error)), nothing
    except BrokenPluginError as error:
        _trace(f"{source.name} {source.version} broken after {_milliseconds(began)} ms: {error}")
        _refuse_named(source, str(error))
        return Plugin(**identity, broken=str(error), claims=tuple(declared.claims)), nothing
    brings = [*declared.recipes, *declared.architectures]
    _trace(f"{source.name} {source.version} loaded in {_milliseconds(began)} ms: {', '.join(brings) or 'nothing'}")
    if not brings:
        _refuse_named(source, "it declares no recipe: it needs a lmtasks_recipes hook, or a Recipe at its top level")
    own = Plugin(**identity, recipes=tuple(declared.recipes), architectures=tuple(declared.architectures))
    return own, declared


def _refuse_named(source: Source, reason: str) -> None:
    """What somebody named is there to be used, so its failure is the command's."""
    if source.kind == "file":
        raise InputError(f"'{source.distribution}' cannot be used: {reason}", "mend the file, or name another")
    if source.kind == "module":
        raise InputError(
            f"module '{source.distribution}' cannot be used: {reason}",
            "start lmtasks where it can be imported, or set PYTHONPATH; a file is named with its .py",
        )


def _refuse_taken(source: Source, declared: Declared, plugins: Iterable[Plugin]) -> None:
    """Refuse model types that another plugin has, and recipes that this very package has already."""
    for plugin in plugins:
        for model_type in declared.architectures:
            if model_type in plugin.architectures:
                raise BrokenPluginError(f"architecture '{model_type}' already belongs to {plugin.name}")
        for recipe in declared.recipes:
            if recipe in plugin.recipes and plugin.distribution == source.distribution:
                raise BrokenPluginError(f"recipe '{recipe}' already belongs to {plugin.name}")


def _named(
    declared: Mapping[str, Mapping[str, Recipe]], architectures: Mapping[str, Architecture], plugins: Iterable[Plugin]
) -> Catalog:
    """The catalog, with each recipe under its own name, or under ``package:recipe`` where that is taken."""
    owners = Counter(name for recipes in declared.values() for name in recipes)
    builtin = {name for plugin in plugins if plugin.distribution == BUILTIN for name in plugin.recipes}
    recipes: dict[str, Recipe] = {}
    told = []
    for plugin in plugins:
        taken = []
        for name, recipe in declared[plugin.name].items():
            if owners[name] == 1 or plugin.distribution == BUILTIN:
                recipes[name] = recipe
                continue
            full = f"{plugin.distribution}:{name}"
            recipes[full] = recipe
            others = [other.title for other in plugins if name in other.recipes and other is not plugin]
            why = "is built in" if name in builtin else f"is also in {' and '.join(others)}"
            taken.append(f"recipe '{name}' {why}; this one is {full}")
        told.append(replace(plugin, taken=tuple(taken)))
    return Catalog(recipes, architectures, tuple(told))


def _within(recipes: Mapping[str, Recipe], plugin: Plugin, recipe: str) -> str:
    full = f"{plugin.distribution}:{recipe}"
    return full if full in recipes else recipe


# --- what a run recorded ---


def recorded(record: Mapping[str, Any]) -> tuple[str, str]:
    """The file or module that the recipe of a run came from, if any, and the name that finds the recipe again.

    Raises:
        InputError: it is code that this person never named: a record, which may come from anywhere, must not
            say what is run.
    """
    name, origin = str(record["recipe"]), record.get("origin") or {}
    source = str(origin.get("file") or origin.get("module") or "")
    if not source:
        return "", f"{origin['package']}:{name}" if "package" in origin else name
    if source in current().named:
        return source, f"{source}:{name}"
    if "file" not in origin:
        _require_known_module(name, source)
    elif file_of(source) is None:  # what is published has no paths
        raise InputError(
            f"the recipe '{name}' of this run is in a file of its author's", "name yours: --recipe FILE.py"
        )
    elif not is_known(source):
        raise InputError(
            f"the recipe '{name}' of this run is in '{source}', which was not used here before",
            f"if you trust it, name it: --recipe {source}",
        )
    return source, f"{source}:{name}"


def _require_known_module(recipe: str, module: str) -> None:
    place = location(module)
    if not place:
        raise InputError(
            f"the recipe '{recipe}' of this run is in the module '{module}', which is not found here",
            "start lmtasks where it can be imported, or set PYTHONPATH",
        )
    if not is_known(module, place):
        raise InputError(
            f"the recipe '{recipe}' of this run is in '{module}' ({place}), which was not used here before",
            f"if you trust it, name it: --plugin {module}",
        )


def recorded_recipe(record: Mapping[str, Any], catalog: Catalog) -> Recipe:
    """The recipe that a run was made with.

    Raises:
        InputError: it is no longer there.
    """
    source, name = recorded(record)
    if not source:
        return catalog.recipe(name)
    said = current()
    with selected([*said.named, source], builtins_only=said.builtins_only):
        return load_catalog().recipe(name)


def _trace(text: str) -> None:
    if traces():
        print(f"plugins: {text}", file=sys.stderr)


def _milliseconds(began: float) -> str:
    return f"{(time.perf_counter() - began) * 1000:.0f}"
