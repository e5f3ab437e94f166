"""``lmtasks data``: what a run would be trained on, as its model sees it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from lmtasks.cli.answers import tell
from lmtasks.cli.lookup import asked
from lmtasks.cli.parser import Parser, typed_flags
from lmtasks.errors import InputError
from lmtasks.progress import fitted, quiet

_COLOURS = {"special": "2", "document": "35", "hidden": "7", "random": "31", "kept": "4;32"}
"""What terminals call the colours of the marks: dim, magenta, reversed, red, green and underlined."""

_LEGENDS = {
    "document": "a document begins",
    "hidden": "hidden behind the mask, to be told",
    "random": "another token in its place, to be told",
    "kept": "left as it is, to be told",
    "special": "special token",
}


def command(words: list[str]) -> int:
    """Show the data."""
    if (recipe_asked := asked(words, "data", "[--examples N] [--held_out] [flags of lmtasks run]")) is None:
        return 0
    catalog, name = recipe_asked
    recipe = catalog.recipes[name]
    prog = f"lmtasks data {words[0]}"
    about = "The text of a run as its model would see it. Flags are those of lmtasks run; nothing is trained."
    parser = Parser(prog=prog, usage=f"{prog} [flags]", description=about)
    parser.add_argument("--examples", metavar="N", type=int, help="documents and examples to show (default: 3)")
    parser.add_argument("--held_out", action="store_true", help="show those held out, not those to train on")
    values = typed_flags(parser, recipe, words[1:], trains=True, groups=("options", "data", "model"))
    as_json = values.pop("json", False)
    if values.get("examples", 0) < 0:
        raise InputError(f"--examples cannot be {values['examples']}", "0 or more")
    quiet()
    from lmtasks.runs.inspection import inspect_data

    inspection = inspect_data(name, **values)
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return tell(inspection.as_dict(), inspection_lines(inspection, coloured=coloured), as_json=as_json)


def inspection_lines(inspection: Any, *, coloured: bool = False) -> Iterator[str]:
    """The data of a run, for people; its texts in lines of their own, what is said of them in those of the terminal."""
    yield from fitted(_overview(inspection), sys.stdout)
    unit = "training" if inspection.shown == "train" else "held-out"
    for one in inspection.examples:
        yield f"\n{unit} example {one.number}: {len(one.input_ids):,} tokens, {one.targets:,} targets"
        text = "".join(_mark(piece, coloured) for piece in one.pieces)
        yield from (f"  | {line}" for line in text.split("\n"))
        if one.written is not None:
            yield f"  targets: {_safe(one.written)}"
    kinds = {piece.kind for one in inspection.examples for piece in one.pieces}
    if legend := [_legend(kind, coloured) for kind in _LEGENDS if kind in kinds and (coloured or kind != "special")]:
        yield ""
        yield from fitted(["; ".join(legend)], sys.stdout)
    yield from fitted((f"{'note':<11}{note}" for note in inspection.notes), sys.stdout)


def _overview(inspection: Any) -> Iterator[str]:
    yield f"recipe     {inspection.recipe}"
    yield f"data       {inspection.source}" + (f", column {inspection.column}" if inspection.column else "")
    for split, facts in inspection.splits.items():
        yield "\n" + split.replace("train", "training", 1).replace("evaluation", "held out", 1)
        yield from _facts(facts)
    yield f"  {'also in training':<18}{inspection.duplicates:,}"
    if inspection.documents:
        yield "\ndocuments"
        yield from (f"  {tokens:>8,} tokens  {text}" for text, tokens in inspection.documents)


def _facts(facts: dict[str, Any]) -> Iterator[str]:
    left_out = ("unit", "fingerprint", "special", "unknown", "tokens_per_document", "frequent", "rows")
    counts = {facts["unit"]: facts["rows"], **{name: facts[name] for name in facts if name not in left_out}}
    named = {"tail": "tokens left over"}
    yield from (f"  {named.get(name, name.replace('_', ' ')):<18}{count:,}" for name, count in counts.items())
    if "frequent" not in facts:
        return
    lengths = ", ".join(f"{name} {count:,}" for name, count in facts["tokens_per_document"].items())
    special = ", ".join(f"{token} {count:,}" for token, count in facts["special"].items())
    yield f"  {'tokens a document':<18}{lengths}"
    yield f"  {'unknown':<18}{facts['unknown']:,}, {facts['unknown'] / max(1, facts['tokens']):.2%}"
    yield f"  {'special tokens':<18}{special or 'none in the text'}"
    frequent = ", ".join(f"{_spelled(**one)} {one['share']:.1%}" for one in facts["frequent"])
    yield f"  {'most frequent':<18}{frequent}"


def _spelled(token: str, text: str, **_: Any) -> str:
    """A token in quotes: as text, where the tokenizer spells it in bytes, and these are whole characters."""
    in_bytes = len(text.encode("utf-8", "surrogatepass")) == len(token) and "\N{REPLACEMENT CHARACTER}" not in text
    return _safe(json.dumps(text if in_bytes else token, ensure_ascii=False))


def _mark(piece: Any, coloured: bool) -> str:
    text = _safe(piece.text)
    if piece.kind == "text" or (piece.kind == "special" and not coloured):
        return text
    if piece.kind == "document":
        return _painted(f"[DOC {text}]", piece.kind) if coloured else f"[DOC {text}]"
    bare = text.lstrip(" ") or text
    space, seen = text[: len(text) - len(bare)], _safe(piece.seen).strip(" ")
    if not coloured:
        words = {"hidden": f"[MASK:{bare}]", "random": f"[RANDOM:{bare}->{seen}]", "kept": f"[KEPT:{bare}]"}
        return space + words[piece.kind]
    return space + _painted(f"{bare}->{seen}" if piece.kind == "random" else bare, piece.kind)


def _legend(kind: str, coloured: bool) -> str:
    if coloured:
        return _painted(_LEGENDS[kind], kind)
    shown = {"document": "[DOC N]", "hidden": "[MASK:word]", "random": "[RANDOM:word->other]", "kept": "[KEPT:word]"}
    return f"{shown[kind]} {_LEGENDS[kind]}"


def _painted(text: str, kind: str) -> str:
    return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m"


def _safe(text: str) -> str:
    """A text with what would disturb a terminal spelt out."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )
