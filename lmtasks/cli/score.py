"""``lmtasks score``: how likely a model finds texts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from lmtasks.cli.answers import json_text, tell
from lmtasks.cli.lookup import fitting
from lmtasks.cli.parser import Parser
from lmtasks.cli.texts import add_flags, texts_of
from lmtasks.errors import InputError
from lmtasks.progress import quiet

FILES = (".txt", ".md", ".raw", ".json", ".jsonl", ".csv", ".tsv", ".gz")
"""How words end that are names of files, and no texts."""


def command(words: list[str]) -> int:
    """Score texts, a line of JSON for each."""
    parser = Parser(
        prog="lmtasks score",
        usage="lmtasks score RUN_OR_MODEL TEXT... [flags]",
        description="The log-likelihood of each text under a causal model, or its pseudo-log-likelihood under a masked"
        " one, in nats: a line of JSON for each. One word that is the name of a file is that file.",
    )
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="a run or a model, and texts in quotes")
    add_flags(parser)
    parser.add_argument("--output", metavar="FILE", help="a new file for the lines, instead of standard output")
    parser.add_argument("--per_token", action="store_true", help="tell each token, too")
    parser.add_argument(
        "--pll_metric",
        choices=("original", "within_word_l2r"),
        default="original",
        help="of a masked model: hide a token alone (the default), or also what follows it in its word",
    )
    parser.add_argument("--max_length", metavar="N", type=int, help="tokens that the model gets at once at most")
    parser.add_argument(
        "--batch_size", metavar="N", type=int, default=16, help="rows at once; changes the speed alone (default: 16)"
    )
    parser.add_argument(
        "--revision", metavar="NAME", default="main", help="branch, tag or commit of a model on the Hub"
    )
    parser.add_argument("--recipe", metavar="NAME", help="recipe to score as; found out when not given")
    typed = parser.read_all(words)
    if not typed.get("texts"):
        raise InputError("score needs a run or a model", "lmtasks score RUN_OR_MODEL TEXT")
    name, *given = typed["texts"]
    file = typed.get("file")
    if file is None and (files := [word for word in given if _is_file(word)]):
        if len(given) > 1:
            raise InputError(f"'{files[0]}' is a file, among texts", f"--file {files[0]}, or texts alone")
        given, file = [], files[0]
    texts = texts_of("score", given, file, typed)
    output = Path(typed["output"]) if "output" in typed else None
    if output:
        _require_new(output)
    quiet()
    catalog, recipe = fitting(name, typed.get("recipe"), typed["revision"])
    from lmtasks.artifacts.durable import write_text
    from lmtasks.runs.scoring import score

    scores = score(
        name,
        list(texts.values()),
        recipe=catalog.name_of(recipe),
        revision=typed["revision"],
        batch_size=typed["batch_size"],
        max_length=typed.get("max_length"),
        pll_metric=typed["pll_metric"],
        per_token=typed.get("per_token", False),
    )
    told = [replace(one, number=number).as_json() for number, one in zip(texts, scores, strict=True)]
    lines = [json_text(one) for one in told]
    if output is None:
        return tell(told, lines, as_json="json" in typed)
    write_text(output, "".join(f"{line}\n" for line in lines))
    return tell({"output": str(output), "texts": len(told)}, [str(output)], as_json="json" in typed)


def _is_file(word: str) -> bool:
    """Whether a word means a file: one that is there, or that is called like one and is not, which reading it tells."""
    return os.path.isfile(word) or (word.endswith(FILES) and not any(map(str.isspace, word)))


def _require_new(output: Path) -> None:
    """Refuse a place that is taken, for what lies there would be lost, or that no file can have."""
    if output.exists():
        raise InputError(f"--output {output} exists", "choose another --output")
    if not output.parent.is_dir():
        raise InputError(f"--output {output} lies in no folder: there is no '{output.parent}'", "choose another")
