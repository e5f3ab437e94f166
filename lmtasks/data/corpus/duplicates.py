"""Evaluation rows that were trained on as well, which makes every score too good."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from lmtasks.api import Documents
from lmtasks.data.corpus.split import BATCH_BYTES, utf8

# In articles, novels and plays, the lines that come back by themselves are headings ("= = Critical reception = ="),
# names of speakers and ends of paragraphs. They stay below this; a line of prose or verse often has more.
SHORTEST_LINE = 40

_SPACE = b"|".join(re.escape(chr(code).encode()) for code in range(0x3001) if chr(code).isspace())
_SPACES = re.compile(b"(?:%b)*" % _SPACE)
_SPACE_AT_END = re.compile(rb"(?:%b)+\Z" % _SPACE)
_WINDOW = 1000


def count_duplicates(train: Documents, evaluation: Documents) -> int:
    """The number of rows of the evaluation split whose text the training split has, too.

    The texts must be the same letter for letter, but for white space around them: a line break at the end does not
    count. Documents count whatever their length. Lines of a running text count from ``SHORTEST_LINE`` characters
    (code points, without the white space around them), since shorter ones come back in any text. Rows of nothing
    but white space never count.

    Rows are compared as wholes: a document that holds an evaluation line is no duplicate of it. If one split has
    documents and the other lines, the evaluation split decides which rule holds. A row that the evaluation split has
    three times counts three times.

    Reads both splits once, in bounded batches. Keeps 17 bytes for each evaluation row that may count, and nothing of
    the training rows.
    """
    shortest = 1 if evaluation.documents else SHORTEST_LINE
    keys = np.concatenate([np.zeros(0, np.int64), *_keys(evaluation, shortest)])
    wanted, counts = np.unique(keys, return_counts=True)
    found = np.zeros(len(wanted), np.bool_)
    if len(wanted):
        for batch in _keys(train, shortest):
            places = np.minimum(np.searchsorted(wanted, batch), len(wanted) - 1)
            found[places[wanted[places] == batch]] = True
    return int(counts[found].sum())


def _keys(split: Documents, shortest: int) -> Iterator[npt.NDArray[np.int64]]:
    """One number per row that is long enough: the same for the same text, as far as this process goes."""
    for array in split.arrays():
        # A row as large as a whole batch is not copied.
        if len(array) == 1 and len(text := _stripped(utf8(array))) > BATCH_BYTES:
            yield np.frombuffer(blake2b(text, digest_size=8).digest(), np.int64)
            continue
        # Python's own hash is several times faster than one that could be stored, and nothing is stored.
        texts = map(str.strip, array.to_pylist())
        yield np.fromiter((hash(text) for text in texts if len(text) >= shortest), np.int64)


def _stripped(text: memoryview) -> memoryview:
    """A text in UTF-8 without the white space around it, as ``str.strip`` leaves it."""
    text = text[_SPACES.match(text).end() :]  # type: ignore[union-attr]
    while last := _SPACE_AT_END.search(text[-_WINDOW:]):
        text = text[: last.start() - min(len(text), _WINDOW)]
    return text
