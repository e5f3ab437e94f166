"""One plugin at a time: importing it, and asking it what it declares.

A plugin is a stranger's code. Whatever it does while it is imported or asked ends here, as a reason
in one line; only Ctrl-C passes through.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from lmtasks.api import (
    API_VERSION,
    HEAVY,
    Architecture,
    Engine,
    Extension,
    Format,
    Launcher,
    Recipe,
    WordSegmenter,
    hookspecs,
)
from lmtasks.config.commands import COMMANDS
from lmtasks.errors import nearest
from lmtasks.registry.discovery import reason_of, unmet
from lmtasks.registry.enabled_plugins import BUILTIN, normal
from lmtasks.registry.plugin import BrokenPluginError, Plugin

Declaration = TypeVar("Declaration", Recipe, Architecture, Engine, Extension, Format, Launcher, WordSegmenter)

_KEYS: dict[str, tuple[type, str]] = {
    "architectures": (Architecture, "model_type"),
    "engines": (Engine, "name"),
    "extensions": (Extension, "name"),
    "formats": (Format, "name"),
    "launchers": (Launcher, "name"),
    "word_segmenters": (WordSegmenter, "name"),
}
"""What hooks return, and by which field it is known, by the field of a plugin; recipes come in other ways, too."""


class HeavyImportError(BaseException):
    """A plugin imports something heavy at its top.

    No ImportError: plugins catch these, to do without what is not installed.
    """


def load(manager: pluggy.PluginManager, plugin: Plugin, known: Container[int], *, light: bool) -> None:
    """Import a plugin and ask it what it declares.

    Args:
        plugin: gets the answers as they come.
        known: ids of recipes of other plugins, which a module may import to make its own of them.
        light: refuse what is heavy; but for what a person named, which is there to be used.

    Raises:
        BrokenPluginError: it cannot be used.
        HeavyImportError: it needs what is heavy.
    """
    before = set(sys.modules)
    try:
        # What a plugin prints must not get into what a command prints.
        with redirect_stdout(sys.stderr), _without_heavy(light and plugin.kind == "package") as refused:
            module = plugin.get()
            if not refused:
                _ask(manager, plugin, module, known)
    except HeavyImportError:
        pass
    except KeyboardInterrupt:
        raise
    # SystemExit, and whatever else a stranger may have derived from it.
    except BaseException as error:
        if not refused:
            raise BrokenPluginError(f"{reason_of(error)}{_line_in(plugin, error)}{_wanted(plugin)}") from error
    if refused:
        if manager.has_plugin(plugin.name):
            manager.unregister(name=plugin.name)
        _forget(plugin.module.partition(".")[0], before)
        raise HeavyImportError(f"imports {refused[0]} at its top")


def _ask(manager: pluggy.PluginManager, plugin: Plugin, module: Any, known: Container[int]) -> None:
    if other := manager.get_name(module):
        raise BrokenPluginError(f"its module '{plugin.module}' is already that of {other}")
    manager.register(module, plugin.name)
    try:
        hooks = _require_hooks_well_spelt(module)
        recipes = [*_answers(manager, "lmtasks_recipes", plugin)]
        if plugin.kind != "package" and "lmtasks_recipes" not in hooks:
            values = {id(value): value for value in vars(module).values() if isinstance(value, Recipe)}
            recipes = [recipe for identity, recipe in values.items() if identity not in known]
        plugin.claims = tuple(answer.name for answer in recipes if isinstance(answer, Recipe))
        plugin.recipes = _checked("lmtasks_recipes", recipes, Recipe, "name")
        for field, (kind, key) in _KEYS.items():
            hook = f"lmtasks_{field}"
            setattr(plugin, field, _checked(hook, _answers(manager, hook, plugin), kind, key))
        _require_names_once(plugin)
    except BaseException:
        manager.unregister(name=plugin.name)
        raise


def _require_hooks_well_spelt(module: Any) -> set[str]:
    """The hooks that a module implements; pluggy ignores what it has no spec for, here that is an error."""
    known = [name for name in vars(hookspecs) if name.startswith("lmtasks_")]
    hooks = set()
    for name, value in vars(module).items():
        marked = inspect.isroutine(value) and getattr(value, "lmtasks_impl", None) is not None
        if marked and name not in known:
            raise BrokenPluginError(f"there is no hook '{name}'{nearest(name, known)}")
        if name in known and not marked:
            raise BrokenPluginError(f"{name} is not marked with @hookimpl")
        if marked:
            hooks.add(name)
    return hooks


def _answers(manager: pluggy.PluginManager, hook: str, plugin: Plugin) -> Iterator[Any]:
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        if implementation.plugin_name == plugin.name:
            answers = implementation.function()
            if not isinstance(answers, Iterable):
                raise BrokenPluginError(f"{hook} must return a list, got {answers!r}")
            yield from answers


def _checked(hook: str, answers: Iterable[Any], kind: type[Declaration], key: str) -> dict[str, Declaration]:
    checked: dict[str, Declaration] = {}
    for declaration in answers:
        if not isinstance(declaration, kind):
            raise BrokenPluginError(f"{hook} must return {kind.__name__} objects, got {declaration!r}")
        if (version := declaration.api_version) != API_VERSION:
            older = "lmtasks" if version > API_VERSION else "plugin"
            written = f"written for version {version} of the contract, this lmtasks has {API_VERSION}"
            raise BrokenPluginError(f"needs a newer {older}: {written}")
        name = getattr(declaration, key)
        if name in checked:
            raise BrokenPluginError(f"{hook} returns '{name}' twice")
        checked[name] = declaration
    return checked


def _require_names_once(plugin: Plugin) -> None:
    """Refuse a command that is built in, and what two declarations of the plugin call alike."""
    extensions = plugin.extensions.values()
    commands = [command.name for extension in extensions for command in extension.commands]
    trackers = [tracker for extension in extensions for tracker in extension.trackers]
    for kind, names in (("command", commands), ("tracker", trackers)):
        for name in names:
            if kind == "command" and name in COMMANDS:
                raise BrokenPluginError(f"the command '{name}' is built in")
            if names.count(name) > 1:
                raise BrokenPluginError(f"its extensions have the {kind} '{name}' twice")
    if len(plugin.prefixes) < len(plugin.engines) + len(plugin.extensions) + len(plugin.launchers):
        raise BrokenPluginError("two of its engines, extensions and launchers would have options of one name")


class _Refusal(Loader, MetaPathFinder):
    """Finds what is heavy, so that it counts as installed, and refuses to import it."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in HEAVY:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = any(finder.find_spec(name, path, target) for finder in others)
        return ModuleSpec(name, self) if found else None

    def exec_module(self, module: ModuleType) -> None:
        self.refused.append(module.__name__)
        raise HeavyImportError(module.__name__)


@contextmanager
def _without_heavy(light: bool) -> Iterator[list[str]]:
    """The imports that were refused meanwhile: a plugin may catch even that."""
    refusal = _Refusal()
    if light:
        sys.meta_path.insert(0, refusal)
    try:
        yield refusal.refused
    finally:
        if light:
            sys.meta_path.remove(refusal)


def _forget(package: str, before: Container[str]) -> None:
    """Take back what was imported of a package, which did not get all that it wanted."""
    if package != BUILTIN:
        for name in [name for name in sys.modules if name.partition(".")[0] == package and name not in before]:
            del sys.modules[name]


def _line_in(plugin: Plugin, error: BaseException) -> str:
    """The line of the plugin that was reached last; of a package with the name of the file."""
    steps = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if plugin.kind != "package":
        lines = [line for file, line in steps if str(file) == plugin.distribution]
        return f" (line {lines[-1]})" if lines else ""
    top = plugin.module.partition(".")[0]
    own = [(file.name, line) for file, line in steps if file.stem == top or file.parent.name == top]
    return f" ({own[-1][0]}, line {own[-1][1]})" if own and not isinstance(error, SyntaxError) else ""


def _wanted(plugin: Plugin) -> str:
    """The release of lmtasks that a broken plugin asks for, where this is another."""
    if plugin.kind != "package":
        return ""
    try:
        asked = (each for each in unmet(plugin.distribution) if normal(each[0]) == BUILTIN)
        return next((f"; it asks for lmtasks {wanted}, this is {own}" for _, own, wanted in asked), "")
    except Exception:  # no metadata, or odd ones: then there is nothing to add
        return ""
