"""``lmtasks doctor``: what is installed, what the machine has, and what is broken.

Nothing here may fail because something that it looks at does, so whatever it imports or measures
ends as a line of the report.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtasks.cli.argv import told_of
from lmtasks.cli.lookup import installed
from lmtasks.cli.report import print_json
from lmtasks.errors import RunError
from lmtasks.registry.discovery import reason_of
from lmtasks.registry.enabled_plugins import BUILTIN, allowed_packages, cache_home, normal

if TYPE_CHECKING:
    from lmtasks.registry.catalog import Catalog

LIBRARIES = {
    "torch": "torch",
    "transformers": "transformers",
    "datasets": "datasets",
    "evaluate": "evaluate",
    "accelerate": "accelerate",
    "huggingface-hub": "huggingface_hub",
}
"""Packages that every run needs, and the modules that they bring."""

HERE = "this folder"
"""Where runs go; what else lies there is nobody's business."""

SCARCE = 2**30
"""Bytes of free disk below which a run may end early."""

PATIENCE = 10.0
"""Seconds for which the files of a cache are counted."""


def command(words: list[str]) -> int:
    """Print the report; fail where something is broken."""
    _, said = told_of(words, "lmtasks doctor")
    found = examine(installed(light=True))
    print_json(found) if "json" in said else print("\n".join(lines(found)))
    if problems := found["problems"]:
        raise RunError(
            f"{len(problems)} broken: {'; '.join(problems)}", "see what each says; --no_plugins does without"
        )
    return 0


def examine(catalog: Catalog) -> dict[str, Any]:
    """Everything that doctor reports.

    Returns:
        what there is, by topic; ``notes`` are worth knowing, ``problems`` are what is broken, each in one line.
    """
    versions, broken = _versions()
    caches, notes = _caches()
    plugins = [_plugin(plugin) for plugin in catalog.plugins]
    problems = [f"{plugin.title}: {problem}" for plugin in catalog.plugins for problem in plugin.problems]
    notes += [f"{plugin.title}: {plugin.slow}" for plugin in catalog.plugins if plugin.slow]
    present = {normal(plugin.distribution) for plugin in catalog.plugins}
    absent = sorted((allowed_packages() or set()) - present)
    notes += [f"LMTASKS_PLUGINS names '{name}', which is no installed plugin" for name in absent]
    return {
        "versions": versions,
        "devices": _devices(),
        "hub": _hub(),
        "caches": caches,
        "plugins": plugins,
        "notes": notes,
        "problems": [*broken, *problems],
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    rows = list(found["versions"].items())
    rows += [("device", f"{device['name']}, bfloat16 {_native(device)}") for device in found["devices"]]
    hub = found["hub"]
    asked = "is not asked" if hub["offline"] else f"is asked at {hub['endpoint']}"
    rows.append(("Hub", f"{asked}; {'a token is there' if hub['token'] else 'no token'}"))
    rows += [
        (cache["name"], f"{cache['path']}: {_size(cache)}{_amount(cache['free'])} free") for cache in found["caches"]
    ]
    rows += [("plugin", f"{plugin['title']}: {plugin['state']}") for plugin in found["plugins"]]
    rows += [("note", note) for note in found["notes"]]
    rows += [("BROKEN", problem) for problem in found["problems"]]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def _native(device: Mapping[str, Any]) -> str:
    return "native" if device["bfloat16"] else "not native"


def _size(cache: Mapping[str, Any]) -> str:
    if cache["bytes"] is None:
        return ""
    return f"{'' if cache['counted'] else 'more than '}{_amount(cache['bytes'])}, "


def _amount(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _plugin(plugin: Any) -> dict[str, Any]:
    return {"title": plugin.title, "state": plugin.state, **plugin.as_json()}


def _versions() -> tuple[dict[str, str], list[str]]:
    """What is installed in which version, and what of it does not work or is too old."""
    versions = {"lmtasks": _version(BUILTIN), "Python": platform.python_version()}
    problems = []
    for package, module in LIBRARIES.items():
        versions[package] = _version(package)
        try:
            import_module(module)
        # A library for another machine fails in many ways, and each is worth a line.
        except Exception as error:
            problems.append(f"{package}: {reason_of(error)}")
    return versions, [*problems, *_outdated()]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _outdated() -> list[str]:
    """Packages in versions that lmtasks does not support."""
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(line) for line in metadata.requires(BUILTIN) or ()]
    except (ImportError, metadata.PackageNotFoundError):  # then there is nothing to compare with
        return []
    found = {each.name: _version(each.name) for each in wanted if each.marker is None}
    return [
        f"{each.name} {found[each.name]}: lmtasks needs {each.specifier}"
        for each in wanted
        if found.get(each.name, "not installed") != "not installed"
        and not each.specifier.contains(found[each.name], prereleases=True)
    ]


def _devices() -> list[dict[str, Any]]:
    """The processor and the accelerators, and whether each multiplies bfloat16 by itself."""
    try:
        import torch

        from lmtasks.training import precision

        cpu = f"cpu, {torch.get_num_threads()} threads"
        devices = [{"name": cpu, "bfloat16": precision.native_on_cpu()}]
        if torch.accelerator.is_available():
            kind = torch.accelerator.current_accelerator()
            native = precision.native_on_accelerator()
            names = [f"{kind}:{number}" for number in range(torch.accelerator.device_count())]
            devices += [{"name": f"{name}{_model(name)}", "bfloat16": native} for name in names]
    except Exception:  # told among the versions
        return []
    return devices


def _model(device: str) -> str:
    import torch

    return f" {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else ""


def _hub() -> dict[str, Any]:
    """Whether the Hub would be asked, and as somebody; never as whom."""
    try:
        from huggingface_hub import constants, get_token

        return {
            "endpoint": constants.ENDPOINT,
            "offline": bool(constants.HF_HUB_OFFLINE),
            "token": get_token() is not None,
        }
    except Exception:  # told among the versions
        return {"endpoint": "", "offline": True, "token": False}


def _caches() -> tuple[list[dict[str, Any]], list[str]]:
    """Where things are kept, how much is there, and how much more there is room for."""
    places = {"HF_HOME": os.environ.get("HF_HOME") or os.path.join(os.path.expanduser("~"), ".cache", "huggingface")}
    # Where somebody has them apart.
    apart = {"HF_HUB_CACHE": os.environ.get("HF_HUB_CACHE"), "HF_DATASETS_CACHE": os.environ.get("HF_DATASETS_CACHE")}
    places |= {name: path for name, path in apart.items() if path}
    places |= {"lmtasks' cache": cache_home(), HERE: _here()}
    caches: list[dict[str, Any]] = []
    notes: list[str] = []
    for name, path in places.items():
        try:
            there = next(place for place in (Path(path), *Path(path).absolute().parents) if os.path.exists(place))
            free = shutil.disk_usage(there).free
        except (OSError, StopIteration) as error:  # no permission, no such path, a folder that is gone
            notes.append(f"{name}: '{path}' cannot be looked at: {reason_of(error)}")
            continue
        size, counted = (None, True) if name == HERE else _bytes(path)
        caches.append({"name": name, "path": path, "bytes": size, "counted": counted, "free": free})
        notes += [f"{name}: only {_amount(free)} free"] if free < SCARCE else []
        notes += [] if os.access(there, os.W_OK) else [f"{name}: '{path}' cannot be written"]
    return caches, notes


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # somebody has deleted it
        return os.curdir


def _bytes(folder: str) -> tuple[int, bool]:
    """The size of all files, and whether there was time to see them all."""
    size, end = 0, time.monotonic() + PATIENCE
    for entry in _files(folder):
        size += entry
        if time.monotonic() > end:
            return size, False
    return size, True


def _files(folder: str) -> Iterator[int]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            # The Hub's cache links to its files, which count once.
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            elif entry.is_file(follow_symlinks=False):
                yield entry.stat(follow_symlinks=False).st_size
        except OSError:  # gone meanwhile
            continue
