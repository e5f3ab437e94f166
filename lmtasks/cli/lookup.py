"""The recipe that somebody typed, or that a run was made with, in the catalog of what is installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmtasks.cli.argv import asks_help, loose
from lmtasks.errors import InputError
from lmtasks.progress import fitted
from lmtasks.registry.enabled_plugins import also, file_of

if TYPE_CHECKING:
    from lmtasks.api import Recipe
    from lmtasks.registry.catalog import Catalog


def installed(*, light: bool = False) -> Catalog:
    """The catalog; with ``light`` without plugins that import what is heavy."""
    # Not at the top: reading the metadata of what is installed is most of what a start costs.
    from lmtasks.registry.catalog import load_catalog

    return load_catalog(light=light)


def found(word: str, *, light: bool) -> tuple[Catalog, str]:
    """The catalog, and its name of the recipe that was typed, which may be in a file.

    Args:
        light: import what is heavy only if the recipe is nowhere else.
    """
    count_file(word)
    catalog = installed(light=light)
    try:
        return catalog, catalog.find(word)
    except InputError:
        if not any(plugin.slow for plugin in catalog.plugins):
            raise
    catalog = installed()
    return catalog, catalog.find(word)


def asked(words: list[str], command: str, usage: str) -> tuple[Catalog, str] | None:
    """The catalog, and its name of the recipe that a command begins with; None where only help was asked for, and told.

    Args:
        words: behind the command; where its ``--config`` has to name the recipe, the name is put before them.
        usage: of the command, behind the recipe.
    """
    words[:0] = [_named_in_config(words)] if words and words[0].startswith("-") and not asks_help(words) else []
    if words and words[0] and not words[0].startswith("-"):
        return found(words[0], light=asks_help(words))
    if not asks_help(words):
        raise InputError(f"{command} needs a recipe", f"one of: {', '.join(installed(light=True).recipes)}")
    print(*fitted([f"usage: lmtasks {command} RECIPE {usage}"], sys.stdout), "", sep="\n")
    print(f"lmtasks list shows the recipes; lmtasks {command} RECIPE --help its flags")
    return None


def _named_in_config(words: Sequence[str]) -> str:
    """The recipe that the file of ``--config`` names; empty where none does."""
    file = loose(words)[0].get("config")
    if file is None:
        return ""
    from lmtasks.config.request import RECIPE, read_yaml

    return str(read_yaml(file).get(RECIPE, ""))


def count_file(word: str) -> None:
    """Let a file that was typed as a recipe count as a plugin."""
    if file := file_of(word):
        also(file[0])


def fitting(run_or_model: str, typed: str | None, revision: str) -> tuple[Catalog, Recipe]:
    """The catalog, and its recipe that was typed, that a run was made with, or that takes the model."""
    from lmtasks.artifacts.run_folder import read_record
    from lmtasks.inference.fitting_recipe import recipe_of
    from lmtasks.registry.recorded import recorded

    wanted = typed
    if typed:
        count_file(typed)
    elif (record := read_record(run_or_model)) and record.get("status") == "done":
        source, wanted = recorded(record)
        if source:
            also(source)
    catalog = installed()
    return catalog, recipe_of(run_or_model, catalog, wanted, revision)
