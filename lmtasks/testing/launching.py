"""Checks of a launcher: that a run in its processes is the run of one, ends as that does, and goes on after a kill."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lmtasks.api import Handle, Launcher, Recipe
from lmtasks.config.request import configure
from lmtasks.errors import InputError
from lmtasks.launchers.job import job_of
from lmtasks.registry.catalog import load_catalog
from lmtasks.testing.case import Case
from lmtasks.testing.declaration import require_good_options, require_light_declaration
from lmtasks.testing.plugins import installed
from lmtasks.testing.proof import CHECKS, Fault, Inapplicable, Proof, blamed, check, examine, once
from lmtasks.testing.set_up import case_of
from lmtasks.testing.specimens import corpus

PROCESSES = 2
"""Processes of the runs in these checks."""

STEPS = 4
"""Optimiser steps of these runs."""

PATIENCE = 300.0
"""Seconds until a run that is to be stopped has begun."""

KILLED = '''
"""A recipe that is killed in its second process, once."""

import os
import signal
from dataclasses import replace
from pathlib import Path

from lmtasks.builtin.masked_lm import MASKED_LM


def before_step(model, options, steps):
    if steps == 3 and os.environ.get("RANK") == "1" and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)


KILLED = replace(MASKED_LM, name="killed-lm", before_step=before_step, starter=None)
'''


@dataclass(frozen=True)
class Launched:
    """The subject of checks: a launcher, and a tiny run for it to start.

    Args:
        options: values of its dataclass, with which it works here.
        restarting: more of them, with which it starts again what has failed.
        nodes: machines that the processes are divided among.
    """

    launcher: Launcher
    case: Case
    options: Mapping[str, Any] = field(default_factory=dict)
    restarting: Mapping[str, Any] = field(default_factory=dict)
    nodes: int = 1
    module: str = ""

    @property
    def title(self) -> str:
        """What is examined, for people."""
        return f"launcher {self.launcher.name}"

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        return self.case.recipe

    @cached_property
    def place(self) -> Path:
        """A folder with a text, a model and the recipe that is killed."""
        place = self.case.folder / "launched"
        place.mkdir()
        (place / "text.txt").write_text("\n".join(corpus(60)), encoding="utf-8")
        self.case.make().save_pretrained(place / "model")
        self.case.tokenizer().save_pretrained(place / "model")
        (place / "killed.py").write_text(KILLED, encoding="utf-8")
        return place

    def values(self, **more: Any) -> dict[str, Any]:
        """What the run is asked for."""
        steps = {"max_steps": STEPS, "save_steps": 2, "logging_steps": 1, "train_batch_size": 8, "learning_rate": 1e-3}
        own = {"model": "model", "train_file": "text.txt", "block_size": 16, "use_cpu": True, **steps, **more}
        return {name: str(value) for name, value in own.items()}

    def submitted(self, folder: str, recipe: str = "masked-lm", restarting: bool = False, **more: Any) -> Handle:
        """The handle of a job in :attr:`place`, whose run goes into a folder there."""
        values = self.values(output_dir=folder, **more)
        request = configure(load_catalog().recipe("masked-lm"), values)
        words = ["run", recipe, *(f"--{name}={value}" for name, value in values.items())]
        job = job_of(words, request, processes=PROCESSES // self.nodes, nodes=self.nodes, restarts=True, values=values)
        own = {**self.options, **(self.restarting if restarting else {})}
        options = self.launcher.options(**own) if self.launcher.options else None
        self.launcher.check(job, options)
        return self.launcher.submit(job, options)

    @cached_property
    def two(self) -> Callable[[], Path]:
        """Gives the folder of a run in two processes."""
        return once(self._two)

    def _two(self) -> Path:
        with contextlib.chdir(self.place):
            handle = self.submitted("two")
            require_code(handle, 0)
            told = handle.logs()
        if told and told.count("model      ") != 1:
            raise Fault(f"its logs have the plan {told.count('model      ')} times", "give the processes' own text")
        return self.place / "two"


def require_code(handle: Handle, code: int) -> None:
    """Wait for a job.

    Raises:
        Fault: it ends with another exit code.
    """
    if (ended := handle.wait()) != code:
        last = "; ".join(handle.logs().strip().splitlines()[-3:])
        raise Fault(f"it ends with exit code {ended}, not {code}: {last}", "hand on what lmtasks.worker returns")


def check_launcher(
    launcher: Launcher,
    *,
    options: Mapping[str, Any] | None = None,
    restarting: Mapping[str, Any] | None = None,
    nodes: int = 1,
    module: str = "",
    skip: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
) -> Proof:
    """Run every check on a launcher, with tiny runs that it starts in two processes.

    Args:
        options: values with which it works here, by the names of its dataclass.
        restarting: more of them, with which it starts again what has failed, at least once.
        nodes: machines for the two processes, 1 or 2.
        module: where the launcher is declared, if in no installed plugin.
        skip, only: as for :func:`lmtasks.testing.check_recipe`.

    Returns:
        the outcome of each check.

    Raises:
        CheckFailed: checks failed; the message lists each, with what is wrong and what to do.
        ValueError: ``skip`` or ``only`` names no check.
    """
    known = {name: one for name, one in CHECKS.items() if "launcher" in one.subjects}
    with case_of(load_catalog().recipe("masked-lm")) as case:
        subject = Launched(launcher, case, options or {}, restarting or {}, nodes, module)
        return examine(subject, "launcher", known, skip or {}, only).require()


@check("launcher", gate=True)
def launcher_comes_in(subject: Launched) -> None:
    """It comes in by the door of all plugins, and neither its name nor that of its options is there already."""
    if subject.launcher in load_catalog().launchers.values():
        return  # it is built in
    with blamed("", "rename what is there already", InputError), installed(launchers=[subject.launcher]):
        pass


@check("launcher")
def launcher_import_is_light(subject: Launched) -> None:
    """Importing the module that declares it imports neither torch nor anything else that takes a second."""
    require_light_declaration("launcher", subject.launcher.name, subject.module)


@check("launcher")
def launcher_options_are_documented(subject: Launched) -> None:
    """Every option says what it does in one line, and has a default that it would accept."""
    require_good_options(subject.launcher.flags)


@check("launcher", advice="start as many processes as are asked for, each with its RANK, and give them the job's words")
def launched_is_the_same_run(subject: Launched) -> str:
    """In two processes the losses of all steps are those of one to 1e-5, and the evaluation's is to 1e-6."""
    import lmtasks

    two = subject.two()
    with contextlib.chdir(subject.place):
        lmtasks.run("masked-lm", **subject.values(output_dir="one"))
    one = subject.place / "one"
    losses, others = ([line["loss"] for line in _log(folder) if "loss" in line] for folder in (one, two))
    if len(losses) != STEPS or len(others) != STEPS:
        raise Fault(f"{len(others)} steps in two processes, {len(losses)} in one")
    if processes(two) != PROCESSES:
        raise Fault(f"the run was carried out by {processes(two)} process, not by {PROCESSES}")
    worst = max(abs(a - b) / abs(a) for a, b in zip(losses, others, strict=True))
    final, other = (json.loads((folder / "eval_results.json").read_text())["eval_loss"] for folder in (one, two))
    if worst > 1e-5 or not math.isclose(final, other, rel_tol=1e-6):
        raise Fault(f"losses differ by up to {worst:.1e}, evaluation is {other} instead of {final}")
    return f"losses equal to {worst:.1e}"


@check("launcher", advice="hand on what lmtasks.worker returns, and start nothing again after 2")
def launched_bad_input_is_refused(subject: Launched) -> None:
    """Bad input that only the processes see ends with 2, and nothing is written."""
    with contextlib.chdir(subject.place):
        require_code(subject.submitted("refused", train_file="none.txt", restarting=True), 2)
    if (subject.place / "refused").exists():
        raise Fault("a folder was made for a run that was refused", "write nothing into the folder of the run")


@check("launcher", advice="start all processes again, with the same job, as long as job.may_go_on(exit code)")
def killed_is_brought_to_its_end(subject: Launched) -> None:
    """A run in which a process is killed is started again and ends with the same weights, bit for bit."""
    if not subject.restarting:
        raise Inapplicable("restarting={...} says how it is asked to start again")
    with contextlib.chdir(subject.place):
        require_code(subject.submitted("killed-run", "./killed.py", restarting=True), 0)
    if not (subject.place / "killed").exists():
        raise Fault("the second process has not been there to be killed")
    one, other = (
        (folder / "model.safetensors").read_bytes() for folder in (subject.two(), subject.place / "killed-run")
    )
    if one != other:
        raise Fault("a run that was killed and started again ends with other weights")


@check("launcher", advice="let cancel() send SIGTERM to the processes, and give them time")
def cancelled_is_stopped(subject: Launched) -> None:
    """A run that is cancelled in training ends with 143, and leaves a checkpoint."""
    folder = subject.place / "cancelled"
    with contextlib.chdir(subject.place):
        handle = subject.submitted("cancelled", max_steps=100_000, save_steps=100_000)
        threading.Thread(target=_cancel, args=(handle, folder / "log.jsonl"), daemon=True).start()
        require_code(handle, 143)
    if not checkpoints(folder):
        raise Fault("there is no checkpoint in the folder of a run that was cancelled")


def _cancel(handle: Handle, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not log.exists() and time.monotonic() < until:
        time.sleep(0.2)
    handle.cancel()


def processes(folder: Path) -> int:
    """How many processes have made the last checkpoint of a run."""
    manifest = json.loads((checkpoints(folder)[-1] / "manifest.json").read_text())
    return int(manifest.get("processes", 1))


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run."""
    return sorted((folder / "checkpoints").glob("checkpoint-*"))


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
