"""``lmtasks plugins``: what brought the recipes, and what is broken."""

from __future__ import annotations

from lmtasks.cli.argv import told_of
from lmtasks.cli.catalog_cache import told
from lmtasks.cli.report import print_json


def command(words: list[str]) -> int:
    """Print a line for each plugin."""
    _, said = told_of(words, "lmtasks plugins")
    plugins = told().plugins
    if "json" in said:
        print_json([{key: one[key] for key in one if key not in ("title", "state", "problems")} for one in plugins])
        return 0
    for plugin in plugins:
        print(f"{plugin['title']}: {plugin['state']}")
    return 0
