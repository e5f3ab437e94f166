"""The support of model types: whether each runs with a recipe, and how that was found out.

It was measured beforehand, on tiny models of every type (``benchmarks/architectures.py``), so that the
answer takes no torch. Of a version of transformers that was not measured, and of plugins, nothing is claimed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from lmtasks.api import Recipe
from lmtasks.registry.catalog import Catalog

FILE = Path(__file__).with_name("support.json")

State = Literal["runs", "limited", "refused", "declared", "in a package"]
"""The support of a type.

- runs: a tiny model of it passed the checks of docs/testing.md;
- limited: the same, but for what its notes say;
- refused: it cannot be trained, or not so that it would mean anything;
- declared: a plugin declares it, and ``lmtasks architectures RECIPE --prove TYPE`` measures it;
- in a package: proved, but its package is not installed here.
"""


@dataclass(frozen=True)
class Row:
    """One model type with one recipe.

    Args:
        notes: limits, or the reason; short lines.
        package: the plugin that brings it, where it is not in transformers.
    """

    model_type: str
    state: State
    notes: tuple[str, ...] = ()
    package: str = ""

    def line(self) -> str:
        """For people."""
        about = "; ".join(filter(None, [self.package, *self.notes]))
        return f"{self.model_type:<28} {self.state:<13} {about}".rstrip()

    def as_json(self) -> dict[str, Any]:
        """For ``--json`` and the file."""
        return asdict(self)


@cache
def recorded() -> dict[str, Any]:
    """The file: ``versions``, ``date``, and the rows of each recipe."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def rows(recipe: Recipe, catalog: Catalog) -> list[Row]:
    """The rows of the types that the recipe can train, by name.

    A recipe that was not measured has the rows of one that was, if it trains models of the same class.
    """
    alike = (catalog.recipes[name] for name in recorded()["recipes"] if name in catalog.recipes)
    measured = next((one.name for one in alike if one.model_class == recipe.model_class), "")
    known = {row["model_type"]: _row(row, catalog) for row in recorded()["recipes"].get(measured, ())}
    auto = recipe.model_class.partition(":")[2]
    for kind, architecture in catalog.architectures.items():
        if kind not in known and auto in architecture.models:
            owner = next(plugin.distribution for plugin in catalog.plugins if kind in plugin.architectures)
            known[kind] = Row(kind, "declared", (), owner)
    return [known[kind] for kind in sorted(known)]


def _row(row: Mapping[str, Any], catalog: Catalog) -> Row:
    package = row.get("package", "")
    there = not package or any(plugin.distribution == package for plugin in catalog.plugins if not plugin.problems)
    return Row(row["model_type"], row["state"] if there else "in a package", tuple(row.get("notes", ())), package)


def package_of(kind: str) -> str:
    """The package that brings a model type, as far as is known; empty when there is none."""
    every = (row for of_recipe in recorded()["recipes"].values() for row in of_recipe)
    return next((row["package"] for row in every if row["model_type"] == kind and row.get("package")), "")


def heading() -> str:
    """With what it was measured, and what is installed where that is something else."""
    measured = recorded()["versions"]["transformers"]
    installed = metadata.version("transformers")
    other = "" if installed == measured else f"; {installed} is installed"
    return f"measured with transformers {measured}{other}"
