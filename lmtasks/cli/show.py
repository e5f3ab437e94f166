"""``lmtasks show``: one recipe in detail."""

from __future__ import annotations

from lmtasks.cli.answers import tell_rows
from lmtasks.cli.argv import told_of
from lmtasks.cli.catalog_cache import described, told
from lmtasks.cli.lookup import found


def command(words: list[str]) -> int:
    """Print what a recipe is and what its options are."""
    (word,), said = told_of(words, "lmtasks show RECIPE", names=1)
    recipe = next((one for one in told().recipes if one["name"] in (word, word.replace("_", "-"))), None)
    recipe = recipe or described(*found(word, light=True))
    about = [f"{key:<12} {recipe[key]}" for key in ("owner", "model_class", "pipeline", "attention", "metrics")]
    options = [f"  --{one['name']:<24} {one['help']} (default: {one['default']})" for one in recipe["options"]]
    name = recipe["name"]
    lines = [f"{name}: {recipe['summary']}\n", *about, "\noptions", *options, f"\ntry  lmtasks run {name}"]
    return tell_rows(recipe, lines, as_json="json" in said)
