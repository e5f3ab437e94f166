"""Word segmenters: where words begin in scripts that are written without spaces."""

from lmtasks import WordSegmenter, hookimpl

SEGMENTERS = [
    WordSegmenter(
        name="icu",
        summary="Chinese, Japanese, Thai, Lao, Khmer and Burmese, by the dictionaries of ICU.",
        segment="lmtasks_word_segmenters.segment:icu",
        libraries=["icu4py"],
    ),
    WordSegmenter(
        name="jieba",
        summary="Chinese, by jieba's dictionary and its model of words that this lacks.",
        segment="lmtasks_word_segmenters.segment:jieba",
        libraries=["rjieba"],
    ),
    WordSegmenter(
        name="sudachi",
        summary="Japanese, the shortest units of Sudachi's small dictionary.",
        segment="lmtasks_word_segmenters.segment:sudachi",
        libraries=["sudachipy", "sudachidict_small"],
    ),
    WordSegmenter(
        name="newmm",
        summary="Thai, by PyThaiNLP's dictionary and longest matches.",
        segment="lmtasks_word_segmenters.segment:newmm",
        libraries=["pythainlp"],
    ),
]


@hookimpl
def lmtasks_word_segmenters():
    """The word segmenters of this package."""
    return SEGMENTERS
