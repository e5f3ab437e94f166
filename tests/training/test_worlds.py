"""The same global batch is the same run on one process and on two, and goes on from either in the other."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
from launched import distance, in_two_processes, lines_of

from lmtasks.artifacts.checkpoints import newest_first, step_of
from lmtasks.runs.runner import run

WATCHED = """
import json
import os
from dataclasses import replace
from pathlib import Path

import torch
from lmtasks.builtin.masked_lm import MASKED_LM


def collator(tokenizer, options, training):
    inner = MASKED_LM.collator(tokenizer, options, training)

    def collate(examples):
        batch = inner(examples)
        return {**batch, "seed": torch.tensor([example["seed"] for example in examples])} if training else batch

    return collate


def loss(model, batch):
    if "seed" in batch and model.training and Path(os.environ.get("SEEN", "")).is_dir():
        with (Path(os.environ["SEEN"]) / os.environ.get("RANK", "0")).open("a") as file:
            file.writelines(json.dumps([*seed, ids]) + "\\n" for seed, ids in zip(
                batch["seed"].tolist(), batch["input_ids"].tolist()
            ))
    return MASKED_LM.loss(model, {name: value for name, value in batch.items() if name != "seed"})


WATCHED = replace(MASKED_LM, name="watched", collator=collator, loss=loss, starter=None)
"""

EXAMPLES, BATCH = 29, 8
"""The last step of an epoch has five: of two processes one has four of them, and one has one."""


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe that writes down which examples it trains on, with their masks; and where it does."""
    file = tmp_path / "watched.py"
    file.write_text(WATCHED)
    (tmp_path / "seen").mkdir()
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    return file


def seen(folder: Path) -> list[tuple[int, int, str]]:
    """Epoch, number and masked tokens of the examples that were trained on since this was last asked, in any order."""
    lines = [json.loads(line) for file in folder.iterdir() for line in file.read_text().splitlines()]
    for file in folder.iterdir():
        file.unlink()
    # How far an example is padded depends on its neighbours.
    return sorted((epoch, number, str([one for one in ids if one != 1])) for _, epoch, number, ids in lines)


def cut(folder: Path, step: int) -> None:
    """Let a run be one that was stopped after so many steps."""
    for checkpoint in newest_first(folder):
        if step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))


def test_a_run_goes_on_from_two_processes_in_one_and_in_two_again(
    watched: Path, model_folders: dict[str, Path], text_file: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {
        "model": str(model_folders["modernbert"]), "train_file": str(text_file), "block_size": 16,
        "line_by_line": True, "max_train_samples": EXAMPLES, "max_eval_samples": 7, "num_train_epochs": 3,
        "train_batch_size": BATCH, "save_steps": 5, "logging_steps": 1, "learning_rate": 1e-3, "use_cpu": True,
    }  # fmt: skip
    words = ["run", str(watched), *(word for name, value in asked.items() for word in (f"--{name}", str(value)))]
    recipe, (one, two) = runpy.run_path(str(watched))["WATCHED"], (tmp_path / "one", tmp_path / "two")
    alone = run(recipe, **asked, output_dir=str(one))
    every = seen(tmp_path / "seen")
    assert [(epoch, number) for epoch, number, _ in every] == [(e, n) for e in range(3) for n in range(EXAMPLES)]
    together = in_two_processes(*words, "--output_dir", str(two))
    assert seen(tmp_path / "seen") == every, "the same examples with the same masks"
    _assert_alike(one, two)
    assert together["metrics"]["eval_loss"] == pytest.approx(alone.metrics["eval_loss"], rel=1e-6)

    cut(two, 5)  # in the second epoch, and made by two processes
    position = json.loads((two / "checkpoints" / "checkpoint-5" / "manifest.json").read_text())["position"]
    assert position == {"epoch": 1, "examples": 8, "of": EXAMPLES}
    going_on = run(recipe, **asked, output_dir=str(two), resume_from_checkpoint="auto")
    assert going_on.plan is not None
    assert any("the checkpoint is of 2 processes, and here is 1" in note for note in going_on.plan.notes)
    later = [(epoch, number, ids) for epoch, number, ids in every if epoch == 2]
    rest = seen(tmp_path / "seen")
    assert [example for example in rest if example[0] == 2] == later
    assert len(rest) == 2 * EXAMPLES - BATCH == len(set(rest)), "what was left of the epoch, and nothing twice"
    _assert_alike(one, two)

    cut(two, 10)  # in the third, and made by one
    in_two_processes(*words, "--output_dir", str(two), "--resume_from_checkpoint", "auto")
    rest = seen(tmp_path / "seen")
    assert len(rest) == EXAMPLES - 2 * BATCH and set(rest) < set(later)
    _assert_alike(one, two)
    results = [json.loads((folder / "eval_results.json").read_text()) for folder in (one, two)]
    assert results[0]["eval_loss"] == pytest.approx(results[1]["eval_loss"], rel=1e-6)


def _assert_alike(one: Path, two: Path) -> None:
    losses = [[line["loss"] for line in lines_of(folder / "log.jsonl") if "loss" in line] for folder in (one, two)]
    assert len(losses[0]) == 12
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert distance(one, two) < 1e-4
