"""Kinds of data files: how their names end, and the way from a file to its rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lmtasks.api.medium import ReadSettings
from lmtasks.api.references import Reference, defer
from lmtasks.api.version import API_VERSION

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


class Reading(Protocol):
    """What a reader of files is told about the file that it reads."""

    @property
    def name(self) -> str:
        """The file as the user calls it, for messages."""

    @property
    def settings(self) -> ReadSettings:
        """How files are to be read."""

    def columns(self, schema: pa.Schema) -> list[str]:
        """The columns that are needed of those that the file has; only these need be read.

        Raises:
            InputError: none of them is the text.
        """


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of data file.

    Args:
        name: what ``--format`` calls it: lower case and digits.
        suffixes: how the names of such files end, ``(".srt",)``.
        read: (path, :class:`Reading`) to the rows of the file, in order: strings, each a document; or mappings
            from the names of columns to values; or Arrow tables, for speed. May be given as ``"module:function"``.
            What it raises as ValueError is told as a fault of the file.
        characters: whether such a file is nothing but characters: it is handed over in UTF-8 then, whatever
            ``--encoding`` it is in.
        api_version: the version of this contract that it was written for.

    Raises:
        ValueError: a name or a suffix of the wrong shape.
    """

    name: str
    suffixes: Sequence[str]
    read: Callable[[Path, Reading], Iterator[str | Mapping[str, Any] | pa.Table]] | Reference
    characters: bool = False
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]*", self.name):
            raise ValueError(f"name of a format {self.name!r} must be one word in lower case")
        for suffix in self.suffixes:
            if not re.fullmatch(r"(\.[a-z0-9_+-]+)+", suffix):
                raise ValueError(f"format '{self.name}': suffix {suffix!r} must look like '.srt'")
        defer(self, f"format '{self.name}'", "read")
