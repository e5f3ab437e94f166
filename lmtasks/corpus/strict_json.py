"""JSON read for its text alone, as it is written.

The JSON builder of ``datasets`` takes the types of the first ten megabytes for those of all files. What differs
later it converts without a word: a number becomes text, and where numbers and text meet, the text gets quotation
marks. Columns that only some files have stop it. Here only the text column counts, and nothing is converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from datasets.packaged_modules.json.json import Json, JsonConfig

from lmtasks.corpus.columns import holds_text, strings, text_path
from lmtasks.errors import InputError


class NotTextError(InputError):
    """A batch whose text column holds something else.

    Args:
        path: of the text column, for a search of the row that is to blame.
    """

    def __init__(self, path: tuple[str, ...], source: str, kind: str) -> None:
        super().__init__(
            f"column '{'.'.join(path)}' of {source} holds {kind}, not text, in some rows", "--text_column NAME"
        )
        self.path = path


@dataclass
class StrictJsonConfig(JsonConfig):  # type: ignore[misc]
    """Options of the builder.

    Args:
        text_column: as typed; None to guess.
        source: name of the files for messages.
    """

    text_column: str | None = None
    source: str = "the JSON files"


class StrictJson(Json):  # type: ignore[misc]
    """Yields one string column, named as the user would: ``answers.text``."""

    BUILDER_CONFIG_CLASS = StrictJsonConfig
    _path: tuple[str, ...] | None = None

    def _cast_table(self, pa_table: pa.Table, json_field_paths: Sequence[Sequence[str | int]] = ()) -> pa.Table:
        """Called by the builder for each batch, before it goes to the cache."""
        source = self.config.source
        if self._path is None:
            self._path = text_path(pa_table.schema, self.config.text_column, source)
        path = self._path
        # In such fields the builder has already replaced each value by its JSON.
        mixed = [[step for step in steps if isinstance(step, str)] for steps in json_field_paths]
        if any(steps == list(path[: len(steps)]) for steps in mixed):
            raise NotTextError(path, source, "values of several types")
        if not holds_text(pa_table.schema, path):
            raise NotTextError(path, source, str(pa_table.schema.field(path[0]).type))
        texts = _texts(pa_table, path)
        return pa.table({".".join(path): texts})


def _texts(table: pa.Table, path: tuple[str, ...]) -> pa.ChunkedArray:
    if path[0] not in table.column_names:
        return pa.chunked_array([pa.nulls(len(table), pa.string())])
    chunks = [strings(chunk, path[1:]).cast(pa.string()) for chunk in table[path[0]].chunks]
    return pa.chunked_array(chunks, pa.string())
