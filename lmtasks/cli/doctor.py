"""``lmtasks doctor``: what is installed, what the machine has, and what is broken.

Nothing here may fail because something that it looks at does, so whatever it imports or measures
ends as a line of the report.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtasks.cli.answers import tell_rows
from lmtasks.cli.argv import told_of
from lmtasks.cli.lookup import installed
from lmtasks.config import caches
from lmtasks.errors import RunError
from lmtasks.registry.discovery import reason_of, unmet, version_of
from lmtasks.registry.enabled_plugins import BUILTIN, allowed_packages, normal

if TYPE_CHECKING:
    from lmtasks.registry.catalog import Catalog

LIBRARIES = ("torch", "transformers", "datasets", "evaluate", "accelerate", "huggingface-hub")
"""Packages that every run needs."""

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
    done = tell_rows(found, lines(found), as_json="json" in said)
    if problems := found["problems"]:
        told = f"{len(problems)} broken: {'; '.join(problems)}"
        raise RunError(told, "see what each says; --no_plugins does without")
    return done


def examine(catalog: Catalog) -> dict[str, Any]:
    """The report by topic; ``notes`` are worth knowing, ``problems`` are broken, each in one line."""
    versions, broken = _versions()
    caches, notes = _caches()
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
        "plugins": [plugin.as_json() for plugin in catalog.plugins],
        "notes": notes,
        "problems": [*broken, *problems],
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    rows = list(found["versions"].items())
    native = {True: "native", False: "not native"}
    rows += [("device", f"{device['name']}, bfloat16 {native[device['bfloat16']]}") for device in found["devices"]]
    hub = found["hub"]
    asked = "is not asked" if hub["offline"] else f"is asked at {hub['endpoint']}"
    rows.append(("Hub", f"{asked}; {'a token is there' if hub['token'] else 'no token'}"))
    for cache in found["caches"]:
        at_least = "" if cache["counted"] else "more than "
        size = "" if cache["bytes"] is None else f"{at_least}{_amount(cache['bytes'])}, "
        rows.append((cache["name"], f"{cache['path']}: {size}{_amount(cache['free'])} free"))
    rows += [("plugin", f"{plugin['title']}: {plugin['state']}") for plugin in found["plugins"]]
    rows += [("note", note) for note in found["notes"]]
    rows += [("BROKEN", problem) for problem in found["problems"]]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def _amount(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _versions() -> tuple[dict[str, str], list[str]]:
    """The version of each package, and the problems of those that do not work or are too old."""
    versions = {"lmtasks": version_of(BUILTIN), "Python": platform.python_version()}
    versions |= {package: version_of(package) for package in LIBRARIES}
    problems = []
    for package in LIBRARIES:
        try:
            import_module(package.replace("-", "_"))
        # A library for another machine fails in many ways, and each is worth a line.
        except Exception as error:
            problems.append(f"{package}: {reason_of(error)}")
    with suppress(ImportError, metadata.PackageNotFoundError):  # then there is nothing to compare with
        problems += [f"{name} {there}: lmtasks needs {asked}" for name, there, asked in unmet(BUILTIN)]
    return {name: version or "not installed" for name, version in versions.items()}, problems


def _devices() -> list[dict[str, Any]]:
    """The processor and the accelerators, and whether each multiplies bfloat16 by itself."""
    try:
        import torch

        from lmtasks.training import precision

        devices = [{"name": f"cpu, {torch.get_num_threads()} threads", "bfloat16": precision.native_on_cpu()}]
        if torch.accelerator.is_available():
            kind, native = torch.accelerator.current_accelerator(), precision.native_on_accelerator()
            for name in (f"{kind}:{number}" for number in range(torch.accelerator.device_count())):
                model = f" {torch.cuda.get_device_name(name)}" if name.startswith("cuda") else ""
                devices.append({"name": f"{name}{model}", "bfloat16": native})
    except Exception:  # told among the versions
        return []
    return devices


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
    """The folders where things are kept with their sizes and the room that is left, and notes on these."""
    places = {"HF_HOME": caches.libraries()}
    # Where somebody has them apart.
    places |= {name: os.environ[name] for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE") if os.environ.get(name)}
    places |= {"lmtasks' cache": caches.own(), HERE: os.curdir}
    found: list[dict[str, Any]] = []
    notes: list[str] = []
    for name, path in places.items():
        try:
            path = os.getcwd() if name == HERE else path
            there = next(place for place in (Path(path), *Path(path).absolute().parents) if os.path.exists(place))
            free = shutil.disk_usage(there).free
        except (OSError, StopIteration) as error:  # no permission, no such path, a folder that is gone
            notes.append(f"{name}: '{path}' cannot be looked at: {reason_of(error)}")
            continue
        size, counted = (None, True) if name == HERE else _bytes(path)
        found.append({"name": name, "path": path, "bytes": size, "counted": counted, "free": free})
        notes += [f"{name}: only {_amount(free)} free"] * (free < SCARCE)
        notes += [f"{name}: '{path}' cannot be written"] * (not os.access(there, os.W_OK))
    return found, notes


def _bytes(folder: str) -> tuple[int, bool]:
    """The size of all files, and whether there was time to see them all."""
    size, end = 0, time.monotonic() + PATIENCE
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone meanwhile
                # The Hub's cache links to its files, which count once.
                about = os.lstat(os.path.join(place, name))
                size += about.st_size if stat.S_ISREG(about.st_mode) else 0
            if time.monotonic() > end:
                return size, False
    return size, True
