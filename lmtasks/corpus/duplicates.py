"""Evaluation rows that were trained on as well, which makes every score too good."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lmtasks.corpus.split import Split

# In articles, novels and plays, the lines that come back by themselves are headings ("= = Critical reception = ="),
# names of speakers and ends of paragraphs. They stay below this; a line of prose or verse often has more.
SHORTEST_LINE = 40


def count_duplicates(train: Split, evaluation: Split) -> int:
    """How many rows of the evaluation split have a text that the training split has too.

    The texts must be the same letter for letter, but for white space around them: a line break at the end does not
    count. Documents count whatever their length. Lines of a running text count from ``SHORTEST_LINE`` characters
    (code points, without the white space around them), since shorter ones come back in any text. Rows of nothing
    but white space never count.

    Rows are compared as wholes: a document that holds an evaluation line is no duplicate of it. If one split has
    documents and the other lines, the evaluation split decides which rule holds. A row that the evaluation split has
    three times counts three times.

    Reads both splits once, in bounded batches, and keeps 8 bytes per row that may count.

    Args:
        train: the training split.
        evaluation: the evaluation split.

    Returns:
        A number of rows, from 0 to ``len(evaluation)``.
    """
    shortest = 1 if evaluation.documents else SHORTEST_LINE
    return int(np.isin(_keys(evaluation, shortest), _keys(train, shortest)).sum())


def _keys(split: Split, shortest: int) -> npt.NDArray[np.int64]:
    """One number per row that is long enough: the same for the same text, as far as this process goes."""
    # Python's own hash has 64 bits, is several times faster than a hash that could be stored, and nothing is stored.
    keys = [
        np.fromiter((hash(text) for text in map(str.strip, batch) if len(text) >= shortest), np.int64)
        for batch in split.texts()
    ]
    return np.concatenate([np.zeros(0, np.int64), *keys])
