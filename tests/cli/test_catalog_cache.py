"""What ``lmtasks list`` remembers, and that it forgets it when anything has changed."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from lmtasks.cli import catalog_cache as listing
from lmtasks.cli.list import recipe_rows
from lmtasks.registry.catalog import load_catalog
from lmtasks.registry.enabled_plugins import selected

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

    def counted(**arguments: bool) -> object:
        count.append(1)
        return load_catalog(**arguments)

    monkeypatch.setattr("lmtasks.registry.catalog.load_catalog", counted)
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


BROKEN = ["listingbroken:plug 1.0 is broken: ZeroDivisionError: division by zero (words.py, line 1)"]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A broken plugin, as ``lmtasks list`` has told once."""
    home = install(tmp_path, "listingbroken", "good")
    write(home / "words.py", "1 / 0")
    assert recipe_rows()[1] == BROKEN
    return home


def test_a_broken_plugin_is_told_every_time_and_loaded_once(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe_rows()  # pytest has a variable that says whether a test is set up or called
    count = loads(monkeypatch)
    for _ in range(2):
        assert recipe_rows()[1] == BROKEN
    assert not count


def test_mending_a_file_of_a_broken_plugin_is_seen_at_once(broken: Path) -> None:
    write(broken / "words.py", "SUMMARY = 'mended'")
    assert recipe_rows()[1] == []
    assert summaries()["remembered"] == "mended"


def test_a_change_of_the_environment_may_have_mended_a_broken_plugin(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe_rows()  # pytest has a variable that says whether a test is set up or called
    count = loads(monkeypatch)
    monkeypatch.setenv("SHLVL", "99")
    recipe_rows()
    assert not count
    monkeypatch.setenv("WHAT_IT_NEEDS", "yes")
    assert recipe_rows()[1] == BROKEN
    assert len(count) == 1


@pytest.mark.parametrize("until", [1.0, 1e12], ids=["too long ago", "in a far future"])
def test_a_broken_plugin_is_looked_at_anew_after_a_while(
    until: float, broken: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = loads(monkeypatch)
    for file in (cache / "lmtasks").iterdir():
        file.write_text(json.dumps({**json.loads(file.read_text()), "until": until}))
    assert recipe_rows()[1] == BROKEN
    assert len(count) == 1


def test_a_plugin_that_is_not_there_any_more_or_no_module_is_no_error(tmp_path: Path) -> None:
    about = tmp_path / "gone-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: gone\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[lmtasks]\nplug = gone_for_good\nodd = not a module!\n")
    assert len(recipe_rows()[1]) == 2


def test_what_counts_is_part_of_what_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "listing_counts", "there")
    assert "remembered" in summaries()
    with selected(builtins_only=True):
        assert "remembered" not in summaries()
    monkeypatch.setenv("LMTASKS_PLUGINS", "")
    assert "remembered" not in summaries()
    monkeypatch.delenv("LMTASKS_PLUGINS")
    monkeypatch.setenv("LMTASKS_DISABLE_PLUGINS", "listing-counts")
    assert "remembered" not in summaries()
    monkeypatch.delenv("LMTASKS_DISABLE_PLUGINS")
    assert "remembered" in summaries()


def test_a_module_that_somebody_names_is_listed_and_not_remembered(tmp_path: Path) -> None:
    install(tmp_path, "listing_named", "there")
    shutil.rmtree(tmp_path / "listing_named-1.0.dist-info")
    with selected(["listing_named"]):
        assert "remembered" in summaries()
    assert "remembered" not in summaries()


SPOILT = '{"stamps": {}, "recipes": [], "plugins": [], "until": "soon", "environment": 0}'


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rows": []}', SPOILT])
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
