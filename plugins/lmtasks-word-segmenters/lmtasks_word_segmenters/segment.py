"""The places where words begin, by four libraries.

Each sees only runs of its own script. Everything else has Unicode's word boundaries, as without a segmenter, so that a
text may mix languages, and a run has the same words wherever it stands.
"""

from functools import cache
from itertools import accumulate

import regex

from lmtasks.data.text.word_boundaries import boundaries

HAN = regex.compile(r"\p{Han}+")
JAPANESE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}ー]+")
THAI = regex.compile(r"[\p{Thai}&&[\p{L}\p{M}]]+", regex.V1)
DICTIONARY = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}ー]+|[[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]&&[\p{L}\p{M}]]+", regex.V1
)

LONGEST = 8000
"""Characters of a run that Sudachi gets at once; it refuses more than 49,149 bytes."""


def icu(text):
    """Words of ICU's dictionaries."""
    from icu4py.breakers import WordBreaker

    # Its places count UTF-16; the words themselves are what they are in Python.
    return starts(text, DICTIONARY, lambda run: WordBreaker(run, "root"))


def jieba(text):
    """Words of jieba."""
    import rjieba

    return starts(text, HAN, rjieba.cut)


def sudachi(text):
    """Morphemes of Sudachi, in its shortest units."""

    def words(run):
        for start in range(0, len(run), LONGEST):
            yield from (morpheme.surface() for morpheme in _sudachi().tokenize(run[start : start + LONGEST]))

    return starts(text, JAPANESE, words)


@cache
def _sudachi():
    from sudachipy import Dictionary, SplitMode

    return Dictionary(dict="small").tokenizer(mode=SplitMode.A)


def newmm(text):
    """Words of PyThaiNLP."""
    from pythainlp.tokenize import word_tokenize

    return starts(text, THAI, lambda run: word_tokenize(run, engine="newmm"))


def starts(text, runs, words):
    """The places where words begin: within runs by a library, elsewhere by Unicode.

    Args:
        runs: pattern of the runs that the library gets.
        words: a run to its words, which are all of it.
    """
    places = set(boundaries(text).tolist())
    for run in runs.finditer(text):
        places.difference_update(range(run.start() + 1, run.end()))
        places.update(accumulate(map(len, words(run[0])), initial=run.start()))
    return places
