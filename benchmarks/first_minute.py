"""The runs that need no arguments: how long they take, and how much they learn.

    python benchmarks/first_minute.py [--rounds 1]

Each run is a fresh ``lmtasks run RECIPE`` without a network, imports included. The gap is what the
model is better than the unigram baseline of the very tokens that it is evaluated on.
"""

import argparse
import statistics

from measuring import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    rounds = parser.parse_args().rounds
    print("| command | whole, s | training, s | loss, nats | unigram | gap |")
    print("|---|---|---|---|---|---|")
    for recipe in ("masked-lm", "causal-lm"):
        seconds, figures = zip(*(run(recipe) for _ in range(rounds)), strict=True)
        metrics = figures[0]  # the same in every round, to the last digit
        training = statistics.median(each["train_runtime"] for each in figures)
        gap = metrics["unigram_loss"] - metrics["eval_loss"]
        print(
            f"| `lmtasks run {recipe}` | {statistics.median(seconds):.0f} | {training:.0f} "
            f"| {metrics['eval_loss']:.3f} | {metrics['unigram_loss']:.3f} | {gap:.2f} |"
        )


if __name__ == "__main__":
    main()
