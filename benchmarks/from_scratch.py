"""What models from scratch learn of a short text: how far they end under the loss of guessing by word frequency.

    python benchmarks/from_scratch.py --text alice.txt [--seeds 3] [--only starter]

Each row is a command of the README or of docs/reports.md, carried out as it stands there with seeds of its own. The gap
is to the unigram baseline of the very tokens that are evaluated, in nats; above zero is better than guessing. The exit
code is 1 where the mean over the seeds is less than the half nat that is wanted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from measuring import run

WANTED = 0.5
"""Nats under the baseline, at least."""

CONVOLUTIONS = (
    "num_hidden_layers=3,full_attn_idxs=[2],hidden_size=128,intermediate_size=256,num_attention_heads=2,"
    "num_key_value_heads=2"
)
NEIGHBOURS = "num_hidden_layers=2,hidden_size=512,intermediate_size=1024,num_attention_heads=8,local_attention=2"

COMMANDS = {
    "masked-lm, starter": "masked-lm",
    "causal-lm, starter": "causal-lm",
    "causal-lm, lfm2": f"causal-lm --model_type lfm2 --config_overrides {CONVOLUTIONS} --train_tokenizer 2000",
    "masked-lm, neighbours": f"masked-lm --model_type modernbert --config_overrides {NEIGHBOURS} --train_tokenizer 2000"
    " --mlm_probability 0.5",
}


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
        runs = [run(*words.split(), "--train_file", str(asked.text), "--seed", str(seed))[1] for seed in seeds]
        gaps = [one["unigram_loss"] - one["eval_loss"] for one in runs]
        mean = statistics.mean(gaps)
        enough &= mean >= WANTED
        told = " | ".join(f"{gap:.2f}" for gap in gaps)
        print(f"| {name} | {runs[0]['steps']:,} | {told} | {mean:.2f} |", flush=True)
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
