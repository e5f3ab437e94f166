"""``lmtasks list``: the recipes that are installed."""

from __future__ import annotations

import sys

from lmtasks.cli.argv import told_of
from lmtasks.cli.catalog_cache import told
from lmtasks.cli.report import print_json


def command(words: list[str]) -> int:
    """Print a line for each recipe, and on stderr one for each plugin that is broken or was left out."""
    _, said = told_of(words, "lmtasks list", switches=("all", "json"))
    rows, notes = recipe_rows(everything="all" in said)
    for line in notes:
        print(f"warning: {line}", file=sys.stderr)
    if "json" in said:
        print_json(rows)
        return 0
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['summary']}")
    return 0


def recipe_rows(*, everything: bool = False) -> tuple[list[dict[str, str]], list[str]]:
    """Name, summary and owner of the recipes, and a line for each plugin that is broken or was left out.

    Args:
        everything: import also what imports torch or the like at its top.
    """
    recipes, plugins = told(everything=everything)
    notes = [f"{plugin['title']} is broken: {problem}" for plugin in plugins for problem in plugin["problems"]]
    notes += [
        f"{plugin['title']} is slow: it {plugin['slow']}; lmtasks list --all shows its recipes"
        for plugin in plugins
        if plugin["slow"]
    ]
    return [{key: row[key] for key in ("name", "summary", "owner")} for row in recipes], notes
