"""``lmtasks show``: one recipe in detail."""

from __future__ import annotations

from lmtasks.cli.argv import told_of
from lmtasks.cli.catalog_cache import described, told
from lmtasks.cli.lookup import found
from lmtasks.cli.report import print_json


def command(words: list[str]) -> int:
    """Print what a recipe is and what its options are."""
    (word,), said = told_of(words, "lmtasks show RECIPE", names=1)
    recipe = next((one for one in told().recipes if one["name"] == word), None)
    recipe = recipe or described(*found(word, light=True))
    if "json" in said:
        print_json(recipe)
        return 0
    print(f"{recipe['name']}: {recipe['summary']}\n")
    for key in ("owner", "model_class", "pipeline", "attention", "metrics"):
        print(f"{key:<12} {recipe[key]}")
    print("\noptions")
    for option in recipe["options"]:
        print(f"  --{option['name']:<24} {option['help']} (default: {option['default']})")
    print(f"\ntry  lmtasks run {word}")
    return 0
