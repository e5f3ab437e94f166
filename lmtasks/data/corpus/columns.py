"""The column that holds the text, and how its cells become strings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmtasks.errors import InputError, nearest

CHATS = frozenset({"messages", "conversations", "conversation"})
"""Columns that conversations are usually in."""


class UntoldError(InputError):
    """Nobody said which column is the text, and it cannot be guessed; whoever has a row may show it."""

    def showing(self, row: Mapping[str, Any]) -> InputError:
        """The same with the beginnings of what is in a row."""
        cells = ", ".join(f"{name}: {str(cell)[:24]!r}" for name, cell in [*row.items()][:6])
        return InputError(f"{self.message}; row 1 has {' '.join(cells[:160].split())}", self.hint)


def text_path(schema: pa.Schema, name: str | None, source: str) -> tuple[str, ...]:
    """The path of the text column: names of the column and of the fields inside it.

    Args:
        name: what the user typed, such as ``answers.text``; None to guess: ``text``, else the only string column.
        source: name of the data for messages.

    Raises:
        InputError: no such column, nothing to guess from, or a column that does not hold text.
    """
    path = _guess(schema, source) if name is None else _descend(schema, name)
    if path is None:
        known = list(_leaves(schema))
        raise InputError(
            f"no column '{name}' in {source}: it has {', '.join(known)}{nearest(str(name), known)}",
            "--text_column NAME; a dot reaches into a nested column",
        )
    if schema.names.count(path[0]) > 1:
        raise InputError(f"{source} has two columns named '{path[0]}'", "give data whose columns have different names")
    kind = schema.field(path[0]).type
    for field in path[1:]:
        kind = _item_type(kind).field(field).type
    # Datasets read values of several types from JSON; the row that is to blame is named later.
    if not _is_text(kind) and getattr(kind, "extension_name", None) != "arrow.json":
        raise InputError(
            f"column '{'.'.join(path)}' of {source} holds {kind}, not text, from row 1 on", "--text_column NAME"
        )
    return path


def strings(array: pa.Array, path: Sequence[str]) -> pa.Array:
    """The texts of one column, null where any part of the cell is null.

    ``path`` has the fields to descend into; lists on the way, and of strings, are joined with a space.
    """
    kind = array.type
    if _is_list(kind):
        return _joined(array, strings(array.flatten(), path))
    if pa.types.is_null(kind):
        return array.cast(pa.string())
    if pa.types.is_struct(kind):
        if kind.get_field_index(path[0]) < 0:
            return pa.nulls(len(array), pa.string())
        return strings(pc.struct_field(array, path[0]), path[1:])
    if isinstance(array, pa.ExtensionArray):
        return pa.array([json.loads(cell) for cell in array.storage.to_pylist()], pa.string())
    # Arrow computes little on views yet.
    return array.cast(pa.string()) if pa.types.is_string_view(kind) or pa.types.is_dictionary(kind) else array


def first_mixed(array: pa.Array) -> int | None:
    """Index of the first cell that is not text in a column that JSON gave several types, if any."""
    # Each cell of such a column is a JSON value: a string begins with a quotation mark.
    is_text = pc.fill_null(pc.starts_with(array.storage, '"'), False)
    position = pc.index(is_text, False).as_py()
    return None if position < 0 else int(position)


def bad_row(path: Sequence[str], source: object, number: int, what: str) -> InputError:
    """The error of a row, counting from 1, whose column does not hold text."""
    return InputError(
        f"row {number} of {source} has {what} in column '{'.'.join(path)}'",
        "remove or repair such rows, or name another column with --text_column",
    )


def _joined(lists: pa.Array, values: pa.Array) -> pa.Array:
    """One string per list. ``values`` are the texts of all lists' items, without gaps."""
    # flatten() skipped the items of null lists, so the offsets are counted anew.
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    joined = pc.binary_join(pa.LargeListArray.from_arrays(offsets, values.cast(pa.string())), " ")
    return pc.if_else(lists.is_valid(), joined, pa.scalar(None, joined.type))


def _guess(schema: pa.Schema, source: str) -> tuple[str, ...]:
    if "text" in schema.names:
        return ("text",)
    texts = [field.name for field in schema if _is_string(field.type)]
    # A record or a list that holds text may be meant as well: beside conversations, the only string is an id.
    possible = [field.name for field in schema if _reaches_text(field.type)]
    if len(texts) == len(possible) == 1:
        return (texts[0],)
    others = " and ".join(f"'{name}'" for name in possible if name not in texts)
    why = {0: "no column holds plain text", 1: f"'{texts[0]}' holds text, {others} may as well," if texts else ""}
    told = why.get(len(texts), f"{len(texts)} columns hold text")
    raise UntoldError(
        f"cannot tell which column of {source} is the text: {told} of {', '.join(_leaves(schema))}",
        "--chat, or --text_column NAME" if CHATS & {*schema.names} else "--text_column NAME",
    )


def _reaches_text(kind: pa.DataType) -> bool:
    """Whether text is in a column, or somewhere inside of its lists and records."""
    inner = _item_type(kind)
    if pa.types.is_struct(inner):
        return any(_reaches_text(field.type) for field in inner)
    return _is_text(inner) or getattr(inner, "extension_name", None) == "arrow.json"


def _descend(fields: pa.Schema | pa.StructType, name: str) -> tuple[str, ...] | None:
    """The path that a dotted name means; a field whose own name has dots is found as well."""
    names = [field.name for field in fields]
    if name in names:
        return (name,)
    for end in (i for i, letter in enumerate(name) if letter == "."):
        inner = _item_type(fields.field(name[:end]).type) if name[:end] in names else None
        rest = _descend(inner, name[end + 1 :]) if inner is not None and pa.types.is_struct(inner) else None
        if rest is not None:
            return (name[:end], *rest)
    return None


def _leaves(fields: pa.Schema | pa.StructType) -> Iterator[str]:
    for field in fields:
        inner = _item_type(field.type)
        if pa.types.is_struct(inner):
            yield from (f"{field.name}.{leaf}" for leaf in _leaves(inner))
        else:
            yield field.name


def _item_type(kind: pa.DataType) -> pa.DataType:
    """The type of a list's items, at any depth; any other type as it is."""
    return _item_type(kind.value_type) if _is_list(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    views = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return bool(views or pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    inner = _item_type(kind)
    return _is_string(inner) or (pa.types.is_dictionary(inner) and _is_string(inner.value_type))
