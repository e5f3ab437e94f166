"""``lmtasks list``: the recipes that are installed."""

from __future__ import annotations

import sys

from lmtasks.cli.argv import told
from lmtasks.cli.list_cache import recipe_rows
from lmtasks.cli.report import print_json


def command(words: list[str]) -> int:
    """Print a line for each recipe, and on stderr one for each plugin that is broken or was left out."""
    _, said = told(words, "lmtasks list", switches=("all", "json"))
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
