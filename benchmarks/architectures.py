"""Prove every model type that masked-lm and causal-lm know, and write down what came of it.

    python benchmarks/architectures.py                 compare with what is recorded; exit 1 where it differs
    python benchmarks/architectures.py --write         write lmtasks/registry/support.json and docs/architectures.md

A type takes a few seconds: a tiny model of it is trained, measured, saved, loaded and asked. Install the
packages in plugins/ first; the types that they bring are proved with the others.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architectures.md"
EVIDENCE = ROOT / "lmtasks" / "registry" / "support.json"
RECIPES = ("masked-lm", "causal-lm")

GUIDES = {
    "ALBERT": "albert", "BART": "bart", "BERT": "bert", "BigBird": "big_bird", "CamemBERT": "camembert",
    "ConvBERT": "convbert", "Data2VecText": "data2vec-text", "DeBERTa": "deberta", "DeBERTa-v2": "deberta-v2",
    "DistilBERT": "distilbert", "ELECTRA": "electra", "ERNIE": "ernie", "ESM": "esm", "FlauBERT": "flaubert",
    "FNet": "fnet", "Funnel Transformer": "funnel", "I-BERT": "ibert", "LayoutLM": "layoutlm",
    "Longformer": "longformer", "LUKE": "luke", "mBART": "mbart", "MEGA": "mega", "Megatron-BERT": "megatron-bert",
    "MobileBERT": "mobilebert", "MPNet": "mpnet", "MRA": "mra", "MVP": "mvp", "Nezha": "nezha",
    "Nyströmformer": "nystromformer", "Perceiver": "perceiver", "QDQBert": "qdqbert", "Reformer": "reformer",
    "RemBERT": "rembert", "RoBERTa": "roberta", "RoBERTa-PreLayerNorm": "roberta-prelayernorm",
    "RoCBert": "roc_bert", "RoFormer": "roformer", "SqueezeBERT": "squeezebert", "TAPAS": "tapas",
    "Wav2Vec2": "wav2vec2", "XLM": "xlm", "XLM-RoBERTa": "xlm-roberta", "XLM-RoBERTa-XL": "xlm-roberta-xl",
    "X-MOD": "xmod", "YOSO": "yoso",
}  # fmt: skip
"""The architectures that the guide to masked language modelling lists, with their model types."""

ELSEWHERE = {"wav2vec2": ("masked-speech", "lmtasks-masked-speech", "takes sound; proved by the package's tests")}
"""Those that no recipe for text takes: recipe, package, note."""

HEAD = """\
# Architectures

Which model types each recipe trains. `lmtasks architectures RECIPE` shows the same, and
`lmtasks architectures RECIPE --prove TYPE` measures it on your machine, also for types of your own.

A type **runs** when a tiny model of it, on a text and a tokenizer made for the purpose, passes the checks that
[the testing kit](testing.md) has for architectures: every parameter that is trained moves, the loss is the sum over
targets that an oracle computes, gradient accumulation changes nothing, what the recipe says of attention is true, the
head on its own gives the same, evaluation does not depend on the batch, the model comes back from disk as it was, and
the pipeline answers. **limited** is the same, but for what the note says. **refused** says why: lmtasks tells it before
a run begins.

This page is written by `python benchmarks/architectures.py --write`; `tox run -e architectures` measures it again.
"""

KERAS = Path(__file__).parents[1] / "plugins" / "lmtasks-keras" / "benchmarks" / "exceptions.md"
"""What the page says of types that Keras does not train on every backend, which another benchmark measures."""


def measured(recipe: str, kind: str) -> dict[str, Any]:
    """What is known of one type after it was proved, in a process of its own thread."""
    import torch
    import transformers

    from lmtasks.registry.catalog import load_catalog
    from lmtasks.testing.survey import survey

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    catalog = load_catalog()
    ((row, _),) = survey(catalog.recipe(recipe), catalog, [kind])
    return row.as_json()


def all_measured(jobs: Sequence[tuple[str, str]], processes: int) -> Iterable[dict[str, Any]]:
    """The jobs' rows, in order."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for (recipe, kind), row in zip(jobs, pool.map(measured, *zip(*jobs, strict=True)), strict=True):
            print(f"{recipe:<10} {kind:<28} {row['state']:<9} {'; '.join(row['notes'])[:200]}", flush=True)
            yield row


def page(evidence: dict[str, Any]) -> str:
    """The documentation of what was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in evidence["versions"].items())
    parts = [
        HEAD,
        f"Measured on {evidence['date']} with {versions}.\n",
        "## The list of the guides\n",
        *guides(evidence),
    ]
    for recipe, rows in evidence["recipes"].items():
        counts = ", ".join(
            f"{sum(row['state'] == state for row in rows)} {state}" for state in ("runs", "limited", "refused")
        )
        parts += [f"\n## {recipe}\n", f"{len(rows)} types: {counts}.\n", *table(rows)]
    parts.append(f"\n{KERAS.read_text(encoding='utf-8').strip()}")
    return "\n".join(parts) + "\n"


def guides(evidence: dict[str, Any]) -> list[str]:
    known = {row["model_type"]: row for row in evidence["recipes"]["masked-lm"]}
    lines = ["| Architecture | Type | Recipe | State | Notes |", "|---|---|---|---|---|"]
    for name, kind in GUIDES.items():
        if kind in known:
            lines.append(f"| {name} | `{kind}` | masked-lm | {known[kind]['state']} | {about(known[kind])} |")
        elif kind in ELSEWHERE:
            recipe, package, note = ELSEWHERE[kind]
            lines.append(f"| {name} | `{kind}` | {recipe} | runs | package `{package}`; {note} |")
        else:
            lines.append(f"| {name} | `{kind}` | | missing | |")
    return lines


def table(rows: Iterable[dict[str, Any]]) -> list[str]:
    lines = ["| Type | State | Notes |", "|---|---|---|"]
    return lines + [f"| `{row['model_type']}` | {row['state']} | {about(row)} |" for row in rows]


def about(row: dict[str, Any]) -> str:
    package = [f"package `{row['package']}`"] if row["package"] else []
    return "; ".join([*package, *row["notes"]]).replace("|", "\\|")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Where two measurements do not agree on whether a type runs."""
    return [
        f"{recipe} {kind}: {was.get(kind, 'nothing')} was written down, {now.get(kind, 'nothing')} was measured"
        for recipe, rows in new["recipes"].items()
        for was, now in [(states(old["recipes"].get(recipe, [])), states(rows))]
        for kind in sorted(was.keys() | now.keys())
        if was.get(kind) != now.get(kind)
    ]


def states(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    return {row["model_type"]: row["state"] for row in rows}


def one_row_a_line(evidence: dict[str, Any]) -> str:
    """The file's text: JSON in which a change of one type's state is a change of one line."""
    head = {name: value for name, value in evidence.items() if name != "recipes"}
    tables = (
        f"  {json.dumps(recipe)}: [\n"
        + ",\n".join(f"   {json.dumps(row, ensure_ascii=False)}" for row in rows)
        + "\n  ]"
        for recipe, rows in evidence["recipes"].items()
    )
    return json.dumps(head, ensure_ascii=False)[:-1] + ', "recipes": {\n' + ",\n".join(tables) + "\n}}\n"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the evidence and the page")
    parser.add_argument("--processes", type=int, default=2, help="types at once (default: 2)")
    parser.add_argument("--only", nargs="+", metavar="TYPE", help="these types; the others stay as they were")
    chosen = parser.parse_args(words)

    from lmtasks.registry.catalog import load_catalog
    from lmtasks.testing.survey import types_of

    catalog, old = load_catalog(), json.loads(EVIDENCE.read_text(encoding="utf-8"))
    jobs = [(name, kind) for name in RECIPES for kind in types_of(catalog.recipe(name), catalog)]
    wanted = [job for job in jobs if not chosen.only or job[1] in chosen.only]
    rows = dict(zip(wanted, all_measured(wanted, chosen.processes), strict=True))
    kept = {(name, row["model_type"]): row for name, rows in old["recipes"].items() for row in rows}
    versions = {name: metadata.version(name).partition("+")[0] for name in ("lmtasks", "transformers", "torch")}
    new = {
        "versions": versions,
        "date": str(datetime.date.today()),
        "recipes": {
            name: [rows.get(job) or kept[job] for job in jobs if job[0] == name and (job in rows or job in kept)]
            for name in RECIPES
        },
    }
    if chosen.write:
        EVIDENCE.write_text(one_row_a_line(new), encoding="utf-8")
        PAGE.write_text(page(new), encoding="utf-8")
        return 0
    told = differences(old, new)
    print("\n".join(told), file=sys.stderr)
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
