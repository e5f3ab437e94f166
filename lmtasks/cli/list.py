"""``lmtasks list``: the recipes that are installed, the engines or the launchers."""

from __future__ import annotations

from lmtasks.cli.answers import tell_rows
from lmtasks.cli.argv import told_of
from lmtasks.cli.catalog_cache import told
from lmtasks.progress import complain

KINDS = ("engines", "launchers")
"""What else there is to be listed than recipes."""


def command(words: list[str]) -> int:
    """Print a line for each of them, and on stderr one for each plugin that is broken or was left out."""
    _, said = told_of(words, "lmtasks list", switches=("all", *KINDS, "json"))
    kind = next((kind for kind in KINDS if kind in said), None)
    rows, notes = _rows_of(kind) if kind else recipe_rows(everything="all" in said)
    for line in notes:
        complain(f"warning: {line}")
    width = max((len(row["name"]) for row in rows), default=0)
    return tell_rows(rows, [f"{row['name']:<{width}}  {row['summary']}" for row in rows], as_json="json" in said)


def _rows_of(kind: str) -> tuple[list[dict[str, str]], list[str]]:
    """Name, summary and owner of the engines or launchers, and a line for each plugin that is broken."""
    plugins = told().plugins
    notes = [f"{plugin['title']} is broken: {problem}" for plugin in plugins for problem in plugin["problems"]]
    return [{**one, "owner": plugin["name"]} for plugin in plugins for one in plugin[kind]], notes


def recipe_rows(*, everything: bool = False) -> tuple[list[dict[str, str]], list[str]]:
    """Name, summary and owner of the recipes, and a line for each plugin that is broken or was left out."""
    recipes, plugins = told(everything=everything)
    notes = [f"{plugin['title']} is broken: {problem}" for plugin in plugins for problem in plugin["problems"]]
    notes += [
        f"{plugin['title']} is slow: it {plugin['slow']}; lmtasks list --all shows its recipes"
        for plugin in plugins
        if plugin["slow"]
    ]
    return [{key: row[key] for key in ("name", "summary", "owner")} for row in recipes], notes
