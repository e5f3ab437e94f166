"""lmtasks watch: a run, followed from beside, in this process and from another one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmtasks.artifacts import watching
from lmtasks.artifacts.lock import is_held, reserved
from lmtasks.artifacts.log import GrowingLog, entry_lines
from lmtasks.artifacts.watching import End, watch

RECORD = {"recipe": "causal-lm", "status": "running", "training": {"max_steps": 9}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that nobody carries out."""
    (tmp_path / "run.json").write_text(json.dumps(RECORD), encoding="utf-8")
    return tmp_path


def log(folder: Path, *entries: dict[str, Any], mode: str = "a") -> None:
    with (folder / "log.jsonl").open(mode) as file:
        file.writelines(f"{json.dumps(entry)}\n" for entry in entries)


def replaced(folder: Path, *entries: dict[str, Any]) -> None:
    """The log as a resumed run writes it: another file in its place."""
    new = folder / "new"
    new.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries), encoding="utf-8")
    os.replace(new, folder / "log.jsonl")


def test_figures_that_are_none_are_not_told(run: Path, lmtasks: Any) -> None:
    """Anybody may have written a record."""
    odd = {"eval_loss": "x", "perplexity": 3.5}
    (run / "run.json").write_text(json.dumps({**RECORD, "status": "done", "metrics": odd}), encoding="utf-8")
    done = lmtasks("watch", run)
    assert (done.code, done.out) == (0, f"done: {run}\n")
    assert json.loads(lmtasks("watch", run, "--json").out)["metrics"] == {"perplexity": 3.5}


# --- the log ---


def test_a_log_is_read_on(run: Path) -> None:
    growing = GrowingLog(run)
    assert growing.news() == []
    log(run, {"step": 1}, {"step": 2})
    assert growing.news() == [{"step": 1}, {"step": 2}]
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 3}\n{"step": ')
    assert growing.news() == [{"step": 3}]
    with (run / "log.jsonl").open("a") as file:
        file.write("4}\nno json\n[1]\n")
    assert growing.news() == [{"step": 4}]
    assert growing.news() == []


def test_what_a_resumed_run_takes_back_is_told_anew(run: Path) -> None:
    growing = GrowingLog(run)
    log(run, {"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 1.0})
    assert len(growing.news()) == 3
    replaced(run, {"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0})
    assert growing.news() == []
    log(run, {"step": 3, "loss": 1.0})
    assert growing.news() == [{"step": 3, "loss": 1.0}]
    replaced(run, {"step": 1, "loss": 9.0})
    assert growing.news() == [{"step": 1, "loss": 9.0}]


@pytest.mark.parametrize(
    ("entry", "lines"),
    [
        (
            {"step": 3, "loss": 3.21456, "learning_rate": 0.0029, "train_tokens_per_second": 12345.6},
            ["step 3/9  loss 3.2146  learning rate 2.90e-03  12,346 tokens/s"],
        ),
        ({"step": 3, "loss": "nan", "learning_rate": 0.0}, ["step 3/9  loss nan  learning rate 0.00e+00"]),
        (
            {"step": 3, "eval_loss": 3.0, "eval_perplexity": 20.0855, "eval_bits_per_byte": 1.5, "eval_targets": 7},
            ["step 3/9  evaluation  loss 3.0000  perplexity 20.0855  bits per byte 1.5000"],
        ),
        (
            {"step": 3, "eval_loss": 3.0, "eval_targets": 7, "eval_a_loss": 3.0, "eval_a_targets": 7,
             "eval_b_loss": 4.0, "eval_b_targets": 7},
            ["step 3/9  evaluation a  loss 3.0000", "step 3/9  evaluation b  loss 4.0000"],
        ),
        ({"step": 9, "train_loss": 2.5, "train_runtime": 61.2}, ["step 9/9  trained in 61 s, mean loss 2.5000"]),
        (
            {"step": 3, "samples": [{"prompt": "A", "answers": ["A b"]}]},
            ["step 3/9  samples", "  A", "    A b"],
        ),
        ({"step": 3, "other": 1}, []),
    ],
)  # fmt: skip
def test_entries_in_words(entry: dict[str, Any], lines: list[str]) -> None:
    assert list(entry_lines(entry, 9)) == lines
    assert list(entry_lines(entry)) == [line.replace("/9", "") for line in lines]


# --- the end ---


def test_a_lock_is_seen_from_beside(run: Path) -> None:
    assert is_held(run) is False
    with reserved(run):
        assert is_held(run) is True
    assert is_held(run) is False


def test_a_finished_run_is_told_whole(run: Path) -> None:
    log(run, {"step": 9, "loss": 1.0})
    (run / "run.json").write_text(json.dumps({**RECORD, "status": "done"}), encoding="utf-8")
    assert list(watch(run, 0.01, 1)) == [{"step": 9, "loss": 1.0}, End(0)]


def test_a_run_that_said_why_it_ended_is_believed_once_it_has_let_go(run: Path) -> None:
    said = {"exit_code": 3, "reason": "diverged", "hint": "lower it"}
    (run / "exit.json").write_text(json.dumps(said), encoding="utf-8")
    with reserved(run):
        followed = watch(run, 0.01, 0.01)
        log(run, {"step": 1})
        assert next(followed) == {"step": 1}
    assert list(followed) == [End(3, "diverged", "lower it")]


def test_a_run_that_was_killed_is_dead_at_once(run: Path) -> None:
    (run / ".lock").write_text("1")
    (end,) = watch(run, 0.01, 1000)
    assert isinstance(end, End)
    assert (end.code, end.reason) == (3, "no process has its folder, and it has not said how it ended")


def test_on_another_machines_disk_silence_tells(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_elsewhere", lambda folder: True)
    log(run, {"step": 1})
    began = time.monotonic()
    first, end = watch(run, 0.01, 0.3)
    assert first == {"step": 1}
    assert isinstance(end, End)
    assert end.code == 3 and "nothing new for 0 s" in end.reason
    assert time.monotonic() - began >= 0.3


def test_the_kind_of_disk_decides(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not watching._elsewhere(run)
    mounts = f"/dev/x / ext4 rw 0 0\nserver:/home {run.parent} nfs4 rw 0 0\n/dev/y /else nfs rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: mounts)
    assert watching._elsewhere(run)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: mounts.replace("nfs4", "ext4"))
    assert not watching._elsewhere(run)


# --- the command ---


def test_it_tells_a_finished_run_with_its_figures(lmtasks: Any, text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ("--train_file", text_file, "--output_dir", out, "--max_steps", 4, "--max_eval_samples", 2)
    assert lmtasks("run", "causal-lm", *flags, "--eval_strategy", "epoch", "--samples_every", 4).code == 0
    done = lmtasks("watch", out)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "step 0/4  samples"
    assert sum(line.startswith("step 4/4  ") for line in lines) >= 3
    assert any(line.startswith("step 4/4  evaluation  loss ") for line in lines)
    assert lines[-1] == f"done: {out}"
    told = json.loads(lmtasks("watch", out, "--json").out)
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert told == {"status": "done", "step": 4, "metrics": record["metrics"]}


def test_it_ends_as_the_run_did(lmtasks: Any, run: Path) -> None:
    (run / "exit.json").write_text(json.dumps({"exit_code": 143, "reason": "stopped by SIGTERM", "hint": "go on"}))
    done = lmtasks("watch", run)
    assert done.code == 143
    assert done.err == f"error: the run in '{run}' has ended: stopped by SIGTERM\nhint: go on\n"


@pytest.fixture
def training(text_file: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A run in another process that has logged something, and has far to go."""
    out = tmp_path / "long"
    flags = ["--train_file", str(text_file), "--output_dir", str(out), "--max_steps", "100000", "--logging_steps", "1"]
    command = [sys.executable, "-m", "lmtasks", "run", "causal-lm", *flags]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (out / "log.jsonl").is_file() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    yield process, out
    process.kill()
    process.wait()


def test_a_run_is_followed_to_its_end_and_is_not_disturbed(training: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, out = training
    command = [sys.executable, "-m", "lmtasks", "watch", str(out), "--interval", "0.1"]
    first, second = (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    )
    assert first.stdout is not None and second.stdout is not None
    assert first.stdout.readline().startswith("step 1/100,000  loss ")
    first.send_signal(signal.SIGINT)
    assert "no longer watched; the run goes on\n" in first.communicate(timeout=60)[1]
    assert first.returncode == 130
    assert process.poll() is None, "the run goes on"
    assert second.stdout.readline().startswith("step 1/100,000  loss ")
    process.kill()
    said = second.communicate(timeout=60)[1]
    assert second.returncode == 3
    assert "no process has its folder" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "watch needs a run"),
        (["nowhere"], "'nowhere' is not the folder of a run"),
        (["RUN", "--interval", "0"], "--interval is 0"),
        (["RUN", "--patience", "-1"], "--patience is -1"),
        (["RUN", "--interval", "soon"], "argument --interval: invalid float value"),
        (["RUN", "other"], "unrecognized arguments: other"),
    ],
)
def test_mistakes_are_told_in_two_lines(words: list[str], message: str, lmtasks: Any, run: Path) -> None:
    done = lmtasks("watch", *(run if word == "RUN" else word for word in words))
    assert done.code == 2
    assert message in done.err
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["error", "hint"]
