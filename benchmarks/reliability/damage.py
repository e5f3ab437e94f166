"""Files of a run that somebody has damaged, and what the commands make of them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from reliability.hub import hub_server
from reliability.kills import failed, last_words, told
from reliability.processes import TICK, Running
from reliability.runs import GO_ON, KINDS, OUT, PUSHED, Place, furnished
from reliability.state import State, differences, state_of, unverified
from reliability.tries import Setting, Tried, carried_out

PROMPTS = {"masked-lm": "it must <mask> a string", "causal-lm": "it must be"}

RESUME, PREDICT, EVALUATE, PUSH = "run", "predict", "evaluate", "push"


def truncate(file: Path, generator: random.Random) -> None:
    """Lose the second half."""
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path, generator: random.Random) -> None:
    """Turn round one bit of the byte in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1 << generator.randrange(8)
    file.write_bytes(content)


def delete(file: Path, generator: random.Random) -> None:
    """Remove the file."""
    file.unlink()


def empty(file: Path, generator: random.Random) -> None:
    """Leave nothing but the name, as some file systems do after a power cut."""
    os.truncate(file, 0)


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "truncated": truncate, "a bit flipped": flip, "deleted": delete, "emptied": empty,
}  # fmt: skip


UNREAD = ("README.md", "log.jsonl", "report.html", "report.json", "learning_curve.svg")
"""Files that nothing reads, and that their owner may change: they may stay as they are."""


@dataclass(frozen=True)
class Case:
    """One damage, and the command that comes upon it.

    Args:
        base: name of the folder that is damaged a copy of, see :class:`Bases`.
        file: within the run's folder.
    """

    kind: str
    base: str
    file: str
    damage: str
    command: str

    def __str__(self) -> str:
        return f"{self.kind}, {self.base}: {self.file} {self.damage}, then {self.command}"


@dataclass(frozen=True)
class Whole:
    """What undamaged runs of a kind are and say.

    Args:
        folder: with a working directory for each base: ``finished``, ``unfinished`` with two checkpoints, and
            ``unfinished, one checkpoint``.
        state: of the finished run.
        said: by command, what it prints; of ``push``, what it publishes.
    """

    folder: Path
    state: State
    said: dict[str, str] = field(default_factory=dict)


FINISHED, UNFINISHED, ALONE = "finished", "unfinished", "unfinished, one checkpoint"


def measure(setting: Setting) -> Tried:
    """Every file × every damage × every command that reads it."""
    place = furnished(setting.folder / "place")
    wholes = {kind: whole_of(place, kind, setting.folder / "whole" / str(number)) for number, kind in enumerate(_KINDS)}
    cases = list(cases_of(wholes))
    if setting.only is None:
        count = min(len(cases), setting.count or len(cases))
        numbers = sorted(random.Random(setting.seed).sample(range(len(cases)), count))
    else:
        numbers = [setting.only]
    return carried_out("damage", partial(attempt, place, wholes, cases), numbers, setting)


_KINDS = tuple(KINDS)[:2]
"""One of each recipe: all have the same files."""


def cases_of(wholes: dict[str, Whole]) -> Iterator[Case]:
    """Every damage of every file, and every command that may read it."""
    for kind, whole in wholes.items():
        for damage in DAMAGES:
            for base in (UNFINISHED, ALONE):
                folder = whole.folder / base / OUT
                if not folder.exists():
                    continue
                whole_ones = (folder / "checkpoints").glob("checkpoint-*/manifest.json")
                newest = max((path.parent for path in whole_ones), key=lambda path: int(path.name.rpartition("-")[2]))
                files = [*newest.iterdir(), *(folder.iterdir() if base == UNFINISHED else [])]
                for file in sorted(path for path in files if path.is_file() and not path.name.startswith(".")):
                    yield Case(kind, base, str(file.relative_to(folder)), damage, RESUME)
            for file in sorted(path for path in (whole.folder / FINISHED / OUT).iterdir() if path.is_file()):
                for command in (RESUME, PREDICT, EVALUATE, PUSH):
                    yield Case(kind, FINISHED, file.name, damage, command)


def attempt(
    place: Place, wholes: dict[str, Whole], cases: list[Case], folder: Path, generator: random.Random, number: int
) -> list[str]:
    """Damage a file in a copy, and give a command."""
    case, where = cases[number], folder / "run"
    whole = wholes[case.kind]
    shutil.copytree(whole.folder / case.base, where)
    damaged = where / OUT / case.file
    DAMAGES[case.damage](damaged, generator)
    wrong = judged(place, whole, case, where)
    return [told([str(case)], wrong)] if wrong else []


def judged(place: Place, whole: Whole, case: Case, where: Path) -> list[str]:
    """What is wrong with what a command makes of a damaged run."""
    run, code = _given(place, case.kind, case.command, where)
    if code in (2, 3):
        return refusal(run.err)
    if wrong := failed(run, code):
        return wrong
    own = case.base == FINISHED and case.file in _model_files(whole)
    noticed = Path(case.file).name in run.err
    if case.command == RESUME:
        found = differences(whole.state, state_of(where / OUT)) + unverified(where / OUT)
        return [line for line in found if not (case.file in UNREAD and line.startswith(case.file))]
    if _said(run, where, case.command) != whole.said[case.command]:
        return ["silent: exit code 0, and something else than from the undamaged run"]
    if own and not noticed:
        return [f"silent: exit code 0 without a word about {case.file}"]
    return []


def refusal(said: str) -> list[str]:
    """What is wrong with how a command refuses: it says one error, and one hint, and no traceback."""
    errors, hints = (sum(line.startswith(word) for line in said.splitlines()) for word in ("error:", "hint:"))
    if "Traceback" in said:
        return [f"a traceback: {last_words(said)}"]
    return [] if (errors, hints) == (1, 1) else [f"{errors} errors and {hints} hints: {last_words(said)}"]


def _model_files(whole: Whole) -> list[str]:
    """The files of the model and its tokenizer, by the run's own record."""
    record = json.loads((whole.folder / FINISHED / OUT / "run.json").read_text(encoding="utf-8"))
    return [str(name) for name in record["files"]]


def _given(place: Place, kind: str, command: str, where: Path) -> tuple[Running, int | None]:
    """Give a command in a working directory."""
    recipe = KINDS[kind][0]
    words = {
        RESUME: [*place.words(kind), *GO_ON],
        PREDICT: ["predict", OUT, PROMPTS[recipe]],
        EVALUATE: ["evaluate", OUT],
    }
    run = place.start(words.get(command) or partial(_push, where), where)
    return run, run.wait()


def _push(where: Path) -> int:
    """Publish to a Hub in this very process, and keep what arrives."""
    import pytest

    from lmtasks.cli import main

    with hub_server() as hub, pytest.MonkeyPatch.context() as patch:
        hub.use(patch, where / "hub_home")
        code: int = main(["push", OUT, PUSHED])
        arrived = hub.files(PUSHED) if PUSHED in hub.repos else {}
    for name, content in arrived.items():
        file = where / "arrived" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return code


def _said(run: Running, where: Path, command: str) -> str:
    """What a command has printed, or published."""
    if command != PUSH:
        return run.out
    return json.dumps({name: value for name, value in state_of(where / "arrived").items() if name not in UNREAD})


def whole_of(
    place: Place,
    kind: str,
    folder: Path,
    commands: Sequence[str] = (PREDICT, EVALUATE, PUSH),
    bases: Sequence[str] = (UNFINISHED, ALONE),
) -> Whole:
    """A finished run, two that were killed after their second and their first checkpoint, and what commands say.

    Raises:
        RuntimeError: an undamaged run fails, and nothing can be measured.
    """
    for base in bases:
        run = place.start(place.words(kind), folder / base)
        _kill_after(run, folder / base / OUT, 2 if base == UNFINISHED else 1)
    run = place.start(place.words(kind), folder / FINISHED)
    if run.wait() != 0:
        raise RuntimeError(f"an undisturbed run of {kind} fails: {run.err}")
    whole = Whole(folder, state_of(folder / FINISHED / OUT))
    for command in commands:
        where = folder / command
        shutil.copytree(folder / FINISHED, where)
        run, code = _given(place, kind, command, where)
        if code != 0:
            raise RuntimeError(f"{command} of an undamaged run fails: {run.err}")
        whole.said[command] = _said(run, where, command)
    return whole


def _kill_after(run: Running, folder: Path, checkpoints: int) -> None:
    """Kill a run as soon as it has so many whole checkpoints."""
    while len(list((folder / "checkpoints").glob("checkpoint-*/manifest.json"))) < checkpoints:
        if run.ended():
            raise RuntimeError(f"a run ended before its checkpoint {checkpoints}: {run.err}")
        time.sleep(TICK)
    run.send(signal.SIGKILL)
    run.wait()
