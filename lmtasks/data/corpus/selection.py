"""The text of each row: of one column, of several by a template, or of a conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets.fingerprint import Hasher

from lmtasks.api import ReadSettings
from lmtasks.data.corpus.columns import CHATS, bad_row, first_mixed, strings, text_path
from lmtasks.errors import InputError

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

Rows: TypeAlias = pa.Table | Sequence[Mapping[str, Any]]


@dataclass
class Selection:
    """The way from the rows of one source to their texts; what the source does not leave open is found once.

    Args:
        name: what to call the source in messages.
        settings: the columns, where somebody named them.
    """

    name: str
    settings: ReadSettings
    _paths: tuple[tuple[str, ...], ...] | None = field(default=None, init=False)

    @property
    def label(self) -> str:
        """What to call the column of the texts: the path as it is typed, or ``text`` where it is made of several."""
        if self._paths is None or self.settings.text_template is not None:
            return "text"
        return ".".join(self._paths[0])

    def columns(self, schema: pa.Schema) -> list[str]:
        """The columns that are needed of those that there are.

        Raises:
            InputError: a column that is not there, holds no text, or cannot be told.
        """
        if self._paths is None:
            self._paths = tuple(self._path(schema, name) for name in self._names(schema))
        return [*dict.fromkeys(path[0] for path in self._paths)]

    def texts(self, rows: Rows, seen: int = 0) -> pa.Array:
        """The texts of rows, null where a row has none: string array [rows].

        Args:
            seen: rows of the source before these, for messages.

        Raises:
            InputError: a row that holds something else; names it.
        """
        if self._paths is None:
            self.columns(rows.schema if isinstance(rows, pa.Table) else _schema(rows))
        assert self._paths is not None
        if not isinstance(rows, pa.Table):
            self._require_no_better(rows, seen)
        columns = [self._column(rows, path, seen) for path in self._paths]
        if self.settings.text_template is None:
            return columns[0]
        for path, column in zip(self._paths, columns, strict=True):
            if column.null_count:  # told by the column that has none, not by the text that is made of several
                raise bad_row(path, self.name, seen + pc.index(column.is_null(), True).as_py() + 1, "no text (null)")
        return _filled(self.settings.text_template, columns)

    def _names(self, schema: pa.Schema) -> list[str | None]:
        if self.settings.text_template is not None:
            return [*fields_of(self.settings.text_template)]
        if self.settings.chat and self.settings.text_column is None:
            found = [name for name in schema.names if name in CHATS]
            if not found:
                known = ", ".join(schema.names)
                raise InputError(f"{self.name} has no column of conversations: it has {known}", "--text_column NAME")
            return [found[0]]
        return [self.settings.text_column]

    def _path(self, schema: pa.Schema, name: str | None) -> tuple[str, ...]:
        if self.settings.chat:
            if name not in schema.names:
                return text_path(schema, name, self.name)  # which says what there is
            return (str(name),)
        top = next((known for known in schema.names if f"{name}.".startswith(f"{known}.")), None)
        if name is not None and top is not None and _is_mixed(schema.field(top).type):
            return (top, *name[len(top) + 1 :].split(".")) if name != top else (top,)
        return text_path(schema, name, self.name)

    def _require_no_better(self, rows: Sequence[Mapping[str, Any]], seen: int) -> None:
        """Refuse a column ``text`` that comes after the rows by which another one was taken for the text."""
        settings = self.settings
        if settings.text_column or settings.text_template or settings.chat or self.label == "text":
            return
        late = next((number for number, row in enumerate(rows, start=seen + 1) if "text" in row), None)
        if late is not None:
            raise InputError(
                f"row {late} of {self.name} has a column 'text', and the first rows had only '{self.label}'",
                "--text_column NAME",
            )

    def _column(self, rows: Rows, path: tuple[str, ...], seen: int) -> pa.Array:
        if not isinstance(rows, pa.Table):
            cell = self._chat if self.settings.chat else _text
            texts = []
            for number, row in enumerate(rows, start=seen + 1):
                try:
                    texts.append(cell(row.get(path[0]), path[1:]))
                except TypeError as error:
                    raise bad_row(path, self.name, number, "a value that is not text") from error
            return _array(texts, path, self.name, seen)
        if path[0] not in rows.column_names:
            return pa.nulls(len(rows), pa.string())
        if self.settings.chat:
            return pa.array([self._chat(cell, ()) for cell in rows[path[0]].to_pylist()], pa.string())
        chunks = rows[path[0]].chunks
        cells = chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)
        if isinstance(cells, pa.ExtensionArray) and (mixed := first_mixed(cells)) is not None:
            raise bad_row(path, self.name, seen + mixed + 1, "a value that is not text")
        texts = strings(cells, path[1:])
        return texts if pa.types.is_string(texts.type) else texts.cast(pa.string())

    def _chat(self, cell: Any, path: Sequence[str]) -> str | None:
        """A conversation as JSON, to be rendered when its tokenizer is known."""
        if cell is None or isinstance(cell, str):
            return cell
        return json.dumps(cell, ensure_ascii=False, default=str)


def made_of_columns(
    splits: Mapping[str, datasets.Dataset], settings: ReadSettings, name: str
) -> tuple[dict[str, datasets.Dataset], str | None]:
    """Splits whose texts stand in one column, and what that is called, if it is known."""
    if settings.text_template is None and not settings.chat:
        return {**splits}, settings.text_column

    def made(split: datasets.Dataset) -> datasets.Dataset:
        selection = Selection(name, settings)
        selection.columns(split.features.arrow_schema)
        rows = split.with_format("arrow").map(
            lambda rows, places: pa.table({"text": selection.texts(rows, places[0])}),
            with_indices=True,
            batched=True,
            remove_columns=split.column_names,
            # Datasets would take the code for the same whatever the settings are that it has.
            new_fingerprint=Hasher.hash((split._fingerprint, settings.text_template, settings.chat, selection.label)),
        )
        return rows.with_format(None)

    return {part: made(split) for part, split in splits.items()}, "text"


def fields_of(template: str) -> list[str]:
    """The names of the columns in a template, ``{title}: {answers.text}``; ``{{`` and ``}}`` are braces.

    Raises:
        InputError: a brace that is alone, a name that is empty, or no name at all.
    """
    names = []
    for match in _FIELD.finditer(template):
        if match[0] in ("{", "}") or match[1] == "":
            raise InputError(
                f"--text_template has {match[0]!r} at character {match.start() + 1}, which names no column",
                "--text_template '{title}: {body}'; a brace is written twice",
            )
        if match[1] is not None:
            names.append(match[1])
    if not names:
        raise InputError(f"--text_template '{template}' names no column", "--text_template '{title}: {body}'")
    return names


def _filled(template: str, columns: Sequence[pa.Array]) -> pa.Array:
    """The template with the texts of the columns, in order, in the places of their names; null where one is."""
    parts: list[Any] = []
    place, rest = 0, iter(columns)
    text = ""
    for match in _FIELD.finditer(template):
        text += template[place : match.start()]
        place = match.end()
        if match[1] is None:
            text += match[0][0]
        else:
            parts += [pa.scalar(text), next(rest)]
            text = ""
    return pc.binary_join_element_wise(*parts, pa.scalar(text + template[place:]), pa.scalar(""))


def _schema(rows: Sequence[Mapping[str, Any]]) -> pa.Schema:
    """The columns of rows that Python holds, with the types that their values have; those of several types as JSON."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.schema([(name, _type([row.get(name) for row in rows])) for name in names])


def _type(values: Sequence[Any]) -> pa.DataType:
    try:
        return pa.array(values).type
    except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError):
        return pa.json_(pa.string())


def _is_mixed(kind: pa.DataType) -> bool:
    return getattr(kind, "extension_name", None) == "arrow.json"


def _text(value: Any, path: Sequence[str]) -> str | None:
    """The text of a cell, joined as in :func:`.columns.strings`.

    Raises:
        TypeError: it holds something else.
    """
    if isinstance(value, list):
        parts = [_text(item, path) for item in value]
        return None if None in parts else " ".join(part for part in parts if part is not None)
    if path and isinstance(value, Mapping):
        return _text(value.get(path[0]), path[1:])
    if value is None or (isinstance(value, str) and not path):
        return value
    raise TypeError(type(value).__name__)


def _array(texts: list[str | None], path: Sequence[str], name: str, seen: int) -> pa.Array:
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        for number, text in enumerate(texts, start=seen + 1):
            try:
                (text or "").encode()
            except UnicodeEncodeError as error:
                half = f"half a surrogate pair, \\u{ord(error.object[error.start]):04x},"
                raise bad_row(path, name, number, half) from error
        raise
