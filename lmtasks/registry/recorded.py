"""The recipe of a run, found again by what the run's record says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmtasks.api import Recipe
from lmtasks.errors import InputError
from lmtasks.registry.catalog import Catalog, load_catalog
from lmtasks.registry.discovery import location
from lmtasks.registry.enabled_plugins import current, file_of, is_known, selected


def recorded(record: Mapping[str, Any]) -> tuple[str, str]:
    """The file or module that the recipe of a run came from, if any, and the name that finds the recipe again.

    Raises:
        InputError: it is code that this person never named: a record, which may come from anywhere, must not
            say what is run.
    """
    name, said = str(record["recipe"]), record.get("origin")
    origin = said if isinstance(said, Mapping) else {}
    source = str(origin.get("file") or origin.get("module") or "")
    if not source:
        return "", f"{origin['package']}:{name}" if "package" in origin else name
    if source in current().named:
        return source, f"{source}:{name}"
    place = "" if "file" in origin else location(source)
    where = hint = ""
    if "file" in origin and file_of(source) is None:  # what is published has no paths
        where, hint = "a file of its author's", "name yours: --recipe FILE.py"
    elif "file" not in origin and not place:
        where = f"the module '{source}', which is not found here"
        hint = "start lmtasks where it can be imported, or set PYTHONPATH"
    elif not is_known(source, place):
        at, flag = (f" ({place})", "--plugin") if place else ("", "--recipe")
        where, hint = f"'{source}'{at}, which was not used here before", f"if you trust it, name it: {flag} {source}"
    if where:
        raise InputError(f"the recipe '{name}' of this run is in {where}", hint)
    return source, f"{source}:{name}"


def recorded_recipe(record: Mapping[str, Any], catalog: Catalog) -> Recipe:
    """The recipe that a run was made with.

    Raises:
        InputError: it is no longer there.
    """
    source, name = recorded(record)
    if not source:
        return catalog.recipe(name)
    said = current()
    with selected([*said.named, source], builtins_only=said.builtins_only):
        return load_catalog().recipe(name)
