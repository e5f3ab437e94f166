"""A run that ends in time, figures as CSV, and the pace of a run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lmtasks_time_budget import TIME_BUDGET

from lmtasks import Run
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.cli.app import main
from lmtasks.registry.catalog import load_catalog
from lmtasks.testing import check_extension


def test_it_keeps_the_contract() -> None:
    proof = check_extension(TIME_BUDGET, options={"minutes": 1e6})
    assert {name for name, outcome in proof.checks.items() if outcome.state == "skipped"} == set()


def test_it_comes_in_by_its_entry_point() -> None:
    owner = next(plugin for plugin in load_catalog().plugins if "time-budget" in plugin.extensions)
    assert owner.distribution == "lmtasks-time-budget"


def test_a_run_without_time_ends_after_its_first_step_and_is_finished(lmtasks_run: Callable[..., Run]) -> None:
    run = lmtasks_run(MASKED_LM, max_steps=6, **{"time_budget.minutes": 1e-9})
    record = json.loads((run.output_dir / "run.json").read_text())
    assert record["status"] == "done"
    assert record["stopped_early"] == 1
    assert record["extensions"] == {"time_budget.minutes": 1e-9}
    assert run.metrics["eval_targets"] > 0


def test_figures_as_csv(lmtasks_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]) -> None:
    run = lmtasks_run(MASKED_LM, max_steps=4, logging_steps=2, eval_strategy="steps", eval_steps=4, report_to="csv")
    with (run.output_dir / "figures.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = [json.loads(line) for line in (run.output_dir / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == ["2", "4"]
    assert float(rows[0]["loss"]) == next(entry["loss"] for entry in logged if entry["step"] == 2)
    assert rows[0]["eval_loss"] == ""
    assert float(rows[1]["eval_loss"]) == next(entry["eval_loss"] for entry in logged if "eval_loss" in entry)

    assert main(["pace", str(run.output_dir), "--minutes", "2"]) == 0
    seconds = run.metrics["train_runtime"]
    told = capsys.readouterr().out.splitlines()
    assert told == [
        f"4 steps in {seconds:.1f} s, {seconds / 4:.3f} s a step",
        f"{int(2 * 60 * 4 / seconds)} steps in 2 minutes",
    ]


def test_the_pace_of_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pace", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: '{tmp_path}' holds no finished run\nhint: lmtasks pace RUN")
