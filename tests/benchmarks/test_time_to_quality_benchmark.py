"""The benchmark of time to quality stops a clock while it judges, and each training at the guide's loss."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("recipe", ["masked-lm", "causal-lm"])
def test_who_reaches_the_goal_stops(recipe: str) -> None:
    # A rate at which eight steps teach something: lmtasks' choice, a hundredth, is the largest of all.
    words = ["--quick", "--recipe", recipe, "--learning-rate", "1e-3", "--steps", "8", "--shares", "1"]
    command = [sys.executable, str(FOLDER / "time_to_quality.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    rows = {cells[0]: cells[1:] for cells in lines[2:]}
    assert [*rows] == ["guide", "script", "lmtasks", "lmtasks, its own choice", "lmtasks, preset fast"]
    goal = float(rows["guide"][0])
    assert rows["guide"][1] == "8"
    assert rows["guide"][4:] == ["1.00", "1.00"]
    assert float(rows["script"][0]) > goal, "at a rate of 5e-5 nothing is learned in eight steps"
    assert rows["script"][4:] == ["–", "–"]
    loss, steps, _, _, fewer, _ = rows["lmtasks, its own choice"]
    assert float(loss) <= goal
    assert int(steps) < 8
    assert float(fewer) == pytest.approx(8 / int(steps), abs=0.01)


def test_the_clock_stands_while_the_judge_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import time_to_quality
    from transformers import TrainerControl, TrainerState

    now, losses = iter([0.0, 1.0, 100.0, 102.0, 200.0]), iter([5.0, 3.0])
    monkeypatch.setattr(time_to_quality.time, "perf_counter", lambda: next(now))
    watch = time_to_quality.Watch(lambda model: next(losses), goal=4.0, every=1)
    state, control = TrainerState(max_steps=9), TrainerControl()
    watch.on_train_begin(None, state, control)
    for step, stops in ((1, False), (2, True)):
        state.global_step = step
        watch.on_step_end(None, state, control, model=None)
        assert control.should_training_stop is stops
    assert (watch.seconds, watch.steps, watch.loss) == (3.0, 2, 3.0)
