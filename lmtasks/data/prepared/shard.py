"""A shard: a part of a stream of tokens whose examples are whole, in one file of plain arrays."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmtasks.api import Blocks
from lmtasks.data.text.packing import Packed, cut
from lmtasks.data.text.tokenize import Stream

Array = np.ndarray[Any, Any]

SHORT, LONG = np.dtype("<u2"), np.dtype("<u4")
"""Numbers of two bytes, where a vocabulary needs no more, and of four."""

WIDEST = 1 << 16
"""Tokens of the largest vocabulary whose ids take two bytes."""


@dataclass(frozen=True)
class Shard:
    """An entry of a manifest.

    Args:
        file: its name, which has the beginning of its digest: what has another content has another name.
        arrays: kind and number of items of each array, in the order of the file.
    """

    file: str
    sha256: str
    bytes: int
    examples: int
    arrays: Mapping[str, tuple[str, int]]

    @classmethod
    def of(cls, name: str, arrays: Mapping[str, Array], examples: int) -> Shard:
        """The entry of these arrays, under a name that gets the beginning of their digest."""
        digest = hashlib.sha256()
        for array in arrays.values():
            digest.update(array.data)
        told = {name: (array.dtype.str, len(array)) for name, array in arrays.items()}
        size = sum(array.nbytes for array in arrays.values())
        return cls(f"{name}-{digest.hexdigest()[:16]}.bin", digest.hexdigest(), size, examples, told)

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Shard:
        """What a manifest has of one."""
        arrays = {name: (str(kind), int(count)) for name, (kind, count) in entry["arrays"].items()}
        return cls(str(entry["file"]), str(entry["sha256"]), int(entry["bytes"]), int(entry["examples"]), arrays)

    def as_record(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)


def write(arrays: Mapping[str, Array], path: Path) -> None:
    """Write the arrays into a file."""
    with path.open("wb") as file:
        for array in arrays.values():
            file.write(array.data)


def arrays_of(packed: Packed, first: int, last: int, ids: np.dtype[Any]) -> tuple[dict[str, Array], int]:
    """The arrays of a part of a stream that begins and ends with an example, and how many examples it has.

    Args:
        first, last: the places where it begins and ends.
        ids: the kind of the token ids.
    """
    stream = packed.stream
    begins, ends = np.searchsorted(stream.documents, [first, last])
    documents = stream.documents[begins:ends] - first
    words = None if stream.words is None else np.ascontiguousarray(stream.words[first:last])
    part = Stream(stream.ids[first:last], documents, words)
    local = cut(part, packed.blocks) if packed.blocks.line_by_line else _whole(part, packed.blocks)
    arrays = {"ids": part.ids.astype(ids), "documents": documents.astype(LONG)}
    arrays |= {} if words is None else {"words": words}
    arrays |= {"bare": local.bare.astype(LONG)} if packed.blocks.line_by_line else {}
    return arrays, len(local)


def _whole(stream: Stream, blocks: Blocks) -> Packed:
    return Packed(stream, blocks, np.zeros(1, np.int64), len(stream.ids))


class OpenShard:
    """A shard whose examples are read from its file as they are asked for.

    Not mapped: of a mapped file all that was ever touched counts as memory of the process, and in an order at random
    that is soon all of it.
    """

    def __init__(self, path: Path, shard: Shard, blocks: Blocks) -> None:
        self._file = path.open("rb", buffering=0)
        begin, arrays = 0, {}
        for name, (kind, count) in shard.arrays.items():
            arrays[name] = _OnDisk(self._file.fileno(), begin, np.dtype(kind), count)
            begin += arrays[name].dtype.itemsize * count
        # Searched in, so held here; a number for each document.
        documents = arrays["documents"][:].astype(np.int64)
        stream: Any = Stream(arrays["ids"], documents, arrays.get("words"))  # type: ignore[arg-type]
        self.packed = _whole(stream, blocks)
        if blocks.line_by_line:
            bare = arrays["bare"][:].astype(np.int64)
            self.packed = Packed(stream, blocks, documents, shard.arrays["ids"][1], bare=bare)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


class _OnDisk:
    """An array in a file, of which slices are read."""

    def __init__(self, file: int, begin: int, dtype: np.dtype[Any], count: int) -> None:
        self._file, self._begin, self.dtype, self._count = file, begin, dtype, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, where: slice) -> Array:
        first, last, _ = where.indices(self._count)
        size = self.dtype.itemsize
        # At a place of its own: processes that were forked share the file's.
        found = os.pread(self._file, (last - first) * size, self._begin + first * size)
        return np.frombuffer(found, self.dtype)


def opened_whole(path: Path, shard: Shard, **facts: Any) -> Stream:
    """The stream of a shard with ids of int32, mapped, as one that has just been tokenised.

    Args:
        facts: what a stream says of its text.
    """
    begin, arrays = 0, {}
    for name, (kind, count) in shard.arrays.items():
        dtype = np.dtype(kind)
        arrays[name] = np.memmap(path, dtype, "r", begin, count) if count else np.zeros(0, dtype)
        begin += dtype.itemsize * count
    return Stream(arrays["ids"], arrays["documents"].astype(np.int64), arrays.get("words"), **facts)
