"""``lmtasks compare``: models beside each other on the same documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from lmtasks.cli.answers import tell
from lmtasks.cli.lookup import fitting
from lmtasks.cli.parser import Parser, add_options
from lmtasks.config.documents import READING
from lmtasks.progress import quiet

if TYPE_CHECKING:
    from lmtasks.runs.comparison import Comparison, Difference, Measured
    from lmtasks.runs.resampling import Estimate

KINDS = {
    "log_likelihood": "causal: each token told from those before it",
    "pseudo_log_likelihood": "masked: each token told from all others, which is no probability of the text",
}
"""The kinds of scores in words."""

NAME = 20
"""Characters of a model's name in the table, its end where it has more."""


def command(words: list[str]) -> int:
    """Score documents with each model, and print the table."""
    parser = Parser(
        prog="lmtasks compare",
        usage="lmtasks compare RUN_OR_MODEL... --validation_file FILE [flags]",
        description="Bits per byte, perplexity and accuracy of several models on the same documents, with 95 %"
        " intervals by document, and a test of each difference from the first.",
    )
    parser.add_argument("models", metavar="RUN_OR_MODEL", nargs="*", help="run folders, model folders or Hub ids")
    parser.add_argument("--max_documents", metavar="N", type=int, help="only the first so many documents of each set")
    parser.add_argument("--resamples", metavar="N", type=int, default=2000, help="for the intervals (default: 2000)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument(
        "--pll_metric",
        choices=("original", "within_word_l2r"),
        default="original",
        help="of masked models: hide a token alone (the default), or also what follows it in its word",
    )
    parser.add_argument("--max_length", metavar="N", type=int, help="tokens that a model gets at once at most")
    parser.add_argument("--batch_size", metavar="N", type=int, default=16, help="rows at once (default: 16)")
    parser.add_argument("--recipe", metavar="NAME", help="recipe of all of them; found out when not given")
    add_options(parser, "documents", READING.values())
    typed = parser.read_all(words)
    for name in ("plugin", "no_plugins", "traceback"):
        typed.pop(name, None)
    models, as_json, recipe = typed.pop("models", []), typed.pop("json", False), typed.pop("recipe", None)
    quiet()
    # Also for what a run was made with: a recipe in a file counts from here on.
    fits = [fitting(model, recipe, "main") for model in models]
    from lmtasks.runs.comparison import compare

    found = compare(models, recipe=fits[0][0].name_of(fits[0][1]) if recipe and fits else None, **typed)
    return tell(asdict(found), _lines(found), as_json=as_json)


def _lines(found: Comparison) -> Iterator[str]:
    """A table for each set and each kind of score."""
    groups = dict.fromkeys((one.dataset, one.kind) for one in found.measured)
    for dataset, kind in groups:
        own = [one for one in found.measured if (one.dataset, one.kind) == (dataset, kind)]
        names = {one.model for one in own}
        differences = [one for one in found.differences if one.dataset == dataset and one.model in names]
        yield from ("", f"{dataset}: {_size(own[0])}" if dataset else _size(own[0]), KINDS[kind])
        yield from _rows([_HEADER, *map(_row, own)])
        if differences:
            yield f"beside {_ending(differences[0].than)}, in bits per byte; less is better"
            yield from _rows([("", "more", "95% interval", "p"), *map(_difference, differences)])
    if len({one.kind for one in found.measured}) > 1:
        yield ""
        yield "Causal and masked models cannot be compared: a masked one sees both sides of"
        yield "each token, so its pseudo-perplexity is lower by nature."


_HEADER = ("", "bits/byte", "95% interval", "ppl/word", "right", "params", "tok/s")


def _size(one: Measured) -> str:
    return f"{one.documents:,} documents, {one.words:,} words, {one.bytes:,} bytes"


def _row(one: Measured) -> tuple[str, ...]:
    bits = one.bits_per_byte
    perplexity = f"{one.word_perplexity:.3g}"
    speed = _short(one.tokens_per_second)
    return (
        _ending(one.model), f"{bits.value:.3f}", _interval(bits), perplexity,
        f"{one.accuracy.value:.1%}", _short(one.parameters), speed,
    )  # fmt: skip


def _difference(one: Difference) -> tuple[str, ...]:
    bits = one.bits_per_byte
    return _ending(one.model), f"{bits.value:+.3f}", _interval(bits, "+"), f"{one.p:.2g}"


def _interval(estimate: Estimate, sign: str = "") -> str:
    if estimate.low is None or estimate.high is None:
        return "–"
    return f"{estimate.low:{sign}.3f} {estimate.high:{sign}.3f}"


def _ending(name: str) -> str:
    return name if len(name) <= NAME else f"…{name[1 - NAME :]}"


def _short(number: float) -> str:
    """A number of at least 1 in at most five characters: 950, 1.2k, 24M."""
    for unit in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.0f}{unit}" if number >= 99.5 or not unit else f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.0f}T"


def _rows(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *others in rows:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()
