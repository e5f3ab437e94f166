"""How long commands take to start: those that only tell, and those that need torch and a model.

    python benchmarks/startup.py [--rounds 20] [--only telling|working]

Prints one row per command: median of the rounds in milliseconds, and as a multiple of
``python -c pass`` in the same rounds. The commands alternate, so that a busy moment hits them all.
One row is ``lmtasks list`` with eight broken plugins installed beside it, each broken in another way; one is
``lmtasks list`` without what it remembers of its last answer: what remembering buys.

The second table has the answer to one text, and the first step of a run, on tiny models and a text of a few lines, so
that nothing but starting takes time. Each is beside a Python that imports what the same job needs of torch and
transformers, the model's class included, and does nothing with it. Rounds are a quarter of those above.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measuring import SCRIPT, alternated, medians, print_table

WANTED = 1.15
"""Times the bare imports that a job may take until it has a result."""

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "lmtasks --help": [SCRIPT, "--help"],
    "lmtasks list": [SCRIPT, "list"],
    "lmtasks list, 8 broken plugins": [SCRIPT, "list"],
    "lmtasks list, nothing remembered": [SCRIPT, "list"],
    "lmtasks show masked-lm": [SCRIPT, "show", "masked-lm"],
    "lmtasks plugins": [SCRIPT, "plugins"],
    "lmtasks run masked-lm --help": [SCRIPT, "run", "masked-lm", "--help"],
    "python -c 'import transformers'": [sys.executable, "-c", "import transformers"],
}


BROKEN = {
    "missing": "import no_such_module_anywhere",
    "raises": "raise RuntimeError('out of cheese')",
    "exits": "import sys; sys.exit(3)",
    "syntax": "def lmtasks_recipes(:",
    "misspelt": "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipies(): return []",
    "wrong": "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipes(): return ['no recipe']",
    "hook-raises": "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipes(): return 1 / 0",
    "slow": "import torch",
}


def install_broken(site: Path) -> None:
    """What pip leaves behind of each: a module, and a folder about it."""
    for name, code in BROKEN.items():
        module = f"broken_{name.replace('-', '_')}"
        (site / f"{module}.py").write_text(code)
        about = site / f"{module}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: broken-{name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[lmtasks]\n{name} = {module}\n")


def seconds(command: list[str], **environment: str) -> float:
    """How long a command takes with these variables, too."""
    environment = {**os.environ, **environment}
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def until_first_step(command: list[str], run: Path) -> float:
    """How long a command takes to write the line of its first step; the run is let end, and taken away."""
    log, began = run / "log.jsonl", time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (log.exists() and log.stat().st_size) and process.poll() is None:
        time.sleep(0.005)
    found = time.perf_counter() - began
    if process.wait():
        raise SystemExit(f"failed: {' '.join(command)}")
    shutil.rmtree(run)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", choices=("telling", "working"), help="one of the two tables")
    given = parser.parse_args()
    if given.only != "working":
        print_telling(given.rounds)
    if given.only != "telling":
        print_working(max(1, given.rounds // 4))


def print_telling(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as site:
        install_broken(Path(site))
        more: dict[str, dict[str, str]] = {name: {} for name in COMMANDS}
        more["lmtasks list, 8 broken plugins"] = {"PYTHONPATH": site}
        more["lmtasks list, nothing remembered"] = {"XDG_CACHE_HOME": os.devnull}
        contestants = {name: partial(seconds, command, **more[name]) for name, command in COMMANDS.items()}
        alternated(contestants, 1)  # once for the disk, and for what list remembers
        times = medians(alternated(contestants, rounds))
    floor = times["python -c pass"]
    print_table(
        "Commands that only tell",
        ("command", f"median of {rounds}, ms", "× python -c pass"),
        ([f"`{name}`", f"{median * 1000:.0f}", f"{median / floor:.1f}"] for name, median in times.items()),
    )


# --- with torch and a model ---


def print_working(rounds: int) -> None:
    # Here, because everything above must stay as light as what it measures.
    from prediction import QUICK, new_model

    from lmtasks.builtin.causal_lm import CAUSAL_LM
    from lmtasks.builtin.masked_lm import MASKED_LM
    from lmtasks.data.sample import sample_documents

    with tempfile.TemporaryDirectory() as place:
        documents, root = sample_documents("python"), Path(place)
        masked = new_model(root / "masked", MASKED_LM, "roberta", QUICK, documents)
        causal = new_model(root / "causal", CAUSAL_LM, "gpt2", QUICK, documents)
        text, run = root / "text.txt", root / "run"
        text.write_text("\n".join(documents[0].splitlines()[:60]))
        words = ["run", "masked-lm", "--model", masked, "--train_file", str(text), "--output_dir", str(run)]
        train = [SCRIPT, *words, "--block_size", "32", "--max_steps", "1", "--logging_steps", "1"]
        jobs: dict[str, tuple[Callable[[], float], str]] = {
            "lmtasks predict, masked-lm": (
                partial(seconds, [SCRIPT, "predict", masked, "The <mask> is"]),
                "FillMaskPipeline, PreTrainedTokenizerFast, RobertaForMaskedLM",
            ),
            "lmtasks predict, causal-lm": (
                partial(seconds, [SCRIPT, "predict", causal, "The", "--max_new_tokens", "2"]),
                "GPT2LMHeadModel, PreTrainedTokenizerFast, TextGenerationPipeline",
            ),
            "lmtasks run masked-lm, first step": (
                partial(until_first_step, train, run),
                "PreTrainedTokenizerFast, RobertaForMaskedLM, Trainer",
            ),
        }
        contestants: dict[str, Callable[[], float]] = {}
        for name, (job, names) in jobs.items():
            bare = f"import torch, transformers; from transformers import {names}"
            contestants |= {name: job, f"bare imports, {name}": partial(seconds, [sys.executable, "-c", bare])}
        alternated(contestants, 1)  # once for the disk
        times = medians(alternated(contestants, rounds))
    rows = []
    for name in jobs:
        ratio = times[name] / times[f"bare imports, {name}"]
        cells = (f"{1000 * times[one]:.0f}" for one in (name, f"bare imports, {name}"))
        rows.append([f"`{name}`", *cells, f"{ratio:.2f}" + (", missed" if ratio > WANTED else "")])
    header = ("job", f"median of {rounds}, ms", "bare imports, ms", f"×, wanted {WANTED:g} at most")
    print_table("Until there is a result", header, rows)


if __name__ == "__main__":
    main()
