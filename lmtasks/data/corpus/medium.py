"""Text, the medium that is built in: how its documents are found and read."""

from __future__ import annotations

import datasets

from lmtasks.api import Medium
from lmtasks.data.corpus.columns import UntoldError, text_path
from lmtasks.data.corpus.duplicates import count_duplicates
from lmtasks.data.corpus.memory import of_strings
from lmtasks.data.corpus.read import load_files
from lmtasks.data.corpus.split import text_flags


def _text_column(rows: datasets.Dataset, name: str | None, source: str) -> tuple[datasets.Dataset, tuple[str, ...]]:
    try:
        column = text_path(rows.features.arrow_schema, name, source)
    except UntoldError as error:
        raise (error.showing(rows[0]) if len(rows) else error) from None
    return rows.select_columns([column[0]]), column


TEXT = Medium(
    name="text",
    suffixes=(),  # those of the formats, which plugins have as well
    files=load_files,
    items=of_strings,
    select=_text_column,
    filled=text_flags,
    duplicates=count_duplicates,
)
