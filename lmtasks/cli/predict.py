"""``lmtasks predict``: use a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmtasks.api import Recipe
from lmtasks.cli.argv import loose, scalar
from lmtasks.cli.lookup import fitting
from lmtasks.cli.parser import Parser
from lmtasks.cli.report import quiet, tell
from lmtasks.errors import InputError

SWITCHES = ("do_sample", "return_full_text", "use_cache", "clean_up_tokenization_spaces", "renormalize_logits")
"""Pipeline arguments that are a plain yes on the command line."""


def command(words: list[str]) -> int:
    """Answer texts."""
    parser = Parser(
        prog="lmtasks predict",
        usage="lmtasks predict RUN_OR_MODEL TEXT... [flags]",
        description="Use a model. Any other flag goes to its pipeline: --top_k 3, --max_new_tokens 100, --do_sample.",
    )
    parser.add_argument("--file", metavar="FILE", help="texts from a file, one a line; - for standard input")
    parser.add_argument(
        "--revision", metavar="NAME", default="main", help="branch, tag or commit of a model on the Hub"
    )
    parser.add_argument("--batch_size", metavar="N", type=int, default=8, help="texts at once (default: 8)")
    parser.add_argument("--recipe", metavar="NAME", help="recipe to predict as; found out when not given")
    typed, rest = parser.read(words, as_json="the pipeline's own structure, one JSON document")
    arguments, positional = loose(rest, SWITCHES)
    if not positional:
        raise InputError("predict needs a run or a model", "lmtasks predict RUN_OR_MODEL TEXT")
    name, *texts = positional
    file = typed.get("file")
    if file and texts:
        raise InputError(f"texts come from '{file}' and from the command line", "give one of the two")
    texts = texts or _texts(file)
    quiet()
    from lmtasks.inference.predictor import predict

    catalog, recipe = fitting(name, typed.get("recipe"), typed["revision"])
    outputs = predict(
        name,
        texts,
        recipe=catalog.name_of(recipe),
        revision=typed["revision"],
        batch_size=typed["batch_size"],
        **{key: scalar(value) for key, value in arguments.items()},
    )
    return tell(outputs, _lines(texts, outputs, recipe), as_json="json" in typed)


def _lines(texts: list[str], outputs: list[Any], recipe: Recipe) -> Iterator[str]:
    for text, output in zip(texts, outputs, strict=True):
        answers = recipe.answers(output)
        yield from answers if len(texts) == 1 else [text, *(f"  {answer}" for answer in answers)]


def _texts(file: str | None) -> list[str]:
    """Texts from a file or standard input, one a line."""
    if file is None and sys.stdin.isatty():
        raise InputError("predict needs a text", "put it in quotes after the model, or name a --file")
    source = "standard input" if file in (None, "-") else f"'{file}'"
    try:
        content = sys.stdin.buffer.read() if file in (None, "-") else Path(str(file)).read_bytes()
        texts = [line for line in content.decode("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"cannot read '{file}': {error.strerror}", "give an existing file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is no UTF-8 text: byte {error.start}", "convert it to UTF-8") from error
    if not texts:
        raise InputError(f"no text in {source}", "one text a line")
    return texts
