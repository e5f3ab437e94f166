"""``lmtasks plugins``: what brought the recipes, and what is broken."""

from __future__ import annotations

from lmtasks.cli.argv import told
from lmtasks.cli.lookup import installed
from lmtasks.cli.report import print_json


def command(words: list[str]) -> int:
    """Print a line for each plugin."""
    _, said = told(words, "lmtasks plugins")
    catalog = installed(light=True)
    if "json" in said:
        print_json([plugin.as_json() for plugin in catalog.plugins])
        return 0
    for plugin in catalog.plugins:
        print(f"{plugin.title}: {plugin.state}")
    return 0
