"""A run in several processes ends for all of them: one exit code, told once, within seconds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launched import free_port

from lmtasks.artifacts.run_folder import forget_end, write_end
from lmtasks.config.world import ALONE
from lmtasks.errors import EndedElsewhere, InputError, Interrupted, RunError, Stopped
from lmtasks.runs.ending import End, Ending, together


@pytest.mark.parametrize(
    ("error", "code", "reason", "hint"),
    [
        (InputError("no such file", "name another"), 2, "no such file", "name another"),
        (RunError("diverged"), 3, "diverged", ""),
        (Interrupted("stopped by SIGINT", "go on", signal.SIGINT), 130, "stopped by SIGINT", "go on"),
        (Stopped(signal.SIGTERM), 143, "stopped by SIGTERM", ""),
        (KeyboardInterrupt(), 130, "stopped by SIGINT", ""),
        (EndedElsewhere(1, "diverged", 3), 3, "process 1 has ended the run: diverged", ""),
        (ValueError("a bug\nof ours"), 1, "ValueError: a bug", ""),
    ],
)
def test_an_end_has_the_exit_code_of_its_error(error: BaseException, code: int, reason: str, hint: str) -> None:
    assert End.of(error, 4) == End(4, code, reason, hint)
    assert Ending(ALONE).of(error) == End(0, code, reason, hint)


def test_what_happens_to_a_process_alone_is_what_happens() -> None:
    with pytest.raises(RuntimeError, match="connection closed"), together(ALONE):
        raise RuntimeError("connection closed by peer")


def test_the_end_is_told_in_the_folder_of_a_run_and_nowhere_else(tmp_path: Path) -> None:
    write_end(tmp_path, 3, "diverged")
    assert not any(tmp_path.iterdir())
    (tmp_path / "run.json").write_text("{}")
    write_end(tmp_path, 3, "diverged", "lower it")
    assert json.loads((tmp_path / "exit.json").read_text()) == {
        "exit_code": 3, "reason": "diverged", "hint": "lower it"
    }  # fmt: skip
    forget_end(tmp_path)
    forget_end(tmp_path)
    assert not (tmp_path / "exit.json").exists()


MEETING = """
import json, os, signal, sys, time
from pathlib import Path

import torch
from lmtasks.cli import app
from lmtasks.config.world import World
from lmtasks.errors import InputError
from lmtasks.runs.ending import together
from lmtasks.training.signals import Signals


def command(wrong, what):
    torch.distributed.init_process_group("gloo")
    world = World.current()
    with Signals(), together(world):
        world.barrier()
        Path(f"here-{world.rank}").touch()
        if world.rank == wrong:
            if what == "refuse":
                raise InputError("this process lacks a file", "bring it")
            if what == "die":
                os.kill(os.getpid(), 9)
            time.sleep(60)  # in Python, where a signal is heard
        world.barrier()  # in torch, where it is not
    return 0


def process(rank, *asked):
    # What torch has imported is here once for all.
    if child := os.fork():
        return child
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.dup2(os.open(f"said-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    app.selecting = lambda words: command(*asked)
    code = app.main([])
    sys.stderr.flush()
    os._exit(code)


def meeting(port, wrong, what, signalled):
    os.environ |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [process(rank, wrong, what) for rank in range(2)]
    while not all(Path(f"here-{rank}").exists() for rank in range(2)):
        time.sleep(0.05)
    if signalled is not None:
        time.sleep(0.5)  # until the other one waits
        os.kill(children[signalled], signal.SIGTERM)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    for rank in range(2):
        Path(f"here-{rank}").unlink()
    return codes, [Path(f"said-{rank}").read_text() for rank in range(2)]


print(json.dumps([meeting(*one) for one in json.loads(sys.argv[1])]))
"""

MEETINGS: list[tuple[int, str, int | None, list[int], str]] = [
    (1, "refuse", None, [2, 2], "this process lacks a file"),
    (0, "refuse", None, [2, 2], "this process lacks a file"),
    (1, "die", None, [3, -9], "another process of the run has gone"),
    (1, "sleep", 1, [143, 143], "interrupted"),
    (1, "sleep", 0, [143, 143], "interrupted"),  # the signal comes to the one that waits deep in torch
]
"""Which process does what, which gets a signal, the exit codes of both, and what is told."""


def test_the_end_of_one_is_the_end_of_all(tmp_path: Path) -> None:
    script = tmp_path / "meeting.py"
    script.write_text(MEETING)
    asked = json.dumps([(str(free_port()), *meeting[:3]) for meeting in MEETINGS])
    done = subprocess.run([sys.executable, str(script), asked], cwd=tmp_path, stdout=subprocess.PIPE, timeout=120)
    for (*_, codes, expected), (ended, said) in zip(MEETINGS, json.loads(done.stdout), strict=True):
        assert ended == codes, said
        (error,) = [line for text in said for line in text.splitlines() if line.startswith("error: ")]
        assert expected in error
        assert not any("Traceback" in text for text in said)
