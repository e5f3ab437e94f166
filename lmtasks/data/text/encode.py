"""The text of a run as examples of tokens: tokenised now or found in the cache, and checked."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from lmtasks.api import Blocks
from lmtasks.data.corpus import Split
from lmtasks.data.text import token_cache as cache
from lmtasks.data.text.packing import Packed, cut
from lmtasks.data.text.segmenters import segment_of
from lmtasks.data.text.tokenize import Stream, read
from lmtasks.errors import InputError
from lmtasks.progress import say, stage

MOST_UNKNOWN = 0.2
"""Share of unknown tokens above which a tokenizer does not belong to a text."""


def encode(
    name: str, split: Split, tokenizer: PreTrainedTokenizerBase, blocks: Blocks, fresh: bool = False, workers: int = 1
) -> Packed:
    """A split as examples.

    Args:
        name: what to call the text, "training".
        fresh: tokenise even if the cache has the tokens, or some of them, and put the new ones there.
        workers: processes for a tokenizer in Python.

    Raises:
        InputError: no tokens, too many unknown ones, ids that the tokenizer itself does not know, or a
            way of cutting that the text or the tokenizer does not allow.
    """
    _check_request(name, split, tokenizer, blocks)
    packed = cut(_stream(name, split, tokenizer, blocks, fresh, workers), blocks)
    _check_tokens(name, packed, tokenizer)
    return packed


def _stream(
    name: str, split: Split, tokenizer: PreTrainedTokenizerBase, blocks: Blocks, fresh: bool, workers: int
) -> Stream:
    key = cache.key_of(split, tokenizer, blocks)
    kept = cache.load(key) if key is not None and not fresh else None
    if kept is not None:
        say(f"tokens of the {name} text: from the cache")
        return kept

    def pieces(start: int) -> Iterator[Stream]:
        if start:
            say(f"tokens of the {name} text: going on after {start:,} rows of an interrupted run")
        with stage(f"tokenising the {name} text", len(split) - start, "rows") as progress:
            rows = 0
            for piece in read(split, tokenizer, blocks, start, workers):
                yield piece
                rows += piece.rows
                progress.update(rows)

    return cache.store(pieces, key, fresh)


def _check_request(name: str, split: Split, tokenizer: PreTrainedTokenizerBase, blocks: Blocks) -> None:
    if blocks.body < 1:
        raise InputError(
            f"a block of {blocks.size} tokens has no room beside its {blocks.size - blocks.body} special tokens",
            "raise --block_size",
        )
    if blocks.words and not tokenizer.is_fast:
        raise InputError(
            f"{type(tokenizer).__name__} does not say where in the text its tokens are, so words are unknown",
            "leave --mask_unit word out, or take a fast tokenizer (tokenizer.json)",
        )
    if blocks.words:
        segment_of(blocks.word_segmenter)
    if blocks.isolate and not split.documents and not blocks.line_by_line and len(split.text_starts) < 2:
        raise InputError(
            f"the lines of the {name} text are one document, there is nothing to isolate",
            "--sample_by paragraph or --sample_by document says what a document is",
        )


def _check_tokens(name: str, packed: Packed, tokenizer: PreTrainedTokenizerBase) -> None:
    if not len(packed):
        raise InputError(f"the tokenizer makes no tokens of the {name} text", "give another --tokenizer_name")
    share = packed.unknown_share
    if share > MOST_UNKNOWN:
        raise InputError(
            f"{share:.0%} of the {name} tokens are unknown to the tokenizer, so they can be neither read nor learned",
            "take a tokenizer made for this language, or --train_tokenizer 8000 with --model_type",
        )
    if int(packed.stream.ids.max()) >= len(tokenizer):
        raise InputError("the tokenizer gives ids beyond its own vocabulary", "give another --tokenizer_name")
