"""``lmtasks predict``: use a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lmtasks.api import Recipe
from lmtasks.cli.answers import tell
from lmtasks.cli.argv import every, scalar, tell_overridden
from lmtasks.cli.lookup import fitting
from lmtasks.cli.parser import Parser
from lmtasks.cli.texts import add_flags, texts_of
from lmtasks.config.switches import SWITCHES
from lmtasks.errors import InputError
from lmtasks.progress import quiet

LISTS = ("targets", "stop_strings", "stop_sequence", "suppress_tokens", "begin_suppress_tokens", "eos_token_id")
"""Pipeline arguments that may come again, and then are several."""

TEXTS = ("targets", "stop_strings", "stop_sequence", "prefix")
"""Pipeline arguments that are text, whatever they look like."""

RAW = ("return_tensors", "return_dict_in_generate")
"""Pipeline arguments with which the answer is no text."""


def command(words: list[str]) -> int:
    """Answer texts."""
    parser = Parser(
        prog="lmtasks predict",
        usage="lmtasks predict RUN_OR_MODEL TEXT... [flags]",
        description="Use a model. Any other flag goes to its pipeline: --top_k 3, --targets WORD, --max_new_tokens 100,"
        " --stop_strings TEXT, --do_sample.",
    )
    add_flags(parser)
    parser.add_argument(
        "--revision", metavar="NAME", default="main", help="branch, tag or commit of a model on the Hub"
    )
    parser.add_argument("--batch_size", metavar="N", type=int, default=16, help="texts at once (default: 16)")
    parser.add_argument("--seed", metavar="N", type=int, help="makes what is drawn repeatable; new ones when not given")
    parser.add_argument("--recipe", metavar="NAME", help="recipe to predict as; found out when not given")
    typed, rest = parser.read(words, as_json="the pipeline's own structure, one JSON document")
    given, positional = every(rest, SWITCHES)
    if not positional:
        raise InputError("predict needs a run or a model", "lmtasks predict RUN_OR_MODEL TEXT")
    name, *texts = positional
    texts = list(texts_of("predict", texts, typed.get("file"), typed).values())
    arguments = {key: _value(key, values) for key, values in given.items()}
    quiet("transformers")
    from lmtasks.inference.predictor import predict

    catalog, recipe = fitting(name, typed.get("recipe"), typed["revision"])
    outputs = predict(
        name,
        texts,
        recipe=catalog.name_of(recipe),
        revision=typed["revision"],
        batch_size=typed["batch_size"],
        seed=typed.get("seed"),
        **arguments,
    )
    raw = any(arguments.get(name) for name in RAW)
    return tell(outputs, _lines(texts, outputs, catalog.watched(recipe), raw), as_json="json" in typed)


def _value(name: str, typed: list[str]) -> Any:
    """What was typed for an argument of the pipeline, each time that it was given."""
    values = [_one(name, text) for text in typed]
    if name in LISTS and len(values) > 1:
        return [item for value in values for item in (value if isinstance(value, list) else [value])]
    for before in typed[:-1]:
        tell_overridden(name, before, typed[-1])
    return values[-1]


def _one(name: str, text: str) -> Any:
    # A list has a comma; [MASK] is a token.
    is_list = text.startswith("[") and "," in text
    return text if name in TEXTS and not is_list else scalar(text)


def _lines(texts: list[str], outputs: list[Any], recipe: Recipe, raw: bool) -> Iterator[str]:
    for text, output in zip(texts, outputs, strict=True):
        answers = [str(output)] if raw else recipe.answers(output)
        yield from answers if len(texts) == 1 else [text, *(f"  {answer}" for answer in answers)]
