"""``lmtasks plugins``: what brought the recipes, and what is broken."""

from __future__ import annotations

from lmtasks.cli.answers import tell_rows
from lmtasks.cli.argv import told_of
from lmtasks.cli.catalog_cache import told


def command(words: list[str]) -> int:
    """Print a line for each plugin."""
    _, said = told_of(words, "lmtasks plugins")
    plugins = told().plugins
    return tell_rows(plugins, [f"{plugin['title']}: {plugin['state']}" for plugin in plugins], as_json="json" in said)
