"""A word segmenter: where words begin in scripts that are written without spaces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lmtasks.api.recipe import NAME
from lmtasks.api.references import Reference, defer
from lmtasks.api.version import API_VERSION

UNICODE = "unicode"
"""The name of the word boundaries that lmtasks has itself."""


@dataclass(frozen=True, kw_only=True)
class WordSegmenter:
    """A way to tell words, for ``--word_segmenter``. The function may be given as ``"module:function"``.

    Args:
        name: what people type; lower case letters, digits and hyphens.
        summary: one sentence for people.
        segment: text to the places where words begin, in characters, in any order. Punctuation is a word of its own.
            Long texts are handed over in parts that end at a line break, a space or punctuation, and with a little of
            what stands before them, so what is said of a place must not depend on anything beyond these.
        libraries: packages on which the places depend. Tokens are made anew when one has another version, and
            a user is told which is missing.
        api_version: version of this contract that the declaration was written for.

    Raises:
        ValueError: a name or a reference of the wrong shape, or the name of what is built in.
    """

    name: str
    summary: str
    segment: Callable[[str], Iterable[int]] | Reference
    libraries: Sequence[str] = ()
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"word segmenter {self.name!r} must be lower case letters, digits and hyphens")
        if self.name == UNICODE:
            raise ValueError(f"word segmenter '{UNICODE}' is built in")
        defer(self, f"word segmenter '{self.name}'", "segment")
