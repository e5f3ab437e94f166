"""``lmtasks predict``: use a model."""

from __future__ import annotations

import sys

from lmtasks.cli.argv import asks_help, loose, scalars
from lmtasks.cli.lookup import installed
from lmtasks.cli.lookup import wanted as wanted_recipe
from lmtasks.cli.parser import Parser, add_last
from lmtasks.cli.report import print_json, quiet
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
    add_last(parser, as_json="the pipeline's own structure, one JSON document")
    if asks_help(words):
        parser.print_help()
        return 0
    typed, rest = parser.parse_known_args(words)
    arguments, positional = loose(rest, SWITCHES)
    if not positional:
        raise InputError("predict needs a run or a model", "lmtasks predict RUN_OR_MODEL TEXT")
    file = vars(typed).get("file")
    if file and positional[1:]:
        raise InputError(f"texts come from '{file}' and from the command line", "give one of the two")
    texts = positional[1:] or _texts(file)
    quiet()
    from lmtasks.inference.predictor import predict, recipe_of

    wanted = wanted_recipe(positional[0], vars(typed).get("recipe"))
    catalog = installed()
    recipe = recipe_of(positional[0], catalog, wanted, typed.revision)
    outputs = predict(
        positional[0],
        texts,
        recipe=catalog.name_of(recipe),
        revision=typed.revision,
        batch_size=typed.batch_size,
        **scalars(arguments),
    )
    if vars(typed).get("json"):
        print_json(outputs)
        return 0
    for text, output in zip(texts, outputs, strict=True):
        if len(texts) > 1:
            print(f"{text}")
        for line in recipe.answers(output):
            print(f"  {line}" if len(texts) > 1 else line)
    return 0


def _texts(file: str | None) -> list[str]:
    """Texts from a file or standard input, one a line."""
    if file is None and sys.stdin.isatty():
        raise InputError("predict needs a text", "put it in quotes after the model, or name a --file")
    try:
        if file in (None, "-"):
            lines = sys.stdin.buffer.read().decode("utf-8").splitlines()
        else:
            with open(str(file), encoding="utf-8") as handle:
                lines = handle.read().splitlines()
    except OSError as error:
        raise InputError(f"cannot read '{file}': {error.strerror}", "give an existing file") from error
    except UnicodeDecodeError as error:
        source = "standard input" if file in (None, "-") else f"'{file}'"
        raise InputError(f"{source} is no UTF-8 text: byte {error.start}", "convert it to UTF-8") from error
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise InputError(f"no text in {'standard input' if file in (None, '-') else repr(file)}", "one text a line")
    return texts
