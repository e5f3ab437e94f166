"""The final evaluation loss after the same steps, the guide's and lmtasks': same rows, split, rate and number of steps.

    python benchmarks/against_guide.py [--seeds 5] [--steps 34] [--data FILE] [--tokenizer FOLDER] [--only causal-lm]
        [--set warmup_steps=0.1 ...]

Both train the same architecture from scratch, seed by seed: the guide with the Trainer as the task guides use it,
lmtasks with ``lmtasks.run``. One plain float32 loop judges both models, on the same blocks with the same masks. Beside
it stands what each reports of itself: the Trainer of transformers 5 divides the loss of a causal model by all labels of
a block, the first of which is no target, and so reports 127/128 of it.

lmtasks should not be above the guide by more than two standard errors of the difference. ``--set`` changes settings of
lmtasks' runs, to find out what a difference is made of. ``--data`` is a text file, whose paragraphs are the rows;
without it the embedded sample is taken.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from contest import Contest, Judge, Outcome, rows_for, with_guide, with_lmtasks
from measuring import alternated, print_table, quiet_place

RECIPES = ("masked-lm", "causal-lm")

ALLOWED = 2.0
"""Standard errors of the difference by which lmtasks may be above the guide."""


@dataclass(frozen=True)
class Losses:
    """What one contestant came to, seed by seed, in nats.

    Args:
        judged: by the judge.
        reported: in its own words.
    """

    judged: Sequence[float]
    reported: Sequence[float]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.mean(self.judged)

    @property
    def error(self) -> float:
        """The standard error of the mean; 0 of a single seed, of which nothing is known."""
        return statistics.stdev(self.judged) / len(self.judged) ** 0.5 if len(self.judged) > 1 else 0.0


def above(guide: Losses, ours: Losses) -> tuple[float, float]:
    """By how much ours is above the guide's, and the standard error of that."""
    return ours.mean - guide.mean, (guide.error**2 + ours.error**2) ** 0.5


def compared(contest: Contest, seeds: Sequence[int], settings: Mapping[str, Any]) -> dict[str, Losses]:
    judge, numbers = Judge(contest), iter(sorted([*seeds, *seeds]))

    def losses(train: Any) -> tuple[float, float]:
        outcome: Outcome = train(contest, next(numbers))
        return judge(outcome.model), outcome.reported

    contestants = {"guide": with_guide, "lmtasks": partial(with_lmtasks, **settings)}
    found = alternated({name: partial(losses, train) for name, train in contestants.items()}, len(seeds))
    return {name: Losses(*zip(*pairs, strict=True)) for name, pairs in found.items()}


def row(recipe: str, found: Mapping[str, Losses]) -> list[str]:
    guide, ours = found["guide"], found["lmtasks"]
    difference, error = above(guide, ours)
    judged = [f"{one.mean:.4f} ± {one.error:.4f}" for one in (guide, ours)]
    reported = [f"{statistics.mean(one.reported):.4f}" for one in (guide, ours)]
    errors = f"{difference / error:+.1f}" if error else "unknown"
    return [recipe, *judged, f"{difference:+.4f}", errors, *reported]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="text file; the embedded sample when not given")
    parser.add_argument("--rows", type=int, default=100, help="of the data, a tenth of which are held out")
    parser.add_argument("--tokenizer", help="folder; one is trained on the text when not given")
    parser.add_argument("--vocabulary", type=int, default=2000, help="most tokens of the one that is trained")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=34)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--block", type=int, default=128, help="tokens per block")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--only", choices=RECIPES)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of lmtasks' runs")
    parser.add_argument("--quick", action="store_true", help="tiny models, two steps: to see that it works")
    given = parser.parse_args(words)
    if given.quick:
        given.rows, given.vocabulary, given.steps, given.layers, given.hidden, given.block = 10, 400, 2, 1, 32, 32
    recipes = [given.only] if given.only else RECIPES
    rows = []
    with quiet_place() as place:
        files = rows_for(given.data, given.rows, given.tokenizer, given.vocabulary, place)
        shared = {"max_steps": given.steps, "learning_rate": given.learning_rate, "weight_decay": 0.01, "use_cpu": True}
        for recipe in recipes:
            contest = Contest(recipe, *files, given.layers, given.hidden, given.block, shared)
            settings = dict(pair.split("=", 1) for pair in given.set)
            rows.append(row(recipe, compared(contest, range(given.seeds), settings)))
    print_table(
        f"Evaluation loss after {given.steps} steps at {given.learning_rate:g}, {given.layers} × {given.hidden},"
        f" {given.seeds} seeds, nats",
        (
            "recipe",
            "guide, judged",
            "lmtasks, judged",
            "difference",
            f"in standard errors (≤ {ALLOWED:g})",
            "guide reports",
            "lmtasks reports",
        ),
        rows,
    )


if __name__ == "__main__":
    main()
