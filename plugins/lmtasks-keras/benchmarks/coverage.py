"""Which model types Keras trains on JAX: loss and gradients of a tiny model of each against torch's.

    python benchmarks/coverage.py masked-lm causal-lm --into FILE    measure, and write a line for each type
    python benchmarks/coverage.py --table FILE                       the table of what was measured, for ../README.md

A type is **equal** where both are within 1e-5. What a file has already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

EQUAL = 1e-5
"""How far off loss and gradients may be, as shares of the loss and of the largest gradient."""


def measured(recipe: Any, tokenizer: Any, kind: str) -> dict[str, Any]:
    """What comes of one type."""
    import numpy as np
    import transformers
    from lmtasks_keras import agreement
    from lmtasks_keras.batches import shapes_of

    from lmtasks.api import resolve
    from lmtasks.models.architectures import adapted
    from lmtasks.models.config import fit_to_tokenizer
    from lmtasks.testing.specimens import tiny_config

    transformers.set_seed(0)
    config = fit_to_tokenizer(tiny_config(kind, recipe), tokenizer)
    model = adapted(resolve(recipe.model_class).from_config(config).float(), recipe).eval()
    draw = np.random.default_rng(0)
    first, last = tokenizer.bos_token_id or 0, tokenizer.eos_token_id or 0
    ids = [np.asarray([first, *draw.integers(270, 300, 30), last], dtype=np.int32) for _ in range(2)]
    examples = [{"input_ids": one, "seed": (0, 0, number)} for number, one in enumerate(ids)]
    batch = recipe.collator(tokenizer, recipe.options(), True)(examples)
    try:
        found = agreement.compare(model, recipe, batch, shapes_of(batch, 3), "jax")
    except agreement.DisagreementError as error:
        return {"equal": False, "reason": str(error)[:300]}
    far = {"loss": found.loss, "gradient": found.gradient}
    return {"equal": max(far.values()) <= EQUAL, **far}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["masked-lm", "causal-lm"])
    parser.add_argument("--only", nargs="+", metavar="TYPE", help="these types, measured anew")
    parser.add_argument("--into", type=Path, default=Path("coverage.jsonl"), help="file to write to")
    parser.add_argument("--limit", type=int, default=120, help="seconds for a type (default: 120)")
    parser.add_argument("--table", type=Path, help="file to read a table from")
    chosen = parser.parse_args()
    if chosen.table:
        print(table([json.loads(line) for line in chosen.table.read_text().splitlines()]))
        return

    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import transformers

    from lmtasks import load_catalog
    from lmtasks.testing.specimens import tokenizer_for
    from lmtasks.testing.survey import types_of

    # What is measured is compiled once and run once: the code need not be fast.
    jax.config.update("jax_disable_most_optimizations", True)
    transformers.logging.set_verbosity_error()
    signal.signal(signal.SIGALRM, _too_slow)
    known = chosen.into.read_text().splitlines() if chosen.into.exists() and not chosen.only else []
    done = {(row["recipe"], row["type"]) for row in map(json.loads, known)}
    catalog = load_catalog()
    for name in chosen.recipes:
        recipe = catalog.recipe(name)
        tokenizer = tokenizer_for(recipe)
        for kind in types_of(recipe, catalog):
            if (name, kind) in done or (chosen.only and kind not in chosen.only):
                continue
            began = time.time()
            signal.alarm(chosen.limit)
            try:
                row = measured(recipe, tokenizer, kind)
            except BaseException as error:
                row = {"equal": False, "reason": f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"[:300]}
                if isinstance(error, KeyboardInterrupt):
                    raise
            signal.alarm(0)
            jax.clear_caches()
            row = {"recipe": name, "type": kind, **row, "seconds": round(time.time() - began, 1)}
            print(json.dumps(row), flush=True)
            with chosen.into.open("a") as file:
                file.write(json.dumps(row) + "\n")


def _too_slow(*_: Any) -> None:
    raise TimeoutError("takes too long to trace")


def table(rows: list[dict[str, Any]]) -> str:
    """What was measured: how many of each recipe are equal, and the others with the reason."""
    latest = {(row["recipe"], row["type"]): row for row in rows}
    lines = ["| Recipe | Types measured | Equal | Off |", "|---|---|---|---|"]
    for recipe in dict.fromkeys(recipe for recipe, _ in latest):
        of_it = [row for (name, _), row in latest.items() if name == recipe]
        equal = [row for row in of_it if row["equal"]]
        most = max((max(row["loss"], row["gradient"]) for row in equal), default=0.0)
        lines.append(f"| {recipe} | {len(of_it)} | {len(equal)} | at most {most:.1e} |")
    lines += ["", "| Recipe | Type | Why not |", "|---|---|---|"]
    for (recipe, kind), row in sorted(latest.items()):
        if not row["equal"]:
            why = row.get("reason") or f"loss off by {row['loss']:.1e}, gradients by {row['gradient']:.1e}"
            lines.append(f"| {recipe} | `{kind}` | {why} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
