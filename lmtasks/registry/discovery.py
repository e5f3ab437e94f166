"""Finding plugins: the entry points of installed packages, and the modules and files that somebody named."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Iterable
from functools import partial
from importlib import metadata
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, NoReturn

from lmtasks.errors import nearest_path
from lmtasks.registry.enabled_plugins import BUILTIN, file_of
from lmtasks.registry.plugin import BrokenPluginError, Plugin

GROUP = "lmtasks"

LONGEST = 300
"""Characters of a reason; some errors quote whole files."""


def installed(entry_points: Iterable[metadata.EntryPoint] | None = None) -> list[Plugin]:
    """The plugins of installed packages: lmtasks' own first, so that nobody can take their names."""
    found = _entry_points() if entry_points is None else [_source(entry_point) for entry_point in entry_points]
    return sorted(found, key=lambda plugin: (plugin.distribution != BUILTIN, plugin.distribution, plugin.entry_point))


def _entry_points() -> list[Plugin]:
    try:
        return [_source(entry_point) for entry_point in metadata.entry_points(group=GROUP)]
    except Exception:  # the file of any one package, ours to load or not, may be damaged
        return [source for distribution in metadata.distributions() for source in _entry_points_of(distribution)]


def _entry_points_of(distribution: metadata.Distribution) -> list[Plugin]:
    """The same for one package whose file may be damaged."""
    try:
        return [_source(entry_point) for entry_point in distribution.entry_points if entry_point.group == GROUP]
    except Exception as error:
        try:
            ours = f"[{GROUP}]" in (distribution.read_text("entry_points.txt") or "")
        except Exception:  # not even text
            ours = False
        reason = f"its entry_points.txt is damaged: {reason_of(error)}"
        return [Plugin(*_about(distribution), "?", "", partial(_refuse, reason))] if ours else []


def _source(entry_point: metadata.EntryPoint) -> Plugin:
    about = _about(entry_point.dist)
    try:
        return Plugin(*about, entry_point.name, entry_point.module, entry_point.load)
    except Exception:
        reason = f"its entry point '{entry_point.value}' is neither a module nor module:object"
        return Plugin(*about, entry_point.name, "", partial(_refuse, reason))


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


def named(source: str) -> Plugin:
    """A module or a file that a person named, and that no package brings."""
    if file := file_of(source):
        return Plugin(file[0], "", "", os.path.basename(file[0]), partial(_import_file, file[0]), "file")
    return Plugin(source, "", "", source, partial(_import_module, source), "module")


def _import_module(name: str) -> ModuleType:
    search_here()
    return importlib.import_module(name)


def search_here() -> None:
    """Let modules of the folder that a command is in be found, too."""
    # At the end, so that nothing in this folder hides what is installed.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())


def location(module: str) -> str:
    """The file that a module is made of, or would be, without importing anything; empty when there is none."""
    search_here()
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
        raise BrokenPluginError(f"there is no such file{nearest_path(os.path.relpath(path))}")
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


def version_of(package: str) -> str:
    """The version of a package that is installed; empty when it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def unmet(distribution: str) -> list[tuple[str, str, str]]:
    """Requirements of a package that are there in another version: name, version, and what is asked for."""
    from packaging.requirements import Requirement

    asked = [each for each in map(Requirement, metadata.requires(distribution) or ()) if not each.marker]
    found = [(each.name, version_of(each.name), each.specifier) for each in asked]
    return [(name, there, str(want)) for name, there, want in found if there and not want.contains(there, True)]


def reason_of(error: BaseException) -> str:
    """One line: the kind of error, unless it is ours, and the first line of what it says."""
    try:
        text = (str(error).strip().splitlines() or [""])[0]
    except Exception:  # an error whose own text is broken
        text = ""
    if not isinstance(error, BrokenPluginError):
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
