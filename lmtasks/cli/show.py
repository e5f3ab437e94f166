"""``lmtasks show``: one recipe in detail."""

from __future__ import annotations

from typing import Any

from lmtasks.api import describe, options_of
from lmtasks.cli.argv import told
from lmtasks.cli.list_cache import recipe_row
from lmtasks.cli.lookup import found
from lmtasks.cli.report import print_json
from lmtasks.registry.catalog import Catalog


def command(words: list[str]) -> int:
    """Print what a recipe is and what its options are."""
    (word,), said = told(words, "lmtasks show RECIPE", names=1)
    catalog, name = found(word, light=True)
    described = _described(catalog, name)
    if "json" in said:
        print_json(described)
        return 0
    print(f"{name}: {described['summary']}\n")
    for key in ("owner", "model_class", "pipeline", "attention", "metrics"):
        print(f"{key:<12} {described[key]}")
    print("\noptions")
    for option in described["options"]:
        print(f"  --{option['name']:<24} {option['help']} (default: {option['default']})")
    print(f"\ntry  lmtasks run {word}")
    return 0


def _described(catalog: Catalog, name: str) -> dict[str, Any]:
    recipe = catalog.recipes[name]
    return {
        **recipe_row(catalog, name),
        "model_class": recipe.model_class,
        "pipeline": recipe.pipeline,
        "attention": recipe.attention,
        "metrics": ", ".join(recipe.metrics),
        "options": [
            {"name": option.name, "type": describe(option), "default": option.default, "help": option.help}
            for option in options_of(recipe.options).values()
        ],
    }
