"""One plugin at a time: finding it, importing it, and asking it what it declares.

A plugin is a stranger's code. Whatever it does while it is imported or asked ends here, as a reason
in one line; only Ctrl-C passes through.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Literal, NoReturn, TypeVar

import pluggy

from lmtasks.api import API_VERSION, Architecture, Recipe, hookspecs
from lmtasks.errors import nearest
from lmtasks.registry.enabled_plugins import BUILTIN, file_of, normal

GROUP = "lmtasks"

HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "accelerate",
    "numpy",
    "pandas",
    "pyarrow",
    "huggingface_hub",
    "tokenizers",
    "tensorflow",
    "jax",
)
"""What a plugin must not import at its top: each of these takes longer than all that ``lmtasks list`` does."""

LONGEST = 300
"""Characters of a reason; some errors quote whole files."""

Declaration = TypeVar("Declaration", Recipe, Architecture)


class BrokenPluginError(Exception):
    """Why a plugin cannot be used, in one line."""


class HeavyImportError(BaseException):
    """A plugin imports something heavy at its top.

    No ImportError: plugins catch these, to do without what is not installed.
    """


@dataclass(frozen=True)
class Source:
    """Where a plugin comes from, before anything of it is imported.

    Args:
        distribution: the package; for others the name of the module or the path of the file.
        module: what is imported.
        get: imports it.
    """

    distribution: str
    version: str
    entry_point: str
    module: str
    get: Callable[[], Any]
    kind: Literal["package", "module", "file"] = "package"

    @property
    def name(self) -> str:
        """``distribution:entry-point``, or the module or the file."""
        return f"{self.distribution}:{self.entry_point}" if self.kind == "package" else self.distribution


@dataclass
class Declared:
    """What a plugin brings.

    Args:
        claims: names of recipes, also of those that turned out to be unusable.
    """

    recipes: dict[str, Recipe] = field(default_factory=dict)
    architectures: dict[str, Architecture] = field(default_factory=dict)
    claims: list[str] = field(default_factory=list)


# --- finding ---


def installed(entry_points: Iterable[metadata.EntryPoint] | None = None) -> list[Source]:
    """The plugins of installed packages: lmtasks' own first, so that nobody can take their names.

    Args:
        entry_points: instead of those that are installed.
    """
    found = _entry_points() if entry_points is None else [_source(entry_point) for entry_point in entry_points]
    return sorted(found, key=lambda source: (source.distribution != BUILTIN, source.distribution, source.entry_point))


def _entry_points() -> list[Source]:
    try:
        return [_source(entry_point) for entry_point in metadata.entry_points(group=GROUP)]
    except Exception:  # the file of any one package, ours to load or not, may be damaged
        return [source for distribution in metadata.distributions() for source in _entry_points_of(distribution)]


def _entry_points_of(distribution: metadata.Distribution) -> list[Source]:
    """The same for one package whose file may be damaged."""
    try:
        return [_source(entry_point) for entry_point in distribution.entry_points if entry_point.group == GROUP]
    except Exception as error:
        try:
            ours = f"[{GROUP}]" in (distribution.read_text("entry_points.txt") or "")
        except Exception:  # not even text
            ours = False
        reason = f"its entry_points.txt is damaged: {reason_of(error)}"
        return [Source(*_about(distribution), "?", "", partial(_refuse, reason))] if ours else []


def _source(entry_point: metadata.EntryPoint) -> Source:
    about = _about(entry_point.dist)
    try:
        return Source(*about, entry_point.name, entry_point.module, entry_point.load)
    except Exception:
        reason = f"its entry point '{entry_point.value}' is neither a module nor module:object"
        return Source(*about, entry_point.name, "", partial(_refuse, reason))


def _refuse(reason: str) -> NoReturn:
    raise BrokenPluginError(reason)


def _about(distribution: metadata.Distribution | None) -> tuple[str, str]:
    """Name and version of a package, whatever its metadata look like."""
    try:
        # Each look at name or version parses the package's metadata anew.
        about: Any = distribution.metadata if distribution else {}
        return str(about["Name"] or "unknown"), str(about["Version"] or "0")
    except Exception:
        return "unknown", "0"


def named(source: str) -> Source:
    """A module or a file that a person named, and that no package brings."""
    if file := file_of(source):
        return Source(file[0], "", "", os.path.basename(file[0]), partial(_import_file, file[0]), "file")
    return Source(source, "", "", source, partial(_import_module, source), "module")


def _import_module(name: str) -> ModuleType:
    _search_here()
    return importlib.import_module(name)


def _search_here() -> None:
    # At the end, so that nothing in this folder hides what is installed.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())


def location(module: str) -> str:
    """The file that a module is made of, or would be, without importing anything; empty when there is none."""
    _search_here()
    package, *names = module.split(".")
    try:
        spec = importlib.util.find_spec(package)
        for name in names:
            # Not find_spec again, which imports the packages that a module is in.
            inside = spec.submodule_search_locations if spec else None
            spec = PathFinder.find_spec(f"{spec.name}.{name}", inside) if spec and inside else None
    except (ImportError, ValueError):
        return ""
    return os.path.realpath(spec.origin) if spec and spec.origin and spec.has_location else ""


_files: dict[str, tuple[tuple[int, int], ModuleType]] = {}
"""Modules that were made of files, by path, with the size and time that the file had."""


def _import_file(path: str) -> ModuleType:
    """The module that a file is, made anew when the file has changed."""
    if not os.path.isfile(path):
        raise BrokenPluginError("there is no such file")
    about = os.stat(path)
    stamp = (about.st_mtime_ns, about.st_size)
    known = _files.get(path)
    if known and known[0] == stamp:
        return known[1]
    name = known[1].__name__ if known else _free_name(path)
    if os.path.dirname(path) not in sys.path:
        sys.path.append(os.path.dirname(path))  # for what lies beside it
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there for the types of their fields
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _files[path] = stamp, module
    return module


def _free_name(path: str) -> str:
    """The file's own name, so that ``my_recipe:MyModel`` finds what is in it; another where that is taken."""
    name = os.path.basename(path).removesuffix(".py")
    if name.isidentifier() and name not in sys.modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin == path:
            return name
    return f"lmtasks_file_{zlib.crc32(path.encode()):08x}"


# --- importing and asking ---


def load(
    manager: pluggy.PluginManager, source: Source, declared: Declared, known: Container[int], *, light: bool
) -> None:
    """Import a plugin and ask it what it declares.

    Args:
        declared: gets the answers as they come.
        known: ids of recipes of other plugins, which a module may import to make its own of them.
        light: refuse what is heavy; but for what a person named, which is there to be used.

    Raises:
        BrokenPluginError: it cannot be used.
        HeavyImportError: it needs what is heavy.
    """
    before = set(sys.modules)
    try:
        # What a plugin prints must not get into what a command prints.
        with redirect_stdout(sys.stderr), _without_heavy(light and source.kind == "package") as refused:
            module = source.get()
            if not refused:
                _register(manager, source, module)
                _ask(manager, source, module, declared, known)
    except HeavyImportError:
        pass
    except KeyboardInterrupt:
        raise
    # SystemExit, and whatever else a stranger may have derived from it.
    except BaseException as error:
        if not refused:
            raise BrokenPluginError(reason_of(error, _line_in(source, error), source)) from error
    if refused:
        if manager.has_plugin(source.name):
            manager.unregister(name=source.name)
        _forget(source.module.partition(".")[0], before)
        raise HeavyImportError(f"imports {refused[0]} at its top")


def _register(manager: pluggy.PluginManager, source: Source, module: Any) -> None:
    if other := manager.get_name(module):
        raise BrokenPluginError(f"its module '{source.module}' is already that of {other}")
    manager.register(module, source.name)


def _ask(manager: pluggy.PluginManager, source: Source, module: Any, declared: Declared, known: Container[int]) -> None:
    try:
        hooks = _require_hooks_well_spelt(module)
        recipes = [*_answers(manager, "lmtasks_recipes", source)]
        if source.kind != "package" and "lmtasks_recipes" not in hooks:
            values = {id(value): value for value in vars(module).values() if isinstance(value, Recipe)}
            recipes = [recipe for identity, recipe in values.items() if identity not in known]
        declared.claims += [answer.name for answer in recipes if isinstance(answer, Recipe)]
        declared.recipes = _checked("lmtasks_recipes", recipes, Recipe, lambda recipe: recipe.name)
        declared.architectures = _checked(
            "lmtasks_architectures",
            _answers(manager, "lmtasks_architectures", source),
            Architecture,
            lambda architecture: architecture.model_type,
        )
    except BaseException:
        manager.unregister(name=source.name)
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


def _answers(manager: pluggy.PluginManager, hook: str, source: Source) -> Iterator[Any]:
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        if implementation.plugin_name == source.name:
            yield from implementation.function()


def _checked(
    hook: str, answers: Iterable[Any], kind: type[Declaration], name: Callable[[Declaration], str]
) -> dict[str, Declaration]:
    checked: dict[str, Declaration] = {}
    for declaration in answers:
        if not isinstance(declaration, kind):
            raise BrokenPluginError(f"{hook} must return {kind.__name__} objects, got {declaration!r}")
        _require_version(declaration.api_version)
        if name(declaration) in checked:
            raise BrokenPluginError(f"{hook} returns '{name(declaration)}' twice")
        checked[name(declaration)] = declaration
    return checked


def _require_version(version: int) -> None:
    if version != API_VERSION:
        older = "lmtasks" if version > API_VERSION else "plugin"
        raise BrokenPluginError(
            f"needs a newer {older}: written for version {version} of the contract, this lmtasks has {API_VERSION}"
        )


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

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None  # an ordinary one

    def exec_module(self, module: ModuleType) -> None:
        self.refused.append(module.__name__)
        raise HeavyImportError(module.__name__)


@contextmanager
def _without_heavy(light: bool) -> Iterator[list[str]]:
    """What was refused meanwhile: a plugin may catch even that."""
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


# --- reasons ---


def reason_of(error: BaseException, where: str = "", source: Source | None = None) -> str:
    """One line: the kind of error, unless it is ours, and the first line of what it says."""
    try:
        text = (str(error).strip().splitlines() or [""])[0]
    except Exception:  # an error whose own text is broken
        text = ""
    if not isinstance(error, BrokenPluginError):
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return f"{text}{where}{_wanted(source)}"


def _line_in(source: Source, error: BaseException) -> str:
    """The line of a person's own file in which it happened."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == source.distribution:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line else ""


def _wanted(source: Source | None) -> str:
    """The release of lmtasks that a broken plugin asks for, where this is another."""
    if source is None or source.kind != "package":
        return ""
    try:
        from packaging.requirements import Requirement

        own = metadata.version(BUILTIN)
        requirements = map(Requirement, metadata.requires(source.distribution) or ())
        ours = [each.specifier for each in requirements if normal(each.name) == BUILTIN and not each.marker]
        unmet = [str(each) for each in ours if not each.contains(own, prereleases=True)]
    except Exception:  # no metadata, or odd ones: then there is nothing to add
        return ""
    return f"; it asks for lmtasks {unmet[0]}, this is {own}" if unmet else ""
