"""A plugin in a module of its own, in a folder with a text and a model."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def plugin_folder(
    place: Path, kind: str, code: str, text: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """While this is open, the current folder is one with the plugin, ``text.txt`` and ``model``; the module's name."""
    name = f"{kind}_{place.name}"
    shutil.copy(text, place / "text.txt")
    shutil.copytree(model, place / "model")
    (place / f"{name}.py").write_text(code)
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setattr(sys, "path", [str(place), *sys.path])
    yield name
    sys.modules.pop(name, None)
