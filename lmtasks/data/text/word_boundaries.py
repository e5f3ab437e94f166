"""Where words begin, for any tokenizer: by the text, not by how a tokenizer happens to split.

Unless a plugin tells words, one is what Unicode's default word boundaries separate (UAX #29): punctuation is a word of
its own, and scripts written without spaces (Chinese, Japanese, Thai) have no words of a whole sentence.
Tokenizers' own words differ: byte-level BPE and SentencePiece take a Chinese sentence for one word,
SentencePiece a comma for a part of the word before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import regex

# The flag w makes \b the boundary of UAX #29.
_BOUNDARY = regex.compile(r"(?w)\b")
_SPACES = np.asarray([code for code in range(0x3001) if chr(code).isspace()], dtype=np.uint32)

Flags = np.ndarray[Any, np.dtype[np.bool_]]
Places = np.ndarray[Any, np.dtype[np.int64]]


def boundaries(text: str) -> Places:
    """Unicode's word boundaries in a text, in characters."""
    return np.fromiter((match.start() for match in _BOUNDARY.finditer(text)), np.int64)


def word_starts(text: str, offsets: list[tuple[int, int]], segment: Callable[[str], Places] = boundaries) -> Flags:
    """Whether a word begins in each token, bool [tokens].

    Args:
        offsets: first character of each token and the one after its last, as a fast tokenizer gives them.
        segment: text to the places where words begin.

    A token counts from its first character that is no space: " word" begins a word. Of several tokens
    in one character, as byte-level tokenizers make them, at most the first begins a word. A token of
    nothing but spaces belongs to no word before it.
    """
    if not offsets:
        return np.zeros(0, dtype=np.bool_)
    boundary = np.zeros(len(text) + 1, dtype=np.bool_)
    boundary[segment(text)] = True
    spans = np.asarray(offsets, dtype=np.int64)
    begins = np.minimum(_next_visible(text)[spans[:, 0]], spans[:, 1])
    blank = begins == spans[:, 1]
    begins = np.where(blank, spans[:, 0], begins)
    starts: Flags = boundary[begins] | blank
    starts[1:] &= (begins[1:] != begins[:-1]) | blank[1:]
    return starts


def _next_visible(text: str) -> Places:
    """For each place in the text the first from there on that is no space; the end if there is none."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    places = np.where(np.isin(codes, _SPACES), len(codes), np.arange(len(codes)))
    places = np.append(places, len(codes))
    return np.asarray(np.minimum.accumulate(places[::-1])[::-1])
