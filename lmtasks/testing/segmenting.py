"""Check of a word segmenter: the words that it tells, and that they are those of the text alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lmtasks.api import WordSegmenter


def check_word_segmenter(segmenter: WordSegmenter, *sentences: Sequence[str]) -> None:
    """Ask for the words of sentences, one by one, again, and all in one text.

    Args:
        sentences: words in their order, punctuation and spaces among them.

    Raises:
        AssertionError: a word begins elsewhere, or not always in the same place.
    """
    texts = ["".join(words) for words in sentences]
    wanted = [list(_starts(words)) for words in sentences]
    for text, starts in [*zip(texts, wanted, strict=True)] * 2:
        _require(segmenter, text, starts)
    # Long texts come in parts, so that a line must have the words that it has anywhere.
    before = [sum(len(text) + 1 for text in texts[:number]) for number in range(len(texts))]
    every = [place + start for place, starts in zip(before, wanted, strict=True) for start in starts]
    _require(segmenter, "\n".join(texts), every)
    _require(segmenter, "", [])


def _starts(words: Sequence[str]) -> Iterator[int]:
    """Where the words begin that are no spaces."""
    place = 0
    for word in words:
        if word.strip():
            yield place
        place += len(word)


def _require(segmenter: WordSegmenter, text: str, starts: Sequence[int]) -> None:
    told = sorted({place for place in segmenter.segment(text) if text[place : place + 1].strip()})
    assert told == list(starts), f"{segmenter.name}: words of {text!r} begin at {told}, not at {list(starts)}"
