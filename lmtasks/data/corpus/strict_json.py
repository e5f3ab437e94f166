"""JSON read for its text alone, as it is written.

The JSON builder of ``datasets`` takes the types of the first ten megabytes for those of all files. What differs
later it converts without a word: a number becomes text, and where numbers and text meet, the text gets quotation
marks. Columns that only some files have stop it. Here only the text column counts, and nothing is converted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from datasets.packaged_modules.json.json import Json, JsonConfig

from lmtasks.data.corpus.columns import holds_text, strings, text_path
from lmtasks.errors import InputError


class NotTextError(InputError):
    """A batch whose text column holds something else; ``path`` is for a search of the row that is to blame."""

    def __init__(self, path: tuple[str, ...], source: str, kind: str) -> None:
        super().__init__(
            f"column '{'.'.join(path)}' of {source} holds {kind}, not text, in some rows", "--text_column NAME"
        )
        self.path = path


@dataclass
class StrictJsonConfig(JsonConfig):
    """Options of the builder: the column as typed, None to guess, and a name of the files for messages."""

    text_column: str | None = None
    source: str = "the JSON files"


class StrictJson(Json):
    """Yields one string column, named as the user would: ``answers.text``."""

    BUILDER_CONFIG_CLASS = StrictJsonConfig
    _path: tuple[str, ...] | None = None

    def _cast_table(self, pa_table: pa.Table, json_field_paths: Sequence[Sequence[str | int]] = ()) -> pa.Table:
        """Called by the builder for each batch, before it goes to the cache."""
        # Values of several types, and objects of several shapes, come replaced by their JSON.
        encoded = [tuple(step for step in steps if isinstance(step, str)) for steps in json_field_paths]
        path = self._path = self._path or self._find(pa_table.schema, encoded)
        if path in encoded:
            raise NotTextError(path, self.config.source, "values of several types")
        if path[0] not in pa_table.column_names:
            texts = pa.nulls(len(pa_table), pa.string())
        elif any(path[: len(steps)] == steps for steps in encoded):
            texts = pa.array([self._text(cell, path[1:]) for cell in pa_table[path[0]].to_pylist()], pa.string())
        elif holds_text(pa_table.schema, path):
            chunks = [strings(chunk, path[1:]).cast(pa.string()) for chunk in pa_table[path[0]].chunks]
            texts = pa.chunked_array(chunks, pa.string())
        else:
            raise NotTextError(path, self.config.source, str(pa_table.schema.field(path[0]).type))
        return pa.table({".".join(path): texts})

    def _find(self, schema: pa.Schema, encoded: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        """The path of the text column, some of which may be hidden in JSON."""
        name = self.config.text_column or ("text" if "text" in schema.names else None)
        if name is not None:
            path = tuple(name.split("."))
            hidden = any(path[: len(steps)] == steps for steps in encoded)
            return path if hidden else text_path(schema, name, self.config.source)
        plain = [field for field in schema if field.name not in {steps[0] for steps in encoded if steps}]
        return text_path(pa.schema(plain), None, self.config.source)

    def _text(self, value: Any, path: Sequence[str]) -> str | None:
        """The text of one cell of objects of several shapes, joined as in :func:`.columns.strings`."""
        if path and isinstance(value, str):
            value = json.loads(value)
        if isinstance(value, list):
            parts = [self._text(item, path) for item in value]
            return None if None in parts else " ".join(part for part in parts if part is not None)
        if path and isinstance(value, dict):
            return self._text(value.get(path[0]), path[1:])
        if value is None or (isinstance(value, str) and not path):
            return value
        raise NotTextError(self._path or (), self.config.source, type(value).__name__)
