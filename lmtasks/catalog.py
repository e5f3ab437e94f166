"""The catalog: what is installed, who owns it, and what is broken and why.

Plugins are found by entry points of the group ``lmtasks``. Each is imported and registered on its
own, as ``distribution:entry-point``, so that no plugin can take another down or hide it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, TypeVar

import pluggy

from lmtasks import hookspecs
from lmtasks.architecture import Architecture
from lmtasks.errors import InputError, nearest
from lmtasks.recipe import API_VERSION, Recipe

GROUP = "lmtasks"

Declaration = TypeVar("Declaration", Recipe, Architecture)


@dataclass(frozen=True)
class Plugin:
    """A distribution's entry point and what came of loading it."""

    distribution: str
    version: str
    entry_point: str
    module: str = ""
    recipes: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    broken: str = ""

    @property
    def name(self) -> str:
        """``distribution:entry-point``, under which pluggy knows it."""
        return f"{self.distribution}:{self.entry_point}"


@dataclass(frozen=True)
class Catalog:
    """Recipes and architectures by name, with their owners."""

    recipes: Mapping[str, Recipe]
    architectures: Mapping[str, Architecture]
    plugins: tuple[Plugin, ...]

    def recipe(self, name: str) -> Recipe:
        """The recipe of that name.

        Raises:
            InputError: there is none; names the nearest, or the broken plugin that would have it.
        """
        if name in self.recipes:
            return self.recipes[name]
        for plugin in self.plugins:
            if plugin.broken and name == plugin.entry_point:
                raise InputError(
                    f"recipe '{name}' is broken: {plugin.name} {plugin.version}: {plugin.broken}",
                    "lmtasks plugins shows all plugins; upgrade or uninstall this one",
                )
        raise InputError(
            f"unknown recipe '{name}'{nearest(name, self.recipes)}",
            f"lmtasks list shows what is installed: {', '.join(self.recipes)}",
        )

    def owner(self, name: str) -> Plugin:
        """The plugin that declared the recipe of that name."""
        return next(plugin for plugin in self.plugins if name in plugin.recipes)


class BrokenPluginError(Exception):
    """Why a plugin cannot be used, in one line."""


def load_catalog(entry_points: Iterable[metadata.EntryPoint] | None = None) -> Catalog:
    """Load every plugin.

    Args:
        entry_points: what to load instead of the installed entry points of group ``lmtasks``.
    """
    manager = pluggy.PluginManager("lmtasks")
    manager.add_hookspecs(hookspecs)
    recipes: dict[str, Recipe] = {}
    architectures: dict[str, Architecture] = {}
    plugins: list[Plugin] = []
    found = metadata.entry_points(group=GROUP) if entry_points is None else entry_points
    for distribution, version, entry_point in _in_order(found):
        identity: dict[str, Any] = {
            "distribution": distribution,
            "version": version,
            "entry_point": entry_point.name,
            "module": entry_point.module,
        }
        try:
            own_recipes, own_architectures = _load(manager, entry_point, f"{distribution}:{entry_point.name}")
            _refuse_taken("recipe", own_recipes, plugins)
            _refuse_taken("architecture", own_architectures, plugins)
        # A plugin is a stranger's code: SystemExit and errors of any kind must not stop the others.
        except (Exception, SystemExit) as error:
            plugins.append(Plugin(**identity, broken=_reason(error)))
            continue
        recipes.update(own_recipes)
        architectures.update(own_architectures)
        plugins.append(Plugin(**identity, recipes=tuple(own_recipes), architectures=tuple(own_architectures)))
    return Catalog(recipes, architectures, tuple(plugins))


def _in_order(entry_points: Iterable[metadata.EntryPoint]) -> list[tuple[str, str, metadata.EntryPoint]]:
    """Distribution, version and entry point: lmtasks' own first, so that nobody can take their names."""
    return sorted(
        ((*_distribution(entry_point), entry_point) for entry_point in entry_points),
        key=lambda found: (found[0] != "lmtasks", found[0], found[2].name),
    )


def _distribution(entry_point: metadata.EntryPoint) -> tuple[str, str]:
    """Name and version of the package that brings the entry point."""
    # Each look at name or version parses the package's metadata anew.
    about = entry_point.dist.metadata if entry_point.dist else None
    return (about["Name"], about["Version"]) if about else ("unknown", "0")


def _load(
    manager: pluggy.PluginManager, entry_point: metadata.EntryPoint, name: str
) -> tuple[dict[str, Recipe], dict[str, Architecture]]:
    module = entry_point.load()
    manager.register(module, name)
    try:
        _refuse_misspelt(module)
        recipes = {recipe.name: recipe for recipe in _declared(manager, "lmtasks_recipes", name, Recipe)}
        architectures = {
            architecture.model_type: architecture
            for architecture in _declared(manager, "lmtasks_architectures", name, Architecture)
        }
    except BaseException:
        manager.unregister(name=name)
        raise
    return recipes, architectures


def _refuse_misspelt(module: Any) -> None:
    """pluggy ignores a hook that it has no spec for; here that is an error."""
    known = [name for name in vars(hookspecs) if name.startswith("lmtasks_")]
    for name, value in vars(module).items():
        if getattr(value, "lmtasks_impl", None) is not None and name not in known:
            raise BrokenPluginError(f"there is no hook '{name}'{nearest(name, known)}")


def _declared(manager: pluggy.PluginManager, hook: str, plugin: str, kind: type[Declaration]) -> Iterator[Declaration]:
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        if implementation.plugin_name != plugin:
            continue
        for declaration in implementation.function():
            if not isinstance(declaration, kind):
                raise BrokenPluginError(f"{hook} must return {kind.__name__} objects, got {declaration!r}")
            if declaration.api_version != API_VERSION:
                raise BrokenPluginError(
                    f"written for version {declaration.api_version} of the contract, this lmtasks has {API_VERSION}"
                )
            yield declaration


def _refuse_taken(kind: str, names: Iterable[str], plugins: Iterable[Plugin]) -> None:
    for plugin in plugins:
        for name in names:
            if name in (plugin.recipes if kind == "recipe" else plugin.architectures):
                raise BrokenPluginError(f"{kind} '{name}' already belongs to {plugin.name}")


def _reason(error: BaseException) -> str:
    """One line: the kind of error, unless it is ours, and the first line of what it says."""
    text = (str(error).splitlines() or [""])[0]
    if isinstance(error, BrokenPluginError):
        return text
    return f"{type(error).__name__}: {text}".rstrip(": ")
