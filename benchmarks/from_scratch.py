"""What models from scratch learn of a short text: how far they end under the loss of guessing by word frequency.

    python benchmarks/from_scratch.py --text alice.txt [--seeds 3] [--only starter]

Each row is a command of the README or of docs/reports.md, carried out as it stands there with seeds of its own. The gap
is to the unigram baseline of the very tokens that are evaluated, in nats; above zero is better than guessing. The exit
code is 1 where the mean over the seeds is less than the half nat that is wanted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SCRIPT = str(Path(sys.executable).with_name("lmtasks"))

WANTED = 0.5
"""Nats under the baseline, at least."""

LLAMA = "num_hidden_layers=2,hidden_size=64,intermediate_size=128,num_attention_heads=2,num_key_value_heads=2"
NEIGHBOURS = "num_hidden_layers=2,hidden_size=512,intermediate_size=1024,num_attention_heads=8,local_attention=2"

COMMANDS = {
    "masked-lm, starter": ["masked-lm"],
    "causal-lm, starter": ["causal-lm"],
    "causal-lm, llama": [
        *("causal-lm", "--model_type", "llama", "--config_overrides", LLAMA),
        *("--train_tokenizer", "2000"),
    ],
    "masked-lm, neighbours": [
        *("masked-lm", "--model_type", "modernbert", "--config_overrides", NEIGHBOURS),
        *("--train_tokenizer", "2000", "--mlm_probability", "0.5"),
    ],
}


def metrics_of(words: list[str], text: Path, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [SCRIPT, "run", *words, "--train_file", str(text), "--seed", str(seed), "--json"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [*command, "--output_dir", f"{folder}/run"], check=True, capture_output=True, text=True, env=environment
        )
        lines = map(json.loads, Path(folder, "run", "log.jsonl").read_text().splitlines())
        return {**json.loads(done.stdout)["metrics"], "steps": max(line["step"] for line in lines)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows whose name has this")
    asked = parser.parse_args()
    seeds = range(42, 42 + asked.seeds)
    print(f"| what | steps | {' | '.join(f'seed {seed}' for seed in seeds)} | mean |")
    print("|---|---" + "|---" * (asked.seeds + 1) + "|")
    enough = True
    for name, words in COMMANDS.items():
        if asked.only not in name:
            continue
        runs = [metrics_of(words, asked.text, seed) for seed in seeds]
        gaps = [run["unigram_loss"] - run["eval_loss"] for run in runs]
        mean = statistics.mean(gaps)
        enough &= mean >= WANTED
        told = " | ".join(f"{gap:.2f}" for gap in gaps)
        print(f"| {name} | {runs[0]['steps']:,} | {told} | {mean:.2f} |", flush=True)
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
