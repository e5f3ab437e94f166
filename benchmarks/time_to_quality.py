"""How soon a training is as good as the guide's is at its end: the same model from scratch, on the same rows.

    python benchmarks/time_to_quality.py [--recipe masked-lm] [--steps 300] [--data FILE] [--tokenizer FOLDER]
        [--layers 2 --hidden 128] [--shares 1 0.5 0.25] [--set learning_rate=2e-3 ...]

- guide: the Trainer as in the task guides, all its steps; what one float32 loop says of it then is the goal.
- script: the same Trainer with the defaults of ``run_mlm.py`` and ``run_clm.py``: a rate of 5e-5 and no weight decay.
- lmtasks: the guide's hyperparameters.
- lmtasks, its own choice: the rate left out, so that it goes by the model's width, with a warm-up; and ``--set``.
- lmtasks, preset fast: the same with ``--preset fast``.

A schedule belongs to a number of steps. So the last two are tried with shares of the guide's steps, and the fewest
steps that reach the goal count. With the guide's hyperparameters lmtasks has other masks and another order, so that it
may end a little above the goal or below; ``--longer 1.2`` lets it take a fifth more steps. Every so many steps the loop
judges the model while the clock stands still; who has reached the goal stops. With ``--guide`` the guide's finish is
kept in a file, since it takes longest. Seconds are those of the training loop alone, without imports, preparation and
judging: on a busy machine, steps are what to compare.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from contest import Contest, Judge, Outcome, rows_for, with_guide, with_lmtasks
from measuring import print_table, quiet_place
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

CHECKS = 20
"""How often a training is judged."""


class Watch(TrainerCallback):
    """A clock of the steps alone, that stands while the judge looks, and ends the training at the goal.

    Args:
        goal: nats per target; None to train to the end.
        every: steps between two looks.
    """

    def __init__(self, judge: Judge, goal: float | None, every: int) -> None:
        self.judge, self.goal, self.every = judge, goal, every
        self.seconds, self.steps, self.loss = 0.0, 0, float("inf")
        self._since = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The clock runs."""
        self._since = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Count the step; look if it is time to."""
        self.seconds += time.perf_counter() - self._since
        self.steps = state.global_step
        if self.steps % self.every == 0 or self.steps == state.max_steps:
            self.loss = self.judge(model)
            control.should_training_stop |= self.reached
        self._since = time.perf_counter()

    @property
    def reached(self) -> bool:
        """Whether the model is as good as it should be."""
        return self.goal is not None and self.loss <= self.goal


@dataclass(frozen=True)
class Race:
    """A contest with a goal.

    Args:
        steps: those of the guide.
        longer: times as many are lmtasks' with the guide's hyperparameters.
        chosen: settings of lmtasks in place of the guide's rate.
    """

    contest: Contest
    judge: Judge
    steps: int
    longer: float
    shares: Sequence[float]
    chosen: Mapping[str, Any]

    def run(self, train: Callable[..., Outcome], goal: float | None, steps: int, **how: Any) -> Watch:
        """One training of so many steps at most, watched."""
        watch = Watch(self.judge, goal, max(1, steps // CHECKS) if goal is not None else steps)
        train(self.contest, 0, [watch], max_steps=steps, **how)
        return watch

    def fewest(self, goal: float, **settings: Any) -> Watch:
        """The shortest of the trainings without the guide's rate that reach the goal, or the longest one."""
        best = None
        for share in sorted(self.shares, reverse=True):
            steps = max(1, round(share * self.steps))
            watch = self.run(with_lmtasks, goal, steps, learning_rate=None, **settings)
            if best is not None and not watch.reached:
                break
            best = watch
        assert best is not None  # there is a share
        return best


@dataclass(frozen=True)
class Finish:
    """Where a training ended.

    Args:
        reached: whether at the goal.
    """

    seconds: float
    steps: int
    loss: float
    reached: bool = True


def guides_finish(race: Race, kept: Path | None) -> Finish:
    """The guide's, out of a file where that is there; else it is written there."""
    if kept is not None and kept.exists():
        finish = Finish(**json.loads(kept.read_text("utf-8")))
        if finish.steps != race.steps:
            raise SystemExit(f"{kept} is of {finish.steps} steps, not of {race.steps}")
        return finish
    watch = race.run(with_guide, None, race.steps)
    finish = Finish(watch.seconds, watch.steps, watch.loss)
    if kept is not None:
        kept.write_text(json.dumps(asdict(finish)), encoding="utf-8")
    return finish


def watched(race: Race, kept: Path | None, only: Sequence[str]) -> dict[str, Finish]:
    """The finish of each contestant, or of those whose names are asked for beside the guide."""
    guide = guides_finish(race, kept)
    contestants: dict[str, Callable[[], Watch]] = {
        "script": partial(race.run, with_guide, guide.loss, race.steps, learning_rate=5e-5, weight_decay=0.0),
        "lmtasks": partial(race.run, with_lmtasks, guide.loss, round(race.longer * race.steps)),
        "lmtasks, its own choice": partial(race.fewest, guide.loss, **race.chosen),
        "lmtasks, preset fast": partial(race.fewest, guide.loss, preset="fast", **race.chosen),
    }
    watches = {name: run() for name, run in contestants.items() if not only or name in only}
    ours = {name: Finish(one.seconds, one.steps, one.loss, one.reached) for name, one in watches.items()}
    return {"guide": guide, **ours}


def rows(found: Mapping[str, Finish]) -> Iterator[list[str]]:
    guide = found["guide"]
    for name, watch in found.items():
        got_there = watch.reached
        times = [f"{guide.steps / watch.steps:.2f}", f"{guide.seconds / watch.seconds:.2f}"] if got_there else ["–"] * 2
        each = f"{1000 * watch.seconds / watch.steps:.1f}"
        yield [name, f"{watch.loss:.4f}", str(watch.steps), each, f"{watch.seconds:.1f}", *times]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="masked-lm", choices=("masked-lm", "causal-lm"))
    parser.add_argument("--data", help="text file, whose paragraphs are the rows; the embedded sample when not given")
    parser.add_argument("--rows", type=int, default=200, help="of the data, a tenth of which are held out")
    parser.add_argument("--tokenizer", help="folder; one is trained on the text when not given")
    parser.add_argument("--vocabulary", type=int, default=2000, help="most tokens of the one that is trained")
    parser.add_argument("--steps", type=int, default=300, help="of the guide")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[1.0, 0.5, 0.25], help="of them, for lmtasks' choice"
    )
    parser.add_argument("--longer", type=float, default=1.0, help="times as many, for the guide's hyperparameters")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--block", type=int, default=128, help="tokens per block")
    parser.add_argument("--judged", type=int, default=64, help="blocks that the judge looks at")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="of the guide")
    parser.add_argument("--guide", type=Path, help="file in which the guide's finish is kept")
    parser.add_argument(
        "--only", nargs="*", default=[], help="names of contestants beside the guide; all when not given"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of lmtasks' choice")
    parser.add_argument("--quick", action="store_true", help="tiny models, a few steps: to see that it works")
    given = parser.parse_args(words)
    if given.quick:
        given.rows, given.vocabulary, given.steps, given.layers, given.hidden, given.block = 10, 400, 8, 1, 32, 32
    with quiet_place() as place:
        files = rows_for(given.data, given.rows, given.tokenizer, given.vocabulary, place)
        shared = {"learning_rate": given.learning_rate, "weight_decay": 0.01, "use_cpu": True}
        contest = Contest(given.recipe, *files, given.layers, given.hidden, given.block, shared)
        chosen = dict(pair.split("=", 1) for pair in given.set)
        race = Race(contest, Judge(contest, given.judged), given.steps, given.longer, given.shares, chosen)
        found = watched(race, given.guide, given.only)
    print_table(
        f"Until the guide's final loss: {given.recipe}, {given.layers} × {given.hidden}, blocks of {given.block}",
        ("who", "loss, nats", "steps", "ms per step", "seconds", "guide's steps ÷", "guide's seconds ÷"),
        rows(found),
    )


if __name__ == "__main__":
    main()
