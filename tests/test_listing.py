"""What ``lmtasks list`` remembers, and that it forgets it when anything has changed."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from lmtasks import listing
from lmtasks.catalog import load_catalog
from lmtasks.listing import recipe_rows

PLUGIN = """
import dataclasses
from lmtasks import hookimpl
from lmtasks.builtin.masked_lm import MASKED_LM
from {package}.words import SUMMARY

@hookimpl
def lmtasks_recipes():
    return [dataclasses.replace(MASKED_LM, name="remembered", summary=SUMMARY)]
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # It exists, because the folder that it lies in is on the search path and would change with it.
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "cache"


def write(path: Path, text: str) -> None:
    """Write a module, with a time of its own, and let Python forget the old one."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))
    for name in [name for name in sys.modules if name.partition(".")[0] == path.parent.name]:
        del sys.modules[name]
    importlib.invalidate_caches()


def install(folder: Path, package: str, summary: str) -> Path:
    """A package with a recipe, installed as far as Python can see."""
    home = folder / package
    home.mkdir()
    write(home / "words.py", f"SUMMARY = {summary!r}")
    write(home / "__init__.py", PLUGIN.format(package=package))
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[lmtasks]\nplug = {package}\n")
    importlib.invalidate_caches()
    return home


def summaries() -> dict[str, str]:
    return {row["name"]: row["summary"] for row in recipe_rows()[0]}


def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often the catalog is loaded from here on."""
    count: list[int] = []

    def counted() -> object:
        count.append(1)
        return load_catalog()

    monkeypatch.setattr("lmtasks.catalog.load_catalog", counted)
    return count


def test_rows_are_those_of_the_catalog() -> None:
    catalog = load_catalog()
    expected = [
        {"name": recipe.name, "summary": recipe.summary, "owner": catalog.owner(recipe.name).name}
        for recipe in catalog.recipes.values()
    ]
    assert recipe_rows() == (expected, []), "found"
    assert recipe_rows() == (expected, []), "remembered"


def test_what_is_remembered_costs_no_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe_rows()
    count = loads(monkeypatch)
    recipe_rows()
    assert not count


def test_an_installation_is_seen_at_once(tmp_path: Path) -> None:
    assert "remembered" not in summaries()
    install(tmp_path, "listing_new", "fresh")
    assert summaries()["remembered"] == "fresh"


@pytest.mark.parametrize("module", ["words.py", "__init__.py"])
def test_an_edit_in_any_file_of_a_plugin_is_seen_at_once(module: str, tmp_path: Path) -> None:
    package = f"listing_edit_{module[0:2]}".replace("_", "x")
    home = install(tmp_path, package, "before")
    assert summaries()["remembered"] == "before"
    if module == "words.py":
        write(home / module, "SUMMARY = 'after'")
    else:
        write(home / module, PLUGIN.format(package=package).replace("summary=SUMMARY", "summary='after'"))
    assert summaries()["remembered"] == "after"


def test_a_broken_plugin_is_told_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = install(tmp_path, "listingbroken", "good")
    write(home / "words.py", "1 / 0")
    count = loads(monkeypatch)
    for _ in range(2):
        _, broken = recipe_rows()
        assert broken == ["listingbroken:plug 1.0 is broken: ZeroDivisionError: division by zero"]
    assert len(count) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rows": []}'])
def test_a_damaged_memory_is_no_memory(content: str, cache: Path) -> None:
    right = recipe_rows()
    (file,) = (cache / "lmtasks").iterdir()
    file.write_text(content)
    assert recipe_rows() == right


def test_no_place_to_remember_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert recipe_rows()[0]
    assert listing._read(listing._file()) is None
