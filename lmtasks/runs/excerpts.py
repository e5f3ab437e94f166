"""Small pieces of a run's own text, by which a person sees what it is: in the plan, the card and what to try next."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lmtasks.api import BlockOptions, Examples, Recipe
from lmtasks.config.request import Request
from lmtasks.data.corpus import Corpus, Split
from lmtasks.data.corpus.find import format_of
from lmtasks.data.corpus.split import utf8
from lmtasks.data.mixed import one_source
from lmtasks.data.text.packing import Packed
from lmtasks.data.text.word_boundaries import boundaries
from lmtasks.runs.load import Data

WIDTH = 69
"""Characters of a text in one line of the plan."""

WORDS, CHARACTERS = 12, 80
"""The most of either in a prompt."""

_ROWS, _BYTES = 50, 1000
"""Rows of the held-out text that are looked at for a prompt, and bytes of each."""

_TABLES = frozenset({"json", "csv", "tsv", "parquet", "arrow"})
"""Formats of files that have columns."""


def column_name(request: Request, corpus: Corpus) -> str | None:
    """The column that the text came from, of all sources alike; None where there was none to choose."""
    data = request.data
    columns = {".".join(split.column) for split in corpus.training.values()}
    if request.recipe.medium or request.sample or isinstance(data.train_dataset, list | tuple) or len(columns) != 1:
        return None
    (column,) = columns
    if column != "text":
        return column
    # What has no columns is read into one of this name.
    named = data.dataset_name or data.train_dataset is not None
    return column if named or (data.train_file and _is_table(data.train_file[0], data.format)) else None


def _is_table(name: str, kind: str | None) -> bool:
    file = Path(name)
    return name != "-" and not file.is_dir() and bool(file.suffix) and format_of(file, kind).name in _TABLES


def first_text(examples: Examples, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The beginning of the first document, decoded from its tokens, in one line; None where it is no text.

    Of a mix, that of the first source.
    """
    examples = one_source(examples)
    if not isinstance(examples, Packed):
        return None
    stream = examples.stream
    end = int(stream.documents[1]) if len(stream.documents) > 1 else len(stream.ids)
    text = tokenizer.decode(stream.ids[: min(end, WIDTH)].tolist(), clean_up_tokenization_spaces=False)
    return in_one_line(text.rstrip("\ufffd"))


def in_one_line(text: str, width: int = WIDTH) -> str:
    """A text with what is not printable spelt out, and an end that says where it was cut."""
    line = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return line if len(line) <= width else line[: width - 1] + "…"


def example_prompt(data: Data) -> str | None:
    """A prompt that suits the model of a run: the beginning of a held-out text, with a gap where the recipe fills one.

    Where the run is not about text of the user's own, that of the recipe; None where it has none.
    """
    request, recipe = data.request, data.request.recipe
    own = not recipe.medium and not request.sample and isinstance(data.processor, PreTrainedTokenizerBase)
    own = own and bool(data.corpus.evaluations)  # of prepared data the documents are not there
    gap = gap_of(recipe, data.processor)
    words = _words(data.corpus.evaluation, data.processor, gap) if own else []
    if words:
        return _prompt(request, data.processor, words, gap)
    return recipe.example if recipe.medium or (recipe.starter and recipe.starter.texts) else None


def held_out_prompts(data: Data, count: int) -> list[str]:
    """As many such prompts, from places spread over the held-out text; fewer where it has no more."""
    split, gap = data.corpus.evaluation, gap_of(data.request.recipe, data.processor)
    starts = [len(split) * number // count for number in range(count)]
    found = (_words(split, data.processor, gap, start) for start in dict.fromkeys(starts))
    return list(dict.fromkeys(_prompt(data.request, data.processor, words, gap) for words in found if words))


def gap_of(recipe: Recipe, processor: Any) -> str:
    """What stands for something missing in a prompt: as the recipe says, or as any pipeline fills it."""
    fills = not recipe.gap and recipe.pipeline == "fill-mask"
    return str(getattr(processor, "mask_token", None) or "") if fills else recipe.gap


def _words(split: Split, tokenizer: PreTrainedTokenizerBase, gap: str, start: int = 0) -> list[str]:
    """The first words of a document, or of lines that follow each other; of the first that has enough of them.

    Args:
        start: the row to look from on.
    """
    best: list[str] = []
    for text in islice(_beginnings(split, start), _ROWS):
        # A prompt must not mean more than it says.
        for special in (*tokenizer.all_special_tokens, "<mask>", "[MASK]", "```", *([gap] if gap else [])):
            text = text.replace(special, " ")
        words = "".join(letter if letter.isprintable() else " " for letter in text).lstrip(" -").split()
        if not split.documents:
            words = [*best, *words]
        best = words[:WORDS] if len(words) > len(best) else best
        if len(best) == WORDS:
            break
    while len(best) > 1 and len(" ".join(best)) > CHARACTERS:
        best = best[:-1]
    return [word[:CHARACTERS] for word in best]


def _beginnings(split: Split, start: int) -> Iterator[str]:
    for array in split.arrays(start):
        for row in range(len(array)):
            yield str(utf8(array.slice(row, 1))[:_BYTES], "utf-8", "ignore")


def _prompt(request: Request, tokenizer: PreTrainedTokenizerBase, words: list[str], gap: str) -> str:
    """As many of the words as the model can well take, as the pipeline gets them."""
    limit = max(8, request.options.block_size // 2) if isinstance(request.options, BlockOptions) else 32
    text = " ".join(words)
    while True:
        prompt = request.recipe.prompt(tokenizer, _with_gap(text, gap))
        if len(text) < 8 or len(tokenizer(prompt)["input_ids"]) <= limit:
            return prompt
        text = text.rpartition(" ")[0] or text[: len(text) * 3 // 4]


def _with_gap(text: str, gap: str) -> str:
    """The text with a gap in place of one of its words, a longer one if it has any."""
    if not gap:
        return text
    places = [*boundaries(text), len(text)]
    words = [(start, end) for start, end in pairwise(places) if text[start:end].isalpha()]
    longer = [(start, end) for start, end in words if end - start > 2] or words
    if not longer:
        return f"{text} {gap}"
    start, end = longer[len(longer) // 2]
    return text[:start] + gap + text[end:]
