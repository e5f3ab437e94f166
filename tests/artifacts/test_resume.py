"""How a run begins in its folder: anew, again, from which checkpoint, or not at all."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lmtasks.artifacts.checkpoints import begin, finish
from lmtasks.artifacts.durable import write_json
from lmtasks.artifacts.resume import Asked, Start, interrupted, start_in
from lmtasks.artifacts.run_folder import digests
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.request import configure
from lmtasks.errors import InputError

OUT = Path("out")
REQUEST = "0123456789abcdef"
GIVEN = {"model_name_or_path": "m", "learning_rate": 1e-4, "max_steps": 10}
BATCH = {"examples": 8}
ASKED = Asked("masked-lm", REQUEST, GIVEN, BATCH)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def record(**more: Any) -> None:
    """A folder with the record of an unfinished run of ``ASKED``."""
    OUT.mkdir(exist_ok=True)
    write_json(OUT / "run.json", {"status": "running", "recipe": "masked-lm", **ASKED.as_record(), **more})


def checkpoint(step: int, **facts: Any) -> Path:
    path = OUT / "checkpoints" / f"checkpoint-{step}"
    begin(path)
    for name in ("model.safetensors", "optimizer.pt", "trainer_state.json"):
        (path / name).write_text(f"{name} of {step}")
    finish(path, {"request": REQUEST, "resumable": True, "batch": BATCH, **facts})
    return path


def start(
    resume: str | bool | None = None,
    *,
    overwrite: bool = False,
    folder: Path = OUT,
    batch: Mapping[str, int] = BATCH,
    **asked: Any,
) -> Start:
    changed = Asked("masked-lm", "fedcba9876543210" if asked else REQUEST, {**GIVEN, **asked}, batch)
    return start_in(folder, changed, overwrite=overwrite, resume=resume)


# --- who may write ---


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_new_folder_and_an_empty_one_begin_anew_and_are_not_made(resume: str | None) -> None:
    assert start(resume, folder=Path("deep/below")) == Start("anew")
    assert not Path("deep").exists()
    OUT.mkdir()
    (OUT / ".lock").touch()
    (OUT / ".run.json.new").write_text("{")
    assert start(resume) == Start("anew")


def test_only_auto_may_find_nothing_to_resume() -> None:
    for resume in (True, "out/checkpoints/checkpoint-3"):
        with pytest.raises(InputError, match="nothing to resume in 'out'") as caught:
            start(resume)
        assert caught.value.hint == "leave out --resume_from_checkpoint, or make it auto"


def test_an_unfinished_run_of_the_same_request_goes_on_or_begins_again_but_is_not_ignored() -> None:
    record()
    last = checkpoint(3)
    for resume in (True, "auto", str(last)):
        assert start(resume) == Start("on", last, 3)
    assert start(overwrite=True) == Start("again")
    with pytest.raises(InputError, match="holds this run, unfinished"):
        start()


def test_a_run_without_a_checkpoint_begins_again_with_auto() -> None:
    record()
    assert start("auto") == Start("again")
    with pytest.raises(InputError, match="was stopped before its first checkpoint") as caught:
        start(True)
    assert caught.value.hint == "--overwrite_output_dir starts again"


def test_a_finished_run_is_left_alone() -> None:
    record(status="done")
    checkpoint(10)
    assert start(overwrite=True) == Start("again")
    assert start("auto") == Start("finished")
    for resume in (None, True, "out/checkpoints/checkpoint-10"):
        with pytest.raises(InputError, match="holds a finished run") as caught:
            start(resume)
        assert "go on: --resume_from_checkpoint true with more" in caught.value.hint


def test_a_finished_run_whose_model_was_damaged_is_saved_once_more() -> None:
    record()
    (OUT / "model.safetensors").write_text("weights")
    record(status="done", sha256=digests(OUT, ["model.safetensors"]))
    last = checkpoint(10)
    assert start("auto") == Start("finished")
    (OUT / "model.safetensors").write_text("weighty")
    note = "'out/model.safetensors' is not as the run left it: saved again"
    assert start("auto") == Start("on", last, 10, notes=(note,))
    (last / "optimizer.pt").unlink()
    with pytest.raises(InputError, match=r"no checkpoint of the run in 'out' is good: .*optimizer\.pt is missing"):
        start("auto")


# --- other options ---


def test_what_differs_is_named() -> None:
    record()
    checkpoint(3)
    for resume in (None, True, "auto"):
        with pytest.raises(InputError) as caught:
            start(resume, learning_rate=1e-3, seed=1)
        said = "holds an unfinished run with other options: --learning_rate 0.0001 there; --seed not given there"
        assert caught.value.message == f"output_dir 'out' {said}"
    with pytest.raises(InputError, match="not given there, and 2 more"):
        start(True, a=1, b=2, c="x", d=True, e=None, model_name_or_path="n")


def test_another_recipe_is_named() -> None:
    record(recipe="causal-lm")
    with pytest.raises(InputError, match="with other options: it is of causal-lm"):
        start(True, seed=1)


@pytest.mark.parametrize("other", ["fedcba9876543210", "", None])
def test_a_fingerprint_without_a_difference_is_one_of_files_or_versions(other: str | None) -> None:
    record(request=other)
    checkpoint(3)
    with pytest.raises(InputError, match="what a file of its options holds, or the version of lmtasks"):
        start(True)


def test_what_moves_no_weight_may_change() -> None:
    record()
    last = checkpoint(3)
    begun = start(True, save_steps=2, logging_steps=1, save_total_limit=3)
    assert begun == Start("on", last, 3, earlier=({"request": REQUEST, "steps": 3},))


@pytest.mark.parametrize("status", ["running", "done"])
def test_a_run_can_be_made_longer(status: str) -> None:
    record(status=status)
    last = checkpoint(10)
    longer = Start("on", last, 10, longer=True, earlier=({"request": REQUEST, "steps": 10},))
    assert start(True, max_steps=20) == longer
    assert start("auto", max_steps=20) == longer
    with pytest.raises(InputError):
        start(None, max_steps=20)


def test_a_finished_run_without_checkpoints_cannot_be_made_longer() -> None:
    record(status="done")
    with pytest.raises(InputError, match="the run in 'out' has no checkpoint to go on from"):
        start(True, max_steps=20)


def test_of_a_run_that_was_made_longer_only_what_came_before_counts() -> None:
    """From step 6 on it had another schedule: a checkpoint of the old one is of another run."""
    earlier = [{"request": "old", "steps": 6}]
    record(earlier=earlier)
    first, last = checkpoint(6, request="old"), checkpoint(9, request="old")
    begun = start(True)
    assert begun.checkpoint == first
    assert begun.notes == ("passed over checkpoint-9: it is of another run",)
    assert begun.earlier == tuple(earlier)
    assert start("auto").checkpoint != last
    assert start(True, save_steps=2).earlier == (*earlier, {"request": REQUEST, "steps": 6})


def test_options_are_those_that_were_given() -> None:
    values = {"model": "m", "learning_rate": "1e-4", "train_file": "a.txt", "output_dir": "o"}
    asked = Asked.of(configure(MASKED_LM, values), BATCH)
    assert asked.recipe == "masked-lm"
    assert asked.options == {"model_name_or_path": "m", "learning_rate": 1e-4, "train_file": ["a.txt"]}
    same = {"model_name_or_path": "m", "learning_rate": 1e-4, "train_file": ["a.txt"], "resume_from_checkpoint": "auto"}
    assert Asked.of(configure(MASKED_LM, same), BATCH) == asked
    assert json.loads(json.dumps(asked.as_record())) == asked.as_record()


# --- which checkpoint ---


def test_the_newest_whole_checkpoint_is_taken_and_the_others_named() -> None:
    record()
    good = checkpoint(2)
    (checkpoint(4) / "optimizer.pt").unlink()
    (checkpoint(6) / "manifest.json").unlink()
    for resume in (True, "auto"):
        begun = start(resume)
        assert (begun.how, begun.checkpoint, begun.steps) == ("on", good, 2)
        assert begun.notes == (
            "passed over checkpoint-6: it was not written to its end",
            "passed over checkpoint-4: optimizer.pt is missing",
        )
    assert {path.name for path in (OUT / "checkpoints").iterdir()} == {f"checkpoint-{step}" for step in (2, 4, 6)}


def test_where_none_is_whole_auto_begins_again_and_says_so() -> None:
    record()
    (checkpoint(2) / "model.safetensors").write_text("model.safetensors of 3")
    note = "passed over checkpoint-2: model.safetensors is not as it was written"
    assert start("auto") == Start("again", notes=(note,))
    with pytest.raises(InputError, match=f"no checkpoint of the run in 'out' is good: {note}"):
        start(True)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"resumable": False}, "it has the weights only"),
        ({"batch": {"examples": 4}}, "it is of a global batch of 4 examples"),
        ({"batch": None}, "it is of a global batch of nobody knows how many examples"),
        ({"request": "another"}, "it is of another run"),
    ],
)
def test_a_checkpoint_that_nothing_can_go_on_from_exactly_is_passed_over(facts: dict[str, Any], said: str) -> None:
    record()
    last = checkpoint(2, **facts)
    assert said in start("auto").notes[0]
    with pytest.raises(InputError, match=f"cannot be resumed: {said}"):
        start(str(last))


def test_the_same_global_batch_may_be_divided_in_another_way() -> None:
    record()
    last = checkpoint(2, processes=2)
    assert start(True, gradient_accumulation_steps=2, train_batch_size=8).checkpoint == last


@pytest.mark.parametrize("resume", [None, True, "auto"])
@pytest.mark.parametrize("status", ["running", "done"])
def test_another_global_batch_is_refused_with_what_to_type(resume: Any, status: str) -> None:
    """The same command on another number of processes, or another command."""
    record(status=status)
    checkpoint(2)
    for asked in ({}, {"per_device_train_batch_size": 2}):
        with pytest.raises(InputError, match="run with a global batch of 8 examples, and here it would be 4") as caught:
            start(resume, batch={"examples": 4}, **asked)
        assert caught.value.hint.startswith("--train_batch_size 8 in place of --per_device_train_batch_size")
    with pytest.raises(InputError, match="with other options: --seed not given there; another global batch"):
        start(resume, batch={"examples": 4}, seed=1)


def test_where_the_order_goes_by_the_division_that_has_to_stay() -> None:
    bound = {"processes": 2, "at once": 4, "times": 1}
    record(batch=bound)
    last = checkpoint(2, batch=bound)
    assert start(True, batch=bound).checkpoint == last
    with pytest.raises(InputError, match="of 2 processes × 4 at once × 1 times, and here it would be 1") as caught:
        start(True, batch={"processes": 1, "at once": 8, "times": 1})
    assert caught.value.hint == "divide it as it was, or replace the run with --overwrite_output_dir"


def test_a_checkpoint_can_be_named_as_a_path_of_any_form() -> None:
    record()
    wanted = checkpoint(2)
    checkpoint(3)
    for name in (str(wanted), str(wanted.absolute()), f"out/../{wanted}", f"{wanted}/"):
        assert start(name).checkpoint == wanted
    for name in ("out/checkpoints/checkpoint-9", "out", ".", "auto/"):
        with pytest.raises(InputError, match=f"'{name}' is no checkpoint of the run in 'out'"):
            start(name)


# --- other folders ---


@pytest.mark.parametrize("content", ['{"status": "done"}', "[1]", '"recipe"', "null"])
def test_any_other_run_json_is_no_run(content: str) -> None:
    OUT.mkdir()
    (OUT / "run.json").write_text(content)
    for resume in (None, "auto"):
        with pytest.raises(InputError, match="no run of lmtasks"):
            start(resume)
    with pytest.raises(InputError, match="no run of lmtasks"):
        start(overwrite=True)


def test_a_folder_that_only_hides_a_file_is_not_empty() -> None:
    OUT.mkdir()
    (OUT / ".env").write_text("TOKEN=1")
    with pytest.raises(InputError, match="no run of lmtasks"):
        start("auto")


def test_replacing_and_resuming_exclude_each_other() -> None:
    with pytest.raises(InputError, match="exclude each other"):
        start(True, overwrite=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_found_out_before_training() -> None:
    Path("locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="no permission in"):
        start(folder=Path("locked/out"))


# --- what a signal leaves ---


def test_what_is_told_after_a_signal_is_what_the_folder_has() -> None:
    told = interrupted(signal.SIGTERM, None)
    assert (told.exit_code, told.message) == (143, "stopped by SIGTERM, before anything was written")
    OUT.mkdir()
    assert interrupted(signal.SIGINT, OUT).message == "stopped by SIGINT, before anything was written"
    assert interrupted(signal.SIGINT, OUT).exit_code == 130
    record()
    assert interrupted(signal.SIGINT, OUT).message == "stopped by SIGINT, before the first checkpoint"
    checkpoint(3)
    (checkpoint(6) / "manifest.json").unlink()
    told = interrupted(signal.SIGTERM, OUT)
    assert told.message == "stopped by SIGTERM; all is safe up to step 3"
    assert told.hint == "the same command with --resume_from_checkpoint auto goes on from there"
    record(status="done")
    assert interrupted(signal.SIGTERM, OUT).message == "stopped by SIGTERM; the run in 'out' is finished"
