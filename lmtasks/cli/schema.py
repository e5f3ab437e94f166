"""``lmtasks schema``: what the YAML of a recipe may hold, as JSON Schema."""

from __future__ import annotations

from lmtasks.cli.answers import tell
from lmtasks.cli.argv import told_of
from lmtasks.cli.lookup import found


def command(words: list[str]) -> int:
    """Print the schema."""
    (word,), _ = told_of(words, "lmtasks schema RECIPE", names=1)
    catalog, name = found(word, light=False)
    from lmtasks.config.json_schema import schema_of

    return tell(schema_of(catalog.watched(catalog.recipes[name])), [], as_json=True)
